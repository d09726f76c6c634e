# Two commands do everything: `make labs` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PROVIDER ?= embedded
SPEED ?= class
LABS ?=
REPORT ?= reports
FOCUS ?=
PARALLEL ?= 2
HPA ?=
RESUME ?=
PYTHON ?= python3

UV_VERSION := 0.13.9
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/labkit
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
RUN := .venv/bin/python -m labkit
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A school's proxy has a certificate of its own; the system knows it, uv's list does not.
export UV_SYSTEM_CERTS ?= true

.PHONY: help setup labs test check lint start bench conformance down clean lock

help: ## This list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: .venv/.ready ## Python environment in .venv, pinned by requirements.lock

$(UV):
	@echo "setup: fetching uv $(UV_VERSION)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "labkit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 …" >&2; exit 2; }
	@rm -rf "$(CACHE)/uv-$(UV_VERSION)" && mkdir -p "$(CACHE)"
	@$(PYTHON) -m venv "$(CACHE)/uv-$(UV_VERSION)" || { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@"$(CACHE)/uv-$(UV_VERSION)/bin/python" -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: requirements.lock pyproject.toml | $(UV)
	@echo "setup: installing the Python packages of requirements.lock into .venv"
	@$(UV) venv -q --clear --python $(PYTHON) .venv
	@$(UV) pip sync -q --python .venv/bin/python --require-hashes requirements.lock
	@$(UV) pip install -q --python .venv/bin/python --no-deps -e .
	@touch $@

labs: setup ## Set up, run the labs headless, write reports/index.html (PROVIDER=embedded|kind, LABS="00 08", SPEED=class|ci)
	@$(RUN) run $(LABS) --provider $(PROVIDER) --speed $(SPEED) --report $(REPORT)

start: setup ## JupyterLab with the labs
	@.venv/bin/jupyter lab --notebook-dir=notebooks

test: setup ## Everything CI checks, with the time of each part
	@.venv/bin/python tests/stages.py

check: lint ## Lint, types and unit tests: what every commit passes
	@.venv/bin/pytest -q tests/unit services

lint: setup
	@.venv/bin/ruff check -q .
	@.venv/bin/ruff format -q --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports > /dev/null || .venv/bin/lint-imports

bench: setup ## Timings and memory, measured side by side
	@.venv/bin/python -m tests.bench

conformance: setup ## Kubernetes' own test suite, three to five hours (PROVIDER=, FOCUS="regular expression", PARALLEL=2, HPA=no, RUNS=2, RESUME=1)
	@$(RUN) conformance --provider $(PROVIDER) --focus "$(FOCUS)" --parallel $(PARALLEL) $(if $(filter no,$(HPA)),--no-hpa) $(if $(RUNS),--runs $(RUNS)) $(if $(RESUME),--resume)

down: ## Stop and remove every cluster of yours
	@[ ! -x .venv/bin/python ] || $(RUN) down --all

clean: down ## Remove what was made in this folder (caches and clusters' images stay)
	@rm -rf .venv $(REPORT) reports-kind build .mypy_cache .ruff_cache .pytest_cache

lock: | $(UV) ## Pin the packages again within pyproject.toml's ranges
	@$(UV) pip compile -q --universal --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade pyproject.toml -o requirements.lock
