# Everything runs in .venv, which is built from requirements.txt when it is missing or older than it.
PYTHON ?= python3
BIN := .venv/bin

# An environment is made by the stamp in it, which is written last: one that broke off is begun anew. So is one with
# another Python than PYTHON=… asks for.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) -V),$(shell $(BIN)/python -V 2>/dev/null))
.PHONY: .venv/made
endif
endif

# Tests start hundreds of processes, none of which should compile what the one before has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help .venv demo certs quick test coverage check docs format lint types protos protos-check fault-test stack-test compose-test kubernetes-test install-test dist check-all check-lowest check-newest workflows .venv-bench bench scale-bench capacity-bench clean

# Exit status 77 of the installer: there is no Go here, and it has said so.
TOOLS = $(BIN)/python tools/install.py $(1); case $$? in 0) ;; 77) exit 0 ;; *) exit 1 ;; esac

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z.-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: .venv/made ## The virtual environment, from pinned requirements

.venv/made: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv $(if $(TLS),certs) ## Both services, a call that succeeds and one that fails, on one screen; TLS=1: with TLS
	@$(BIN)/python client demo $(if $(TLS),--certs certs)

certs: .venv ## Certificates for this machine, in certs/: of an authority, the services and the client
	@$(BIN)/python tools/certs.py

# What is fast, and calls of each arity on each stack. pytest fails on one that has another name now.
FAST = $(addprefix tests/package/test_,annotate.py client_call.py encoding.py layers.py \
	log_line.py private_names.py public_names.py redaction.py rendering.py) tests/conformance/test_server_call.py \
	$(addprefix tests/package/test_settings.py::test_,empty_variable_counts_as_unset environment_afterwards \
	every_one_of_ours_is_here every_standard_variable_is_here invalid_endpoints invalid_value_of_ours valid_endpoints)
PLAINEST = unary-sync-call client_stream-sync-call server_stream-sync-iterate bidi_stream-sync-iterate \
	unary-aio-aio_await client_stream-aio-aio_await server_stream-aio-aio_iterate bidi_stream-aio-aio_iterate
CALLS = $(foreach case,ok exception deadline,$(PLAINEST:%='tests/conformance/test_matrix.py::test_call[$(case)-%]'))

quick: .venv ## The fast tests, and calls of each arity on each stack: for every minute
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(FAST) $(CALLS)

# In CI a test that fails is run once more, and the summary names it: a fault that does not show each time is one still.
RERUNS = $(if $(CI),--reruns 1 -r fER)
PYTEST_ALL = $(BIN)/python -m pytest -n 4 --dist worksteal $(RERUNS)

test: .venv ## Every test
	$(PYTEST_ALL)

coverage: .venv ## Every test, and which lines and branches of observability/ they miss
	$(PYTEST_ALL) --cov

check: .venv lint types protos-check workflows docs coverage ## Format, lint, types, stubs, workflows, site, tests: what CI runs

# A warning, such as a link that leads nowhere or a public name that is not documented, fails it.
docs: .venv ## The documentation site, in build/site
	$(BIN)/sphinx-build -q -W --keep-going -c docs -d build/doctrees . build/site

lint: .venv ## What a commit is checked for, on all files; what can be mended, is
	@$(BIN)/pre-commit run --all-files --show-diff-on-failure

workflows: .venv ## The GitHub workflows, by actionlint (needs Go)
	@$(call TOOLS,actionlint); .tools/actionlint -shellcheck= -pyflakes= && echo "the workflows pass actionlint"

