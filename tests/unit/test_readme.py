"""Holds the documentation to the code: help texts, exit statuses, kinds of drift, keys of rules, layers, links.

``UPDATE_README=1 pytest tests/unit/test_readme.py`` writes the help texts of the installed typer into README.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from chrootsync.cli.application import application
from chrootsync.model import Code, Kind
from chrootsync.rules.keys import RULE_KEYS, RULESET_KEYS, schema
from chrootsync.rules.ruleset import parse

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
    """Every command and group of commands that people call, as typed behind ``chrootsync``; the empty one first."""
    pending = [("", typer.main.get_command(application()))]
    while pending:
        verb, command = pending.pop(0)
        yield verb
        children = getattr(command, "commands", {})
        pending += [(f"{verb} {name}".strip(), child) for name, child in children.items() if not child.hidden]


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


def nested_keys() -> list[str]:
    """The keys of conditions and of other tables in a rule; what may come by itself is said before arrays of it."""
    rule = schema()["properties"]["rule"]["items"]["properties"]
    when = rule["when"]["anyOf"][0]["properties"]
    tables = [when["parameter"]["anyOf"][0], when["table"], when["file"], rule["guard"]]
    arrays = (rule["devices"]["items"], rule["links"]["items"])
    return [*when, *(key for table in (*tables, *arrays) for key in table["properties"])]


def test_each_key_of_a_rule_file_is_explained() -> None:
    text = (CHECKOUT / "docs" / "rules.md").read_text(encoding="utf-8")
    reference = text[text.index("## `[ruleset]`") : text.index("## Shipped rule sets")]
    cells = re.findall(r"^\| (`[a-z_`, ]+`) \|", reference, re.MULTILINE)
    explained = {key for cell in cells for key in re.findall(r"[a-z_]+", cell)}
    assert "`when` is a table" in reference
    assert explained | {"when"} == {*RULESET_KEYS, *RULE_KEYS, *nested_keys()}


def test_the_reference_of_rules_is_what_the_schema_says() -> None:
    text = (CHECKOUT / "docs" / "rules.md").read_text(encoding="utf-8")
    command = [sys.executable, str(CHECKOUT / "scripts" / "rules_reference.py")]
    made = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    assert made == text, "run: make docs"


def examples() -> list[str]:
    """The examples in the reference of rules, as files; a rule or its keys alone get what belongs around them."""
    text = (CHECKOUT / "docs" / "rules.md").read_text(encoding="utf-8")
    head = '[ruleset]\nservice = "postfix"\ndescription = "an example"\n'
    rule = '[[rule]]\nid = "example"\nwhy = "an example"\n'
    return [
        example
        if example.startswith(("[ruleset]", "[[override]]"))
        else f"{head}{'' if '[[rule]]' in example else rule}{example}"
        for example in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_rules_are_sound(example: str) -> None:
    shipped = [
        (path.name, path.read_bytes())
        for path in sorted((CHECKOUT / "rules").glob("*.toml"))
        if "[[override]]" in example
    ]
    assert parse(shipped, [("example.toml", example)])


def test_the_architecture_shows_the_layers_of_the_contract() -> None:
    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    text = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert "".join(f"    {layer}\n" for layer in layers) in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert missing == []
