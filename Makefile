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
ARGS ?=
# Where Lightning and Accelerate are (make setup-bench), or else this project's environment, or the system's.
GPU_PYTHON = $(if $(wildcard .venv-bench/bin/python),.venv-bench/bin/python,python)

.PHONY: help setup setup-latex setup-test setup-audit setup-bench study report serve test test-cluster test-faults test-load test-attack check audit docs readme settings format bench lock dist image image-apptainer clean distclean test-gpu bench-gpu gpu-bundle gpu-session

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
	@medscale data croissant $(STUDY) --scale $(if $(CONFIG),full,demo) $(if $(CONFIG),--configfile $(CONFIG))

report: setup ## what a study made as one web page, work/demo/report.html (CONFIG=file: of your own data)
	@snakemake $(if $(CONFIG),--configfile $(CONFIG),--profile demo) --report report.html

serve: setup ## the web page for what `make study` trained (RESULTS=folders to serve others)
	@medscale serve $(RESULTS)

test: setup-test ## all tests
	@python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not faults and not load and not attack and not cluster and not gpu" $(PYTEST)

test-cluster: setup ## the study on a SLURM cluster of two pretended nodes, in the image, with faults (root on Debian)
	@python -m pytest -q -m cluster tests/cluster $(PYTEST)

test-faults: setup ## many kill-and-restart trials, and 100 clean runs (about 45 minutes)
	@python -m pytest -q -m faults $(PYTEST)

test-gpu: setup ## CUDA graphs, formats, restarts, synchronization and memory on a CUDA card (10 minutes)
	@if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; \
	then python -m pytest -q -m gpu -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true tests/gpu tests/engine/test_detect.py $(PYTEST); else echo "no CUDA card: nothing was tested"; fi

test-load: setup ## 200 callers of the service for a minute, while its processes are killed (2 minutes)
	@python -m pytest -q -s -m load $(PYTEST)

test-attack: setup ## long attacks: hostile files and requests, kills; a table of those that the program survives
	@python -m pytest -q -m attack $(PYTEST)

check: setup-audit ## ruff (with bandit's rules), format, snakefmt, snakemake --lint, types, zizmor
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules workflow
	@snakemake --lint
	@mypy
	@.venv-audit/bin/zizmor --offline -q .github/workflows

setup-audit: ## the same, and scanners for known faults
	@tools/setup.sh audit

audit: setup-audit ## known faults of the locked packages (asks PyPI) and of the GitHub Actions (asks GitHub)
	@for list in requirements.lock requirements-bench.lock tools/uv.txt tools/audit.txt; do \
	  echo "$$list"; .venv-audit/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes -r $$list; done
	@.venv-audit/bin/zizmor -q .github/workflows

docs: setup ## the docs site, in site/ (without a network; warnings are errors)
	@python -m sphinx -q -W --keep-going -b html docs site

readme: setup-test ## table and pictures of README.md, from what `make study` made
	@python tools/readme.py

settings: setup ## docs/settings.md and the schemas of config.yaml and claims.yaml, from the code
	@python -m medscale.config.reference
	@python -m medscale.report.claims.schema

format: setup ## put code and rules into shape
	@ruff check --fix . ; ruff format . ; snakefmt Snakefile rules workflow

setup-bench: ## the same, and in .venv-bench what the engine is measured against
	@tools/setup.sh bench

bench: bench-start bench-data bench-parallel ## measured ratios, side by side in one run

bench-%: setup-bench
	@.venv-bench/bin/python -m bench.$*

COMPILE := .tools/bin/uv pip compile -q --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock"
LOCK := $(COMPILE) pyproject.toml
bench-gpu: ## engine against other loops on this machine's GPU: docs/gpu.csv, docs/gpu.md (ARGS="--network resnet50 --batch 32")
	@if [ -e /dev/nvidiactl ] || nvidia-smi -L >/dev/null 2>&1; then PYTHONPATH=src:.:$$PYTHONPATH $(GPU_PYTHON) -m bench.gpu $(ARGS); \
	else echo "bench-gpu: nothing is measured, as this machine has no NVIDIA GPU"; fi

gpu-session: ## tests and measurements on this machine's GPU, most important first (ARGS="--seconds 540 --out FOLDER")
	@PYTHONPATH=src:.:$$PYTHONPATH $(GPU_PYTHON) -m bench.gpu_session $(ARGS)

gpu-bundle: setup ## what a GPU machine without network needs to measure and test: medscale-gpu.tar.gz, below 60 MB
	@python tools/gpu_bundle.py $(ARGS)


lock: setup ## resolve the requirements again (versions measured with stay: constraints.txt)
	@$(LOCK) --upgrade --extra dev --extra detect --extra export --extra exchange --extra docs --extra serve -c constraints.txt -o requirements.lock
	@$(LOCK) --upgrade --extra dev --extra detect --extra export --extra exchange --extra docs --extra serve --extra bench -c requirements.lock -o requirements-bench.lock
	@$(COMPILE) --upgrade --group setup -o tools/uv.txt
	@$(COMPILE) --upgrade --group audit -o tools/audit.txt

dist: setup ## wheel and source archive, in dist/
	@.tools/bin/uv build -q --out-dir dist

image: ## the image that jobs run in, as containers/medscale-<digest>.sif (needs docker and Apptainer; BASE=image: from another base)
	@tools/image.sh docker $(BASE)

image-apptainer: ## the same without docker (BASE=image or a folder)
	@tools/image.sh apptainer $(BASE)

clean: ## remove what the demo made (full-scale outputs and downloads stay)
	@rm -rf work dist site .test/work .pytest_cache .mypy_cache .ruff_cache .hypothesis; find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## also the virtual environment
	@rm -rf .venv .venv-audit .venv-bench .tools src/*.egg-info
