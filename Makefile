# Every target works from nothing but python3 and make: it makes .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PYTEST_ARGS ?=
PURE := tests/crdt tests/gossip tests/simulations
BENCH_ARGS ?=

.PHONY: demo test check format sim bench bench-gossip bench-state bench-ca clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a whole mesh on this machine, told step by step"
	@echo "make test    the test suite (real sockets, real processes)"
	@echo "make check   format, lint, imports, types"
	@echo "make sim     the simulator's tables, measured again into simulations/RESULTS.md (about half an hour)"
	@echo "make bench   the data plane and the peers, measured beside a bare backend"
	@echo "make bench-state   the journal: agreement, a fresh peer, memory, a policy at the last of 30 peers (about 3 minutes)"
	@echo "make bench-ca      the threshold authority: signatures a second, and where the time goes (half a minute)"
	@echo "make bench-gossip  30 peers beside 30 Serf agents (about 10 minutes; BENCH_ARGS='--peers 5 -o json')"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gossamer needs Python >= 3.11, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/gossamer demo

# What opens no socket and starts no process shares the cores; the rest has them for itself, for it measures time.
test: $(STAMP)
ifeq ($(PYTEST_ARGS),)
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest -n auto --dist loadfile $(PURE)
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest $(PURE:%=--ignore=%)
else
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest $(PYTEST_ARGS)
endif

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP)
	@$(BIN)/python benchmarks/dataplane.py
	@$(BIN)/python benchmarks/peers.py

bench-state: $(STAMP)
	@$(BIN)/python -m benchmarks.state $(BENCH_ARGS)

bench-ca: $(STAMP)
	@$(BIN)/python -m benchmarks.ca $(BENCH_ARGS)

bench-gossip: $(STAMP)
	@$(BIN)/python -m benchmarks.gossip $(BENCH_ARGS)

sim: $(STAMP)
	@$(BIN)/gossamer sim table all --save simulations/RESULTS.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
