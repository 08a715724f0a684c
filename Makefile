# Each target does all its own set-up; a fresh Debian needs python3-venv, make and git.

PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
# System tests wait more than they work: one more than there are cores, usually.
JOBS ?= 3
# For make bench.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LIBRARY := $(PREFIX)/lib/chrootsync
INSTALLED := '$(DESTDIR)$(LIBRARY)/bin/python' -I -m chrootsync
UNITS := $(PREFIX)/lib/systemd/system
MANUAL := $(PREFIX)/share/man/man8/chrootsync.8
# Where each shell looks for completions of commands.
BASH := $(PREFIX)/share/bash-completion/completions/chrootsync
ZSH := $(PREFIX)/share/zsh/site-functions/_chrootsync
FISH := $(PREFIX)/share/fish/vendor_completions.d/chrootsync.fish
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chrootsync-tests

.PHONY: help demo test test-long lint bench bench-check man docs install install-shared uninstall clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo       see it work: three instances in a throw-away root (no root rights needed)'
	@echo 'make test       lint, types, import contracts and all tests; as root on Debian the system tests too'
	@echo 'make test-long  the same with many more generated cases'
	@echo 'make lint       formatting, lint, types and import contracts alone'
	@echo 'make bench      compare with the peers, with tables and charts; ARGS=--small takes minutes'
	@echo 'make bench-check  no ratio to a peer is worse than the one that is committed'
	@echo 'make man        the manual page, as build/chrootsync.8'
	@echo 'make docs       bring the generated parts of docs up to date'
	@echo 'make install    install to PREFIX ($(PREFIX)); DESTDIR is honoured'
	@echo 'make uninstall  remove what make install installed'
	@echo 'make clean      remove what make has made here, and the cache of the system tests'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "chrootsync needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

demo: $(STAMP)
	$(BIN)/chrootsync demo

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tests of one module share a container, so they stay together. They begin in the order in which they are collected:
# system tests, which wait a lot, first; unit tests fill the end.
test: lint
	scripts/setup-system-tests
	$(BIN)/pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

test-long: lint
	scripts/setup-system-tests
	$(BIN)/pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder --hypothesis-profile=long

# As root on Debian in a throw-away container, with all peers; ARGS=--small takes minutes, ARGS=--help says more.
bench: $(VENV)/.charts
	scripts/setup-system-tests
	$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(STAMP)
	$(BIN)/python -m benchmarks.check

$(VENV)/.charts: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

man: $(STAMP)
	mkdir -p build
	$(BIN)/python -m chrootsync.cli.manual > build/chrootsync.8

docs: $(STAMP)
	mkdir -p build
	$(BIN)/python scripts/rules_reference.py < docs/rules.md > build/rules.md
	cp build/rules.md docs/rules.md

# The tree is put together where it will be used from: a virtual environment knows its own path. With DESTDIR, the paths
# in it are mended to what they are once DESTDIR is gone. What was there before comes back where that fails, also at the next
# call where this one is interrupted: units and hooks call it.
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "chrootsync needs Python 3.11 or later: make PYTHON=...")'
	if [ -d '$(DESTDIR)$(LIBRARY).old' ]; then \
	    rm -rf '$(DESTDIR)$(LIBRARY)' && mv '$(DESTDIR)$(LIBRARY).old' '$(DESTDIR)$(LIBRARY)'; \
	fi
	if [ -d '$(DESTDIR)$(LIBRARY)' ]; then mv '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(LIBRARY).old'; fi
	if $(PYTHON) -m venv '$(DESTDIR)$(LIBRARY)' \
	    && '$(DESTDIR)$(LIBRARY)/bin/python' -m pip install --quiet --disable-pip-version-check .; then \
	    rm -rf '$(DESTDIR)$(LIBRARY).old'; \
	else \
	    rm -rf '$(DESTDIR)$(LIBRARY)'; \
	    if [ -d '$(DESTDIR)$(LIBRARY).old' ]; then \
	        mv '$(DESTDIR)$(LIBRARY).old' '$(DESTDIR)$(LIBRARY)'; \
	        echo 'what was installed before is as it was' >&2; \
	    fi; \
	    exit 1; \
	fi
	if [ -n '$(DESTDIR)' ]; then \
	    grep -rlIF '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(LIBRARY)/bin' '$(DESTDIR)$(LIBRARY)/pyvenv.cfg' \
	        | xargs sed -i 's|$(DESTDIR)$(LIBRARY)|$(LIBRARY)|g'; \
	    $(PYTHON) -m compileall -q -f -s '$(DESTDIR)' '$(DESTDIR)$(LIBRARY)'; \
	fi
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(UNITS)'
	ln -sfn '$(LIBRARY)/bin/chrootsync' '$(DESTDIR)$(PREFIX)/bin/chrootsync'
	for unit in $(wildcard systemd/*.service systemd/*.timer systemd/*.path systemd/*.socket); do \
	    sed 's|/usr/bin/python3 -I|$(LIBRARY)/bin/python -I|' "$$unit" \
	        > '$(DESTDIR)$(UNITS)/'"$${unit##*/}"; \
	    chmod 644 '$(DESTDIR)$(UNITS)/'"$${unit##*/}"; \
	done
	$(MAKE) --no-print-directory install-shared

# The manual page and the completions, as the program that has just been installed makes them. zsh loads its file when
# it first needs it, knows it by its first line, and calls nothing in it by itself.
install-shared:
	install -d $(foreach file,$(MANUAL) $(BASH) $(ZSH) $(FISH),'$(DESTDIR)$(dir $(file))')
	$(INSTALLED).cli.manual > '$(DESTDIR)$(MANUAL)'
	_CHROOTSYNC_COMPLETE=source_bash $(INSTALLED) > '$(DESTDIR)$(BASH)'
	_CHROOTSYNC_COMPLETE=source_fish $(INSTALLED) > '$(DESTDIR)$(FISH)'
	( echo '#compdef chrootsync' && _CHROOTSYNC_COMPLETE=source_zsh $(INSTALLED) && \
	    echo '_chrootsync_completion "$$@"' ) > '$(DESTDIR)$(ZSH)'
	chmod 644 $(foreach file,$(MANUAL) $(BASH) $(ZSH) $(FISH),'$(DESTDIR)$(file)')

uninstall:
	rm -rf '$(DESTDIR)$(LIBRARY)' '$(DESTDIR)$(LIBRARY).old'
	rm -f '$(DESTDIR)$(PREFIX)/bin/chrootsync' $(foreach file,$(MANUAL) $(BASH) $(ZSH) $(FISH),'$(DESTDIR)$(file)')
	for unit in $(notdir $(wildcard systemd/*.service systemd/*.timer systemd/*.path systemd/*.socket)); do \
	    rm -f '$(DESTDIR)$(UNITS)/'"$$unit"; \
	done

clean:
	rm -rf --one-file-system $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
	    .hypothesis .coverage '$(CACHE)'
	find . -name __pycache__ -prune -exec rm -rf {} +
