# What a person and CI run; CONTRIBUTING.md explains each target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := collector-config/native

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format lock servers bench bench-baseline backends stack stack-down clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(VENV)/.ready  ## Create .venv from the locked requirements

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Sightline needs Python 3.11 or later, got $$($(PYTHON) --version); set PYTHON=…" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## Follow one request through traces, logs and metrics (needs only Python)
	@$(BIN)/python examples/quickstart/demo.py

test: setup backends servers  ## Run all tests, those of the real back ends included
	$(BIN)/python -m pytest

check: lint test  ## What CI runs: format, lint, types, all tests

lint: setup  ## Check format, lint rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## Format the code and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

servers:  ## Install PostgreSQL and Redis for the tests of databases, where they are missing (Debian)
	@tests/libraries/install-servers

bench: setup  ## Measure what a request costs, beside ten other instrumentations (20 minutes; BENCH=--help)
	@$(BIN)/python -m benchmarks $(BENCH)

bench-baseline: setup  ## Record what the hot path costs now, for the comparison in CI
	@$(BIN)/python -m benchmarks.hot_path --write

backends: setup  ## Build collector, Prometheus, Loki, Jaeger, Alertmanager (once, 10 to 15 minutes)
	@$(BIN)/python $(NATIVE)/backends.py build

stack: backends  ## Start the pipeline on loopback and print its URLs
	@$(BIN)/python $(NATIVE)/stack.py up

stack-down: setup  ## Stop the pipeline
	@$(BIN)/python $(NATIVE)/stack.py down

lock: setup  ## Renew the locked requirements from pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 \
	  --extra grpc --extra contrib --group dev --custom-compile-command "make lock" \
	  --output-file requirements/dev.txt pyproject.toml

clean:  ## Remove the environment, caches and built packages
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
