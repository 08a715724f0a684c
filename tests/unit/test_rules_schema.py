"""The JSON Schema of rule files says what the parser says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no type information
import pytest

from chrootsync.model import ConfigError, Device, FileType, Guard, Link, ParameterCondition, Rule, When
from chrootsync.rules import parse, schema
from chrootsync.shipped import directory

CASES = Path(__file__).parent.parent / "cases" / "rules"
GOOD = sorted((CASES / "good").glob("*.toml")) + sorted(Path(directory("rules")).glob("*.toml"))
NOT_TOML = {"broken", "not-utf8"}
BAD = [path for path in sorted((CASES / "bad").glob("*.toml")) if path.stem not in NOT_TOML]


def validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def properties(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = schema()
    for name in path:
        found = found["properties"][name]
        found = found.get("items", found)
    properties: dict[str, Any] = found["properties"]
    return properties


def places(document: object) -> set[str]:
    """The key paths at which the schema finds fault, as the parser writes them."""
    found = set()
    for error in validator().iter_errors(document):
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        found.add(path.removeprefix("."))
    return found


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_what_the_parser_takes_the_schema_takes(path: Path) -> None:
    validator().validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_mistake_that_the_parser_finds_the_schema_finds(path: Path) -> None:
    text = path.read_text()
    with pytest.raises(ConfigError) as caught:
        parse([(path.name, text)])
    if text.startswith("# schema: cannot tell"):
        assert places(tomllib.loads(text)) == set()
        return
    found = places(tomllib.loads(text))
    for problem in caught.value.problems:
        where = problem.removeprefix(f"{path.name}: ").partition(": ")[0]
        # What is missing or unknown the schema finds at the table.
        table = re.sub(r'\.?("[^"]*"|\w+)$', "", where)
        assert found & {where, table}, problem


def test_the_keys_are_the_fields_of_the_model() -> None:
    names = {field.name for field in fields(Rule)} - {"origin"}
    assert set(properties("rule")) == set(properties("override")) == names
    assert set(properties("rule", "when")) == {field.name for field in fields(When)}
    assert set(properties("rule", "when", "parameter")) == {field.name for field in fields(ParameterCondition)}
    assert set(properties("rule", "guard")) == {field.name for field in fields(Guard)}
    assert set(properties("rule", "links")) == {field.name for field in fields(Link)}
    assert set(properties("rule", "devices")) == {field.name for field in fields(Device)} - {"kind"} | {"type"}
    assert FileType.CHARACTER_DEVICE.startswith("character")


def test_every_key_says_what_it_means() -> None:
    for path in (("rule",), ("rule", "when"), ("rule", "when", "parameter"), ("rule", "devices"), ("ruleset",)):
        assert all(value["description"] for value in properties(*path).values())


def test_the_reference_names_every_key() -> None:
    reference = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    for path in (("rule",), ("rule", "when"), ("rule", "when", "parameter"), ("rule", "devices"), ("ruleset",)):
        for name in properties(*path):
            assert f"`{name}`" in reference, name


def test_the_examples_of_the_reference_are_right() -> None:
    reference = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    blocks = re.findall(r"(?s)```toml\n(.*?)```", reference)
    whole = [block for block in blocks if block.startswith("[ruleset]")]
    assert len(whole) == 2
    for block in whole:
        parse([("docs/rules.md", block)])
    head = '[ruleset]\nservice = "s"\ndescription = "d"\n'
    parse([("docs/rules.md", head + block) for block in blocks if block.startswith("[[rule]]")])
