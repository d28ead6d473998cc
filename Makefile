# `make` lists the targets. Everything runs from .venv, which deploy/bootstrap makes and keeps current.

.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PYTHON_SOURCES := shared services tests deploy
PYTEST_ARGUMENTS ?=
FILE ?= README.md

.PHONY: help bootstrap up down demo test test-integration test-whole test-hosts test-rest test-unit lint bench fuzz lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

bootstrap: ## install what is missing, make .venv
	@deploy/bootstrap $(PURPOSE)

test test-unit bench: PURPOSE = tests

up: bootstrap ## start PostgreSQL, RabbitMQ and both workers in the background; then `. .local/env`
	@.venv/bin/python -m deploy.local up

down: ## end exactly what `make up` started; its data stays
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m deploy.local down; fi

demo: up ## the whole story on FILE (default: README.md): escrow a key, lose everything, get it back
	@. .local/env && python -m deploy.local.demo .local "$(FILE)"

# Two parts at once, the longest first, each with servers of its own: most tests wait for these.
test: lint ## everything: unit, integration, end to end, faults, against real servers
	@.venv/bin/coverage erase
	@$(MAKE) --no-print-directory --keep-going --jobs 2 test-integration test-whole test-rest test-hosts
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

PYTEST = .venv/bin/coverage run -m pytest $(PYTEST_ARGUMENTS)
# With arguments of your own a part may have nothing to do, which is pytest's exit code 5.
NOTHING_TO_DO = || [ $$? -eq 5 -a -n "$(PYTEST_ARGUMENTS)" ]
INTEGRATION = tests/integration
WHOLE = tests/attacks tests/e2e tests/faults
HOSTS = tests/unit/agent tests/unit/audit tests/unit/cli
REST = tests $(foreach folder,$(INTEGRATION) $(WHOLE) $(HOSTS),--ignore $(folder))

test-integration test-whole test-hosts test-rest: SHELL = /bin/bash -o pipefail

test-integration: TESTS = $(INTEGRATION)
test-whole: TESTS = $(WHOLE)
test-hosts: TESTS = $(HOSTS)
test-rest: TESTS = $(REST)

test-integration test-whole test-hosts test-rest:
	@{ $(PYTEST) $(TESTS) $(NOTHING_TO_DO); } |& sed --unbuffered 's/^/$(@:test-%=%)  /'

test-unit: bootstrap ## only the tests that need no server
	@.venv/bin/pytest tests/unit $(PYTEST_ARGUMENTS)

lint: bootstrap ## ruff, mypy, import contracts
	@.venv/bin/ruff check $(PYTHON_SOURCES)
	@.venv/bin/ruff format --check $(PYTHON_SOURCES)
	@.venv/bin/mypy
	@.venv/bin/lint-imports

bench: bootstrap ## measure speed and memory against real servers
	@.venv/bin/pytest tests/benchmarks -s -o python_files="bench_*.py" -o python_functions="bench_*" -o timeout=1800 $(PYTEST_ARGUMENTS)

FUZZ_SECONDS ?= 30

fuzz: bootstrap ## feed every parser of foreign bytes with what atheris makes of it, FUZZ_SECONDS each
	@.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --requirement requirements-fuzz.txt
	@PYTHONPATH=shared:services:. .venv/bin/python -m tests.fuzz.run all --seconds $(FUZZ_SECONDS) --folder .local/fuzz

lock: bootstrap ## write requirements*.txt from pyproject.toml; LOCK=--upgrade takes the newest versions
	@deploy/lock $(LOCK)

clean: ## end the local stack and delete its data, .venv and everything built
	@if [ -x .venv/bin/python ]; then .venv/bin/python -m deploy.local down --purge; fi
	@rm -rf .local .venv dist build htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find $(PYTHON_SOURCES) -name __pycache__ -type d -exec rm -rf {} +
