BACKEND ?= processes
REPLAY ?= native
ENV ?= CartPole-v1
ARGS ?=
TESTS ?= tests
PYTEST ?=
AGENT ?=
FAULTS ?= 100
SEED ?= 0
RUNS ?= runs/learning
# A version, a command or a path; each gets an environment of its own: .venv-3.13. Where
# none is named, .venv has 3.10 if there is one, else the newest.
PYTHON ?=

VERSION = import sys; print("-%d.%d" % sys.version_info[:2])
ifneq ($(PYTHON),)
SUFFIX := $(shell python=$$(sh scripts/find_python.sh "$(PYTHON)") && "$$python" -c '$(VERSION)')
endif
VENV := .venv$(SUFFIX)

.PHONY: run test check learn zoo chaos lock clean

# Trains DQN until it is solved:
# make run BACKEND=threads REPLAY=reverb ARGS="--seed=1 --num_actors=4"
run: $(VENV)/installed.lock
	@$(VENV)/bin/callsheet run dqn --env=$(ENV) --backend=$(BACKEND) --replay=$(REPLAY) $(ARGS)

# What CI runs: style, types and every quick test: make test TESTS=tests/launch PYTHON=3.13
test: check
	@# Else each of thousands of processes would compile the package, where the
	@# environment forbids to keep what was compiled.
	@$(VENV)/bin/python -m compileall -q agents launch nodes programs src tests
ifeq ($(TESTS),tests)
	@failed=0; \
	$(VENV)/bin/python -m pytest tests --ignore=tests/launch -n 2 $(PYTEST) || failed=1; \
	$(VENV)/bin/python -m pytest tests/launch $(PYTEST) || failed=1; \
	exit $$failed
else
	$(VENV)/bin/python -m pytest $(TESTS) $(PYTEST)
endif

check: $(VENV)/installed.lock
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; \
	  then $(VENV)/bin/mypy; else echo 'types are checked on Python 3.10, by its numpy'; fi

# Trains to the targets, three seeds in both local backends: make learn AGENT=sac; minutes
# each. Without AGENT all of them, and DQN under every launch engine; hours.
learn: $(VENV)/installed.lock
ifeq ($(AGENT),)
	$(VENV)/bin/python -m pytest -m learning tests/learning -s --runs=$(RUNS)
else
	$(VENV)/bin/python -m pytest -m learning tests/learning/test_zoo.py -s --runs=$(RUNS) -k "$(AGENT)-"
endif

# agents/README.md, of the records that `make learn` has kept.
zoo: $(VENV)/installed.lock
	$(VENV)/bin/python -m tests.learning.table

# A DQN run for each fault, and a table: make chaos FAULTS=100 SEED=1; about a minute each.
chaos: $(VENV)/installed.lock
	$(VENV)/bin/python -m tests.chaos --faults=$(FAULTS) --seed=$(SEED) --out=runs/chaos-$(SEED).jsonl

$(VENV)/installed.lock: requirements.lock setup.py scripts/install.sh scripts/find_python.sh
	@sh scripts/install.sh $(VENV) $(PYTHON)

# Resolves the versions anew, for every Python from 3.10 on (needs uv).
lock:
	uv pip compile -q --upgrade setup.py --extra dev --universal --python-version 3.10 --no-annotate --no-header -o requirements.lock

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache
