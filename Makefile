# The words a developer types; CONTRIBUTING.md has the table. From a fresh clone `make run` and
# `make test` need Python 3.11 or newer, a C compiler and the Python package index, nothing else.
# Everything is set up in .venv; what was done leaves a stamp in .venv/stamps, so it is done once.

PYTHON ?= python3
ROUNDS ?= 20
FUZZED ?= decoder session websocket proxy kafka
FUZZ_S ?= 60
BENCH ?=
DEMO ?= --mqtt 127.0.0.1:1883 --kafka 127.0.0.1:9092 --http 127.0.0.1:8080 --data isthmus-data

BIN := .venv/bin
STAMPS := .venv/stamps
LINTED := src tests tools bench setup.py
COMPILED := setup.py $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxd')
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
# The requirements of the tables named, as pip older than 25.1 takes them (it has no --group).
WANTED = $(BIN)/python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	print(*(r for t in sys.argv[1:] for r in {"build": p["build-system"]["requires"], \
	"run": p["project"]["dependencies"], **p["dependency-groups"]}[t]), sep="\n")'

.PHONY: build run test unit copied pure e2e conformance interop bench soak fuzz lint fix docs clean
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

build: $(STAMPS)/compiled

run: build
	$(BIN)/isthmus demo $(DEMO)

# The end-to-end tests wait for half of their time, so the others run beside them, and two of
# their files at one time.
test: lint
	$(MAKE) -j2 --output-sync=target e2e unit pure conformance

unit: build $(STAMPS)/tools
	ISTHMUS_COMPILED=1 $(BIN)/python -m pytest -q -m "not e2e and not interop"

# The .py files are the truth: the core's tests once more without the compiled modules (and so
# without the tests that are about them).
copied: build
	@rm -rf build/pure && mkdir -p build/pure
	@(cd src && find isthmus -type f ! -name '*.so' ! -name '*.pyc' | tar -cf - -T -) | tar -xf - -C build/pure

pure: copied $(STAMPS)/tools
	ISTHMUS_COMPILED=0 PYTHONPATH=build/pure $(BIN)/python -m pytest -q -m "not slow" \
		--ignore tests/property/test_wire_twins.py --ignore tests/unit/broker/test_session_memory.py \
		tests/test_tidy.py $(wildcard tests/wire tests/property tests/fuzz tests/unit/wire tests/unit/record \
		tests/unit/topics tests/unit/mqtt tests/unit/kafka tests/unit/broker tests/unit/load)

e2e: build $(STAMPS)/tools
	$(BIN)/python -m pytest -q -m e2e -n 2 --dist loadfile tests/e2e

conformance: build $(STAMPS)/tools
	$(BIN)/python -m pytest -q -m e2e tests/conformance

# Frameworks that stand on Kafka: JVMs, slow to start, so not a part of `make test`.
interop: build $(STAMPS)/tools
	$(BIN)/python -m pytest -q -m interop -n 2 --dist loadfile tests/interop

bench: build $(STAMPS)/tools
	$(BIN)/python -m bench $(BENCH)

# New seeds each round; a seed that fails is printed and repeats the failure.
soak: build $(STAMPS)/tools
	@for round in $$(seq $(ROUNDS)); do \
		seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); \
		echo "round $$round of $(ROUNDS), seed $$seed"; \
		ISTHMUS_KILL_SEED=$$seed ISTHMUS_KILLS=20 $(BIN)/python -m pytest -q -x \
			tests/e2e/test_kill.py tests/e2e/test_kill_partitions.py \
			tests/e2e/test_kill_transactions.py || exit 1; \
		ISTHMUS_POWER_SEED=$$seed ISTHMUS_POWER_LIVES=300 ISTHMUS_FAULT_SEED=$$seed ISTHMUS_FLIP_SEED=$$seed \
			$(BIN)/python -m pytest -q -x --hypothesis-seed=$$seed tests/property tests/faults tests/storage/test_model.py || exit 1; \
	done

# Bytes that nobody chose, for FUZZ_S seconds each; what raises is in build/fuzz/TARGET-crash-…
fuzz: copied $(STAMPS)/fuzzer
	@for target in $(FUZZED); do \
		ISTHMUS_COMPILED=0 PYTHONPATH=build/pure $(BIN)/python -m tests.fuzz $$target $(FUZZ_S) || exit 1; \
	done

# E301, E302: declarations in a .pxd stand one below the other, without the blank lines of code.
lint: build $(STAMPS)/tools
	$(BIN)/ruff check --quiet $(LINTED)
	$(BIN)/ruff format --quiet --check $(LINTED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src --max-line-length 96 --ignore E301,E302

fix: $(STAMPS)/tools
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)

docs: build
	$(BIN)/python tools/generate_docs_tables.py

clean:
	rm -rf .venv build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests bench tools -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete

# --- set-up -----------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "isthmus: needs Python 3.11 or newer, and $(PYTHON) is not one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { \
		echo "isthmus: $(PYTHON) cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

# An editable install, so the code that is edited is the code that runs; compiled in its own step.
$(STAMPS)/installed: $(STAMPS)/venv pyproject.toml
	@echo "installing what Isthmus needs into .venv"
	@mkdir -p $(STAMPS) && $(WANTED) build run > $(STAMPS)/requirements
	@$(PIP) -r $(STAMPS)/requirements
	@ISTHMUS_SKIP_COMPILE=1 $(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(STAMPS)/tools: $(STAMPS)/installed
	@echo "installing what the tests and linters need into .venv"
	@$(WANTED) test lint > $(STAMPS)/requirements-tools
	@$(PIP) -r $(STAMPS)/requirements-tools
	@touch $@

$(STAMPS)/fuzzer: $(STAMPS)/tools
	@$(WANTED) fuzz > $(STAMPS)/requirements-fuzz
	@$(PIP) -r $(STAMPS)/requirements-fuzz
	@touch $@

$(STAMPS)/compiled: $(STAMPS)/installed $(COMPILED)
	@echo "compiling"
	@$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2 > .venv/compile.log 2>&1 || { \
		cat .venv/compile.log >&2; \
		echo "isthmus: the compilation failed, see above. Is there a C compiler, with Python's headers?" \
			"(Debian: apt-get install build-essential python3-dev)" >&2; exit 1; }
	@touch $@
