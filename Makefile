# `make quick`: the small sweep on two CPU cores. `make test`: the checks. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

quick: .venv/ready
	$(BIN)/zoorecall sweep grids/quick.yaml

test: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

.venv/ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(BIN)/pip install --quiet \
		--disable-pip-version-check --no-build-isolation --no-deps mamba-ssm==2.3.2.post1
	touch $@

clean:
	rm -rf .venv build *.egg-info

.PHONY: quick test clean
