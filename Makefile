# `make up` and `make test` need python3 (3.11 or newer), make and git; everything else they fetch.
# `make compiled` alone needs a C compiler.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Optional parts of `make env`: keda, otel, kv-events, tokenizer.
EXTRAS ?=
# A file at a time per core: what a file's tests share, real replicas above all, is started once.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

# Tests start well over a hundred Python processes. Each reads what the first one compiled, also
# where the environment forbids bytecode beside the sources.
test acceptance: export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode
test acceptance: export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help up test lint tools acceptance compiled env dev-env clean

help:
	@echo 'make up [ARGS="--replicas 3"]  real replicas of a real model behind the gateway'
	@echo 'make env [EXTRAS="keda otel"]  the environment alone, for .venv/bin/headrace'
	@echo 'make test [ARGS="-k router"]   linters, types, layers and the test suite'
	@echo 'make lint                      the checks alone'
	@echo 'make acceptance                the slow tests: real vLLM, long runs'
	@echo 'make compiled                  .venv-compiled/bin/headrace, for real traffic: half the CPU'
	@echo '                               per request; needs a C compiler, leaves a wheel in dist/'
	@echo 'make clean                     remove both environments and every cache in this folder'

up: env
	@exec $(BIN)/headrace up $(ARGS)

test: lint tools
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not acceptance and not vllm and not soak" $(ARGS)

lint: dev-env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m tools.compiled --check

tools: dev-env
	$(BIN)/python tools/debian_tools.py prometheus

acceptance: tools
	$(BIN)/python tools/vllm_env.py
	$(BIN)/pytest -m "acceptance or vllm" $(ARGS)

compiled:
	@$(PYTHON) -m tools.compiled

env:
	@$(PYTHON) tools/bootstrap.py $(addprefix --extra ,$(EXTRAS))

dev-env:
	@$(PYTHON) tools/bootstrap.py --dev

clean:
	rm -rf .venv .venv-compiled .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
