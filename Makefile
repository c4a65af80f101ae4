# Everything a developer or CI does. `make` lists the targets; each does its own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .tools/bin/uv
MEMBERS := protos $(sort $(wildcard libs/* services/*))
SOURCES := libs services tests examples docs/reference docker protos/generate.py
PYTEST_ARGS ?=
DEMO_ARGS ?=
UP_ARGS ?=
BENCH_ARGS ?=
JOBS ?= 2
IMAGES ?= all
IMAGE_REGISTRY ?= syftmesh
IMAGE_TAG ?= dev

# Package indexes come from the environment: what pip is told, uv is told too.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_EXTRA_INDEX_URL
export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
endif
# Flower neither reports home nor looks for updates, wherever it starts.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
unexport VIRTUAL_ENV

.PHONY: help setup system fmt lint types imports test test-unit test-contract test-integration test-e2e test-cluster proto proto-check \
	lock demo cluster-demo up bench check images images-load chart clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Set-up
setup: $(VENV)/.installed system ## Install the locked environment into .venv (quick the second time)

$(UV): requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SyftMesh needs Python 3.11 or newer, this is " + sys.version)'
	@echo "setup: installing uv into .tools"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --upgrade \
		--require-hashes --target .tools -r requirements/bootstrap.lock
	@touch $@

$(VENV)/.installed: requirements/all.lock $(UV) $(addsuffix /pyproject.toml,$(MEMBERS))
	@echo "setup: installing the locked packages into $(VENV)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/all.lock
	@echo "setup: installing the members of the workspace"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $@

system: ## Install bubblewrap (the sandbox) from Debian's packages when root; say what to do when not
	@bash docker/install-bubblewrap.sh

lock: $(UV) ## Resolve anew and write requirements/*.lock, hashed and without addresses
	$(UV) lock
	$(UV) export --quiet --frozen --all-packages --group dev --no-emit-workspace --no-header --no-annotate -o requirements/all.lock
	@for service in $(notdir $(wildcard services/*)); do \
		$(UV) export --quiet --frozen --no-dev --package syftmesh-$$service --no-emit-workspace --no-header --no-annotate \
			-o requirements/$$service.lock; done
	@$(UV) export --quiet --frozen --no-dev --package syftmesh --package syftmesh-cluster --no-emit-workspace --no-header --no-annotate \
		-o requirements/tools.lock
	@for group in build job; do \
		$(UV) export --quiet --frozen --only-group $$group --no-emit-workspace --no-header --no-annotate -o requirements/$$group.lock; done

##@ Quality
fmt: setup ## Format the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix --quiet $(SOURCES)
	$(BIN)/buf format -w protos

lint: setup ## Formatting, ruff, buf, import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --exit-code > /dev/null
	$(BIN)/lint-imports --no-cache

types: setup ## mypy, strict
	$(BIN)/mypy $(wildcard libs/*/src services/*/src)

test: setup ## Every test: unit, architecture, fuzzers, contract, integration, end to end
	$(BIN)/pytest -n $(JOBS) --dist loadgroup tests/unit tests/architecture $(PYTEST_ARGS)
	$(BIN)/pytest $(wildcard tests/fuzz tests/contract tests/integration tests/e2e) $(PYTEST_ARGS)

test-unit: setup ## Unit tests: no sockets, no sleeping
	$(BIN)/pytest -n $(JOBS) --dist loadgroup tests/unit tests/architecture $(PYTEST_ARGS)

test-contract: setup ## One suite per port, on fakes and on real adapters
	$(BIN)/pytest tests/contract $(PYTEST_ARGS)

test-integration: setup ## Real nats-server and S3 server as child processes
	$(BIN)/pytest tests/integration $(PYTEST_ARGS)

test-e2e: setup ## All services, driven from outside
	$(BIN)/pytest tests/e2e $(PYTEST_ARGS)

test-cluster: setup ## Images, charts and the whole on a real Kubernetes: KUBECONFIG's or ../shared/cluster's
	@bash docker/test-cluster.sh $(PYTEST_ARGS)

proto: setup ## Generate protos/gen
	$(BIN)/python protos/generate.py

proto-check: setup ## Fail when protos/gen is stale
	$(BIN)/python protos/generate.py --check

check: lint types proto-check test ## What CI runs

##@ Use
demo: setup ## The whole story on real data: two owners, a scientist, an approved analysis
	@$(BIN)/syftmesh demo $(DEMO_ARGS)

cluster-demo: setup ## The same story on Kubernetes: hub and two sites by helm, on KUBECONFIG or ../shared/cluster
	@bash docker/cluster-demo.sh $(DEMO_ARGS)

up: setup ## The embedded mesh in this terminal, with its state in ~/.syftmesh
	@$(BIN)/syftmesh up $(UP_ARGS)

bench: setup ## Measure beside peers, one table; needs a quiet machine
	PYTHONPATH=tests $(BIN)/python -m bench $(BENCH_ARGS)

##@ Images
images: ## Container images by docker or buildah, as IMAGE_REGISTRY/NAME:IMAGE_TAG; IMAGES="identity job" for some
	@IMAGE_REGISTRY=$(IMAGE_REGISTRY) IMAGE_TAG=$(IMAGE_TAG) bash docker/build.sh $(IMAGES)

images-load: ## Import those images into a cluster without a registry: ../shared/cluster's, or KIND_CLUSTER
	@IMAGE_REGISTRY=$(IMAGE_REGISTRY) IMAGE_TAG=$(IMAGE_TAG) bash docker/load.sh $(IMAGES)

##@ Charts
chart: setup ## Lint, render and check the charts; and their objects by the API of a cluster, where one is up
	$(BIN)/pytest tests/chart $(PYTEST_ARGS)

clean: ## Remove the environment and caches
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
