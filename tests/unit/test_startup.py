"""What a quiet check of a root in sync may import: the weight of every cron job, hook and monitoring probe."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
import typer
from packaging.version import Version

# Each of these takes time and belongs to what such a check does not do: help and mistakes of the command line, tables,
# colours, TOML, ELF files, version specifiers, packages, histories, other verbs, and all that only a repair needs.
BANNED = (
    "ast",
    "asyncio",
    "click",
    "concurrent.futures",
    "dataclasses",
    "importlib.metadata",
    "inspect",
    "jinja2",
    "logging",
    "packaging",
    "pathlib",
    "pydantic",
    "random",
    "rich",
    "secrets",
    "shutil",
    "sqlite3",
    "subprocess",
    "tempfile",
    "tomllib",
    "traceback",
    "typer",
    "watchdog",
    "chrootsync.cli.application",
    "chrootsync.cli.checking",
    "chrootsync.cli.fix",
    "chrootsync.cli.install",
    "chrootsync.cli.demo",
    "chrootsync.cli.explain",
    "chrootsync.cli.history",
    "chrootsync.cli.rollback",
    "chrootsync.packages",
    "chrootsync.probe",
    "chrootsync.cli.probing",
    "chrootsync.hooks",
    "chrootsync.maillog",
    "chrootsync.model.explanation",
    "chrootsync.model.memory",
    "chrootsync.model.queues",
    "chrootsync.pipeline.recall",
    "chrootsync.reload",
    "chrootsync.repair",
    "chrootsync.report.html",
    "chrootsync.report.json",
    "chrootsync.report.plain",
    "chrootsync.report.table",
    "chrootsync.root.write",
    "chrootsync.rules.ruleset",
    "chrootsync.libraries.elf",
    "chrootsync.state.database",
    "chrootsync.transactions",
    "chrootsync.watch",
)

# Prints what is loaded when the command has ended, as JSON on the last line.
REPORTING = """\
import gc, json, sys
sys.argv[0] = "chrootsync"
from chrootsync.__main__ import main
try:
    main()
except SystemExit as end:
    lasting = gc.get_freeze_count() if gc.isenabled() else 0
    print(json.dumps({"code": end.code or 0, "lasting": lasting, "modules": sorted(sys.modules)}))
"""


def run(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, *options, "-c", REPORTING, *arguments]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)


def chain(module: str, log: str) -> str:
    """Who imported a module, from ``-X importtime``: importers follow what they import, with less indentation."""
    lines = [line.rpartition("|")[2][1:] for line in log.splitlines() if line.startswith("import time:")]
    start = next((index for index, line in enumerate(lines) if line.strip() == module), None)
    if start is None:
        return f"{module} (loaded as part of another module)"
    links, depth = [module], _indentation(lines[start])
    for line in lines[start:]:
        if _indentation(line) < depth:
            links.append(line.strip())
            depth = _indentation(line)
    return " <- ".join(links)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments of a quiet check of the demonstration's root, in sync and with every cache warm."""
    place = tmp_path_factory.mktemp("startup")
    root = place / "root"
    root.mkdir()
    for directory in (place, root):
        directory.chmod(0o755)
    importlib.import_module("chrootsync.cli.demo")._build(str(root))
    arguments = ("check", "--quiet", "--root", str(root), "--state", str(place / "state"))
    fixed = run(*arguments, "--fix")
    assert json.loads(fixed.stdout)["code"] == 0, fixed.stderr
    run(*arguments)  # rules are read before the first run makes a place to keep them
    assert {"cache-libc.json", "cache-rules.json"} <= set(os.listdir(place / "state")), "caches are not warm"
    return arguments


def test_a_quiet_check_in_sync_imports_nothing_heavy(warm: tuple[str, ...]) -> None:
    done = run(*warm, options=("-X", "importtime"))
    result = json.loads(done.stdout)
    assert result["code"] == 0, done.stderr
    loaded = set(result["modules"])
    assert "chrootsync.inventory" in loaded, "the check did not run"
    assert [chain(module, done.stderr) for module in BANNED if module in loaded] == []


def test_garbage_is_looked_for_in_what_a_check_makes_alone(warm: tuple[str, ...]) -> None:
    assert json.loads(run(*warm).stdout)["lasting"] > 10_000


def test_a_check_in_plain_format_imports_no_rich(warm: tuple[str, ...]) -> None:
    arguments = [argument for argument in warm if argument != "--quiet"]
    done = run(*arguments, "--format", "plain", options=("-X", "importtime"))
    summary, _, last = done.stdout.strip().rpartition("\n")
    assert "in sync" in summary
    loaded = set(json.loads(last)["modules"])
    needed = ("chrootsync.report.plain", "shutil")
    heavy = [module for module in BANNED if module not in needed and module in loaded]
    assert [chain(module, done.stderr) for module in heavy] == []


@pytest.mark.skipif(Version(typer.__version__) < Version("0.17"), reason="loads rich on every start")
def test_typer_itself_is_light() -> None:
    """Typer 0.29 loads pydantic, which makes each other verb three times slower: hence the bound in pyproject.toml."""
    code = "import json, sys, typer; print(json.dumps(sorted(sys.modules)))"
    listed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"pydantic", "rich", "asyncio"}.isdisjoint(json.loads(listed))


def test_the_chain_names_the_importers() -> None:
    """Held against a module that is imported on purpose, so that an empty answer above means something."""
    code = "import sqlite3"
    command = [sys.executable, "-X", "importtime", "-c", code]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert chain("_sqlite3", log) == "_sqlite3 <- sqlite3.dbapi2 <- sqlite3"
    assert "another module" in chain("no.such.module", log)
