# install: .venv at the root, everything in it      demo: the main job end to end
# test, check, bench, build: what CONTRIBUTING.md describes
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: install demo test test-slow check format bench build clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'genpolicy needs Python 3.11 or newer: make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,robots,dev]'
	touch $(STAMP)

demo: install
	$(BIN)/genpolicy demo

# A file stays in one process: what its tests share is made once. In order, for the longest come first.
test: install
	$(THREADS) $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(THREADS) $(BIN)/pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

# The wheel must serve a robot computer (NumPy and ONNX Runtime only) and a trainer outside the checkout.
build: install
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/pytest -m slow tests/architecture/test_wheel.py

clean:
	rm -rf dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
