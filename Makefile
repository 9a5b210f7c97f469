# eventd: `make` alone shows what there is.
#
#   DATA=DIR  LISTEN=HOST:PORT  EVENTD_KAFKA=HOST:PORT,...   change what `make run` uses

PYTHON ?= $(shell scripts/find-python.sh)
VENV   := .venv
DATA   ?= data
LISTEN ?= 127.0.0.1:9980

.DEFAULT_GOAL := help
.PHONY: help run install test check kafka-test bench publish docs clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: $(VENV)/.installed ## install, start a broker and the daemon, deploy the demonstration
	@scripts/run.sh "$(DATA)" "$(LISTEN)"

install: $(VENV)/.installed ## make .venv with what a daemon needs

publish: ## send a message: make publish TOPIC=orders MESSAGE='{"orderId": 7}'
	@scripts/publish.sh "$(DATA)"

test: $(VENV)/.installed-tests ## everything: style, types, layers, tests, Kafka tests on each broker
	@scripts/test.sh

check: $(VENV)/.installed-tests ## style, types and layers only
	@scripts/check.sh

bench: $(VENV)/.installed-tests ## measure against the references (takes minutes)
	@scripts/debian.sh bench
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@scripts/bench.sh

docs: $(VENV)/.installed ## make the generated part of docs/
	$(VENV)/bin/eventd settings --markdown > docs/reference/settings.md
	$(VENV)/bin/python scripts/command_reference.py > docs/reference/commands.md

clean: ## remove .venv and caches; data stay
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/pip:
	@scripts/debian.sh venv $(PYTHON)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[broker]'
	@touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	@scripts/debian.sh tests
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
