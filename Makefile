# Each target sets up what it needs; PYTHON picks the interpreter that makes the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOG ?= local
BENCH ?=
WORKERS ?= 2
COVERED := */headwater/contracts/*,*/headwater/core/*,*/headwater/durable/*,*/headwater/runs/*,*/headwater/intake/*,*/headwater/admission/*,*/headwater/approvals/*,*/runtime/aside.py,*/runtime/bisecting.py,*/runtime/cold.py,*/runtime/committing.py,*/runtime/deciding.py,*/runtime/owned.py,*/runtime/values.py,*/runtime/restoring.py,*/runtime/table.py,*/runtime/taking.py,*/runtime/timers.py
SEEDS ?= 5000
HOURS ?=
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test cover check fix bench simulate seeds planted controls chaos recovery kill-test probe broker clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("headwater needs Python 3.11 or later, this is " + sys.version.split()[0] + ": name one with make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY) ## Run the customer desk; LOG=kafka runs it as processes on a real Kafka
	$(BIN)/python -m examples.desk.demo --log $(LOG)

test: $(READY) ## Run every test, a real Kafka included
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

cover: $(READY) ## Hold contracts, core, durable, runs and the commit path to every branch
	$(BIN)/coverage run --branch -m pytest -q tests/unit/core tests/unit/runs tests/unit/runtime tests/unit/durable tests/unit/intake tests/unit/admission tests/unit/approvals tests/contracts
	$(BIN)/coverage report --skip-covered --show-missing --fail-under=100 --include '$(COVERED)'

check: $(READY) ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY) ## Repair what lint and format can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Print `NAME median ratio R` for each question; BENCH=hop asks one
	$(BIN)/python -m benchmarks $(BENCH)

simulate: $(READY) ## Play SEEDS (5,000) simulated histories on all cores, or HOURS=1 of them
	$(BIN)/python -m headwater.testing.simulator --seeds $(SEEDS) $(if $(HOURS),--hours $(HOURS))

seeds: simulate ## The same

planted: $(READY) ## Plant bugs one at a time, and say at which of 2,000 seeds each is found
	$(BIN)/python -m headwater.testing.simulator --planted

controls: $(READY) ## Take protections out, and say in how many of 200 stormy histories each is missed
	$(BIN)/python -m headwater.testing.simulator --controls

chaos: $(READY) ## Run the matrix of faults on a real Kafka; CELL= MESSAGES= SEEDS_A_CELL= OUT= RESUME=1
	@command -v ip >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -q iproute2; } || echo "no network namespaces here: the table says so"
	$(BIN)/python -m tests.chaos $(if $(CELL),--cell $(CELL)) $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(SEEDS_A_CELL),--seeds $(SEEDS_A_CELL)) $(if $(OUT),--out $(OUT)) $(if $(RESUME),--resume)

recovery: $(READY) ## Print how long partitions stand still when their worker is killed, and what restoring costs
	$(BIN)/python -m tests.chaos.recovery
	$(BIN)/python -m benchmarks restore

kill-test: $(READY) ## Kill workers in the middle of 100 slow model calls and 100 irreversible ones
	KILL_FULL=1 $(BIN)/python -m pytest -q tests/kill

probe: $(READY) ## Ask a broker the six exactly-once questions
	$(BIN)/headwater doctor --probe

broker: $(READY) ## Start a local Kafka
	$(BIN)/headwater broker start

clean: ## Remove what the targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov dist build
