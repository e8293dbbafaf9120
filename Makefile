# `make demo` and `make test` do all set-up on a machine with Python 3.11, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Where Python may not keep what it compiled, each process of the tests would compile torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check suite coverage browser bench format clean

demo: $(VENV)/demo
	$(BIN)/serein demo

test: check suite

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suite: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

# Apart from the suite, for tracing every line costs a third more time.
coverage: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --cov --cov-report=term

# The page's tests drive Chromium, and are skipped where there is none.
browser:
	command -v chromium || { apt-get update -qq && apt-get install --yes -qq --no-install-recommends chromium; }

# On a quiet machine; half an hour on two cores. gpu.py is for a machine with a GPU.
bench: $(VENV)/dev
	for name in extraction adapter_step crossval prediction growth startup; do $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/render.py

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip would compile every module that it installs, for over a minute; Python compiles those that are imported.
$(VENV)/demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/demo

clean:
	rm -rf $(VENV) serein-demo .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
