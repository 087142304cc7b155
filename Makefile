# The same commands as .ci/run and the README, by name.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help install format lint type test demo
help:  ## Show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

install:  ## Make .venv with the package and its test tools
	python3 -m venv .venv && .venv/bin/pip install -e '.[test]' -c constraints.txt

format:  ## Format the code
	$(PYTHON) -m ruff format src tests benchmarks

lint:  ## Check style and the walls between rooms
	$(PYTHON) -m ruff check src tests benchmarks && $(PYTHON) -m ruff format --check src tests benchmarks && .venv/bin/lint-imports

type:  ## Check types
	$(PYTHON) -m mypy

test:  ## Run the whole suite
	$(PYTHON) -m pytest -n auto

demo:  ## Infect, scan, compare on handwritten digits
	.venv/bin/tabor demo
