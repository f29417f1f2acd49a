# Everything a contributor or CI runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CACHE ?= $(or $(VMOOR_CACHE),$(HOME)/.cache/vmoor)
export VMOOR_CACHE := $(CACHE)
# A venv on the distribution's own Python and libraries (what the package runs on), with the
# checkers and pytest beside them; keyed by what goes in, outside the checkout.
VENV := $(CACHE)/venv-$(shell cat tests/tools.txt tests/tools.sh | sha256sum | cut -c1-12)
BIN := $(VENV)/bin
PY := PYTHONPATH=agent $(BIN)/python
# Two rigs side by side, each with whole modules: a fleet and its VMs belong to one. A third would
# save little, and its load would be seen in what the tests time.
SIDE = -n 2 --dist loadfile

.PHONY: help demo test check unit el9 contract test-packages system bench deb rpm repo version release rig fmt clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t16

demo: $(VENV) ## boot VMs, moor them, break them, with measured times (root; KEEP=1 leaves it running)
	@$(PY) -m tests.demo $(if $(KEEP),--keep)

test: check unit contract test-packages system ## everything CI runs (root)

check: $(VENV) ## ruff, mypy, layers, shellcheck, codespell
	@PATH=$(BIN):$$PATH tests/check.sh

unit: $(VENV) ## unit tests: no sleep, socket or thread
	@echo "-- unit tests"
	@$(PY) -m pytest -q tests/unit

el9: ## unit tests on Python 3.9 with Enterprise Linux 9's libraries (PYTHON39=/path)
	@tests/el9.sh

contract: $(VENV) rig ## the same suites against fakes and the real API server, OpenBao, systemd
	@echo "-- contract tests, about 3 minutes"
	@$(PY) -m pytest -q --durations=5 $(SIDE) tests/contract

test-packages: $(VENV) ## the .deb and the .rpm: the same files, dependencies, reproducible (root)
	@echo "-- packages, about 2 minutes"
	@$(PY) -m pytest -q tests/packages

system: $(VENV) rig deb ## booted VMs from the built package, on a real mesh
	@echo "-- booted VMs in a mesh, about half an hour"
	@$(PY) -m pytest -q --durations=10 $(SIDE) tests/system

bench: $(VENV) rig deb ## figures, vmoor beside Istio's own path, in one run
	@$(PY) -m tests.bench

rig: $(VENV) ## build and install what the rig needs (about 12 minutes the first time)
	@$(PY) -m tests.rig build

deb: ## dist/vmoor_*.deb, linted
	@packaging/build-deb.sh

rpm: ## dist/vmoor-*.rpm and its source, linted; for EL and Fedora, rebuild the source there
	@packaging/build-rpm.sh

repo: deb rpm ## dist/repo: both as an apt and a yum repository (SIGN_KEY=... signs them)
	@packaging/build-repo.sh

version: ## make CHANGELOG.md's Unreleased the version VERSION=X.Y.Z, everywhere
	@packaging/version.py $(VERSION) $$(date -I)

release: ## dist/release: sources, packages, bill of materials, checksums, of a clean checkout
	@packaging/build-release.sh

fmt: $(VENV) ## format the code
	@$(BIN)/ruff format -q agent tests packaging && $(BIN)/ruff check -q --fix agent tests packaging

clean: ## remove what was built in the checkout (caches outside stay)
	@rm -rf dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV):
	@tests/tools.sh "$@"
