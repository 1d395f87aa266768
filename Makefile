# Two commands for a newcomer: `make train` and `make test`. Both make $(VENV) and install what they need into it.

VENV ?= .venv
# The first Python of version 3.11 or later that runs.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { command -v $$p; break; }; done)
# Options for the program, e.g. make train ARGS="--data.corpus my_book.txt", and files with settings, e.g. CONFIG=configs/shakespeare.toml
ARGS ?=
CONFIG ?=

BIN = $(VENV)/bin
LOCK = $(shell "$(PYTHON)" -c 'import sys; print("requirements/py311" if sys.version_info < (3, 12) else "requirements/py312")' 2>/dev/null)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help train test quick parity browser docs lint lock clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/.train ## trains a first model on the embedded handbook (about a minute on two cores)
	$(BIN)/python -m llm_jax.train $(CONFIG) $(ARGS)

test: lint quick ## lint, types and all tests that need no torch

quick: $(VENV)/.test ## the tests alone
	$(BIN)/python -m pytest -n 2 --ignore=tests/parity --ignore=tests/browser $(ARGS)

parity: $(VENV)/.parity $(VENV)/.transformers4 ## the proof of numerical parity with torch
	$(BIN)/python -m pytest -n 2 tests/parity $(ARGS)

browser: $(VENV)/.browser ## the pages in Chromium, which must be installed (Debian: apt-get install chromium)
	$(BIN)/python -m pytest tests/browser $(ARGS)

docs: $(VENV)/.docs ## the documentation as a site in site/; a broken link is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . site

lint: $(VENV)/.test ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lock: ## makes the lock files anew (needs uv)
	for v in 311:3.11 312:3.12; do \
		f=requirements/py$${v%%:*}; \
		UV_PYTHON_DOWNLOADS=never uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
			--python-version $${v##*:} pyproject.toml requirements/build.in -o $$f.txt; \
		UV_PYTHON_DOWNLOADS=never uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
			--python-version $${v##*:} pyproject.toml requirements/build.in --extra test -c $$f.txt -o $$f-test.txt; \
	done

clean: ## removes what make has made (runs and prepared text stay)
	rm -rf $(VENV) .bare site .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python of version 3.11 or later was found; install one, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.train: $(BIN)/python $(LOCK).txt pyproject.toml
	$(PIP) --require-hashes -r $(LOCK).txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.train $(LOCK)-test.txt
	$(PIP) --require-hashes -r $(LOCK)-test.txt
	@touch $@

# Left out of the lock files, so that the machine's own build of torch (CPU or CUDA) serves.
$(VENV)/.parity: $(VENV)/.test
	$(PIP) torch==2.13.0 transformers==5.23.0 "lm-eval[hf]==0.4.13" peft==0.21.2
	@touch $@

# The generation before, for what is exported: alone in a folder, as the newer one's dependencies serve it but for two.
$(VENV)/.transformers4: $(VENV)/.parity
	$(PIP) --upgrade --no-deps --target $(VENV)/transformers4 transformers==4.57.1 huggingface-hub==0.36.0 tokenizers==0.22.2
	@touch $@

$(VENV)/.browser: $(VENV)/.test
	$(PIP) playwright==1.65.2 axe-playwright-python==0.1.8
	@touch $@

$(VENV)/.docs: $(VENV)/.train
	$(PIP) sphinx==9.0.4 myst-parser==5.0.0 furo==2025.12.19
	@touch $@
