# make run      the default experiment: environment, base models, reward models, 54 runs, report
# make test     the test suite, with coverage
# make check    formatting, types, and every published verdict rebuilt from its runs
# make claims   every experiment of the embedded world, every claim decided (two and a half hours)
# TORCH may name any other build, as in: make run TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
BIN := .venv/bin

.PHONY: run test check claims benchmarks help clean
.DEFAULT_GOAL := help

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z.]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is handed on, as in: make run ARGS="plan=only"'

run: .venv/run ## the default experiment and its report (10 to 14 minutes on 2 cores, environment included)
	@$(BIN)/python -m experiments.run experiment=quickstart $(ARGS)

claims: .venv/run ## every experiment of the embedded world, every claim decided (two and a half hours on 2 shared cores)
	@$(BIN)/python -m experiments.campaign $(ARGS)

test: .venv/dev ## the tests, with coverage
	@OMP_NUM_THREADS=1 $(BIN)/python -m slipcover -m pytest -n 2 --dist loadgroup $(ARGS)

check: .venv/dev ## style, types, published verdicts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy curate train experiments
	@$(BIN)/python -m experiments.claims check results
	@$(BIN)/python -m experiments.evidence check results

benchmarks: .venv/dev ## measured speed against the obvious alternatives
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean: ## remove the environment; results and runs stay
	rm -rf .venv build *.egg-info

.venv: .venv/dev ## the environment

# The first run is to be short: hence two stamps, tests and linters being installed when they are asked for, and files
# that Python compiles when it imports them, most of them never, instead of pip all 17,000.
# So Python must be allowed to keep what it compiled: or every process compiles PyTorch and the rest again, for some
# 20 seconds.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install -q --no-compile --disable-pip-version-check
.venv/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing (once, about a minute)"
	@$(PIP) $(TORCH)
	@$(PIP) -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/run
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
