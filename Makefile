# make demo    set everything up and find some pictures        make demo PHOTOS=~/Pictures [OUTPUT=DIR]   in your own
# make test    the fast tests    make test-all    all tests    make check    lint, types, imports    make bench    measure
# make docs    the documentation as a site, in build/site    make dist    wheel and sdist, each installed and tried
# make faults  kill, fill, take away and damage on purpose; an hour or two on two cores    make faults KILLS=50 SEED=7

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all check docs bench faults fuzz dist lock sbom clean

demo: $(VENV)/.runs
	@$(BIN)/python examples/demo.py $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(OUTPUT),--output "$(OUTPUT)")

test: $(VENV)/.develops
	$(BIN)/python -m pytest

test-all: $(VENV)/.develops
	$(BIN)/python -m pytest -m "not milvus"

check: $(VENV)/.develops
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.develops
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in build/site: $(BIN)/mkdocs serve shows it"

dist: $(VENV)/.develops
	$(BIN)/python benchmarks/release.py

bench: $(VENV)/.runs
	$(BIN)/python benchmarks/cooccurrence.py

faults: $(VENV)/.develops
	cd benchmarks && $(abspath $(BIN))/python -m faults $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))
	$(BIN)/python benchmarks/faults_page.py

# make fuzz TARGET=images RUNS=100000    one reader; without TARGET all of them
fuzz: $(VENV)/.develops
	-$(INSTALL) --editable '.[fuzz]'
	PYTHONPATH=. $(BIN)/python -m fuzz $(TARGET) $(if $(RUNS),--runs $(RUNS))
	$(BIN)/python benchmarks/security_page.py

lock: $(VENV)/.develops
	$(INSTALL) --editable '.[lock]'
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python deploy/lock.py

sbom: $(VENV)/.develops
	$(BIN)/python deploy/sbom.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "coocnet needs Python 3.10 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing coocnet into $(VENV); the first time this takes a minute or two."
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	$(INSTALL) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-output build dist
