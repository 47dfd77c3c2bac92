.PHONY: demo docs test test-oldest lint format bench fuzz kill sanitize clean
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/demo
	$(BIN)/doubtmap demo --out demo

# The site, in build/site: look at it with `python -m http.server -d build/site`.
docs: .venv/docs
	OMP_NUM_THREADS=1 $(BIN)/python scripts/site_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file build/mkdocs.yml

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# With the oldest of everything that is allowed, of which some warn, and lack what a few tests ask for.
OLDEST := build/oldest
test-oldest: $(OLDEST)/ready
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -o filterwarnings=default --ignore tests/campaign tests

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready
	$(BIN)/python benchmarks/speed.py

# Campaigns of an hour and more; a small part of each is in `make test`. See docs/reliability.md.
fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaign/fuzz.py --count 100000

kill: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaign/kill.py --count 1000

sanitize: .venv/ready
	$(BIN)/python tests/campaign/sanitize.py --count 3000

# The library and what it needs itself; the packages of all extras and of the tests come with .venv/ready.
.venv/demo: requirements-demo.txt pyproject.toml setup.py $(wildcard doubtmap/kernels/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements-demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(OLDEST)/ready: requirements-oldest.txt pyproject.toml setup.py $(wildcard doubtmap/kernels/*.[ch])
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --requirement requirements-oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/docs: .venv/demo requirements-docs.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-docs.txt
	touch $@

.venv/ready: .venv/demo requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf .venv demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
