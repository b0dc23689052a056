# The two commands a newcomer needs are `make run` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edgecloud
# One uv per version, shared by every clone; its package cache makes the second `make venv` a matter of seconds.
UV_HOME := $(CACHE)/uv-$(UV_VERSION)
UV := $(UV_HOME)/bin/uv
export UV_CACHE_DIR := $(CACHE)/uv-packages
export UV_NATIVE_TLS := 1
# Set in many images, and each process would compile EdgeCloud for itself: the tests start thousands, and pytest's own
# rewrite all of the tests, which takes it as long as to collect them.
unexport PYTHONDONTWRITEBYTECODE
HELM = $(or $(wildcard $(CACHE)/bin/helm),$(shell command -v helm))
ACTIONLINT = $(or $(wildcard $(CACHE)/bin/actionlint),$(shell command -v actionlint))
JOB ?= manifests/examples/digits.yaml
# Tests that wait more than they compute; those that mostly wait, some for a minute, and have two API servers for each
# process, which cost something while they do nothing; and trainings, which slow each other down more than they gain
# beyond two.
PARALLEL := -n 3
WAITING := -n 3 --dist loadgroup
TRAININGS := -n 2

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: venv ## train the example on this machine: two workers, real data, no cluster (JOB=file.yaml for another)
	@$(BIN)/edgecloud run $(JOB)

.PHONY: venv
venv: $(VENV)/.done ## install the locked packages into .venv

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "EdgeCloud needs Python 3.11 or newer; $(PYTHON) is older. Name another one: make venv PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@rm -rf $(UV_HOME).new && mkdir -p $(CACHE) && $(PYTHON) -m venv $(UV_HOME).new
	@$(UV_HOME).new/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@rm -rf $(UV_HOME) && mv $(UV_HOME).new $(UV_HOME)

# Compiled once, with the packages: who starts .venv/bin/edgecloud by himself may have that variable set.
$(VENV)/.done: pyproject.toml tests/requirements.lock | $(UV)
	@echo "Installing the locked packages into $(VENV) (about 5 GB, most of it torch)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes tests/requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: lock
lock: | $(UV) ## write the lock files again from pyproject.toml (UPGRADE=1 takes newer versions)
	@compile() { $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) pyproject.toml "$$@"; }; \
	compile --all-extras --output-file tests/requirements.lock; \
	compile --extra operator --constraints tests/requirements.lock --output-file operator/requirements.lock; \
	compile --extra trainer --extra tensorboard --extra s3 --constraints tests/requirements.lock --output-file trainer/requirements.lock; \
	compile --extra edge --extra s3 --constraints tests/requirements.lock --output-file trainer/edge.lock

.PHONY: test
test: ## all of it: lint, unit, whole jobs on this machine, a real API server, a cluster of two nodes
	@tests/all.sh

.PHONY: programs
programs: ## build what the tests need besides the cluster: etcd, kube-apiserver, kube-controller-manager, kubectl, helm, actionlint
	@tests/cluster/tools.sh control-plane lint

.PHONY: fast
fast: venv programs ## unit and integration side by side: the one computes, the other waits
	@$(MAKE) --no-print-directory -j2 --output-sync=target unit integration

.PHONY: unit
unit: venv ## the pure core, the API, the protocol, the launcher
	@$(BIN)/python -m pytest $(PARALLEL) tests/unit

.PHONY: local
local: venv ## whole jobs on this machine: real processes, real torch.distributed, and what dies of them
	@$(BIN)/python -m pytest $(TRAININGS) -m "not cluster" tests/e2e tests/faults

.PHONY: integration
integration: venv programs ## the operator as a process, against a real API server
	@$(BIN)/python -m pytest $(WAITING) tests/integration

.PHONY: e2e
e2e: venv ## jobs on a cluster of two nodes, which goes again unless it was there before (KEEP_CLUSTER=1 keeps it)
	@$(BIN)/python -m pytest $(TRAININGS) --maxschedchunk 1 -m cluster tests/e2e

.PHONY: lint
lint: venv ## ruff, mypy --strict, import-linter, shellcheck, helm and actionlint where they are there
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@git ls-files -z '*.sh' .ci/run | xargs -0r $(BIN)/shellcheck
	@$(if $(HELM),$(HELM) lint --strict --quiet charts,echo "no helm here: the chart is not linted (tests/cluster/tools.sh lint builds one)" >&2)
	@$(if $(ACTIONLINT),$(ACTIONLINT) -shellcheck $(BIN)/shellcheck,echo "no actionlint here: the workflow is not linted (tests/cluster/tools.sh lint builds one)" >&2)

.PHONY: format
format: venv ## let ruff rewrite what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: manifests
manifests: venv ## write manifests/crd.yaml from the models and, where helm is, manifests/operator.yaml from the chart
	@$(BIN)/edgecloud crd > manifests/crd.yaml.new && mv manifests/crd.yaml.new manifests/crd.yaml
	@cp manifests/crd.yaml charts/files/crd.yaml
	@if [ -n "$(HELM)" ]; then HELM=$(HELM) tests/cluster/manifest.sh > manifests/operator.yaml.new \
	  && mv manifests/operator.yaml.new manifests/operator.yaml; \
	else echo "no helm here: manifests/operator.yaml stays as it is (tests/cluster/tools.sh helm builds one)" >&2; fi

.PHONY: images
images: ## build edgecloud/operator:dev, trainer:dev and edge:dev with docker or buildah (ONLY=operator, trainer or edge for one)
	@tests/cluster/images.sh $(ONLY)

.PHONY: tools
tools: ## build etcd, Kubernetes, kind, helm ... from Go modules: once, 8 minutes (TOOLS=control-plane for a part)
	@tests/cluster/tools.sh $(or $(TOOLS),all)

.PHONY: cluster
cluster: ## bring up a cluster of two nodes with kind, and print its KUBECONFIG (CLUSTER=existing takes yours)
	@tests/cluster/cluster.sh up

.PHONY: cluster-down
cluster-down: ## take the cluster away with all that came with it
	@tests/cluster/cluster.sh down

.PHONY: bench
bench: venv ## recovery beside torchrun's, images/s beside a plain loop's, the operator beside a bare client, ten thousand polls
	@$(BIN)/python -m tests.bench.recovery
	@$(BIN)/python -m tests.bench.speed
	@$(BIN)/python -m tests.bench.api_server
	@$(BIN)/python -m tests.bench.polls

.PHONY: clean
clean: ## take away what the targets made in this folder
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
