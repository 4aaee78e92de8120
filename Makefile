# Everything runs in .venv, which is made on first use; PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: exported demo test test-slow lint types clean mutants test-damage docs dist

demo: $(if $(wildcard .venv/ready),.venv/ready,.venv/small)  ## track the built-in sequence: figures on the screen, a video and a picture in out/demo
	$(BIN)/ebmtrack demo --out out/demo

test: .venv/ready  ## the unit tests, a process and a thread for each core: under 5 minutes on two
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-slow: .venv/ready  ## the checks that take minutes each
	$(BIN)/python -m pytest -q -m slow --timeout 3600

test-damage: .venv/ready  ## ten minutes of randomly damaged videos: no traceback, no readable frames lost in silence
	$(BIN)/python tools/damage.py

docs: .venv/ready  ## the documentation site in build/site; broken links are errors
	$(BIN)/pip install --quiet mkdocs-material 'mkdocstrings[python]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: .venv/ready  ## wheel and source distribution in dist/, checked as PyPI checks them
	$(BIN)/pip install --quiet build twine
	rm -rf dist && $(BIN)/python -m build --outdir dist . && $(BIN)/python -m twine check --strict dist/*

EXPORT := $(BIN)/ebmtrack export --precision float16+int8 --calibration
exported: .venv/ready  ## make the shipped networks for ONNX Runtime anew, after each change of one; SEQUENCES=FOLDER calibrates int8
	$(EXPORT) "$(SEQUENCES)" ebmtrack/weights/ebm18_small.safetensors --out ebmtrack/weights/ebm18_small.onnx
	$(EXPORT) "$(SEQUENCES)" ebmtrack/weights/ebm_lite.safetensors --params lite_nce_plus --out ebmtrack/weights/ebm_lite.onnx

lint: .venv/ready types  ## ruff's rules and format, and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

mutants: .venv/ready  ## change one line at a time; the tests of its room must notice, nine times in ten (ten minutes on one core)
	$(BIN)/python -m tools.mutants

types: .venv/ready  ## mypy over package, tests and tools; links show it the three folders beside ebmtrack/ in their places
	mkdir -p build/types/ebmtrack
	find build/types -type l -delete
	ln -s $(CURDIR)/ebmtrack/* $(CURDIR)/ltr_settings $(CURDIR)/tracker_params $(CURDIR)/evaluation build/types/ebmtrack
	ln -s $(CURDIR)/tests $(CURDIR)/tools build/types
	cd build/types && $(CURDIR)/$(BIN)/python -m mypy --config-file $(CURDIR)/pyproject.toml ebmtrack tests tools/freeze.py

.venv/small: setup.cfg pyproject.toml  # what tracks: no torch, half a minute
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/ready: setup.cfg pyproject.toml  # everything
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ .venv/small

clean:
	rm -rf .venv build dist *.egg-info out
