# With Python 3.11.2 or newer, make and git:
#   make run      serve with the built-in simulator, or FOREMAN_TARGET_URL, as the target, and print commands to try
#   make test     run the tests
#   make lint     check style and types
#   make check    lint, and the tests that a change touches: under a minute, for daily work
#   make hooks    let git check the subject of each commit
#   make bench    measure the overhead of foreman for a request
#   make bench-jobs  measure the cost of jobs; ARGS=soak simulates a day
#   make crash    kill foreman, simulate power failures, and check that no job is lost
#   make docs     generate these files again: docs/api.md, cli.md, map.md, settings.md and .env.example
#   make picture  record docs/foreman.svg again (about three minutes)
#   make format   format the code and apply automatic fixes
#   make lock     resolve the dependencies again, after a change in pyproject.toml
#   make lock-check  check whether the locked versions still satisfy pyproject.toml
#   make clean    remove everything that was built
# Each target creates its virtual environment in .venvs/ from the versions and hashes in requirements/.
# PYTHON=python3.13 selects a Python.

.PHONY: run test lint check hooks bench bench-jobs crash docs picture format lock lock-check clean
.DELETE_ON_ERROR:

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11, 2))
ifdef PYTHON
CANDIDATES := $(PYTHON)
else
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
endif
FOUND := $(shell for python in $(CANDIDATES); do \
	if "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null; then echo "$$python"; break; fi; done)

VENVS := .venvs
INSTALL := -m pip install --quiet --disable-pip-version-check
LOCKED := requirements
LOCK = $(VENVS)/lint/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11.2 \
	--custom-compile-command "make lock" $(UPGRADE) pyproject.toml --group build

run: $(VENVS)/run/.ready
	@$(VENVS)/run/bin/foreman demo

# Two processes, each of which runs whole files, because the tests of a file share the processes that they start. ARGS="-n 0 ..."
# runs the tests sequentially, as a debugger needs it. The tests start foreman many times, so compiled modules are always cached,
# even if the shell sets PYTHONDONTWRITEBYTECODE.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENVS)/test/.ready
	$(VENVS)/test/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m benchmarks $(ARGS)

bench-jobs: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m benchmarks.jobs $(ARGS)

crash: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m crash $(ARGS)

docs: $(VENVS)/test/.ready
	$(VENVS)/test/bin/foreman settings --env > .env.example
	$(VENVS)/test/bin/foreman settings --markdown > docs/settings.md
	$(VENVS)/test/bin/python -m foreman.cli.reference > docs/cli.md
	$(VENVS)/test/bin/python -m foreman.web.openapi.page > docs/api.md
	$(VENVS)/test/bin/python docs/make_map.py > docs/map.md

picture: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python docs/make_picture.py

lint: $(VENVS)/lint/.ready
	$(VENVS)/lint/bin/ruff check
	$(VENVS)/lint/bin/ruff format --check
	$(VENVS)/lint/bin/mypy

# What changed since main, or is not committed; tools/touched.py says how it chooses. BASE=REVISION compares with another one.
check: export PYTHONDONTWRITEBYTECODE :=
check: lint $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m tools.touched $(ARGS)

hooks:
	git config core.hooksPath tools/hooks

format: $(VENVS)/lint/.ready
	$(VENVS)/lint/bin/ruff check --fix
	$(VENVS)/lint/bin/ruff format

# An environment is ready when it contains the locked packages and foreman itself (editable, built with the locked backend).
$(VENVS)/%/.ready: requirements/%.txt pyproject.toml
ifeq ($(FOUND),)
	@echo "foreman needs Python 3.11.2 or newer; none was found under the names $(CANDIDATES). Specify one: make PYTHON=/path/to/python3" >&2
	@false
endif
	@echo "creating $(VENVS)/$* with $$($(FOUND) --version) ..."
	@rm -rf $(VENVS)/$*
	@$(FOUND) -m venv $(VENVS)/$*
	@$(VENVS)/$*/bin/python $(INSTALL) --require-hashes --requirement requirements/$*.txt
	@$(VENVS)/$*/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# UPGRADE=--upgrade selects the newest versions that pyproject.toml allows.
lock: $(VENVS)/lint/.ready
	$(LOCK) --output-file $(LOCKED)/run.txt
	$(LOCK) --group test --constraint $(LOCKED)/run.txt --output-file $(LOCKED)/test.txt
	$(LOCK) --group test --group lint --constraint $(LOCKED)/test.txt --output-file $(LOCKED)/lint.txt

# Resolving again with the locked versions changes nothing unless pyproject.toml requires other ones.
lock-check: $(VENVS)/lint/.ready
	@rm -rf $(VENVS)/lock && cp -R requirements $(VENVS)/lock
	@$(MAKE) --no-print-directory lock LOCKED=$(VENVS)/lock
	@diff -r requirements $(VENVS)/lock || { echo "requirements/ does not satisfy pyproject.toml; run: make lock" >&2; exit 1; }

clean:
	rm -rf $(VENVS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name dropin.cache -delete
