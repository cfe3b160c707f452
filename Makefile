# What there is to do: quick, test, test-slow, test-ray, test-lowest, format, bench, results. Each sets up .venv first; nothing else needs to be installed but Python 3.11+.

PYTHON ?= python3
BIN := .venv/bin
# Worker processes have one thread each; so do the tests, which run side by side.
export OMP_NUM_THREADS := 1

.PHONY: quick test test-slow test-ray test-lowest format bench results constraints clean

quick: .venv/installed
	$(BIN)/sensitometer run quick --out surveys/quick
	$(BIN)/sensitometer figures surveys/quick

# Each process begins with a half of the tests, file by file, so that what a file sets up once is seldom set up twice.
test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist worksteal

test-slow: .venv/installed-dev
	$(BIN)/pytest -n auto --dist worksteal -m slow

# On one machine, in one process: its clusters have nodes enough to keep it busy.
test-ray: .venv/installed-ray
	$(BIN)/pytest -m ray

# With the lowest versions that pyproject.toml declares, torch aside; they warn of much that newer ones have changed.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/pytest -n auto --dist worksteal -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning \
	-W ignore::FutureWarning -W ignore::UserWarning

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# That of slices needs regioncam, which is no requirement of the development.
bench: .venv/installed-dev
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/jacobian.py
	$(BIN)/python benchmarks/transitions.py
	$(BIN)/python benchmarks/measures.py
	@if $(BIN)/pip show --quiet regioncam 2>/dev/null; then $(BIN)/python benchmarks/slices.py; \
	else echo "benchmarks/slices.py is left out: it needs regioncam, and says how to install it"; fi
	$(BIN)/python benchmarks/survey.py

# Trains only the surveys that are not in docs/results.
results: .venv/installed
	$(BIN)/python docs/make_results.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@ .venv/installed

.venv/installed-ray: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,ray]'
	@touch $@ .venv/installed-dev .venv/installed

.venv-lowest/installed: pyproject.toml constraints.txt tests/lowest_versions.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python tests/lowest_versions.py > .venv-lowest/lowest.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/lowest.txt --editable '.[dev]'
	@touch $@

constraints: .venv/installed-ray
	{ echo "# Every package at the version that the tests ran with; 'make constraints' writes this file."; \
	  $(BIN)/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .venv-lowest .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
