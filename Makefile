# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# The page's packages, exact and without their own wishes: see the file.
PAGE := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-page.txt
# One thread a test process, two processes: the same numbers on every machine, and both cores busy.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
# What the browser tests measure accessibility with, where there is npm; without it those tests are skipped, and say so.
AXE := axe-core@4.14.1

.PHONY: demo test test-slow check format page-pictures wheel clean

demo: $(VENV)/.installed
	@echo "== The pictures =="
	@$(BIN)/atelier check quickstart
	@echo "== The run =="
	@$(BIN)/atelier train quickstart name=demo-$$(date +%Y%m%d-%H%M%S)
	@echo "To see it in a browser: $(BIN)/atelier ui, then open http://127.0.0.1:7860"

test: $(VENV)/.installed-dev
	@if [ ! -e $(VENV)/axe/node_modules/axe-core ] && command -v npm >/dev/null; then \
		npm install --silent --no-audit --no-fund --fetch-retries 1 --prefix $(VENV)/axe $(AXE) \
			|| echo "$(AXE) could not be fetched: the tests that need it are skipped"; \
	fi
	$(PYTEST)

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every page as a browser shows it, into build/page-pictures; needs a Chromium.
page-pictures: $(VENV)/.installed-dev
	$(BIN)/python docs/take_page_pictures.py

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch first and alone: a range that another package asks for could bring another build of it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c "import sys; sys.exit(None if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml requirements-page.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	$(PAGE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml requirements-page.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,tensorboard]"
	$(PAGE)
	@touch $@ $(VENV)/.installed
