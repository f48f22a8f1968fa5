.DEFAULT_GOAL := help
.PHONY: help demo airflow airflow-stop env compose-local test check soak bench bench-monitoring bench-gate \
	bench-rollout bench-retraining fmt clean
.DELETE_ON_ERROR:

BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

help:  ## list the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.lock pyproject.toml .ci/install
	@.ci/install

demo: .venv/.installed  ## run a whole real night on the flights of 2013
	@$(BIN)/nightshift demo

airflow: .venv/.installed  ## Airflow at http://localhost:8080 until Ctrl-C; LIVE=1: on flights of today
ifdef LIVE
	@$(BIN)/nightshift demo --live
	@NIGHTSHIFT_HOME=.nightshift/live NIGHTSHIFT_PROJECT=.nightshift/live/project $(BIN)/nightshift airflow
else
	@$(BIN)/nightshift demo
	@$(BIN)/nightshift airflow
endif

airflow-stop:  ## end that Airflow, with every process of it
	@$(BIN)/nightshift airflow --stop
	@test ! -d .nightshift/live || NIGHTSHIFT_HOME=.nightshift/live $(BIN)/nightshift airflow --stop

env:  ## write .env with fresh secrets for docker compose; one that is there stays
	@.ci/env

compose-local: .venv/.installed  ## run docker-compose.yml without an engine: nights, a backfill, a killed worker
	@PYTHONPATH=tests $(BIN)/python -m deploy $(ARGS)

test: .venv/.installed  ## all tests, on real parts
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not soak" --durations=20

check: .venv/.installed  ## ruff, strict mypy, import rules, Dockerfile and compose file
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile && $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

soak: .venv/.installed  ## what is too long for every push: a year's replay, kills, benches
	@$(BIN)/pytest -m soak --durations=0 --timeout=7200
	@$(BIN)/python tests/bench/bench.py --rows 1000000 --rows 10000000

bench: .venv/.installed  ## one night against a plain script, interleaved: make bench ARGS="--rows 1000000 --json"
	@$(BIN)/python tests/bench/bench.py $(ARGS)

bench-monitoring: .venv/.installed  ## planted faults against the usual rules: make bench-monitoring ARGS="--half tuning"
	@$(BIN)/nightshift demo --json > /dev/null
	@PYTHONPATH=tests $(BIN)/python -m bench.monitoring $(ARGS)

bench-rollout: .venv/.installed  ## A/A tests and planted bad canaries, simulated: make bench-rollout ARGS="--tests 2000"
	@PYTHONPATH=tests $(BIN)/python -m bench.rollout $(ARGS)

bench-gate: .venv/.installed  ## planted challengers: what the gate says of each: make bench-gate ARGS="--runs 1000 --json"
	@PYTHONPATH=tests $(BIN)/python -m bench.gate $(ARGS)

bench-retraining: .venv/.installed  ## a year of monthly retraining: frozen, always and gated champions, in money
	@PYTHONPATH=tests $(BIN)/python -m bench.retraining $(ARGS)

fmt: .venv/.installed  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## stop the embedded servers and remove the state of this clone
	@test ! -x $(BIN)/nightshift || $(MAKE) -s airflow-stop
	@test ! -x $(BIN)/nightshift || $(BIN)/nightshift down
	@test ! -x $(BIN)/nightshift -o ! -d .nightshift/live || NIGHTSHIFT_HOME=.nightshift/live $(BIN)/nightshift down
	@rm -rf .nightshift
