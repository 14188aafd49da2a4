# `make run` starts a homeserver; `make test` runs every check. Nothing but Python 3.11 and make is needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: run test lint simulate bench bench-state-res bench-summaries bench-summaries-load clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(BIN)/weft up

test: $(VENV)/.installed-test .synapse-venv/.installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks

bench-summaries: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.summaries

bench-summaries-load: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.summaries_load

bench-state-res: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.state_res

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { echo "Weft needs Python's venv module (Debian: apt-get install python3-venv)"; exit 2; }

$(VENV)/.installed: $(VENV)/bin/python setup.cfg constraints.txt
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[test,bench]'
	touch $@

# The other homeserver of tests/interop, in an environment of its own.
.synapse-venv/.installed: tests/interop/requirements.txt
	$(PYTHON) -m venv .synapse-venv
	.synapse-venv/bin/python -m pip --disable-pip-version-check -q install -r $<
	touch $@

# A federation in virtual time: `make simulate SEED=1 ROUNDS=100`. A seed that fails says so, and replays exactly.
simulate: $(VENV)/.installed-test
	SEED=$(or $(SEED),1) ROUNDS=$(or $(ROUNDS),100) $(BIN)/python -m pytest --capture=no --timeout=0 tests/simulation

clean:
	rm -rf $(VENV) .synapse-venv .bench build dist *.egg-info
