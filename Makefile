# demo: see it work · test: all tests · check: format, lint, types, layers · bench: the table of speeds (WORKLOAD=W1,W4: of these)
# coverage: the branches of the log, lock, committer, checkpoint and recovery that their tests reach, 100 %: `test` ends with it
# torture: the layers of trust for about TIME minutes, or as long as their floors take; a night is TIME=480
# Everything lives in .venv inside the checkout; a stamp there says what is installed, so that nothing is done twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?=
BENCH_ARGS ?=
WORKLOAD ?=
# one more than cores: some of the tests wait for servers and disks
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
TIME ?= 60

# no servers, and none of the layers that do one thing ten thousand times: each branch has a test that is about it
COVERED_BY := $(addprefix tests/wal/test_, $(addsuffix .py, \
	deferred_signals group lock_file log_closed log_damage log_flushes log_format log_local log_meanwhile log_memory log_processes \
	log_slots log_slots_damage log_slots_flushes log_slots_fork log_slots_format log_slots_outcomes log_slots_right \
	log_slots_trimming log_slots_validation log_tail parallel process storage_memory storage_posix)) \
	tests/tree/test_committer.py tests/tree/test_mounts.py tests/tree/test_recover_command.py tests/tree/test_rewrites.py
PROMISES := wal/*.py,wal/storage/filelock.py,metatree/*

.PHONY: demo test coverage torture check bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python tools/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)
	$(if $(PYTEST_ARGS),,$(MAKE) coverage)

coverage: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(COVERED_BY) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='$(PROMISES)' --fail-under=100

torture: $(VENV)/.test
	METATREE_TORTURE=$(TIME) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m trust $(PYTEST_ARGS)

check: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(if $(WORKLOAD),--only $(WORKLOAD)) $(BENCH_ARGS)

clean:
	rm -rf $(VENV) .coverage* .environments build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[test,ingest]'
	touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[bench]'
	touch $@

# mypy needs the libraries that the checked code imports, the tests' among them
$(VENV)/.check: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[check,test,ingest]'
	touch $@
