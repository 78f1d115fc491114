# With Python 3.11.2 or newer, make and git:
#   make run      serve in front of the built-in simulator, or of FOREMAN_TARGET_URL, and say what to type next
#   make test     run the tests
#   make lint     check style and types
#   make bench    measure what foreman adds to a request
#   make bench-jobs  measure what jobs cost; ARGS=day is a day's life in miniature
#   make crash    kill it, cut its power, and check what is left of its jobs
#   make format   lay the code out
#   make lock     choose the dependencies again, after a change in pyproject.toml
#   make lock-check  tell whether the locked versions still fit pyproject.toml
#   make clean    remove everything that was built
# Each makes its own virtual environment in .venvs/ from the versions and hashes in requirements/.
# PYTHON=python3.13 chooses a Python.

.PHONY: run test lint bench bench-jobs crash format lock lock-check clean
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

# Two at a time, each with whole files, since a file's tests share what they start. ARGS="-n 0 ..." is one after the other,
# as a debugger needs it. The tests start foreman many times: each module is compiled once, whatever the shell says.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENVS)/test/.ready
	$(VENVS)/test/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m benchmarks $(ARGS)

bench-jobs: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m benchmarks.jobs $(ARGS)

crash: $(VENVS)/test/.ready
	$(VENVS)/test/bin/python -m crash $(ARGS)

lint: $(VENVS)/lint/.ready
	$(VENVS)/lint/bin/ruff check
	$(VENVS)/lint/bin/ruff format --check
	$(VENVS)/lint/bin/mypy

format: $(VENVS)/lint/.ready
	$(VENVS)/lint/bin/ruff check --fix
	$(VENVS)/lint/bin/ruff format

# An environment is ready when the locked packages and foreman itself (editable, built by the locked backend) are in it.
$(VENVS)/%/.ready: requirements/%.txt pyproject.toml
ifeq ($(FOUND),)
	@echo "foreman needs Python 3.11.2 or newer, and found none as: $(CANDIDATES). Say where: make PYTHON=/path/to/python3" >&2
	@false
endif
	@echo "making $(VENVS)/$* with $$($(FOUND) --version) ..."
	@rm -rf $(VENVS)/$*
	@$(FOUND) -m venv $(VENVS)/$*
	@$(VENVS)/$*/bin/python $(INSTALL) --require-hashes --requirement requirements/$*.txt
	@$(VENVS)/$*/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# UPGRADE=--upgrade takes the newest versions that pyproject.toml allows.
lock: $(VENVS)/lint/.ready
	$(LOCK) --output-file $(LOCKED)/run.txt
	$(LOCK) --group test --constraint $(LOCKED)/run.txt --output-file $(LOCKED)/test.txt
	$(LOCK) --group test --group lint --constraint $(LOCKED)/test.txt --output-file $(LOCKED)/lint.txt

# Choosing again from what is locked changes nothing unless pyproject.toml asks for something else.
lock-check: $(VENVS)/lint/.ready
	@rm -rf $(VENVS)/lock && cp -R requirements $(VENVS)/lock
	@$(MAKE) --no-print-directory lock LOCKED=$(VENVS)/lock
	@diff -r requirements $(VENVS)/lock || { echo "requirements/ does not fit pyproject.toml: make lock" >&2; exit 1; }

clean:
	rm -rf $(VENVS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name dropin.cache -delete
