# Two commands for a fresh machine: `make demo` and `make test`. Python 3.11+ and make are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
# A few of each: command line with small searches, stores, an evolution.
SMOKE := tests/test_cli.py tests/test_cli_data.py tests/data/faces/test_store.py tests/strategies/test_evolution.py

.PHONY: demo test test-lowest check docs install clean

demo: $(INSTALLED)
	rm -rf runs/demo
	$(BIN)/facenas search --preset demo --run demo
	$(BIN)/facenas train demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# With the lowest versions that pyproject.toml allows. torch and torchvision are left to pip: those of
# 2025 are gigabytes with all they need of CUDA; and onnxscript's lowest is the one that torch 2.14 takes.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(SMOKE)

$(LOWEST)/.installed: pyproject.toml tools/lowest_versions.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python tools/lowest_versions.py --extra onnx --keep torch torchvision > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[onnx]' \
		hypothesis psutil pytest pytest-timeout
	touch $@

check: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, strictly, without a network: site/index.html. Its search needs a server: python -m http.server -d site
docs: $(INSTALLED)
	$(BIN)/python tools/build_docs.py

install: $(INSTALLED)

# Rebuilt only when the package's own requirements change.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "facenas needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
