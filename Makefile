# Every target does its own set-up: a virtual environment in .venv, installed under the tested versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-exhaustive test-cuda coverage mutation bench lint install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/cachetool demo

# Two processes for two cores; tests that share caches run in one of them (tests/conftest.py).
# Many compare bit for bit with a pass on the CPU, so that a GPU is hidden from them.
PYTEST := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadscope

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

test-exhaustive: $(INSTALLED)
	$(PYTEST) -m exhaustive

# Needs a CUDA device: without one every test is skipped.
test-cuda: $(INSTALLED)
	$(VENV)/bin/python -m pytest tests/cuda tests/extraction/test_copies.py

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
