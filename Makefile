# make demo | test | check | fix | bench BENCH=name | seeds | broker | clean; each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOG ?= local
BENCH ?=
WORKERS ?= 2

.PHONY: help demo test check fix bench seeds broker clean

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY) ## Run the customer desk; LOG=kafka for processes on a real Kafka
	$(BIN)/python -m examples.desk.demo --log $(LOG)

test: $(READY) ## Run every test, a real Kafka included
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

check: $(READY) ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY) ## Repair what lint can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Print NAME median ratio R for each question, or for BENCH alone
	$(BIN)/python -m benchmarks $(BENCH)

seeds: $(READY) ## Run 5,000 simulated seeds
	$(BIN)/python -m headwater.testing.seeded --seeds 5000

broker: $(READY) ## Start a local Kafka
	$(BIN)/headwater broker start

clean: ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* htmlcov dist build