format: .venv ## Format the code and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two programs are called app.py, so each service has its own run.
types: .venv
	$(BIN)/mypy observability programs protos tests examples benchmarks tools/*.py deploy/healthcheck.py docs/conf.py
	$(BIN)/mypy service-a/app.py
	$(BIN)/mypy service-b/app.py
	$(BIN)/mypy client

# One after another: what they measure is what a call takes beside one that makes trouble.
fault-test: .venv ## Faults and abuse: what they do to other people's calls, in figures
	@$(BIN)/python -m pytest $(RERUNS) tests/faults

stack-test: .venv ## The viewing stack, with the real Jaeger and Prometheus (needs Go)
	@$(TOOLS); $(BIN)/python -m pytest $(RERUNS) tests/stack --ignore=tests/stack/test_compose.py

compose-test: .venv ## The compose file, with a real engine; IMAGES=upstream takes the published images
	@[ "$(IMAGES)" = upstream ] || { $(TOOLS); }; IMAGES="$(IMAGES)" $(BIN)/python -m pytest $(RERUNS) tests/stack/test_compose.py

# With KUBECONFIG it is a cluster of one's own, whose nodes have the images; else one is built and run, where that can be.
kubernetes-test: .venv ## Both services in a real Kubernetes (needs Go, and root), or in that of KUBECONFIG
	@[ -n "$$KUBECONFIG" ] || { $(BIN)/python tools/cluster.py --check && $(BIN)/python tools/install.py kubernetes; }; \
		case $$? in 0) $(BIN)/python -m pytest tests/kubernetes ;; 77) exit 0 ;; *) exit 1 ;; esac

install-test: .venv ## The package in a fresh environment, with what it says it depends on, and its types
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		$(PYTHON) -m venv "$$folder/venv" && \
		"$$folder/venv/bin/pip" install --quiet --disable-pip-version-check . && \
		cd "$$folder" && venv/bin/python -c "import observability; print('imported', observability.__file__)" && \
		"$(CURDIR)/$(BIN)/mypy" --strict --python-executable venv/bin/python -c \
			'from typing import assert_type; from observability import Call, current_call; assert_type(current_call(), Call | None)'

dist: .venv ## The sdist and the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

check-all: ## The package's tests on each Python that is here, with the lowest and the newest dependencies
	@$(PYTHON) tools/check_all.py

check-lowest: ## The package's tests with the lowest of what it says it depends on
check-newest: ## The same, with the newest that there is

# Warnings that an older package gives are not ours to fix.
check-lowest: WARNINGS = -W ignore::DeprecationWarning -W ignore::FutureWarning -W ignore::pytest.PytestUnraisableExceptionWarning

# Made anew each time: what could be installed yesterday may not be today. The stubs are those of this generator, since
# newer ones refuse older packages; nothing else of this folder may come before them.
check-lowest check-newest: check-%:
	$(PYTHON) -m venv --clear .venv-$*
	$(PYTHON) tools/requirements.py $* > .venv-$*/requirements.txt
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -r .venv-$*/requirements.txt
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	.venv-$*/bin/pip check --disable-pip-version-check
	.venv-$*/bin/pip freeze --exclude-editable
	mkdir -p .venv-$*/stubs/protos && cp protos/__init__.py .venv-$*/stubs/protos
	.venv-$*/bin/python -m grpc_tools.protoc -I. --python_out=.venv-$*/stubs --grpc_python_out=.venv-$*/stubs \
		protos/echo.proto
	PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/.venv-$*/stubs" .venv-$*/bin/pytest -n 4 --dist worksteal $(RERUNS) $(WARNINGS) \
		tests/package

# A separate environment: one of the peers works with the grpcio of exactly its own version alone.
.venv-bench: .venv-bench/made

.venv-bench/made: benchmarks/requirements.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

bench: .venv-bench ## What reporting a call costs, beside others; QUICK=1 takes under 2 minutes
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

# By the services' own environment: what is measured is what runs.
scale-bench: .venv ## What 1, 2 and 4 processes of Service A do on the cores that there are
	@$(BIN)/python -m benchmarks.scale

capacity-bench: .venv ## What calls take of the services, the Collector and Prometheus (needs Go)
	@$(TOOLS); $(BIN)/python -m benchmarks.capacity

protos: .venv ## Write the stubs from protos/echo.proto
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. \
		--grpc_python_out=. --mypy_out=. --mypy_grpc_out=. protos/echo.proto

protos-check: protos
	@git diff --exit-code --stat protos || { echo "protos/ does not match echo.proto: run make protos, and commit" >&2; exit 1; }

clean: ## Remove what was built
	rm -rf .venv .venv-bench .venv-lowest .venv-newest build certs dist .mypy_cache .ruff_cache .pytest_cache
