# Two commands do everything on a fresh machine with Python 3.11 or newer, git and make:
#   make demo    build the demo dataset and say how to open it
#   make test    pass the tests
# Both make the environment in .venv first, with uv when it is there and with venv and pip when not, from the locks.
# The second run finds its stamps and starts at once, without the network.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
DEMO ?= demo
# A file stays on one worker, so what its tests share is made once.
PYTEST_ARGS ?= -n auto --dist loadfile
BENCH_ARGS ?=

BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
# The first interpreter that runs and is new enough; 3.11 before the rest because the locks were tested with it.
PYTHON ?= $(shell for v in 3.11 3.12 3.13 3; do \
  python$$v -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v python$$v && break; done)

ifdef UV
  make_venv = $(UV) venv --quiet --python "$(or $(PYTHON),3.11)" $(VENV)
  install = $(UV) pip install --quiet --python $(BIN)/python
else
  make_venv = $(or $(PYTHON),$(error No Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python)) -m venv $(VENV)
  install = $(BIN)/python -m pip install -qq --disable-pip-version-check
endif

# An environment may stand here already; it is completed, never replaced.
define environment
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $(if $(UV),uv,venv and pip) …"; $(make_venv); }
	@echo "Installing $(1) into $(VENV) …"
	@$(install) --require-hashes -r $(1)
	@$(install) --no-deps --no-build-isolation -e .
	@touch $@
endef

.PHONY: help demo test lint docs bench lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 14

# pyproject.toml is among the prerequisites because the entry point and the version stand there.
$(VENV)/.stamp-run: requirements.lock pyproject.toml
	$(call environment,requirements.lock)

$(VENV)/.stamp-dev: requirements-dev.lock pyproject.toml
	$(call environment,requirements-dev.lock)
	@touch $(VENV)/.stamp-run

demo: $(VENV)/.stamp-run ## build the demo dataset into ./demo
	@$(BIN)/curate demo --out $(DEMO)

lint: $(VENV)/.stamp-dev ## ruff, mypy --strict, and the floors
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint ## lint, then all the tests
	$(BIN)/pytest $(PYTEST_ARGS)

docs: $(VENV)/.stamp-dev ## build the documentation as a site into ./site
	$(BIN)/mkdocs build --strict --quiet
	@echo "Read it with: $(BIN)/mkdocs serve"

bench: $(VENV)/.stamp-dev ## time curate against the bare loaders; BENCH_ARGS="--size-px 4096"
	$(BIN)/python benchmarks/build_vs_bare.py $(BENCH_ARGS)

# Keeps the versions that are locked and still fit; `make lock LOCK_ARGS=--upgrade` takes the newest. One version for
# every Python (fewest), so that what is locked is what was tested. No index address goes into the files.
LOCK_ARGS ?=
compile = uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-annotate --no-header --no-emit-index-url --no-emit-find-links $(LOCK_ARGS) pyproject.toml
lock: ## solve requirements.lock and requirements-dev.lock again (needs uv)
	$(compile) --group dev --output-file requirements-dev.lock
	$(compile) --group build --constraint requirements-dev.lock --output-file requirements.lock

clean: ## remove the environment, the demo and every cache
	rm -rf $(VENV) $(DEMO) dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
