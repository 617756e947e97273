# Every target works from nothing but python3 and make: it makes .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PYTEST_ARGS ?=
PACKAGES := chaos crdt gossip peer proxy simulations trust
# In the order in which they begin: what has long files first, so that the processes end together.
SHARED := $(patsubst %,tests/system/test_%.py,crashes authority durability recovery mesh rights) \
  $(patsubst %,tests/%,chaos simulations peer gossip crdt contracts trust proxy proxy_embedded test_loopback.py)
BENCH_ARGS ?=
SOAK_S ?= 600

.PHONY: chaos chaos-mutations demo test test-browser crashes check format sim bench bench-dataplane soak bench-gossip bench-state \
  bench-ca clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    a whole mesh on this machine, told step by step"
	@echo "make test    the test suite (real sockets, real processes)"
	@echo "make test-browser   the data plane under a browser (Debian: chromium)"
	@echo "make check   format, lint, imports, types"
	@echo "make crashes two minutes of kill -9 at three writing peers: what was acknowledged, what was lost"
	@echo "make sim     the simulator's tables, measured again into simulations/RESULTS.md (about half an hour)"
	@echo "make chaos   five thousand experiments made up from seeds, in the simulator (about an hour)"
	@echo "make chaos-mutations   faults planted in the cores, and what it takes to find each (about 20 minutes)"
	@echo "make bench   the peers: memory, idle processor time, how fast a policy is enforced"
	@echo "make bench-dataplane  the data plane beside Envoy, nginx, HAProxy and aiohttp (about 10 minutes; BENCH_ARGS='--only mtls')"
	@echo "make soak    ten minutes of wrk while workers are killed, certificates rotate and snapshots change (SOAK_S=60 for one)"
	@echo "make bench-state   the journal: agreement, a fresh peer, memory, a policy at the last of 30 peers (about 3 minutes)"
	@echo "make bench-ca      the threshold authority: signatures and certificates a second, and where the time goes (a minute)"
	@echo "make bench-gossip  30 peers beside 30 Serf agents (about 10 minutes; BENCH_ARGS='--peers 5 -o json')"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gossamer needs Python >= 3.11, this is " + sys.version.split()[0])'
	@echo "installing into $(VENV): the first time this takes a minute or more" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/gossamer demo

# What measures no time shares the cores, each process on loopback addresses of its own (tests/loopback.py); the rest has
# them for itself. Bytecode comes first: hundreds of processes start, and some machines forbid Python to keep it.
test: $(STAMP)
	@$(BIN)/python -m compileall -q $(PACKAGES)
ifeq ($(PYTEST_ARGS),)
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest -m 'not browser' -n auto --dist loadfile --no-loadscope-reorder $(SHARED)
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest -m 'not browser' $(SHARED:%=--ignore=%)
else
	@HYPOTHESIS_PROFILE=$${CI:+ci} $(BIN)/python -m pytest $(PYTEST_ARGS)
endif

# Chromium is large: apt-get install chromium.
test-browser: $(STAMP)
	@CI=true $(BIN)/python -m pytest -m browser tests

crashes: $(STAMP)
	@GOSSAMER_CRASH_ROUNDS=1 GOSSAMER_CRASH_S=120 $(BIN)/python -m pytest -q -s tests/system/test_crashes.py

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP)
	@$(BIN)/python benchmarks/peers.py

bench-dataplane: $(STAMP)
	@$(BIN)/python -m benchmarks.dataplane $(BENCH_ARGS)

soak: $(STAMP)
	@$(BIN)/python -m benchmarks.soak --seconds $(SOAK_S) $(BENCH_ARGS)

bench-state: $(STAMP)
	@$(BIN)/python -m benchmarks.state $(BENCH_ARGS)

bench-ca: $(STAMP)
	@$(BIN)/python -m benchmarks.ca $(BENCH_ARGS)
	@$(BIN)/python -m benchmarks.ca_streams
	@$(BIN)/python -m benchmarks.ceremonies

bench-gossip: $(STAMP)
	@$(BIN)/python -m benchmarks.gossip $(BENCH_ARGS)

sim: $(STAMP)
	@$(BIN)/gossamer sim table all --save simulations/RESULTS.md

chaos: $(STAMP)
	@$(BIN)/gossamer chaos run split-25-hours
	@$(BIN)/gossamer chaos swarm --seeds 5000 -j $$(nproc)

chaos-mutations: $(STAMP)
	@$(BIN)/python -m tests.chaos.mutation_table --save chaos/RESULTS.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
