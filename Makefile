# Two commands for a new user: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(shell cat requirements/*.txt pyproject.toml | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit crash sim sim-soak sim-bugs crash-soak check lint types architecture docs bench format pins clean

help:            ## Show the commands
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Make .venv with the pinned packages
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SynergyMesh needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-*; touch $@

demo: setup      ## Verify the installed Python packages for three tenants at once
	@$(BIN)/python examples/verify-packages.py

# Each core runs tests; those that measure time come afterwards, while nothing else runs.
test: setup      ## Run all tests
	@$(BIN)/python -m pytest -n logical --dist worksteal -m "not soak and not alone"
	@$(BIN)/python -m pytest -m alone

unit: setup      ## Run the quick tests
	@$(BIN)/python -m pytest -n logical --dist worksteal tests/unit

crash: setup     ## Run the tests that kill real processes
	@$(BIN)/python -m pytest tests/crash

sim: setup       ## Replay one simulated world: make sim SEED=7
	@$(BIN)/python -m synergymesh.testing.simulation replay $(or $(SEED),0)

sim-soak: setup  ## Simulate worlds from fresh seeds: make sim-soak SECONDS=60
	@$(BIN)/python -m synergymesh.testing.simulation soak $(or $(SECONDS),60)

sim-bugs: setup  ## Plant every bug into simulated worlds; renew the table in the guide
	@$(BIN)/python -m synergymesh.testing.simulation bugs docs/guides/reliability.md

crash-soak: setup ## Kill real processes more than two hundred times
	@$(BIN)/python -m pytest tests/crash -m soak

check: lint types architecture docs ## Lint, types, architecture, documentation

lint: setup      ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup     ## Check types
	@$(BIN)/mypy

architecture: setup ## Check that imports point downwards only
	@$(BIN)/lint-imports

docs: setup      ## Build the documentation site in build/site; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup     ## Run the benchmarks; figures in benchmarks/out/
	@$(BIN)/python -m benchmarks

format: setup    ## Format the source
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

pins: setup      ## Renew the pinned versions (needs uv on the PATH)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --custom-compile-command 'make pins' pyproject.toml --all-extras -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  -c requirements/run.txt pyproject.toml --all-extras --group test --group quality --group build --group bench --group docs -o requirements/dev.txt

clean:           ## Remove what the commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis benchmarks/out build dist
