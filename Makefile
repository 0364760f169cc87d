# Every target does its own set-up: a virtual environment in .venv, installed under the tested versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow lint install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/cachetool demo

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -m slow

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)
