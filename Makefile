# The project's own targets; `make help` lists them. `make demo` and `make test` work as the first command in a
# fresh checkout: `setup` comes first, and costs milliseconds when there is nothing to do.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-long chaos golden lint style types bench rates mutants fuzz-parser clean
.NOTPARALLEL:

VENV := .venv
# Where the Python tools are, and what must have happened before; tox overrides both (tox.ini).
BIN ?= $(VENV)/bin
SETUP ?= setup

STAMP := $(VENV)/installed
SHELL_FILES := $(wildcard .ci/*)
# A test may run a tool of the virtual environment by name.
RUN := PATH="$(abspath $(BIN)):$$PATH"
# The kernels of tests/bugs: one with the bug of 2008, one without.
STOCK := --kernel debian:6.1 --kernel debian:6.12 --arch x86_64 --arch aarch64
PYTEST := $(RUN) $(BIN)/python -m pytest

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '%-16s %s\n' "$$target" "$$text"; done

setup: $(STAMP) ## Install missing Debian packages and make .venv

$(STAMP): pyproject.toml harness/debian-packages.txt .ci/packages.sh
	@.ci/packages.sh
	@echo "setup: making $(VENV)" >&2
	@python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(SETUP) ## Tell which stock kernels have the fork/O_DIRECT bug, on two architectures
	@$(RUN) $(BIN)/cowpen demo

# A process per core for tests without guests; guests one after the other, for each may use all cores.
test: lint ## Lint, then all tests; boots kernels in QEMU and takes a quarter of an hour, twice that the first time
	@$(PYTEST) -n auto -m "not long" tests/unit tests/console
	@$(PYTEST) -m "not long" tests/guest tests/chaos
	@$(PYTEST) -m "not long" tests/bugs $(STOCK)

test-fast: lint ## Lint and the tests that need no QEMU
	@$(PYTEST) -n auto -m "not guest and not slow" tests/unit tests/console

chaos: $(SETUP) ## All attacks on cowpen; writes the table of docs/reliability.md; takes forty minutes
	@$(PYTEST) tests/chaos tests/guest/test_trouble_host.py \
		tests/guest/test_trouble_guest.py --reliability docs/reliability.md

test-long: $(SETUP) ## What `make test` leaves out as too long and `make chaos` does not do: more kernels
	@$(PYTEST) -m long tests/guest
	@$(PYTEST) -m long tests/bugs $(STOCK)

golden: $(SETUP) ## Make the console logs of tests/console/golden again; builds five kernels the first time, an hour
	@$(RUN) $(BIN)/python -m tests.console.provoke

lint: style types ## Style, types, shell scripts

style: $(SETUP)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@shellcheck $(SHELL_FILES)

types: $(SETUP)
	@$(BIN)/mypy --no-error-summary harness bench

bench: $(SETUP) ## Measure what cowpen costs; takes an hour, and more the first time
	@$(RUN) $(BIN)/python -m bench

mutants: $(SETUP) ## Measure the table of docs/mutants.md; builds each of them the first time
	@$(RUN) $(BIN)/python -m bench.mutants --write docs/mutants.md

rates: $(SETUP) ## Measure the tables of docs/bugs.md; takes a day, and builds kernels the first time
	@$(RUN) $(BIN)/python -m bench.rates --write

FUZZ_SECONDS ?= 600

fuzz-parser: $(SETUP) ## Fuzz the console parser for FUZZ_SECONDS
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(BIN)/python -m tests.console.fuzz build/fuzz $(FUZZ_SECONDS)

clean: ## Remove .venv and what the tools left here (kernels and results in your home stay)
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
