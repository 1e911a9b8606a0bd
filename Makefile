# What a person types. Everything runs from the project's own virtual environment (.venv), which `setup` makes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
STUDY ?=
CONFIG ?=
PYTEST ?=
RESULTS ?= work/demo/results
BASE ?=

.PHONY: help setup setup-latex setup-test setup-bench study report serve test test-cluster test-faults test-load check settings format bench lock dist image image-apptainer clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: ## virtual environment from the hash-locked requirements
	@tools/setup.sh

setup-latex: ## the same, and the system's LaTeX
	@tools/setup.sh latex

setup-test: ## the same, LaTeX, and Chromium for the tests of the web page
	@tools/setup.sh latex browser

study: setup-latex ## the demo study, raw images to paper (STUDY=name: one study; CONFIG=file: your own data)
	@medscale study $(if $(STUDY),--only $(STUDY)) $(if $(CONFIG),--configfile $(CONFIG))

report: setup ## what the demo study made as one web page, work/demo/report.html
	@snakemake --profile demo --report report.html

serve: setup ## the web page for what `make study` trained (RESULTS=folders to serve others)
	@medscale serve $(RESULTS)

test: setup-test ## all tests
	@python -m pytest -q -n 2 --dist loadfile -m "not faults and not load and not cluster" $(PYTEST)

test-cluster: setup ## the study on a SLURM cluster of two pretended nodes, in the image, with faults (root on Debian)
	@python -m pytest -q -m cluster tests/cluster $(PYTEST)

test-faults: setup ## many kill-and-restart trials, and 100 clean runs (about 45 minutes)
	@python -m pytest -q -m faults $(PYTEST)

test-load: setup ## 200 callers of the service for a minute, while its processes are killed (2 minutes)
	@python -m pytest -q -s -m load $(PYTEST)

check: setup ## ruff, format, snakefmt, snakemake --lint, types
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules workflow
	@snakemake --lint
	@mypy

settings: setup ## docs/settings.md and config.schema.json, from the sections of the configuration
	@python -m medscale.config.reference

format: setup ## put code and rules into shape
	@ruff check --fix . ; ruff format . ; snakefmt Snakefile rules workflow

setup-bench: ## the same, and in .venv-bench what the engine is measured against
	@tools/setup.sh bench

bench: bench-start bench-data bench-parallel ## measured ratios, side by side in one run

bench-%: setup-bench
	@.venv-bench/bin/python -m bench.$*

LOCK := .tools/bin/uv pip compile -q --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock" pyproject.toml

lock: setup ## resolve the requirements again (versions measured with stay: constraints.txt)
	@$(LOCK) --upgrade --extra dev --extra detect --extra export --extra serve -c constraints.txt -o requirements.lock
	@$(LOCK) --upgrade --extra dev --extra detect --extra export --extra serve --extra bench -c requirements.lock -o requirements-bench.lock

dist: setup ## wheel and source archive, in dist/
	@.tools/bin/uv build -q --out-dir dist

image: ## the image that jobs run in, as containers/medscale-<digest>.sif (needs docker and Apptainer; BASE=image: from another base)
	@tools/image.sh docker $(BASE)

image-apptainer: ## the same without docker (BASE=image or a folder)
	@tools/image.sh apptainer $(BASE)

clean: ## remove what the demo made (full-scale outputs and downloads stay)
	@rm -rf work dist .test/work .pytest_cache .mypy_cache .ruff_cache .hypothesis; find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## also the virtual environment
	@rm -rf .venv .venv-bench .tools src/*.egg-info
