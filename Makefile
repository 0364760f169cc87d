# Every target does its own set-up: a virtual environment in .venv, installed under the tested versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-exhaustive coverage mutation bench lint install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/cachetool demo

# Two processes for two cores; tests that share caches run in one of them (tests/conftest.py).
PYTEST := $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadscope

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTEST)

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTEST) -m slow

test-exhaustive: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTEST) -m exhaustive

# Branch coverage of the store, and of the object stores below it, by the tests that are written for them.
STORE_TESTS := tests/store tests/objects $(addprefix tests/hostile/test_,documents.py records.py shards.py tables.py)

coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --cov --cov-fail-under=95 $(STORE_TESTS)

# What `make mutation` harms, by name: see docs/mutation-testing.md.
MUTANTS ?= cachetool.store.shards.*

mutation: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	OMP_NUM_THREADS=1 $(VENV)/bin/mutmut run --max-children 2 $(foreach name,$(MUTANTS),'$(name)')

bench: $(INSTALLED)
	$(VENV)/bin/python -m tests.benchmarks

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)
