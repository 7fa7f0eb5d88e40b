# make run       the main job: map, degrade, fine-tune, report (set-up is done once, in .venv)
# make test      the test suite          make test-all  with the slow tests
# make lint      style and types         make bench     benchmarks
# make docs      the documentation site, in site/
# make browser   headless Chromium for the test of HTML reports (needs npm), in build/browser
# make figures   figures and tables of RESULTS.md from the committed archives
# make study-quick  the two claims on a subset of chips and images
# make clean-cache  compiled kernels and bytecode; clean  the environment and all else that was made

SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
CANDIDATES := python3.13 python3.12 python3.11 python3.14 python3 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in $(CANDIDATES); do \
	if command -v $$name >/dev/null 2>&1 && $$name -c '$(NEW_ENOUGH)' 2>/dev/null; then echo $$name; break; fi; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=

.PHONY: run test test-all lint docs figures study-quick bench clean clean-cache

run: $(VENV)/.ready
	$(BIN)/rramsim run $(ARGS)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-all: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready-docs
	$(BIN)/python -m mkdocs build

figures: $(VENV)/.ready
	$(BIN)/python -m studies.tables --write
	$(BIN)/python -m studies.figures

study-quick: $(VENV)/.ready
	$(BIN)/rramsim sweep studies/quick.toml --out results/study_quick.h5 $(ARGS)
	$(BIN)/python -m studies.tables --claims results/study_quick.h5
	$(BIN)/python -m studies.figures --claims results/study_quick.h5 --out results/study_quick

browser:
	npm install --prefix build/browser --no-save playwright-core @sparticuz/chromium

bench: $(VENV)/.ready-bench
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean-cache:
	for folder in rramsim finetune benchmarks tests; do find $$folder -name __pycache__ -type d -prune -exec rm -rf {} +; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; give it as make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# each stamp marks what is installed; pyproject.toml makes it out of date
$(VENV)/.ready: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[test,lint]"
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-bench: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[test,bench]"
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[docs,test]"
	@touch $@ $(VENV)/.ready
