# Two commands: `make replicate` and `make test`. Both make and reuse .venv from requirements.lock.
# `make baselines` adds what the methods of other papers need, `make cluster` what the Snakefile needs.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
# N2N_DATA=/path/to/data runs on real images; EPOCHS=n and SEEDS=0,1,2 change the budget;
# RESULTS=mine keeps your records apart from the committed ones, which are not run again.
N2N_DATA ?=
EPOCHS ?=
SEEDS ?=
DEVICE ?=
RESULTS ?=

.PHONY: replicate test check install baselines cluster lock lock-baselines lock-cluster clean

replicate: $(READY)
	@$(VENV)/bin/n2n replicate $(if $(N2N_DATA),--data "$(N2N_DATA)") $(if $(EPOCHS),--epochs $(EPOCHS)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DEVICE),--device $(DEVICE)) $(if $(RESULTS),--results "$(RESULTS)")

test: $(READY)
	$(if $(N2N_DATA),@test -d "$(N2N_DATA)" || { echo "n2n: There is no folder $(N2N_DATA)."; exit 1; })
	$(if $(N2N_DATA),N2N_DATA="$$(cd "$(N2N_DATA)" && pwd)") $(VENV)/bin/python -m pytest

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

install: $(READY)

$(READY): requirements.lock pyproject.toml
	@echo "n2n: making the virtual environment $(VENV) (two minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "n2n: Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "n2n: installing the exact versions of requirements.lock"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@echo "n2n: installing n2n itself"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

baselines cluster: %: $(VENV)/.%

$(VENV)/.%: $(READY) requirements-%.lock
	@echo "n2n: installing the exact versions of requirements-$*.lock"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-$*.lock
	@touch $@

lock: $(READY)
	@{ sed '/^[^#]/,$$d' requirements.lock; \
	  $(VENV)/bin/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } > .lock.new
	@mv .lock.new requirements.lock

lock-baselines lock-cluster: lock-%: $(READY)
	@{ sed '/^[^#-]/,$$d' requirements-$*.lock; \
	  $(VENV)/bin/python -m pip freeze --exclude-editable | grep -vi '^torch==' | grep -vxFf requirements.lock; } > .lock.new
	@mv .lock.new requirements-$*.lock

clean:
	rm -rf _build book/executed
	cd results && rm -rf demo work/images  # not the checkpoints
