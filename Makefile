# `make run` and `make test` are all a fresh clone needs; PYTHON=python3.12 chooses another interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LINTED := .venv/.linted
DOCUMENTED := .venv/.documented

.PHONY: run results test test-browser test-all docs dist bench lint format install clean

run: $(INSTALLED)
	$(BIN)/dcrun algorithm=dc_asgd_a model=resnet20

# RESULTS.md, docs/results/ and docs/figures/ from the archived runs in docs/runs/ and the remarks in docs/notes.md
# (## <paper>/<table>: remarks on that table). Refuses runs that no commit can repeat ("unknown", "-dirty"). To add runs to a table:
# `dcreport docs/runs/<paper>/<table>.jsonl outputs/<new> --archive docs/runs/<paper>/<table>.jsonl --overwrite --committed`
results: $(INSTALLED)
	$(BIN)/dcreport docs/runs --results RESULTS.md --pages docs/results --figures docs/figures --notes docs/notes.md

# Runs two tests at a time, each with one thread: many wait for processes that they started, and two more threads would only wait
# for each other. Whoever has none left takes the other's tests, since some files are long: six minutes on two idle cores.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not browser"

# The tests need chromium (apt-get install chromium, or DCRUN_CHROMIUM=<path>); without it they are skipped and say so.
test-browser: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,browser]"
	$(BIN)/python -m pytest -m "browser and not slow" tests/runner/report tests/docs

# As `make test`: less than an hour on two idle cores.
test-all: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The documentation as a site, in site/index.html. Fails for a warning: a link or an anchor that leads nowhere, a docstring that names
# an argument that is not there, a page that the menu lacks. (The variable silences an announcement of the theme's authors.)
docs: $(DOCUMENTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

lint: $(LINTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(LINTED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The wheel and the sdist of a release, in dist/; they are tried in environments of their own.
dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m hatchling build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/runner/cli/entry

install: $(INSTALLED)

clean:
	rm -rf .venv

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

$(DOCUMENTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,docs]"
	@touch $@

$(LINTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
