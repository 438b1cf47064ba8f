# One word a chore; .ci/run uses the same words.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := .[all,test]

.PHONY: help install demo figures choose sharpness bench bench-landscape bench-scaling bench-installed docs browser test lint types clean

help:  ## list the chores
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

install: .venv/installed  ## make .venv with the package, every extra and the test tools

# uv is fast; where it does not install, pip does the same.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	if $(BIN)/python -m pip install --quiet --constraint constraints.txt uv; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '$(EXTRAS)'; \
	else \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '$(EXTRAS)'; \
	fi
	touch $@

demo: install  ## train small batch, large batch and both with noise, 5 seeds each, and write a page (under five minutes)
	$(BIN)/smoothout compare experiments/demo/arms.toml --name demo --overwrite
	$(BIN)/python experiments/demo/look.py

figures: install  ## measure all of the demo's arms, write its page again, and figures for a paper (after make demo)
	$(BIN)/python experiments/demo/look.py --all

choose: install  ## choose the demo's strengths on the hold-out again (about ten minutes)
	$(BIN)/python experiments/demo/choose.py

sharpness: install  ## measure the demo's checkpoints, four arms and five seeds (after make demo; about ten minutes)
	$(BIN)/python experiments/sharpness/measure.py

bench: bench-installed  ## time training steps with noise against plain ones and other packages (about twenty minutes)
	$(BIN)/python benchmarks/bench.py

bench-landscape: bench-installed  ## time lines, planes and Hessians against bare loops and other packages (about ten minutes)
	$(BIN)/python benchmarks/landscape.py

bench-scaling: install  ## time training in several processes, and write docs/scaling.md's tables (about three minutes)
	$(BIN)/python benchmarks/scaling.py

bench-installed: install
	if [ -x $(BIN)/uv ]; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,bench]'; \
	else \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,bench]'; \
	fi

docs: install  ## write the pages that are made from tables in the code
	$(BIN)/python -c "from smoothout.original.options import markdown; print(markdown(), end='')" > docs/options.md

browser: install  ## choose the Chromium that tests open pages in: CHROMIUM=path, else one on PATH, else Debian's by apt
	$(BIN)/python tests/find_chromium.py

test: install  ## run all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## check types
	$(BIN)/mypy

clean:  ## remove the environment, caches and build outputs; runs/ and data/ stay
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
