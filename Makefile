# Two commands do everything: `make labs` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PROVIDER ?= embedded
SPEED ?= class
LABS ?=
REPORT ?= reports
COURSE ?= labkit-course
FOCUS ?=
PARALLEL ?= 2
HPA ?=
RESUME ?=
PYTHON ?= python3

UV_VERSION := 0.13.9
RUN := .venv/bin/python -m labkit
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A school's proxy has a certificate of its own; the system knows it, uv's list does not.
export UV_SYSTEM_CERTS ?= true
# The shell reads paths by itself: a make variable would hand it a blank or an apostrophe as part of the command.
UV_HOME := "$${XDG_CACHE_HOME:-$$HOME/.cache}/labkit/uv-$(UV_VERSION)"

.PHONY: uv fetch-uv help setup labs test check lint start bench teach conformance down clean lock

help: ## This list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: .venv/.ready ## Python environment in .venv, pinned by requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	@$(MAKE) -s uv
	@echo "setup: installing the Python packages of requirements.lock into .venv"
	@$(UV_HOME)/bin/uv venv -q --clear --python "$(PYTHON)" .venv
	@$(UV_HOME)/bin/uv pip sync -q --python .venv/bin/python --require-hashes --compile-bytecode requirements.lock
	@$(UV_HOME)/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
	@touch $@

uv:
	@[ -x $(UV_HOME)/bin/uv ] || $(MAKE) -s fetch-uv

fetch-uv:
	@echo "setup: fetching uv $(UV_VERSION)"
	@"$(PYTHON)" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "labkit needs Python 3.11 or newer; %s is %s. Name another one: make PYTHON=python3.12 …" % (sys.executable, sys.version.split()[0]))'
	@rm -rf $(UV_HOME) && mkdir -p $(UV_HOME)
	@"$(PYTHON)" -m venv $(UV_HOME) || { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(UV_HOME)/bin/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

labs: setup ## Set up, run the labs headless, write reports/index.html (PROVIDER=embedded|kind, LABS="00 08", SPEED=class|ci)
	@$(RUN) run $(LABS) --provider $(PROVIDER) --speed $(SPEED) --report "$(REPORT)"

start: setup ## JupyterLab with the labs, in a folder of yours (COURSE=my-course)
	@$(RUN) start "$(COURSE)"

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

teach: setup ## Write docs/teach from the notebooks and their exercises
	@.venv/bin/python -m labkit.labs.teaching

conformance: setup ## Kubernetes' own test suite, three to five hours (PROVIDER=, FOCUS="regular expression", PARALLEL=2, HPA=no, RUNS=2, RESUME=1)
	@$(RUN) conformance --provider $(PROVIDER) --focus "$(FOCUS)" --parallel $(PARALLEL) $(if $(filter no,$(HPA)),--no-hpa) $(if $(RUNS),--runs $(RUNS)) $(if $(RESUME),--resume)

down: ## Stop and remove every cluster of yours
	@[ ! -x .venv/bin/python ] || $(RUN) down --all

clean: down ## Remove what was made in this folder (caches and clusters' images stay)
	@rm -rf .venv "$(REPORT)" reports-kind build .mypy_cache .ruff_cache .pytest_cache

lock: uv ## Pin the packages again within pyproject.toml's ranges
	@$(UV_HOME)/bin/uv pip compile -q --universal --python-version 3.11 --extra dev --generate-hashes --no-header --no-annotate --no-emit-index-url --upgrade pyproject.toml -o requirements.lock
