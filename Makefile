# make run    serve a demonstration
# make test   install what the tests need, check everything, run all tests
# make install     as root: a service of this machine, with systemd (README, "As a service")
# make uninstall   undoes that; with PURGE=1 what was received and configured, too
# make venv   for work on the code: an environment with all that tests need
# make interpreted   for work on the code: forget its compiled form until the next `make venv`
# make load   senders of all kinds against fasthook behind nginx: SECONDS=60 USERS=50, WEB=1 for a page
# make bench   fasthook beside its peers and its limits, on this machine: bench/RESULTS.md (15 minutes)
# make profile   where the time of a request goes: .run/profile.svg
# make torture   the long forms of tests/torture: an hour of kills, full disks and flipped bits

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
# Debian's names. Installed where we may; where they are missing, CI fails and others are told.
SYSTEM_PACKAGES = nginx-light curl openssl wrk strace gcc libc6-dev systemd-container python3-venv postgresql webhook
BENCH_PACKAGES = redis-server
ROBYN = robyn==0.88.0   # it pins an older uvloop, and so gets a folder of its own

.PHONY: run test load bench profile torture venv install uninstall interpreted system lint clean

run: venv
	$(BIN)/python -m fasthook.cli.demo

# Commands are tried on services of their own, and mostly wait for them: many at a time. Those of
# single rooms, and of whole services, disturb nobody, and neither does a systemd that boots;
# what measures and torments comes alone, but for the rooms once more, compiled, with what is left over.
WAITING_TESTS = tests/cli tests/recipes tests/test_control.py tests/test_expecting.py
PURE_TESTS = $(addprefix tests/,alerts dispatch handlers inbox intake logs redacting remote shapes spool systemd wire)
PURE_TESTS += $(filter-out tests/test_bench.py tests/test_overload.py $(WAITING_TESTS),$(wildcard tests/test_*.py))
SYSTEM_TESTS = tests/system
COMPILED_TESTS = tests/wire tests/intake tests/dispatch tests/spool
OTHERS = $(addprefix --ignore=,$(WAITING_TESTS) $(PURE_TESTS) $(SYSTEM_TESTS))

test: system venv lint
	$(BIN)/python -m pytest -n 6 $(WAITING_TESTS)
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PURE_TESTS)
	$(BIN)/python -m pytest -n 4 --dist loadfile $(SYSTEM_TESTS)
	@mkdir -p .run
	FASTHOOK_TEST=compiled nice -n 19 $(BIN)/python -m pytest -n 2 $(COMPILED_TESTS) >.run/compiled.log 2>&1 & \
	  compiled=$$!; $(BIN)/python -m pytest $(OTHERS); alone=$$?; \
	  wait $$compiled; compiled=$$?; cat .run/compiled.log; exit $$((alone + compiled))

SECONDS ?= 60
USERS ?= 50
load: system venv
	$(BIN)/python -m bench.load --seconds $(SECONDS) --users $(USERS) $(if $(WEB),--web)

# ARGS: for instance `make bench ARGS=--quick` (`python -m bench --help`).
bench: system $(VENV)/bench
	$(BIN)/python -m bench $(ARGS)

profile: system $(VENV)/bench
	$(BIN)/python -m bench.profile $(ARGS)

# What can't be installed is left out of the comparison, and named.
$(VENV)/bench: $(VENV)/installed
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    $(BENCH_PACKAGES) >/dev/null || true; fi
	PIP_CONSTRAINT=constraints.txt HATCH_BUILD_HOOKS_ENABLE= $(BIN)/python -m pip install -q \
	  --disable-pip-version-check -c constraints.txt -e '.[bench]'
	-$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade --target .run/robyn $(ROBYN)
	touch $@

torture: system venv
	FASTHOOK_TORTURE=full $(BIN)/python -m pytest --timeout 7200 -rP \
	  tests/torture tests/spool/test_powerloss.py tests/spool/test_machine.py tests/recipes/test_recipes.py

venv: $(VENV)/installed

install:
	@COMPILE=$(COMPILE) PREFIX=$(PREFIX) SYSTEM_PYTHON=$(SYSTEM_PYTHON) PROVIDER=$(PROVIDER) \
	  HOST=$(HOST) WHEELS=$(WHEELS) sh systemd/install.sh

uninstall:
	@PREFIX=$(PREFIX) PURGE=$(PURGE) sh systemd/uninstall.sh

# Compiled anew when its source changes: a compiled module stands before its source.
# (All of its rooms, too: what is compiled has constants of its neighbours within it.)
COMPILED := $(shell sed -n '/^include = \[$$/,/^\]/s/.*"\(fasthook.*\.py\)".*/\1/p' pyproject.toml)
COMPILED := $(sort $(COMPILED) $(wildcard $(addsuffix /*.py,$(addprefix fasthook/,wire intake dispatch spool))))
# 1 where there are a C compiler and Python's headers; `make COMPILE=0 ...` does without.
COMPILE ?= $(shell command -v cc >/dev/null && $(PYTHON) -c 'import pathlib, sysconfig; \
  print(int(pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()))')

$(VENV)/installed: pyproject.toml constraints.txt $(COMPILED)
	$(PYTHON) -m venv $(VENV)
	@$(MAKE) -s interpreted   # also what is compiled no more
	$(if $(filter 1,$(COMPILE)),,@echo "not compiled (no C compiler, or no Python.h): slower")
	PIP_CONSTRAINT=constraints.txt HATCH_BUILD_HOOKS_ENABLE=$(filter 1,$(COMPILE)) $(BIN)/python -m pip \
	  install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# Without this a change is only seen after the next `make venv`.
interpreted:
	find fasthook . -maxdepth 3 -path ./$(VENV) -prune -o -name '*.so' -print | xargs rm -f

system:
	@missing=""; \
	for program in nginx curl openssl wrk strace cc systemd-nspawn initdb webhook; do \
	  PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin)" command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	elif [ -n "$$missing" ]; then echo "not installed, so some tests are skipped:$$missing"; fi

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .run .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
