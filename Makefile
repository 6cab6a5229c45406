# Everything starts here and sets up what is missing; a fresh machine needs Python 3.11 to 3.13 and make.

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# Looked for when it is first needed, once.
PYTHON ?= $(eval PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(FITS)' 2>/dev/null && { echo $$p; break; }; done))$(PYTHON)
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: run demo test fuzz bench bench-long check audit advisories pictures lock clean

run: $(VENV)/run.stamp
	@echo "Starting Grafient ..."
	@$(PY) -m grafient.supervisor

demo: $(VENV)/run.stamp
	@echo "Starting Grafient ..."
	@$(PY) -m grafient.supervisor --demo

test: $(VENV)/test.stamp
	@$(PY) tests/browser_setup.py
	$(PY) -m pytest -n 4 --dist loadgroup $(ARGS)

# Requests, and what happens to incidents, at random, more than make test has time for. FUZZ=100000 for even more.
fuzz: $(VENV)/test.stamp
	DATABASES=both FUZZ=$(or $(FUZZ),20000) $(PY) -m pytest -n 2 tests/views/test_fuzz.py tests/alerts/test_machine.py

# What is measured stands beside its reference, in bench/RESULTS.md. ARGS="ingest --rounds 3" for a part of it.
bench: $(VENV)/test.stamp $(VENV)-bench/made.stamp
	$(PY) -m bench $(ARGS)

# Takes long: 10,000 accounts, 10 million lines. ARGS=accounts or ARGS=lines for one of them; bench/RESULTS-long.md.
bench-long: $(VENV)/test.stamp
	$(PY) -m bench --long $(ARGS)

check: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

# The HTML of all pages, and Lighthouse's scores of those that are opened every morning; needs npm, Java and Chromium.
audit: $(VENV)/test.stamp tests/audit/node_modules/made.stamp
	@$(PY) -m tests.audit

# The pinned versions against known vulnerabilities; asks the package index. What can't be looked up fails too.
advisories: $(VENV)/made.stamp
	@$(PYTHON) -m venv $(VENV)-advisories && $(VENV)-advisories/bin/python -m pip install --quiet pip-audit
	$(VENV)-advisories/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt -r requirements-test.txt

# The README's pictures, anew.
pictures: $(VENV)/test.stamp
	@$(PY) -m tests.audit.pictures

# Resolve the direct dependencies of pyproject.toml anew into the two lock files.
lock: $(VENV)/test.stamp
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  pyproject.toml -o requirements.txt
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  pyproject.toml --group test -c requirements.txt -o requirements-test.txt

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-advisories tests/audit/node_modules

$(VENV)/made.stamp:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FITS)' || \
	  { echo "Grafient needs Python 3.11, 3.12 or 3.13. Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making a Python environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv is missing. On Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/run.stamp: requirements.txt $(VENV)/made.stamp
	@echo "Installing what Grafient needs into $(VENV); this takes a while, but only once ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements-test.txt $(VENV)/run.stamp
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	@touch $@

$(VENV)-bench/made.stamp: bench/requirements.txt $(VENV)/made.stamp
	@echo "Installing what is compared with into $(VENV)-bench ..."
	@$(PY) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

tests/audit/node_modules/made.stamp: tests/audit/package-lock.json
	@echo "Installing the Nu Html Checker and Lighthouse ..."
	@cd tests/audit && npm ci --silent --no-audit --no-fund
	@touch $@
