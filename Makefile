# SPDX-License-Identifier: MIT
# Each target sets up what it needs in .venv; only python3 (with venv), gcc, libc6-dev and make are taken for granted.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
BUILD_INPUTS := pyproject.toml setup.py kvmabi/build_uapi.py $(shell find include -name '*.h') \
	$(wildcard kvmabi/interpose/*.[ch])

.PHONY: venv demo test lint clean

venv: $(BIN)/.installed

demo: $(BIN)/.installed
	$(BIN)/kvmabi demo

test: lint
	$(BIN)/python -m pytest

lint: $(BIN)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict kvmabi

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f kvmabi/_uapi_*.py kvmabi/interpose/preload.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(BIN)/.installed: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(BIN)/.installed-test: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $(BIN)/.installed $@
