# EdgeCloud's images. `make images` builds them (`make images ONLY=edge` one of them), or:
#   docker build --target operator -t edgecloud/operator:dev .
#   docker build --target trainer  -t edgecloud/trainer:dev .
#   docker build --target edge     -t edgecloud/edge:dev .      onnxruntime instead of torch
#
# The base is anything like Debian with Python 3.11 or newer as python3. Packages come from the lock files, with hashes,
# into /opt/edgecloud, a virtual environment; the code lies above them in a layer of its own, which is all that a change
# of the code builds and ships again. No `# syntax` line and no mounts: docker, its older builder, buildah and kaniko
# all take this file, and none of them needs a registry for it.
ARG BASE_IMAGE=python:3.11-slim
ARG VERSION=0.1.0
# uv installs the packages and is gone again in the same step. The Makefile's version; hashes for x86_64 and aarch64.
ARG UV_PINNED="uv==0.13.9 \
--hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
--hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375 \
--hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe"

FROM ${BASE_IMAGE} AS base
# Debian's python3 comes without the module that makes virtual environments.
RUN set -eu; \
    if ! python3 -c 'import ensurepip' 2>/dev/null || ! command -v update-ca-certificates >/dev/null; then \
        apt-get update -q; \
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv ca-certificates; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    fi; \
    getent group 1000 >/dev/null || groupadd --gid 1000 edgecloud; \
    getent passwd 1000 >/dev/null \
      || useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin edgecloud; \
    python3 -m venv --without-pip /opt/edgecloud; \
    # What stands in a .pth file is found whatever a program does to PYTHONPATH.
    site="$(/opt/edgecloud/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
    echo /opt/edgecloud/code > "$site/edgecloud.pth"; \
    mkdir -p /opt/edgecloud/code /edgecloud
# The root file system is read-only in a Pod: what wants to be written goes to /tmp.
ENV PATH=/opt/edgecloud/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/.cache \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1


FROM base AS operator-packages
# A mirror of the package index, where one is needed. It stands in the image's history: no passwords in it.
ARG UV_PINNED
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# A mirror may have a CA of its own, which the host's certificates know and pip's own bundle doesn't.
ARG PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG UV_NATIVE_TLS=1
COPY operator/requirements.lock /opt/edgecloud/requirements.lock
RUN set -eu; \
    python3 -m venv /tmp/uv; \
    echo "${UV_PINNED}" > /tmp/uv/lock; \
    /tmp/uv/bin/python -m pip install -q --no-cache-dir --require-hashes --only-binary :all: -r /tmp/uv/lock; \
    /tmp/uv/bin/uv pip sync -q --no-cache --compile-bytecode --only-binary :all: \
      --python /opt/edgecloud/bin/python --require-hashes /opt/edgecloud/requirements.lock; \
    rm -rf /tmp/uv /opt/edgecloud/.lock

FROM base AS operator-code
COPY LICENSE /opt/edgecloud/code/
COPY operator/edgecloud /opt/edgecloud/code/edgecloud
COPY operator/edgecloud_operator /opt/edgecloud/code/edgecloud_operator
# Bytecode that never looks at its source, for nothing could write a newer one; and the version, for `edgecloud -V`.
ARG VERSION
RUN set -eu; \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/edgecloud/code; \
    mkdir "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info"; \
    printf 'Metadata-Version: 2.1\nName: edgecloud\nVersion: %s\n' "${VERSION}" \
      > "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info/METADATA"; \
    chmod -R a+rX /opt/edgecloud/code

FROM operator-packages AS operator
COPY --from=operator-code /opt/edgecloud/code /opt/edgecloud/code
EXPOSE 8443
USER 1000:1000
WORKDIR /edgecloud
ENTRYPOINT ["python", "-m", "edgecloud_operator"]
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EdgeCloud operator" \
      org.opencontainers.image.description="Runs TrainingJobs: distributed PyTorch training on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


