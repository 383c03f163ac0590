# The commands that people and CI run. `make help` lists them.
PYTHON ?= python3
ARCHIVE ?= aclImdb_v1.tar.gz
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup setup-ray setup-remotes repro test test-all test-fast test-integration lint ui dashboard bench-data bench-evaluate bench-faults bench-gpu bench-linear bench-predict \
	bench-quality bench-retrain bench-scale bench-train bench-tune bench-verdict retrain clean lock
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s:

# Other targets need what is installed, but not the newest models.
setup: $(VENV)/.installed  ## create .venv, install the locked packages, fetch the champion's model
	@$(if $(filter setup,$(MAKECMDGOALS)),.github/scripts/fetch-models.sh)
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "installed; next: . $(VENV)/bin/activate; dvc repro")

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV), which takes some minutes"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

setup-ray: $(VENV)/.ray  ## install the extra that runs a search or a training on several machines

$(VENV)/.ray: requirements-ray.lock $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --requirement $<
	touch $@

setup-remotes: $(VENV)/.remotes  ## install what DVC needs for remotes at S3 or over SSH

$(VENV)/.remotes: requirements-remotes.lock $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --requirement $<
	touch $@

repro: setup  ## validate params.yaml, then run every stage whose parameters, code or data changed
	sentiment check
	dvc repro

PYTEST := pytest --numprocesses auto --dist worksteal
# Floor for the coverage of src, lines and branches, in per cent, without code that runs in subprocesses: raise it with
# the coverage. Measuring doubles the time of tests that start no process, so only test-all does.
COVERAGE := 60

test-fast: setup  ## run tests that start no process and train no model; under 90 s
	$(PYTEST) -m "not slow and not integration" --timeout 60

test: setup  ## run all tests that need no server and no whole workflow; about 10 minutes
	$(PYTEST) -m "not integration" $(COVER)

test-integration: setup setup-ray  ## run the other tests: servers, workers, kills and whole workflows
	$(PYTEST) -m integration

# The second part runs whatever the first one finds, so that one run reports every failure.
test-all: setup  ## run `make test` and then `make test-integration`, with coverage; under 60 minutes
	$(MAKE) --no-print-directory --keep-going test test-integration \
		COVER="--cov --cov-report term:skip-covered --cov-fail-under $(COVERAGE)"

lint: setup  ## check format, rules, types, imports, dependencies, private words, workflows, scripts
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-logo
	deptry src stages
	deptry bench tests --exclude none --ignore DEP002,DEP004
	python .ci/private_words.py
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/promote.yml .github/workflows/retrain.yml .github/workflows/test.yml
	check-jsonschema --builtin-schema vendor.gitlab-ci .gitlab-ci.yml
	shellcheck .github/scripts/*.sh bench/gpu/*.sh slurm/*.sbatch
	zizmor --offline --quiet .github/workflows

ui: PORT ?= 5000
dashboard: PORT ?= 8080

ui: setup  ## start the MLflow UI on the store that the stages log to; PORT=5001 sets the port
	sentiment ui --port $(PORT)

dashboard: setup  ## start optuna-dashboard on the searches of tune; PORT=8081 sets the port
	sentiment dashboard --port $(PORT)

bench-data: setup  ## speed and memory of download and tokenize, up to a million reviews
	python -m bench.data

bench-linear: setup  ## linear models on the last run's split, beside the LSTM
	python -m bench.linear

bench-predict: setup  ## speed of `sentiment predict` beside plain forward passes, on idle and busy cores
	python -m bench.predict $(if $(MODEL),--model $(MODEL))

bench-quality: setup  ## the LSTM, with and without unlabelled reviews, beside linear models; ARCHIVE=path of the review archive
	python -m bench.quality $(ARCHIVE)

bench-train: $(VENV)/.bench  ## speed of training, time to an AUC and memory, beside other ways to train an LSTM
	python -m bench.train

bench-tune: setup  ## equal results of a search by any workers and after kills, and its cost; PARTS=default measures dvc repro without bf16
	python -m bench.tune $(if $(PARTS),--parts $(PARTS))

bench-evaluate: setup  ## time of the stage evaluate: scoring beside bare forward passes, and all of it
	python -m bench.evaluate

bench-verdict: setup  ## false and true verdicts on two models, by simulation; PARTS=null, power or flipped runs one part
	python -m bench.verdict $(if $(PARTS),--parts $(PARTS))

bench-retrain: setup  ## the gates of `sentiment retrain`: good and bad data, nothing new, kills, years without a true gain; PARTS=year runs one part
	python -m bench.retrain $(if $(PARTS),--parts $(PARTS))

bench-scale: setup-ray  ## beyond one machine: equal results, speed-up, limits; PARTS=simulated runs one part
	python -m bench.scale $(if $(PARTS),--parts $(PARTS))

bench-gpu: setup  ## reproducibility, speed and the largest useful model on a GPU; ARCHIVE=path of the review archive
	bench/gpu/run.sh --check
	ARCHIVE=$(wildcard $(ARCHIVE)) bench/gpu/pack.sh
	bench/gpu/run.sh

bench-faults: setup  ## inject 130 faults into dvc repro, such as a kill, a full disk, a stopped tracking server; at most 40 minutes
	python -m bench.faults

$(VENV)/.bench: requirements-bench.lock $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --requirement $<
	touch $@

retrain: setup  ## refresh the data, run changed stages, write reports/retrain.md
	sentiment retrain

clean: setup  ## list files in caches and stores that recent commits and searches do not need; YES=1 removes them
	sentiment clean $(if $(YES),--yes)

COMPILE := CUSTOM_COMPILE_COMMAND="make lock" pip-compile --quiet --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate

lock: setup  ## resolve pyproject.toml into the requirements*.lock files and environment.yaml
	$(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*$$/\1/' requirements.lock  # any build of that version
	$(COMPILE) --extra bench --constraint requirements.lock --output-file requirements-bench.lock pyproject.toml
	$(COMPILE) --extra ray --constraint requirements.lock --output-file requirements-ray.lock pyproject.toml
	$(COMPILE) --extra remotes --constraint requirements.lock --output-file requirements-remotes.lock pyproject.toml
	for extra in bench ray remotes; do \
		sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*$$/\1/' requirements-$$extra.lock; \
		grep -vxFf requirements.lock requirements-$$extra.lock > requirements.part; \
		mv requirements.part requirements-$$extra.lock; \
	done  # only what requirements.lock lacks
	python -m sentiment.environment  # environment.yaml, the versions that stages depend on
