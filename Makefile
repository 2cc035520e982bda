# make run    install, and serve a demonstration
# make test   install what the tests need, check everything, run all tests
# make torture   the long forms of tests/torture: an hour of kills, full disks and flipped bits

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# Debian's names. Installed where we may; where they are missing, CI fails and others are told.
SYSTEM_PACKAGES = nginx-light curl openssl wrk strace

.PHONY: run test torture install system lint clean

run: install
	$(BIN)/python -m fasthook.cli.demo

# Commands are tried on services of their own, and mostly wait for them: many at a time.
SLOW_TESTS = tests/cli tests/test_control.py

test: install system lint
	$(BIN)/python -m pytest -n 6 $(SLOW_TESTS)
	$(BIN)/python -m pytest $(addprefix --ignore=,$(SLOW_TESTS))

torture: install system
	FASTHOOK_TORTURE=full $(BIN)/python -m pytest --timeout 7200 -rP \
	  tests/torture tests/spool/test_powerloss.py tests/spool/test_machine.py

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

system:
	@missing=""; \
	for program in nginx curl openssl wrk strace; do \
	  PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	elif [ -n "$$missing" ]; then echo "not installed, so some tests are skipped:$$missing"; fi

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .run .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
