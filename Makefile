# SPDX-License-Identifier: MIT
# Each target sets up what it needs in .venv; only python3 (with venv), gcc, libc6-dev and make are taken for granted.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BUILD_INPUTS := pyproject.toml setup.py kvmabi/build_uapi.py $(shell find include -name '*.h') \
	$(wildcard kvmabi/interpose/*.[ch])

.PHONY: venv demo test quick lint clean

venv: $(BIN)/.installed

demo: $(BIN)/.installed
	$(BIN)/kvmabi demo

test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

# What to run before every commit: all but the tests marked slow.
quick: lint
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m 'not slow'

lint: $(BIN)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict kvmabi

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f kvmabi/_uapi_*.py kvmabi/interpose/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

$(BIN)/.installed: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable '.[blobs]'
	touch $@

$(BIN)/.installed-test: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $(BIN)/.installed $@

# Fetches QEMU, a cross compiler and Debian's newest arm64 kernel with the system's apt, boots it and compares: the
# conformance suite and random sequences, from outside and by kvmabi in the VM, and the tests that need a kernel.
# make oracle SUITE="sid bookworm-security" SEED=7
SEED ?= 0
FUZZ_STEPS ?= 20000
DEVICE_STEPS ?= 5000
IN_VM = PYTHONPATH=scripts $(BIN)/python -m arm64_vm --folder build/oracle --kernel-image $$image -- kvmabi
.PHONY: oracle
oracle: $(BIN)/.installed-test
	@images=$$(PYTHONPATH=scripts $(BIN)/python -m fetch_kernel --folder build/oracle $(SUITE)) || exit 2; status=0; \
	for image in $$images; do \
		$(BIN)/kvmabi conformance --backend vm --kernel-image $$image || status=1; \
		$(BIN)/kvmabi fuzz --against vm --kernel-image $$image --seed $(SEED) --steps $(FUZZ_STEPS) || status=1; \
		$(IN_VM) conformance --backend device || status=1; \
		$(IN_VM) fuzz --against device --seed $(SEED) --steps $(DEVICE_STEPS) || status=1; \
		KVMABI_KERNEL_IMAGE=$$image $(BIN)/python -m pytest -q tests/steps tests/fuzz tests/capture tests/guests tests/scripts || status=1; \
	done; exit $$status

# All golden records and traces, not the sample that `make test` plays, and every switch of the kernel profiles turned.
.PHONY: golden
golden: $(BIN)/.installed-test
	GOLDEN=full $(BIN)/python -m pytest -q tests/golden
	cd tests && PYTHONPATH=..:. ../$(BIN)/python -m golden.turn_switches
	$(BIN)/python scripts/fidelity.py --check

# Fetches real arm64 programs that use KVM, from Debian's packages and PyPI, and runs them: docs/reference/clients.md.
# What cannot be had is skipped. make clients CLIENTS="qemu-trixie kvm-ioctls"
CLIENTS ?=
.PHONY: clients
clients: $(BIN)/.installed-test
	-PYTHONPATH=scripts $(BIN)/python -m fetch_clients $(CLIENTS)
	$(BIN)/python -m pytest -n auto --dist loadfile tests/clients

# What kvmabi costs, next to a system call and a real kernel: docs/explanation/costs.md. It writes the curves there.
# make bench FORMAT=json ROUNDS=5 KERNEL=vmlinuz
FORMAT ?= text
ROUNDS ?= 3
KERNEL ?=
.PHONY: bench
bench: $(BIN)/.installed-test
	@PYTHONPATH=benchmarks:tests $(BIN)/python -m bench --format '$(FORMAT)' --rounds '$(ROUNDS)' --kernel '$(KERNEL)' \
		--pictures docs/pictures
