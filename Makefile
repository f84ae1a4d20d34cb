# make run     set up, run the bot on the embedded exchange, thirty times as fast as life (DURATION=60: for a minute)
# make replay  set up, replay a synthetic crash with paper orders
# make test    set up, check and test everything
# make crash   set up, kill it, cut its power, fill its disk: the crash test in full (half an hour to an hour; Ctrl-C and again goes on)
# make check   ruff, strict typing, layers
# make bench   figures, as ratios measured in one run
# make system  install the Debian packages that tests need (as root; elsewhere: say which)
# make lock    resolve the lock files anew
# make docs    write docs/SETTINGS.md from the settings
# make clean   remove what make has made
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
SYSTEM_PACKAGES := chromium chromium-driver git strace xfsprogs
PYTEST_ARGS ?= -n 3
SPEED ?= 30
DURATION ?=
RUN_ARGS ?=
CRASH_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run replay test crash check bench system lock docs clean

help:
	@sed -n 's/^# make /make /p' Makefile

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv .venv || { echo "the venv module is missing: on Debian, apt-get install python3-venv"; exit 2; }

.venv/run.stamp: requirements.txt | .venv/bin/python
	@echo "setting up .venv (once)" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt pyproject.toml | .venv/bin/python
	@echo "setting up .venv for tests (once)" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@ .venv/run.stamp

run: .venv/run.stamp
	@$(PY) -m tradingbot --home build/run --dashboard $(if $(DURATION),--duration $(DURATION)) \
	  --set EMBEDDED_SPEED=$(SPEED) $(RUN_ARGS)

replay: .venv/run.stamp
	@mkdir -p build/replay
	@$(PY) -m tradingbot.simulated.market --seed 7 --hours 4 --out build/replay/crash.csv
	@$(PY) -m tradingbot replay build/replay/crash.csv --set GLOBAL_TRADING=true --out build/replay/result

test: check system
	@$(PY) -m pytest $(PYTEST_ARGS)

crash: .venv/dev.stamp system
	@$(PY) -m tests.crash --out build/crash $(CRASH_ARGS)
	@TRADINGBOT_TEST_KILLS=20 $(PY) -m pytest tests/test_restarts.py -k killed_again

check: .venv/dev.stamp
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy --no-error-summary
	@mkdir -p build
	@PYTHONPATH=. .venv/bin/lint-imports --no-cache >build/lint.txt 2>&1 || { cat build/lint.txt; exit 1; }

bench: .venv/dev.stamp
	@$(PY) -m benchmarks

system:
	@sh ./system.sh $(SYSTEM_PACKAGES)

lock: .venv/dev.stamp
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --all-extras pyproject.toml -o requirements-dev.txt

docs: .venv/dev.stamp
	@$(PY) -c 'from tradingbot.ui.tables import settings_page; print(settings_page(), end="")' >docs/SETTINGS.md

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
