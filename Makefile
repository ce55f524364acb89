# make demo | test | test-all | lint        VENV=DIR uses (or makes) another environment, PYTHON=... another interpreter
PYTHON ?= python3
VENV ?= .venv
# INDEX=URL adds a package index, such as one with the much smaller torch wheels for machines without a GPU
INDEX ?=

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check $(if $(INDEX),--extra-index-url $(INDEX))
# torch and torchvision must come from one index, or their binaries do not fit: name both in the same command
TORCH := torch torchvision
BASE := $(VENV)/.installed-base
TEST := $(VENV)/.installed-test
DEV := $(VENV)/.installed-dev

# one thread per process: the tests run two at a time, and sums in a fixed order are the same everywhere
# compiled modules are kept, or each of the many processes that tests start would compile the zoo again
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest
WORKERS ?= 2

.PHONY: demo test test-all lint clean

demo: $(BASE)
	$(PY) examples/demo.py

test: $(TEST)
	$(PYTEST) -n $(WORKERS) --dist loadgroup $(ARGS)

test-all: $(TEST)
	$(PYTEST) -n $(WORKERS) --dist loadgroup -m "slow or not slow" $(ARGS)

lint: $(DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m codespell_lib
	$(PY) -m mypy

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0] + ". Say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# A stamp is only written when pip has succeeded, and is older than pyproject.toml once that changes.
$(BASE): pyproject.toml | $(PY)
	@echo "Installing into $(VENV); the first time this takes some minutes."
	$(PIP) $(TORCH) --editable .
	@touch $@

$(TEST): pyproject.toml | $(PY)
	@echo "Installing into $(VENV) what the tests need; the first time this takes some minutes."
	$(PIP) $(TORCH) --editable ".[test]"
	@touch $@ $(BASE)

$(DEV): pyproject.toml | $(PY)
	$(PIP) $(TORCH) --editable ".[dev]"
	@touch $@ $(TEST) $(BASE)

clean:
	rm -rf .venv dist build demo_output .pytest_cache .mypy_cache .ruff_cache
