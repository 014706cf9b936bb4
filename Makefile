# Everything from a clean checkout: `make demo`, `make test`. Needs Python 3.11; `make help` lists the rest.
#   TORCH=cpu (default) or cuda      PYTHON=python3.11      BASKETWEAVE_… settings: docs/settings.md
SHELL := /bin/bash
TORCH ?= cpu
PYTHON ?= python3.11
DATA ?= $(or $(BASKETWEAVE_DATA),../shared/data)
export TORCH PYTHON
export DGLBACKEND = pytorch
# Two processes, a file of tests to whichever is free.
SIDE_BY_SIDE = --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Without bytecode every start compiles its libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-rollout test test-slow test-all lint chart-check dashboards-check airflow stop lock clean \
	bench-quality bench-training bench-ablation bench-simulate bench-gates bench-serving bench-drift

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

venv: ## build .venv from locks/$(TORCH).txt, unless it is there
	@locks/install.sh

demo: venv ## a year of grocery purchases, from the log to a live recommendation service
	@.venv/bin/basketweave run

demo-rollout: venv ## on a simulated shop: one model promoted by canary, one refused by the gate, one taken back
	@.venv/bin/python -m benchmarks.rollout

test: venv ## the test suite
	@.venv/bin/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-slow: venv ## the slow tests alone: real services, faults, a browser
	@.venv/bin/python -m pytest -m slow $(SIDE_BY_SIDE)

test-all: test test-slow ## both

lint: venv ## ruff, mypy and the import contracts
	@.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports

chart-check: venv ## the charts by the real Helm: lint, schemas of eight Kubernetes versions, policies, rules
	@.venv/bin/python -m charts.check

dashboards-check: venv ## every panel, rule and runbook against real Prometheus programs
	@.venv/bin/python -m pytest tests/charts/test_dashboards.py tests/charts/test_alerts.py tests/metrics

bench-quality: venv ## the recommender on published splits in BASKETWEAVE_DATA (../shared/data) and in rolling months
	@for name in gowalla lastfm_social; do .venv/bin/python -m benchmarks.quality --seeds 3 \
		--train "$(DATA)/$$name/train.txt" --test "$(DATA)/$$name/test.txt" || exit 1; done
	@.venv/bin/python -m benchmarks.quality.beauty --seeds 3 --data "$(DATA)/beauty"
	@.venv/bin/python -m benchmarks.quality.rolling_months --seeds 3

bench-training: venv ## what training and evaluation cost, beside peers from PyPI in an environment of their own
	@.venv/bin/python -m benchmarks.training

bench-ablation: venv ## what each encoder, option and term of the score is worth, on groceries and on LastFM
	@.venv/bin/python -m benchmarks.ablation

bench-gates: venv ## does the gate let equals pass, and catch what is planted?
	@.venv/bin/python -m benchmarks.gates

bench-serving: venv ## the service beside a bare handler doing the same arithmetic, in one run
	@.venv/bin/python -m benchmarks.serving

bench-drift: venv ## false alarms in quiet windows, and how soon planted drift is seen
	@.venv/bin/python -m benchmarks.drift

bench-simulate: venv ## how fast the simulator writes, and how alike its log is to the demo log
	@.venv/bin/python -m benchmarks.simulate

airflow: venv ## the scheduler and its web page on loopback, with the DAGs on schedule
	@.venv/bin/basketweave airflow

stop: ## end what make demo and make airflow started
	@if [ -x .venv/bin/basketweave ]; then .venv/bin/basketweave stop; fi

lock: ## write locks/*.txt anew (needs uv; UPGRADE=1 takes the newest)
	@locks/lock.sh $(if $(UPGRADE),--upgrade)

clean: stop ## delete .venv and all that runs left; the next make starts afresh
	rm -rf .venv components/model/*.so .basketweave .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
