# make sky    first sky (sky.h5) and its picture (sky.png), from nothing but Python 3.11
# make test   style check and the test suite
# make docs   documentation in docs/_build/html, warnings are errors
# make notebooks   runs the notebooks of docs/notebooks again and keeps their output
#
# Everything is installed into .venv with the tested versions of constraints.txt, and
# again only when those or the package's requirements change.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: sky test lint docs notebooks constraints clean

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Processes that run the tests, a file at a time each, with one thread.
WORKERS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

sky: $(VENV)/.installed-plot
	rm -f sky.h5 sky.png
	$(BIN)/mlsky simulate --freqs 93 145 225 --nside 1024 --seed 1 --out sky.h5
	$(BIN)/mlsky plot sky.h5 --out sky.png

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# One after another, in their own folder, where they leave first_sky.h5 and sky.h5.
notebooks: $(VENV)/.installed-notebooks
	for notebook in docs/notebooks/*.ipynb; do \
	    $(BIN)/jupyter-execute --inplace $$notebook; \
	done

# One stamp per extra; the editable install means that changed code needs no new one.
$(VENV)/.installed-%: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing mlsky[$*] and what it needs into $(VENV): about 2 GB on disk, minutes the first time"
	$(INSTALL) --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("mlsky needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# The newest set, torch kept: read the diff, run the tests, commit.
constraints:
	rm -rf .venv-constraints
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint <(grep '^torch==' constraints.txt) '.[plot,pysm,test,docs,notebooks]'
	{ grep '^#' constraints.txt; .venv-constraints/bin/python -m pip freeze --all \
	    | grep -vE '^(pip|mlsky)( @|==)' | sed -E 's/\+cpu$$//' | sort -f; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-constraints

clean:
	rm -rf $(VENV) docs/_build docs/reference/generated build *.egg-info sky.h5 sky.png
