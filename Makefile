# The commands a developer needs; `make setup` comes first and is quick once it has run.
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.setup-stamp
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# What pip installs where torch is missing, e.g. a CUDA build: make setup TORCH="torch==2.13.0 --index-url URL"
TORCH  ?= torch==2.13.0
WORKERS ?= 2
# Further overrides for the demo, e.g. make demo ARGS="seed=1"
ARGS ?=

export OMP_NUM_THREADS ?= 1

.PHONY: setup hooks demo test test-all check format doctor clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is %d.%d: make setup PYTHON=PATH" % sys.version_info[:2])'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import torch' 2>/dev/null || $(PY) -m pip install $(TORCH)
	$(PY) -m pip install -e '.[dev]'
	@touch $@

demo: setup
	$(PY) train.py +experiment=fdpo_vit_unfrozen $(ARGS)

test: setup
	$(PY) -m pytest -n $(WORKERS) -m "not slow"

test-all: setup
	$(PY) -m pytest -n $(WORKERS)

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

hooks: setup
	$(VENV)/bin/pre-commit install

doctor: setup
	$(PY) doctor.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -type d \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
