PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

.PHONY: demo test check install

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/mmrl data fetch chest_xray
	$(BIN)/mmrl demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)
