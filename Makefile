BACKEND ?= processes
REPLAY ?= reverb
ENV ?= CartPole-v1
ARGS ?=
TESTS ?= tests

.PHONY: run test check learn lock clean
export PYTHON

# Trains DQN until it is solved:
# make run BACKEND=threads REPLAY=native ARGS="--seed=1 --num_actors=4"
run: .venv/installed.lock
	@.venv/bin/callsheet run dqn --env=$(ENV) --backend=$(BACKEND) --replay=$(REPLAY) $(ARGS)

# What CI runs: style, types and every quick test: make test TESTS=tests/launch
test: check
	.venv/bin/python -m pytest $(TESTS)

check: .venv/installed.lock
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

# Trains to the target with several seeds in both local backends; minutes each.
learn: .venv/installed.lock
	.venv/bin/python -m pytest -m learning tests/learning -s

.venv/installed.lock: requirements.lock setup.py scripts/install.sh
	@sh scripts/install.sh

# Resolves the versions anew (needs uv).
lock:
	uv pip compile -q setup.py --extra dev --python-version 3.10 --no-annotate --no-header -o requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
