# make quickstart | test | check | slow | clean. Each builds .venv from nothing if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check slow clean
.DEFAULT_GOAL := test

quickstart: $(VENV)/whole
	@$(BIN)/tunesmith quickstart

# One process a core, one thread a process: a tiny model is faster on one.
test check: $(VENV)/whole
	@$(BIN)/ruff format --check --quiet . && echo "format: ok"
	@$(BIN)/ruff check --quiet . && echo "lint: ok"
	@$(BIN)/basedpyright --level error && echo "types: ok"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow"

slow: $(VENV)/whole
	@$(BIN)/pytest -q -m slow

# The stamp is the last thing made, so that a set-up that was interrupted is begun again.
$(VENV)/whole: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tunesmith needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (a minute or two)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
