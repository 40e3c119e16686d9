# The two commands are `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help run test unit crash check lint format types audit clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ –/'

run: .venv/installed node_modules ## Install what is needed and serve on port 3000, data in ./data
	@exec $(BIN)/python syncapp.py

test: .venv/installed-dev node_modules ## Install what tests need and pass them
	@$(BIN)/python tests/needs.py
	$(BIN)/python -m pytest $(ARGS)

unit: .venv/installed-dev ## The part of the tests that takes seconds
	$(BIN)/python -m pytest -m "not slow and not server" $(ARGS)

crash: .venv/installed-dev ## kill -9 under load, many rounds: make crash ROUNDS=100
	ROUNDS=$(or $(ROUNDS),100) $(BIN)/python -m pytest -s tests/test_crash.py

check: lint types test ## Everything a commit must pass

lint: .venv/installed-dev ## Lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed-dev ## Format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/installed-dev ## Type check
	$(BIN)/mypy

clean: ## Remove what was installed; data stays
	rm -rf .venv node_modules .mypy_cache .ruff_cache .hypothesis

# A folder that pip broke half way has no mark and is made again.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "syncapp needs Python 3.11 or later: make run PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "Installing what syncapp needs into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@echo "Installing what the tests need into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# Without npm the pages take the Socket.IO client from the CDN, pinned by its hash.
node_modules: package.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund && touch node_modules; \
	else echo "npm is not here: the pages will load the Socket.IO client from a CDN."; fi
