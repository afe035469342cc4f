# Every target is a thin call of one command; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GROUPS := core service pipeline orchestration tracking report load operator cluster lab ci
export FLIGHTDECK_STATE ?= $(CURDIR)/.flightdeck
# An owner's name may have capitals, an image's may not.
ifdef REGISTRY
override REGISTRY := $(shell printf %s "$$REGISTRY" | tr A-Z a-z)
endif
# No part reports home.
export DO_NOT_TRACK := 1
export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true
export FEAST_USAGE := False
export ORT_DISABLE_TELEMETRY := 1

UV := $(BIN)/python -m uv
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q

.PHONY: $(shell sed -nE 's/^([a-z][a-z0-9-]*):.*/\1/p' $(firstword $(MAKEFILE_LIST)))  # every target

help: ## List the targets.
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | sort | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

# One environment for the lab; the tests' environment is the same one plus the tools. A stamp per lock: nothing is reinstalled in vain.
$(VENV)/.uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else f"Flightdeck needs Python 3.11 to 3.13, found {sys.version.split()[0]}; try: make PYTHON=python3.11 <target>")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null  # uv's sync removes pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.lab: requirements/lab.txt pyproject.toml $(VENV)/.uv
	@echo "Installing the lab's packages into $(VENV) (once; about 2 GB with everything) ..."
	@test -e $(VENV)/.dev || $(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/lab.txt requirements/uv.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.uv
	@echo "Installing the packages of the lab and of the tests into $(VENV) (once) ..."
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt requirements/uv.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.lab

# Small: what drives kubectl and docker. Both larger environments contain it.
$(VENV)/.cluster: requirements/cluster.txt pyproject.toml $(VENV)/.uv
	@test -e $(VENV)/.lab || $(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/cluster.txt requirements/uv.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# An environment outside of the checkout serves one checkout after another (`make act`): each links itself into it once.
ifneq ($(VENV),.venv)
LINKED := $(FLIGHTDECK_STATE)/linked
export PYTHONPATH := $(CURDIR)
$(LINKED): $(VENV)/.dev
	@mkdir -p $(@D)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
endif

setup: $(VENV)/.lab $(LINKED) ## Install what the lab needs into .venv.

setup-dev: $(VENV)/.dev $(LINKED) ## Install what the tests and the checks need as well.

lab: setup ## The main job: raw flights to a served model, with a report. Nothing is left running.
	@$(BIN)/flightdeck lab run

lab-up: setup ## The main job, then leave it running and print every address.
	@$(BIN)/flightdeck lab up

lab-down: setup ## Stop what lab-up left running.
	@$(BIN)/flightdeck lab down

lab-status: setup ## Tell what runs, where, and how it is.
	@$(BIN)/flightdeck lab status

lab-faults: setup ## Roll out planted faults under live traffic, after a `make lab`; at most 12 minutes.
	@$(BIN)/flightdeck lab faults

up: $(VENV)/.cluster ## Kubernetes: from the current context, or a kind cluster of its own, to a champion behind a Gateway.
	@$(BIN)/flightdeck cluster up $(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(OVERLAY),--overlay $(OVERLAY)) $(UP_ARGS)

down: $(VENV)/.cluster ## Take away what `make up` made.
	@$(BIN)/flightdeck cluster down $(UP_ARGS)

status: $(VENV)/.cluster ## Each part on the cluster, and what is wrong with those that are not ready.
	@$(BIN)/flightdeck cluster status

backup: $(VENV)/.cluster ## Databases and buckets of the cluster into a folder; BACKUP_ARGS="--to FOLDER" and more.
	@$(BIN)/flightdeck cluster backup $(BACKUP_ARGS)

restore: $(VENV)/.cluster ## Bring a backup back: make restore FROM=folder; RESTORE_ARGS=--replace where something is.
	@test -n "$(FROM)" || { echo "which backup? make restore FROM=folder; there are: $$(ls -d $(FLIGHTDECK_STATE)/backups/* 2>/dev/null | tr '\n' ' ')" >&2; exit 2; }
	@$(BIN)/flightdeck cluster restore "$(FROM)" $(RESTORE_ARGS)

crd: $(VENV)/.cluster ## Write k8s/crds/modelrollouts.yaml from the types.
	@$(BIN)/flightdeck rollout crd > k8s/crds/modelrollouts.yaml

load: setup ## Real requests at a constant rate through the Gateway; LOAD_ARGS="--rate 50 --seconds 60 --job" and more.
	@$(BIN)/flightdeck load $(LOAD_ARGS)

e2e: setup-dev ## The cluster's tests on the current context, after `make up`: serving, deploys, flows, five faults, three rollouts; about 10 minutes.
	@$(BIN)/python -m pytest -n0 -rs -m "not exhaustive" $(PYTEST_ARGS) tests/e2e

e2e-all: setup-dev ## Every cluster test, every fault and rollout; about an hour, the tables go to .flightdeck/e2e.md.
	@$(BIN)/python -m pytest -n0 -rs $(PYTEST_ARGS) tests/e2e

test: setup-dev check ## Every check and every test that needs no cluster.
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term --durations=10 -m "not exhaustive" $(PYTEST_ARGS) --ignore=tests/e2e tests

GATES := check data features models manifests images integration

ci: setup-dev ## The gates that the change since FLIGHTDECK_BASE needs, in the workflow's order, for machines without act; then the report.
	@failed=; needs=$$(mktemp); GITHUB_OUTPUT=$$needs $(MAKE) --no-print-directory ci-changes; \
	needed() { ! grep -q "^$$1=false" $$needs; }; \
	for gate in $(GATES); do needed $$gate || continue; $(MAKE) --no-print-directory ci-$$gate || failed="$$failed $$gate"; done; \
	if ! needed e2e; then :; elif [ -z "$$failed" ]; then $(MAKE) --no-print-directory ci-e2e || failed=" e2e"; else echo "NOT RUN: ci-e2e, since these are red:$$failed" >&2; fi; \
	rm -f $$needs; $(MAKE) --no-print-directory ci-report; \
	test -z "$$failed" || { echo "ci: refused by:$$failed; each said above what to do" >&2; exit 1; }

ci-check: setup-dev ## Gate: lint, types, import rules, workflows, pages, unit and contract tests.
	@$(BIN)/python -m flightdeck.cli ci check

ci-integration: setup-dev ## Gate: tests with local processes and models, planted failures, and the main job.
	@$(BIN)/python -m flightdeck.cli ci integration

ci-e2e: setup-dev ## Gate: make up, make e2e and make down in a kind cluster.
	@$(BIN)/python -m flightdeck.cli ci e2e

ci-changes: ## Which jobs this change needs; needs no packages.
	@$(PYTHON) -B -m flightdeck.delivery.changes

ci-verdict: ## May this change go in? From the results of all jobs; needs no packages.
	@$(PYTHON) -B -m flightdeck.delivery.verdict

ci-report: $(VENV)/.cluster ## The pull request's comment, from what the gates kept.
	@$(BIN)/python -m flightdeck.cli ci report

ci-passed: $(VENV)/.cluster ## Wait for CI's word on this commit; nothing is deployed without it.
	@$(BIN)/python -m flightdeck.cli ci passed

ci-sign: $(VENV)/.cluster ## Sign the pushed images with GitHub's identity, and tell what to attest.
	@$(BIN)/python -m flightdeck.cli ci sign

ci-release: $(VENV)/.cluster ## Files of a release: notes, every overlay rendered with digests, checksums; GITHUB_REF_NAME=v1.2.3.
	@$(BIN)/python -m flightdeck.cli ci release

workflows: setup-dev ## The workflows' own checks: actionlint and zizmor.
	@if command -v go >/dev/null; then go -C requirements/actionlint tool actionlint -shellcheck= -pyflakes= $(CURDIR)/.github/workflows/*.yml; \
	else echo "NOT RUN: actionlint, since go is not on the PATH" >&2; fi
	@$(BIN)/zizmor --offline --no-progress --quiet .github

act: ## Run a workflow on this machine, every step for real: make act WORKFLOW=ci.yml; ACT_ARGS="--event workflow_dispatch".
	@$(PYTHON) -B -m flightdeck.delivery.act $(or $(WORKFLOW),ci.yml) $(ACT_ARGS)

# The gates that a push must pass, each alone as CI runs it; docs/gates.md says what each refuses.
ci-data: setup-dev ## The lake's checks over the committed sample and the source's newest days; a note on drift.
	@$(BIN)/python -m flightdeck.cli ci data

ci-features: setup-dev ## The feature definitions against the registry of what serves; FLIGHTDECK_LABELS=features:destructive.
	@$(BIN)/python -m flightdeck.cli ci features

ci-models: setup-dev ## Train each spec without search, judge it by every gate and behaviour test, compare it with what serves.
	@$(BIN)/python -m flightdeck.cli ci models $(CI_MODELS_ARGS)

ci-images: setup-dev ## Gate: build every image, weigh it, list and look up what is in it, start it shut in; NAMES="predictor mlflow" for some.
	@$(BIN)/flightdeck ci images $$NAMES

ci-manifests: setup-dev ## Gate: render every overlay, hold it to schemas and rules, lint every rollout plan, check the alert rules.
	@$(BIN)/flightdeck ci manifests

# What a caller gives reaches the shell as variables, never as text of a command.
images: $(VENV)/.cluster ## Build and push every image; digests stay in the state folder: make images REGISTRY=ghcr.io/acme/flightdeck
	@test -n "$$REGISTRY" || { echo "which registry? make images REGISTRY=localhost:5001/flightdeck" >&2; exit 2; }
	@$(BIN)/flightdeck images build
	@$(BIN)/flightdeck images push --registry "$$REGISTRY"

deliver: setup ## This commit to the users of one environment: make deliver ENVIRONMENT=dev; also DIGESTS=file, CLUSTER=kind, OVERLAY=, DELIVER_ARGS=.
	@$(BIN)/flightdeck deliver --environment "$${ENVIRONMENT:-dev}" $${DIGESTS:+--digests "$$DIGESTS"} $${CLUSTER:+--cluster "$$CLUSTER"} $${OVERLAY:+--overlay "$$OVERLAY"} $(DELIVER_ARGS)

train: $(VENV)/.cluster ## Train a model in an environment and follow its gate: make train ENVIRONMENT=dev SPEC=late; also TRAIN_ARGS="--month 2013-06".
	@test -n "$$SPEC" || { echo "which model? make train SPEC=late" >&2; exit 2; }
	@FLIGHTDECK_ENVIRONMENT="$${ENVIRONMENT:-dev}" $(BIN)/flightdeck pipeline run "train_$${SPEC//-/_}" $(TRAIN_ARGS)

git-remote: $(VENV)/.cluster ## A local remote: `git push flightdeck main` is tested, then deployed; REMOTE=/path/name.git for its place.
	@$(BIN)/flightdeck git-remote $(if $(REMOTE),--path "$(REMOTE)")

check: lint types imports ## Lint, types and import rules.

lint: setup-dev ## Style and common errors.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup-dev ## Strict types.
	@$(BIN)/mypy

imports: setup-dev ## The one-direction rule between the parts.
	@$(BIN)/lint-imports --no-logo

format: setup-dev ## Write the code in the project's style.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: bench-data bench-features bench-training bench-serving ## Every speed figure, as ratios or limits.

bench-data: setup-dev ## A year of flights through the checks into Delta.
	@$(BIN)/python benchmarks/bench_data.py

bench-features: setup-dev ## Half a year of features and the point-in-time join.
	@$(BIN)/python benchmarks/bench_features.py

bench-training: setup-dev ## Training without search.
	@$(BIN)/python benchmarks/bench_training.py

bench-quality: setup-dev ## AUC and calibration of the shipped spec on July and October, against the reference.
	@$(BIN)/python benchmarks/bench_quality.py

bench-serving: setup-dev ## The predictor beside a hand-written service and the stock one.
	@$(BIN)/python benchmarks/bench_serving.py

bench-operator: setup-dev ## One rollout operator with 1,000 ModelRollouts before a real API server, in a kind cluster of its own; a quarter of an hour.
	@$(BIN)/python benchmarks/bench_operator.py

judge-bench: setup-dev ## How often the judge errs, and after how many requests, beside two common ways; some minutes.
	@$(BIN)/python benchmarks/judge_bench.py
	@$(BIN)/python benchmarks/slices_bench.py

lock: $(VENV)/.uv ## Refresh every lock from pyproject.toml (needs the package registry).
	$(COMPILE) --group dev --upgrade -o requirements/dev.txt
	@set -e; for group in $(GROUPS); do echo "lock $$group"; $(COMPILE) --group $$group -c requirements/dev.txt -o requirements/$$group.txt; done
	$(COMPILE) --upgrade requirements/uv.in -o requirements/uv.txt

clean: ## Remove the state folder but for backups; the environment stays.
	@! test -e "$(FLIGHTDECK_STATE)/cluster.json" || { echo "$(FLIGHTDECK_STATE)/cluster.json knows what \`make up\` made: run \`make down\` first" >&2; exit 1; }
	@! test -d "$(FLIGHTDECK_STATE)" || find "$(FLIGHTDECK_STATE)" -mindepth 1 -maxdepth 1 ! -name backups -exec rm -rf {} +
