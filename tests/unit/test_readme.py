"""Holds the documentation to the code: help texts, exit statuses, kinds of drift, links.

``UPDATE_README=1 pytest tests/unit/test_readme.py`` writes the help texts of the installed typer into README.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from chrootsync.cli import app
from chrootsync.model import Code, Kind

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
DOCUMENTS = [README, CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^```console\n\$ chrootsync(?P<verb>(?: [a-z]+)*) --help\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

# Versions of typer draw the same words into different boxes, and name the types of values differently.
FRAME = str.maketrans(dict.fromkeys("╭╮╰╯─│", " "))
TYPES = {"<str>", "<int>", "TEXT", "INTEGER", "names"}

PROGRAM = "import sys; sys.argv[0] = 'chrootsync'; from chrootsync.__main__ import main; main()"


def help_of(verb: str) -> str:
    """The help text at 80 columns, without colour and whatever the terminal and the environment are."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-c", PROGRAM, *verb.split(), "--help"]
    shown = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
    return "\n".join(line.rstrip() for line in shown.splitlines()).strip("\n") + "\n"


def words(text: str) -> list[str]:
    return [word for word in text.translate(FRAME).split() if word not in TYPES]


def verbs() -> Iterator[str]:
    """Every command and group of commands, as it is typed behind ``chrootsync``; the empty one first."""
    pending = [("", typer.main.get_command(app))]
    while pending:
        verb, command = pending.pop(0)
        yield verb
        children = getattr(command, "commands", {})
        pending += [(f"{verb} {name}".strip(), child) for name, child in children.items()]


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """The help texts that README.md shows, by verb; brought up to date first where that was asked for."""
    text = README.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_README"):
        text = BLOCK.sub(
            lambda block: f"```console\n$ chrootsync{block['verb']} --help\n{help_of(block['verb'])}```", text
        )
        README.write_text(text, encoding="utf-8")
    return {block["verb"].strip(): block["text"] for block in BLOCK.finditer(text)}


@pytest.mark.parametrize("verb", list(verbs()))
def test_the_readme_shows_the_help_of_each_command(verb: str, shown: dict[str, str]) -> None:
    assert verb in shown, f"README.md lacks a block that begins with: $ chrootsync {verb} --help"
    assert words(shown[verb]) == words(help_of(verb)), "run: UPDATE_README=1 pytest tests/unit/test_readme.py"


def test_the_readme_shows_no_help_of_what_does_not_exist(shown: dict[str, str]) -> None:
    assert set(shown) == set(verbs())


@pytest.mark.parametrize("document", [README, CHECKOUT / "docs" / "operations.md"], ids=lambda path: path.name)
def test_exit_statuses_are_documented(document: Path) -> None:
    listed = [int(row) for row in re.findall(r"^\| (\d+) \|", document.read_text(encoding="utf-8"), re.MULTILINE)]
    known = {value for name, value in vars(Code).items() if name.isupper()} - {Code.INTERRUPTED}
    assert sorted(listed) == sorted(known)


def test_operations_says_what_to_do_about_each_kind_of_drift() -> None:
    text = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^### `([a-z-]+)`$", text, re.MULTILINE) == [kind.value for kind in Kind]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []
