# `make demo` and `make test` work on a fresh machine: each first sets up .venv with pip.

PYTHON ?= python3
BIN := .venv/bin
# of `make faults`
MINUTES := 20
SEED := 0

.PHONY: demo datasets report test slow slurm faults oldest bench lint docs lock audit clean help

demo: .venv/.runtime  ## fine-tune a small backbone on scikit-learn's digits
	$(BIN)/python digits.py -model shufflenet -bs 32 --weights auto --epochs 3

datasets: .venv/.runtime  ## what of the datasets is in data/, and what is to be done
	@$(BIN)/python datasets.py

# two processes of one thread each: threads that wait for each other crawl when anything else runs on the machine
test: .venv/.development  ## every test that takes no longer than it must
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow: .venv/.development  ## minutes of real training
	$(BIN)/python -m pytest -m slow

slurm: .venv/.development  ## grids on a Slurm of this machine's own, as root with Debian's packages: minutes
	OMP_NUM_THREADS=1 .ci/slurm $(BIN)/python -m pytest tests/grids/test_slurm_here.py

# a dry card takes CUDA's headers of today's version
oldest: build/oldest/.ready  ## the tests of engine/ with the lowest versions that the requirements allow
	OMP_NUM_THREADS=1 build/oldest/bin/python -m pytest -n 2 --dist loadfile tests/engine tests/scripts/test_digits.py \
	  -k "not dry_card"

faults: .venv/.development  ## kill, starve and feed damage to the programs for 20 minutes: docs/reliability.md
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --seed $(SEED) --write-docs

report: .venv/.report  ## runs/ -> report/report.html and tables
	$(BIN)/python report.py

bench: .venv/.development  ## training speed of all backbones against the plain way: half an hour on a CPU
	$(BIN)/python benchmarks/speed.py

lint: .venv/.development  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

docs: .venv/.runtime  ## bring the tables in docs/ up to date
	$(BIN)/python datasets.py --write-docs

lock: .venv/.report  ## requirements.lock: what is installed here and now, with checksums
	$(BIN)/python -m pip install --disable-pip-version-check --dry-run --ignore-installed --quiet --report - \
	  -r requirements.txt -r requirements-report.txt | $(BIN)/python .ci/lock.py > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock

audit: build/audit/.ready  ## known faults of what requirements.lock names; asks PyPI
	build/audit/bin/pip-audit --strict --disable-pip --vulnerability-service pypi -r requirements.lock

clean:  ## everything but runs/ and data/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build report *.egg-info
	find . -name __pycache__ -not -path './data/*' -not -path './runs/*' -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/make \1: \2/p' Makefile

.venv/.runtime: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 10) and \
	  f"Python 3.10 or later is needed, but $(PYTHON) is {v}: make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.report: .venv/.runtime requirements-report.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-report.txt -c requirements.txt
	@touch $@

.venv/.development: .venv/.report requirements-timm.txt requirements-export.txt requirements-ray.txt \
  requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-timm.txt -c requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-export.txt -c requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-ray.txt -c requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt -c requirements.txt
	@touch $@

build/audit/.ready:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check pip-audit
	@touch $@

build/oldest/.ready: requirements.txt requirements-report.txt requirements-dev.txt
	$(PYTHON) -m venv build/oldest
	sed -nE 's/^([A-Za-z0-9-]+)>=([0-9.]+).*/\1==\2/p' $^ > build/oldest/requirements.txt
	build/oldest/bin/python -m pip install --disable-pip-version-check -r build/oldest/requirements.txt
	@touch $@
