# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test bench lint clean

demo: $(VENV)/installed          ## run the main job on SQLite, print its tables, write a timeline
	$(BIN)/gwf demo --out demo

test: $(VENV)/installed-test lint ## run everything on SQLite, MariaDB and MySQL
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=60 \
	  --nbval-sanitize-with notebooks/sanitize.cfg notebooks

lint: $(VENV)/installed-test
	$(BIN)/ruff check gwf tests migrations
	$(BIN)/ruff format --check gwf tests migrations
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-test .venv-dbos/installed .venv-prefect/installed ## measure side by side
	cd tests && ../$(BIN)/python -m benchmarks

# What is compared needs other versions of the same packages, so each lives by itself.
.venv-%/installed:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip --disable-pip-version-check --quiet install $*
	touch $@

$(VENV)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed tests/servers/install.sh
	bash tests/servers/install.sh > $(VENV)/servers.log 2>&1 || { cat $(VENV)/servers.log; exit 1; }
	$(PIP) install --constraint constraints.txt --editable . --group test
	touch $@

clean:
	rm -rf $(VENV) .venv-dbos .venv-prefect demo dist build
