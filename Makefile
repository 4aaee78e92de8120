# Everything runs in .venv, which is made on first use; PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint clean

demo: .venv/ready  ## track the built-in sequence: figures on the screen, a video and a picture in out/demo
	$(BIN)/ebmtrack demo --out out/demo

test: .venv/ready  ## the unit tests, under 5 minutes on two cores
	$(BIN)/python -m pytest -q

test-slow: .venv/ready  ## the checks that take minutes each
	$(BIN)/python -m pytest -q -m slow --timeout 3600

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info out
