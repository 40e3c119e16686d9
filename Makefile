# The two commands are `make run` and `make test`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
# Temporary files in memory where there is a folder for it; random input with half of the examples of make test.
UNIT_TESTS := $(if $(wildcard /dev/shm/.),TMPDIR=/dev/shm) FUZZ_EXAMPLES=10 $(BIN)/python -m pytest -m "not slow and not server"
AMONG = -q -o console_output_style=classic --among=$(TAKEN)
# Pins are complete, so that nothing is resolved, and most of what is installed for tests is never imported, nor compiled.
PINNED = install --quiet --disable-pip-version-check --no-deps --no-compile
TOGETHER = TAKEN=$$(mktemp -d) $(MAKE) --no-print-directory -k -Otarget
unexport PYTHONDONTWRITEBYTECODE # Else each test run, server and command compiles everything again.
# With ENGINE=postgres or ENGINE=pgbouncer the tests run on that (tests/postgres.py).
ifdef ENGINE
export SYNCAPP_TEST_ENGINE := $(ENGINE)
endif
.DEFAULT_GOAL := help
.PHONY: help run test ready programs on-postgres part-1 part-2 part-3 part-4 unit unit-1 unit-2 unit-3 crash clients js-client kit chaos check lint format types audit bench bench-quick clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ –/'

run: .venv/installed node_modules ## Install what is needed and serve on port 3000, data in ./data
	@exec $(BIN)/python syncapp.py

test: ## Install what tests need and pass them; with ARGS these tests only
	@$(MAKE) --no-print-directory -j4 ready
	@$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(TOGETHER) -j4 clients $(if $(ENGINE),,on-postgres) part-1 part-2 part-3 part-4)

# Each waits for a server elsewhere, so they are fetched side by side. npm may be among the programs.
ready: .venv/installed-dev .venv-s3/installed programs
programs:
	@$(PYTHON) tests/needs.py
	@$(MAKE) --no-print-directory node_modules clients/js/node_modules

# Four at a time, since much of a test is waiting; each takes the next module that none has, and prints when it ends.
part-1 part-2 part-3 part-4: .venv/installed-dev
	$(BIN)/python -m pytest $(AMONG)

# Of what ENGINE=postgres runs, what is most about isolation, repeats and what devices have seen: 22 s of CPU time.
on-postgres: .venv/installed-dev
	SYNCAPP_TEST_ENGINE=postgres $(BIN)/python -m pytest -q -o console_output_style=classic \
		tests/system/test_isolation.py tests/storage/test_idempotency.py tests/storage/test_seen_rows.py

# Apart from the others: in their process threads and SQLite are not what they are on a device (tests/conftest.py).
clients: .venv/installed-dev ## The part of the tests that is about the Python client
	cd clients/python && ../../$(BIN)/python -m pytest $(ARGS)

js-client: clients/js/node_modules ## Pack the JavaScript client, to be installed into an app (clients/js/README.md)
	@cd clients/js && npm pack --silent

# Takes URL, DRIVER, ONLY, SEED, STORIES, EMAIL and PASSWORD.
kit: .venv/installed-dev ## Hold a client, or a deployment, to the scenario suite: make kit URL=… (tests/kit/README.md)
	@PYTHONPATH=clients/python/src $(BIN)/python -m tests.kit

unit: .venv/installed-dev ## The part of the tests that takes seconds
	@$(if $(ARGS),$(UNIT_TESTS) $(ARGS),$(TOGETHER) -j3 unit-1 unit-2 unit-3)

unit-1 unit-2 unit-3: .venv/installed-dev
	$(UNIT_TESTS) $(AMONG)

crash: .venv/installed-dev ## kill -9 under load, many rounds: make crash ROUNDS=100
	ROUNDS=$(or $(ROUNDS),100) $(BIN)/python -m pytest -s tests/system/test_crash.py

chaos: .venv/installed-dev ## Processes, PostgreSQL, Redis and networks fail under load, many rounds: make chaos ROUNDS=100
	ROUNDS=$(or $(ROUNDS),100) $(BIN)/python -m pytest -s tests/system/test_chaos.py

check: lint types audit test ## Everything a commit must pass

lint: .venv/installed-dev ## Lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed-dev ## Format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/installed-dev ## Type check
	$(BIN)/mypy
	cd clients/python && ../../$(BIN)/mypy

bench: .venv/installed bench/peer/node_modules ## Measure against a Node server, in turn; takes half an hour (bench/README.md)
	@node bench/run.mjs $(ARGS)

bench-quick: .venv/installed bench/peer/node_modules ## The same in less than three minutes, smaller and noisier
	@node bench/run.mjs --quick $(ARGS)

audit: .venv-audit/installed ## Hold the pins against the known vulnerabilities
	@.venv-audit/bin/python tests/audit.py

clean: ## Remove what was installed; data stays
	rm -rf .venv .venv-audit .venv-s3 node_modules clients/js/node_modules bench/peer/node_modules .mypy_cache .ruff_cache .hypothesis

# A folder that pip broke half way has no mark and is made again.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "syncapp needs Python 3.11 or later: make run PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "Installing what syncapp needs into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	@echo "Installing what the tests need into .venv ..."
	@$(BIN)/pip $(PINNED) -r requirements-dev.txt
	@touch $@

.venv-s3/installed: requirements-s3.txt | .venv/installed
	@$(PYTHON) -m venv --without-pip .venv-s3
	@$(BIN)/pip --python .venv-s3/bin/python $(PINNED) -r requirements-s3.txt
	@touch $@

.venv-audit/installed: requirements-audit.txt
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/pip $(PINNED) -r requirements-audit.txt
	@touch $@

# Without npm the pages take the Socket.IO client from the CDN, pinned by its hash.
node_modules: package.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund && touch node_modules; \
	else echo "npm is not here: the pages will load the Socket.IO client from a CDN."; fi

# The libraries that the JavaScript client is tested with; 160 MB, which npm installs in 15 to 20 s.
clients/js/node_modules: clients/js/package-lock.json
	@if command -v npm >/dev/null; then cd clients/js && npm ci --silent --no-audit --no-fund && touch node_modules; \
	else echo "npm is not here: the JavaScript client is not tested."; fi

# better-sqlite3 is compiled if there is no binary of it for this Node: a minute or two, once.
bench/peer/node_modules: bench/peer/package-lock.json
	@cd bench/peer && npm ci --silent --no-audit --no-fund && touch node_modules
