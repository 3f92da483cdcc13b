# `make demo` and `make test` need Python 3.10 or later and make; all else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
# What touches libraries most: networks, training, search, data, files, and a whole fit.
LOWEST_TESTS := tests/models tests/training tests/searcher tests/data tests/fit tests/space
# Cached bytecode saves each process that the tests start several seconds, also where the environment turns it off.
export PYTHONDONTWRITEBYTECODE :=
# The theme would advertise its successor at each build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest lint style types pages docs format clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED)  ## Classify photographs by pretrained features, search on handwritten digits, show the results
	@$(BIN)/saccade demo

# Types and docs are checked beside the tests. One worker more than there are processors, since some tests wait.
test: style  ## Check the code, and run the tests
	@echo "== pytest: tests, warnings are errors"
	@$(MAKE) --no-print-directory types pages >$(VENV)/lint.log 2>&1 & \
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$($(BIN)/python -c 'import os; print(min(4, 1 + os.cpu_count()))') --dist worksteal; \
	tests=$$?; wait $$! || tests=1; cat $(VENV)/lint.log; rm $(VENV)/lint.log; exit $$tests

test-lowest:  ## Run a short suite with the lowest versions that pyproject.toml allows
	@rm -rf $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable ".[dev]"
	@OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -q -n 2 --dist worksteal -o filterwarnings= $(LOWEST_TESTS)
	@rm -rf $(LOWEST)

lint: style types pages  ## Check style, layers, types and docs

style: $(INSTALLED)
	@echo "== ruff: formatting"
	@$(BIN)/ruff format --check .
	@echo "== ruff: rules"
	@$(BIN)/ruff check .
	@echo "== import-linter: layers"
	@$(BIN)/lint-imports --no-logo

types: $(INSTALLED)
	@echo "== mypy: types, strict"
	@$(BIN)/mypy

pages: $(INSTALLED)
	@echo "== mkdocs: docs build strictly"
	@$(MKDOCS) build --strict --quiet

docs: $(INSTALLED)  ## Build the documentation into site/, and say where it is
	@$(MKDOCS) build --strict --quiet
	@echo "site/index.html"

format: $(INSTALLED)  ## Format the code, and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove caches, builds and the demo's output; .venv and saccade_runs stay
	rm -rf build dist site saccade_demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# The stamp is older than these files when what must be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	@touch $@
