# make run   sets up, runs the course on the mini preset, prints where the results are
# make test  sets up, lints, checks types, runs the tests
PYTHON ?= python3
VENV   ?= .venv
PRESET ?= mini
TASK   ?= gsm8k-mini
BIN    := $(VENV)/bin

.PHONY: run test setup lint

run: setup
	$(BIN)/irpo run --preset $(PRESET) --task $(TASK)

test: setup lint
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed

# torch first and pinned, so that no other package chooses its build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@
