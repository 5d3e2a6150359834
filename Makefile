# `make quick`: the small sweep on two CPU cores. `make test`: the checks. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

quick: .venv/ready
	$(BIN)/zoorecall sweep grids/quick.yaml

test: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

# every figure and verdict of results/ anew from its tables, without training, two scripts at a time,
# each in one thread: with two each they get in one another's way
figures: .venv/ready
	printf '%s\n' $(filter-out experiments/speed_comparison.py,$(wildcard experiments/*.py)) | \
		OMP_NUM_THREADS=1 xargs -P 2 -I SCRIPT sh -c 'echo SCRIPT; $(BIN)/python SCRIPT > /dev/null || exit 255'

define DEFAULTS
import json
from zoorecall.config import current_defaults
print(json.dumps(current_defaults(), indent=1))
endef
export DEFAULTS

# what is made from the code: the record of defaults, the schema of grids, the page of mixers
schema: .venv/ready
	$(BIN)/python -c "$$DEFAULTS" > defaults.new && mv defaults.new zoorecall/defaults.json
	$(BIN)/zoorecall schema > grids/grid.schema.json
	$(BIN)/python docs/mixers.py

# the pictures of README, which trains grids/quick.yaml; needs chromium and chromedriver on the PATH
pictures: .venv/ready-dev
	$(BIN)/python docs/pictures.py

# the report in a real browser; needs chromium and chromedriver on the PATH
test-browser: .venv/ready-dev
	$(BIN)/pytest -m browser

.venv/ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

# the official implementations that tests compare with; their own dependencies are not needed
.venv/ready-dev: .venv/ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps fla-core==0.6.0 flash-linear-attention==0.6.0
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE \
		$(PIP) --no-build-isolation --no-deps mamba-ssm==2.3.2.post1
	touch $@

clean:
	rm -rf .venv build *.egg-info

.PHONY: quick test test-browser figures pictures schema clean
