# `make demo` and `make test` need only Python (3.11 or newer), make and a package index; they set themselves up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files of tests that run side by side; tests of the path mostly wait for processes.
WORKERS ?= 3
PROTO_VENV := .make/proto
PROTO_STAMP := $(PROTO_VENV)/.installed
# Old on purpose: code of a newer generator refuses the protobuf runtimes that training images pin.
PROTO_TOOLS := grpcio-tools==1.62.3 "setuptools<80"
PROTO_OUT ?= services
LOCK_VENV := .make/lock
LOCK_STAMP := $(LOCK_VENV)/.installed
LOCK_TOOLS := uv==0.13.9
# One version for every Python and every platform, with the hashes of all its files.
LOCK := $(LOCK_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --custom-compile-command "make lock"
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
PIP := -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint format proto proto-check lock chaos bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@echo "Installing runtide with everything it needs into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) install --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## start the whole stack, train a small model on it, show and check what was stored
	@$(BIN)/runtide demo

test: $(STAMP) ## run every test that this machine can run (ARGS="-k word" picks, WORKERS=0 runs them one by one)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

lint: $(STAMP) ## check style, types and the wire contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	@for contract in tests/golden/*/contract.binpb; do \
		echo "$(BIN)/buf breaking proto --against $$contract"; \
		$(BIN)/buf breaking proto --against $$contract || exit 1; \
	done

format: $(STAMP) ## put code and contract into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto

$(PROTO_STAMP): Makefile
	@echo "Installing the generator into $(PROTO_VENV)"
	@test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python $(PIP) install $(PROTO_TOOLS)
	@touch $@

proto: $(PROTO_STAMP) ## generate services/runtide/v1 from proto/
	@mkdir -p $(PROTO_OUT)
	@$(PROTO_VENV)/bin/python -m grpc_tools.protoc -I proto --python_out=$(PROTO_OUT) --pyi_out=$(PROTO_OUT) \
		--grpc_python_out=$(PROTO_OUT) proto/runtide/v1/*.proto

proto-check: ## fail if services/runtide/v1 is not what proto/ generates
	@rm -rf .make/generated
	@$(MAKE) --no-print-directory proto PROTO_OUT=.make/generated
	@diff --recursive --brief --exclude=__init__.py --exclude=__pycache__ services/runtide/v1 .make/generated/runtide/v1
	@echo "services/runtide/v1 is what proto/ generates"

$(LOCK_STAMP): Makefile
	@echo "Installing what makes the lock files into $(LOCK_VENV)"
	@test -x $(LOCK_VENV)/bin/python || $(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python $(PIP) install $(LOCK_TOOLS)
	@touch $@

lock: $(LOCK_STAMP) ## take the newest versions that pyproject.toml allows into the image (deploy/*.lock)
	@$(LOCK) --extra gateway --extra processor --extra dashboard --output-file deploy/requirements.lock pyproject.toml
	@$(LOCK_VENV)/bin/python -c '$(BUILD_REQUIRES)' | $(LOCK) --output-file deploy/build.lock -

chaos: $(STAMP) ## kill and freeze parts of a stack for a minute, then count what it stored (ARGS="--kills 20")
	@$(BIN)/runtide chaos $(ARGS)

bench: $(STAMP) ## measure; the figures go into benchmarks/results.md by hand
	@for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean: ## remove everything that make has built
	rm -rf $(VENV) .make .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