FROM base AS trainer-packages
ARG UV_PINNED
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# A mirror may have a CA of its own, which the host's certificates know and pip's own bundle doesn't.
ARG PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG UV_NATIVE_TLS=1
COPY trainer/requirements.lock /opt/edgecloud/requirements.lock
# About 6 GB: torch's wheel is the one for CUDA, and links its libraries; it can't be imported without them.
RUN set -eu; \
    python3 -m venv /tmp/uv; \
    echo "${UV_PINNED}" > /tmp/uv/lock; \
    /tmp/uv/bin/python -m pip install -q --no-cache-dir --require-hashes --only-binary :all: -r /tmp/uv/lock; \
    /tmp/uv/bin/uv pip sync -q --no-cache --compile-bytecode --only-binary :all: \
      --python /opt/edgecloud/bin/python --require-hashes /opt/edgecloud/requirements.lock; \
    rm -rf /tmp/uv /opt/edgecloud/.lock
# Debian packages to add: "g++ python3-dev" for jobs with trainer.compile, which compiles in the worker.
ARG EXTRA_PACKAGES=""
RUN if [ -n "${EXTRA_PACKAGES}" ]; then \
        apt-get update -q; \
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ${EXTRA_PACKAGES}; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    fi

FROM base AS trainer-code
COPY LICENSE /opt/edgecloud/code/
COPY operator/edgecloud /opt/edgecloud/code/edgecloud
COPY trainer/edgecloud_trainer /opt/edgecloud/code/edgecloud_trainer
ARG VERSION
RUN set -eu; \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/edgecloud/code; \
    mkdir "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info"; \
    printf 'Metadata-Version: 2.1\nName: edgecloud\nVersion: %s\n' "${VERSION}" \
      > "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info/METADATA"; \
    chmod -R a+rX /opt/edgecloud/code

FROM trainer-packages AS trainer
ENV MPLCONFIGDIR=/tmp/.cache/matplotlib \
    TORCH_HOME=/tmp/.cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/.cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/.cache/triton \
    ORT_DISABLE_TELEMETRY=1 \
    USER=edgecloud
COPY --from=trainer-code /opt/edgecloud/code /opt/edgecloud/code
USER 1000:1000
WORKDIR /edgecloud
ENTRYPOINT ["python", "-m", "edgecloud.launcher"]
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EdgeCloud trainer" \
      org.opencontainers.image.description="A TrainingJob's worker: PyTorch, the launcher and the built-in trainer" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"


FROM base AS edge-packages
ARG UV_PINNED
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# A mirror may have a CA of its own, which the host's certificates know and pip's own bundle doesn't.
ARG PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG UV_NATIVE_TLS=1
COPY trainer/edge.lock /opt/edgecloud/requirements.lock
RUN set -eu; \
    python3 -m venv /tmp/uv; \
    echo "${UV_PINNED}" > /tmp/uv/lock; \
    /tmp/uv/bin/python -m pip install -q --no-cache-dir --require-hashes --only-binary :all: -r /tmp/uv/lock; \
    /tmp/uv/bin/uv pip sync -q --no-cache --compile-bytecode --only-binary :all: \
      --python /opt/edgecloud/bin/python --require-hashes /opt/edgecloud/requirements.lock; \
    rm -rf /tmp/uv /opt/edgecloud/.lock

FROM base AS edge-code
COPY LICENSE /opt/edgecloud/code/
COPY operator/edgecloud /opt/edgecloud/code/edgecloud
ARG VERSION
RUN set -eu; \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/edgecloud/code; \
    mkdir "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info"; \
    printf 'Metadata-Version: 2.1\nName: edgecloud\nVersion: %s\n' "${VERSION}" \
      > "/opt/edgecloud/code/edgecloud-${VERSION}.dist-info/METADATA"; \
    chmod -R a+rX /opt/edgecloud/code

FROM edge-packages AS edge
# onnxruntime's wheel would tell its maker of what it runs.
ENV ORT_DISABLE_TELEMETRY=1
COPY --from=edge-code /opt/edgecloud/code /opt/edgecloud/code
USER 1000:1000
WORKDIR /edgecloud
ENTRYPOINT ["python", "-m", "edgecloud.cli.main"]
ARG VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EdgeCloud edge" \
      org.opencontainers.image.description="Runs converted models on an edge node: onnxruntime, no torch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
