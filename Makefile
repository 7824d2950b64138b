# What a developer does, each thing under one name. Everything runs in .venv, which is built here
# when it is missing or when setup.cfg, pyproject.toml, setup.py or a C kernel changed.

PYTHON ?= python3
BIN    := .venv/bin

# In the order of a reduction; measure.py is what they share.
BENCHMARKS := $(filter-out benchmarks/measure.py,$(wildcard benchmarks/*.py))

.DELETE_ON_ERROR:
.PHONY: test lint demo docs man bench clean

test: lint
	$(BIN)/python -m pytest -n 2

lint: .venv/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

demo: .venv/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHON="$(CURDIR)/$(BIN)/python" examples/demo.sh

docs: .venv/.docs-ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# The pages are committed, so that they can be read and installed without being built.
man: .venv/.ready
	$(BIN)/python -m awetools.commands.manpage man

bench: .venv/.bench-ready
	set -e; for one in $(BENCHMARKS); do PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python $$one; done

clean:
	rm -rf .venv build demo docs/_build docs/reference awetools.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find awetools tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready: setup.cfg pyproject.toml setup.py $(wildcard awetools/core/pixels/*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[test,plot]'
	touch $@

.venv/.docs-ready: .venv/.ready
	$(BIN)/python -m pip install -q -e '.[docs]'
	touch $@

.venv/.bench-ready: .venv/.ready
	$(BIN)/python -m pip install -q -e '.[bench]'
	touch $@
