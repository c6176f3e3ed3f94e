PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
# torch is installed first and by pip, so that its CPU build is the one that everything else finds.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK)

.PHONY: demo test test-slow check fix bench clean

demo: $(VENV)/.demo
	$(BIN)/headway demo vision --budget 8m

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not network and not gpu"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or network"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/demos.py
	$(BIN)/python benchmarks/tables.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml $(LOCK)
	$(PIP) torch
	$(PIP) --editable ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml $(LOCK)
	$(PIP) torch
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
