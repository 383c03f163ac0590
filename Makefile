# Everything that people and CI run. `make help` lists it.
PYTHON ?= python3
ARCHIVE ?= aclImdb_v1.tar.gz
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup repro test test-all test-fast lint ui dashboard bench-data bench-faults bench-gpu bench-linear bench-predict \
	bench-quality bench-train bench-tune retrain clean lock
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s:

setup: $(VENV)/.installed  ## make .venv and install the lock into it

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV), which takes some minutes"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

repro: setup  ## check params.yaml, then run every stage whose parameters, code or data changed
	sentiment check
	dvc repro

PYTEST := pytest --numprocesses auto --dist worksteal

test-fast: setup  ## tests that start no process and train no model; under 90 s
	$(PYTEST) -m "not slow and not integration" --timeout 60

test: setup  ## all that one machine needs to be trusted: real DVC, a real MLflow store; under 10 minutes
	$(PYTEST) -m "not integration"

test-all: test  ## `make test`, then servers, several workers, kills and whole workflows; under 60 minutes
	$(PYTEST) -m integration

lint: setup  ## format, rules, types, imports, dependencies, workflows
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-logo
	deptry src stages
	deptry bench tests --exclude none --ignore DEP002,DEP004
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/retrain.yml .github/workflows/test.yml
	zizmor --offline --quiet .github/workflows

ui: PORT ?= 5000
dashboard: PORT ?= 8080

ui: setup  ## the MLflow UI on the store that the stages log to; PORT=5001 for another port
	sentiment ui --port $(PORT)

dashboard: setup  ## optuna-dashboard on the searches of tune; PORT=8081 for another port
	sentiment dashboard --port $(PORT)

bench-data: setup  ## speed and memory of download and tokenize, up to a million reviews
	python -m bench.data

bench-linear: setup  ## linear models on the last run's split, beside the LSTM
	python -m bench.linear

bench-predict: setup  ## speed of `sentiment predict`, beside bare forward passes, alone and on busy cores
	python -m bench.predict $(if $(MODEL),--model $(MODEL))

bench-quality: setup  ## the LSTM, with and without unlabelled reviews, beside linear models; ARCHIVE=path of the review archive
	python -m bench.quality $(ARCHIVE)

bench-train: $(VENV)/.bench  ## speed of training, time to an AUC and memory, beside other ways to train an LSTM
	python -m bench.train

bench-tune: setup  ## a search that is killed 20 times, two workers against one, what a search takes besides training
	python -m bench.tune

bench-gpu: setup  ## equal runs, speed and the largest model that helps on a GPU, where there is one; ARCHIVE=path of the review archive
	bench/gpu/run.sh --check
	ARCHIVE=$(wildcard $(ARCHIVE)) bench/gpu/pack.sh
	bench/gpu/run.sh

bench-faults: setup  ## dvc repro killed, without disk and without tracking server, 130 times; at most 40 minutes
	python -m bench.faults

$(VENV)/.bench: requirements-bench.lock $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --requirement $<
	touch $@

retrain: setup  ## refresh the data, train what changed, write reports/retrain.md
	sentiment retrain

clean: setup  ## list what recent commits and searches do not need in caches and stores; make clean YES=1 removes it
	sentiment clean $(if $(YES),--yes)

COMPILE := CUSTOM_COMPILE_COMMAND="make lock" pip-compile --quiet --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate

lock: setup  ## resolve pyproject.toml anew into requirements.lock and requirements-bench.lock
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*$$/\1/' requirements.lock  # any build of that version will do
	$(COMPILE) --extra bench --constraint requirements.lock --output-file requirements-bench.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*$$/\1/' requirements-bench.lock
	grep -vxFf requirements.lock requirements-bench.lock > requirements-bench.part  # what the first lacks
	mv requirements-bench.part requirements-bench.lock
