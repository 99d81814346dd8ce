# make demo   evaluate the shipped robust model and write its report
# make test   lint, types, layers and every test
# Both set up what they need in .venv on first use; Python, pip, git and make are enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Spinning threads slow everything down on a machine that does other work too.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check format clean

demo: $(VENV)/.ready
	$(BIN)/assay evaluate fashion-cnn-pgd --data fashion-mnist --threat linf:0.1 --suite quick --limit 500 --out runs/demo --overwrite

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# torch comes first and pinned: resolved later, a looser range can pull another build of it.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group test
	touch $@

clean:
	rm -rf $(VENV) runs
