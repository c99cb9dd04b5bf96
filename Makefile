# Every target makes and reuses .venv in this checkout, from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

.PHONY: quickstart test test-slow lint types bench docs test-versions lock clean

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

quickstart: $(READY)  ## the whole job on the embedded world: data, training, comparison, report
	$(BIN)/rediffuse quickstart --to quickstart

test: $(READY)  ## unit, theory, contract and documentation tests, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-slow: $(READY)  ## Monte-Carlo, parity with other libraries, the README as it stands
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/pyright

bench: $(READY)  ## on demand, on a quiet machine (training needs ml-1m_clean in REDIFFUSE_DATA); figures go to benchmarks/results
	$(BIN)/python -m benchmarks.reverse_chain --json benchmarks/results/reverse_chain.json
	$(BIN)/python -m benchmarks.training --json benchmarks/results/training.json
	$(BIN)/python -m benchmarks.large_rows --json benchmarks/results/large_rows.json
	$(BIN)/python -m benchmarks.import --json benchmarks/results/import.json
	$(BIN)/python -m benchmarks.draws --json benchmarks/results/draws.json
	$(BIN)/python -m benchmarks.nearest --json benchmarks/results/nearest.json

docs: $(READY)  ## regenerate the reference pages from the code
	$(BIN)/python -m docs.reference

test-versions: $(READY)  ## the lowest and the newest allowed versions, each in its own environment
	bash tests/versions.sh

lock: $(READY)  ## rewrite requirements.lock from the environment
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock

clean:
	rm -rf $(VENV) quickstart .pytest_cache .ruff_cache .hypothesis .coverage*
