# One entry for people and for CI. `make` lists the targets.
#
# Everything is installed into .venv from the locked files in requirements/; a stamp there says what was installed, so
# that a second run installs nothing. What tests need beside Python goes into ~/.cache/sage-tests.

MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo install local dev test tools lint format bench bench-cluster chaos image lock build clean

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(BIN)/uv
SAY := printf '\n== %s\n'
PYTEST_FLAGS ?=
# Two at a time: half of the tests wait for brokers. The first begins with those that kill processes, the other with the
# later half, so that neither finds many of its kind beside it.
TEST_WORKERS ?= 2
BENCH_FLAGS ?=

# The first interpreter that is new enough; `make PYTHON=/path/to/python3` names another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.has-local ## Ask questions of a small handbook: installs what it needs, then runs `sage demo`.
	@$(BIN)/sage demo

install: $(VENV)/.has-core ## Install SAGE alone: for clusters that have Kafka, Milvus and a model service.
local: $(VENV)/.has-local ## Install SAGE with an embedded broker, memory and small models.
dev: $(VENV)/.has-dev ## Install all that tests, checks and benchmarks need.

test: dev tools ## Run all tests; fetches Apache Kafka and builds Jaeger once.
	@$(SAY) "Tests"
	@$(BIN)/pytest -q -n $(TEST_WORKERS) --dist worksteal $(PYTEST_FLAGS)

tools: dev ## Fetch Apache Kafka with Maven and build Jaeger with Go, once, outside the tree.
	@$(SAY) "Servers for the tests (in ~/.cache/sage-tests)"
	@$(BIN)/python -c 'from sage.kafka.launchers.apache import fetch_kafka, missing_tools; \
		print("Apache Kafka:", missing_tools() or fetch_kafka(print))'
	@printf 'Jaeger: '; infra/jaeger/build.sh || echo "   tests on Jaeger will be skipped"
	@printf 'Helm: '; infra/helm/tools/build.sh || echo "   the chart will not be checked"

lint: dev ## Check style, types and layers.
	@$(SAY) "ruff";           $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(SAY) "mypy --strict";  $(BIN)/mypy sage connectors/sage_connectors topologies/sage_topologies
	@$(SAY) "pyright";        $(BIN)/pyright
	@$(SAY) "layers";         $(BIN)/lint-imports
	@$(MAKE) --no-print-directory .venv-infra/.made
	@$(SAY) "infra";          infra/check.sh .venv-infra/bin

format: dev ## Put the code into shape.
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: dev tools ## Measure SAGE beside a bare librdkafka loop and other libraries; writes build/bench.
	@test -e .venv-bench/.made || $(MAKE) --no-print-directory .venv-bench/.made || \
		echo "the other libraries can't be installed: they are left out"
	@$(BIN)/python -m tests.bench $(BENCH_FLAGS)

bench-cluster: dev tools ## Measure a cluster of workers: deploy, upgrade, takeover, 100 idle topologies.
	@$(BIN)/python -m tests.bench.cluster $(BENCH_FLAGS)

.venv-bench/.made: requirements/bench.txt
	@$(SAY) "Other libraries, in .venv-bench"
	@$(PYTHON) -m venv .venv-bench
	@$(UV) pip install -q --python .venv-bench/bin/python --require-hashes -r $<
	@touch $@

.venv-infra/.made: requirements/infra.txt
	@$(SAY) "Checkers for infra/, in .venv-infra"
	@$(PYTHON) -m venv .venv-infra
	@$(UV) pip install -q --python .venv-infra/bin/python --require-hashes -r $<
	@touch $@

image: ## Build the container image of a worker, sage-streams:VERSION, with its bill of materials.
	@docker info >/dev/null 2>&1 || { echo "make image needs a Docker engine: \`docker info\` does not answer" >&2; exit 1; }
	@docker build -f infra/image/Dockerfile -t sage-streams:$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sage/version.py) .

chaos: dev tools ## Kill, freeze and restart workers at random for half an hour (CHAOS_MINUTES, CHAOS_SEED).
	@$(BIN)/python -m tests.chaos

build: dev ## Make wheel and sdist in dist/.
	@$(SAY) "Wheel and sdist"
	@rm -rf dist && $(UV) build -q --no-build-isolation --python $(BIN)/python && ls -l dist

COMPILE = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--overrides requirements/overrides.txt $(LOCK_FLAGS)
LOCK_FLAGS ?=

lock: $(UV) ## Renew the locked files within what pyproject.toml allows (LOCK_FLAGS=--upgrade for newer versions).
	@$(SAY) "Locking"
	@$(COMPILE) pyproject.toml -o requirements/core.txt
	@$(COMPILE) pyproject.toml requirements/models.in --extra local --extra otlp --extra documents -o requirements/local.txt
	@$(COMPILE) pyproject.toml --extra otlp --extra documents -o requirements/worker.txt
	@$(COMPILE) pyproject.toml requirements/models.in --extra dev -o requirements/dev.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(LOCK_FLAGS) \
		requirements/infra.in -o requirements/infra.txt
	@$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header $(LOCK_FLAGS) \
		requirements/bench.in -o requirements/bench.txt
	@git diff --stat -- requirements

clean: ## Remove .venv, dist and caches; services of `sage up` are left alone.
	@rm -rf $(VENV) .venv-bench .venv-infra dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(UV):
	@test -n "$(PYTHON)" || { \
		echo "SAGE needs Python 3.11 or newer; found $$(python3 --version 2>&1 || echo none). Install it, or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(SAY) "Making a virtual environment in $(VENV) ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv $(VENV) || { \
		echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

# --no-deps: the locked file is the whole truth, and one of its wheels is wanted without its dependencies.
$(VENV)/.has-%: requirements/%.txt pyproject.toml | $(UV)
	@$(SAY) "Installing $$(grep -c '^[a-z].*==' $<) packages from $<"
	@$(UV) pip install --python $(BIN)/python --no-deps --require-hashes -r $<
	@$(SAY) "Installing SAGE itself from this folder"
	@$(UV) pip install --python $(BIN)/python --no-deps -q -e .
	@$(BIN)/sage version
	@touch $@
