# Every target sets up what it needs: the first use creates .venv.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
RECIPE ?= demo

.PHONY: run test test-all up down alarm-test arm disarm simulate bench-train bench-learn bench-generate bench-data lint

run: $(READY)  ## the whole chain on the built-in corpus
	@$(BIN)/python -m flows $(RECIPE)

test: $(READY)  ## the proof, in minutes
	$(BIN)/python -m pytest -m "not slow" --durations=12 --cov --cov-report=term:skip-covered --cov-fail-under=90

test-all: $(READY)  ## with the slow proofs
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

up: $(READY)  ## Prefect server, worker and MLflow on loopback, deployments registered
	@$(BIN)/python -m tasks.services up

down: $(READY)  ## stop what `up` started
	@$(BIN)/python -m tasks.services down

alarm-test: $(READY)  ## send a notice the way an alarm goes, and see whether it arrives
	@$(BIN)/python -m tasks.services alarm-test

arm disarm: $(READY)  ## turn the schedule of RECIPE on, or off; `up` leaves it as it is
	@$(BIN)/python -m tasks.services $@ $(RECIPE)

NIGHTS ?= 365
simulate: $(READY)  ## a year of nights of a tiny model, with every fault that a night must survive; NIGHTS=20 for a short one
	@$(BIN)/python -m benchmarks.year.simulate --nights $(NIGHTS) $(if $(FIGURE),--figure $(FIGURE))

MINIMIND ?=
NANOCHAT ?=
bench-train: $(READY)  ## the training step beside others; MINIMIND=PATH of a checkout measures that, too
	@$(BIN)/python -m benchmarks.training.train_step $(if $(MINIMIND),--minimind $(MINIMIND))

bench-learn: $(READY)  ## what is learnt in equal time, beside MINIMIND=PATH and NANOCHAT=PATH, hours
	@$(BIN)/python -m benchmarks.learning.learn $(if $(MINIMIND),--minimind $(MINIMIND)) $(if $(NANOCHAT),--nanochat $(NANOCHAT))

bench-generate: $(READY)  ## tokens a second of generation beside others; MINIMIND=PATH measures that, too
	@$(BIN)/python -m benchmarks.generation.generate $(if $(MINIMIND),--minimind $(MINIMIND))

SIZES ?= 10MB,100MB,1GB
bench-data: $(READY)  ## the data stages beside the usual way; SIZES=10GB for the largest corpus
	@$(BIN)/python -m benchmarks.data.stages --sizes $(SIZES)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first and by its exact version: any other way may bring gigabytes of accelerator packages.
$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or say make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned packages into .venv (once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$$(grep -E '^torch==' constraints.txt)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
