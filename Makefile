# make help lists the targets. Everything is installed into .venv and written below ./quickstart.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PARALLEL := -n logical --maxprocesses 8
# Each process has a Ray of its own, and mostly waits for it; a file's tests stay together, for its fixtures, and the
# files in the order of tests/conftest.py.
WITH_RAY := -n 2 --dist loadfile --no-loadscope-reorder
UNIT_TESTS := $(BIN)/pytest -m 'unit and not slow' $(PARALLEL)
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

# Images often set it; the tests would then be compiled anew in each process.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test check prove install lint require

help:
	@echo "make quickstart   the whole way once on this machine, with 2,000 proteins of UniProt, downloaded once, or"
	@echo "                  synthetic ones without a network; DATA=file takes yours, DATA=synthetic makes some,"
	@echo "                  KEEP=1 leaves the server up"
	@echo "make check        format, lint, types and the unit tests"
	@echo "make test         everything that CI runs"
	@echo "make prove        the long proofs"
	@echo "PYTHON=python3.12 chooses the interpreter for .venv (3.11 or newer)"

quickstart: $(INSTALLED)
	@$(BIN)/python -m protclip quickstart $(if $(DATA),--data '$(DATA)') $(if $(KEEP),--keep)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint
	$(UNIT_TESTS)

test: lint
	$(UNIT_TESTS)
	$(BIN)/pytest -m slow $(PARALLEL)
	$(BIN)/pytest -m 'not unit and not prove' $(WITH_RAY) --durations=10

prove: $(INSTALLED)
	$(BIN)/pytest -m prove
	$(BIN)/pytest --hypothesis-profile=prove tests/uniprot/test_damage.py

install: $(INSTALLED)

# torch comes first, as the one pinned build; under the constraints nothing that follows can replace it. The two
# variables make the pins hold inside pip's build environments too: older pips read the first there, newer the second.
$(INSTALLED): export PIP_CONSTRAINT := $(abspath constraints.txt)
$(INSTALLED): export PIP_BUILD_CONSTRAINT := $(abspath constraints.txt)
$(INSTALLED): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(INSTALLED): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory require
	@echo "Installing into $(VENV); the first time this takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q '$(TORCH)'
	@$(BIN)/python -m pip install -q -e '.[ray,dev]'
	@$(BIN)/python -m pip check
	@touch $@

# What an installation needs and pip would report late or darkly.
require:
	@command -v $(PYTHON) >/dev/null || { echo "error: no '$(PYTHON)' on PATH; name a Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version 2>&1) is too old; name a Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@for compiler in $${CXX:-c++ g++ clang++}; do command -v $$compiler >/dev/null && exit 0; done; \
	  echo "error: no C++ compiler found ($${CXX:-c++, g++, clang++}); hnswlib is built from source and needs one." >&2; \
	  echo "       Debian, Ubuntu: apt install g++ python3-dev    Fedora: dnf install gcc-c++ python3-devel    macOS: xcode-select --install" >&2; \
	  exit 1
	@$(PYTHON) -c 'import pathlib, sys, sysconfig; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || { \
	  echo "error: $(PYTHON) has no C headers (Python.h); hnswlib is built from source and needs them." >&2; \
	  echo "       Debian, Ubuntu: apt install python3-dev    Fedora: dnf install python3-devel" >&2; exit 1; }
