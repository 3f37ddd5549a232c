# The targets of a working day. Everything runs in .venv in the root; PYTHON names the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.mailbus-setup
UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links --quiet

.PHONY: setup compiled demo test check bench schema fuzz corpora faults lock image
.DEFAULT_GOAL := check

setup: $(STAMP)

# Pinned by hash, and from whatever package index this machine's pip is set to.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv \
		|| { echo "no venv: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# What ingest does for every mail, compiled where there is a C compiler; anew after a change of it.
compiled: setup
	$(BIN)/python -m tools.compile

# From nothing to a mail that became an event and was answered: servers of its own, nothing to set up.
demo: setup
	$(BIN)/python -m tools.compile --drop
	$(BIN)/mailbus demo $(ARGS)

# Everything, on real servers; a missing one fails with the command that installs it. A worker a core and one more: much
# of their time they wait for servers.
test: compiled
	$(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --dist worksteal $(ARGS)

# Half a minute: what needs no server but NATS.
check: setup
	$(BIN)/python -m tools.compile --drop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n $$(nproc) --dist worksteal tests/test_house.py tests/contract tests/mime \
		tests/fleet/test_assign.py tests/ingest/test_plan.py $(ARGS)

# The table of docs/bench.md: mailbus and its peers side by side in one run.
bench: compiled
	$(BIN)/python -m tests.bench $(ARGS)

# docs/schema from the classes the code uses, and plain manifests from the chart; tests compare.
schema: setup
	$(BIN)/python -m tools.schema
	$(BIN)/python -m tools.manifests

# Parser, classifier and texts against broken mails: ARGS="--seconds 600 --inputs 1000000 --corpora DIR --seed 1".
fuzz: compiled
	$(BIN)/python -m tests.mime.fuzz $(ARGS)

# How far mailbus agrees with the expectations of other programs' tests: DIR=CORPORA, and ARGS=--differences.
corpora: setup
	$(BIN)/python -m tests.corpora $(DIR) $(ARGS)

# The rows of docs/faults.md beside the tests that show them.
faults: setup
	$(BIN)/python -m tools.faults $(ARGS)

# The image, and its demo as nobody on a root that cannot be written.
image: setup
	$(BIN)/python -m tools.image $(ARGS)

# Both locks anew; no index's name goes into them.
lock: setup
	$(UV_COMPILE) --extra demo --extra discover --extra language --group dev -o requirements.lock
	$(UV_COMPILE) --extra demo --extra discover -c requirements.lock -o requirements-run.lock
