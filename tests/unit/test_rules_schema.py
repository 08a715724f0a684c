"""The JSON Schema of rule files says what the parser says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no type information
import pytest

from chrootsync.model import (
    ConfigError,
    Device,
    FileCondition,
    FileType,
    Guard,
    Link,
    ParameterCondition,
    Rule,
    TableCondition,
    When,
)
from chrootsync.rules.keys import schema
from chrootsync.rules.ruleset import parse
from chrootsync.shipped import directory
from tests.unit.test_rules import accepted as parsed
from tests.unit.test_rules import to_toml

CASES = Path(__file__).parent.parent / "cases" / "rules"
GOOD = sorted((CASES / "good").glob("*.toml")) + sorted(Path(directory("rules")).glob("*.toml"))
NOT_TOML = {"broken", "not-utf8"}
BAD = [path for path in sorted((CASES / "bad").glob("*.toml")) if path.stem not in NOT_TOML]


CONDITIONS: dict[str, Any] = {"parameter": ParameterCondition, "table": TableCondition, "file": FileCondition}
TABLES = [("rule",), ("rule", "when"), ("rule", "devices"), ("rule", "links"), ("rule", "guard"), ("ruleset",)]
TABLES += [("rule", "when", name) for name in CONDITIONS]


def validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def properties(*path: str) -> dict[str, Any]:
    found: dict[str, Any] = schema()
    for name in path:
        found = found["properties"][name]
        # What may come by itself or in an array is said in this order.
        found = found.get("items", found["anyOf"][0] if "anyOf" in found else found)
    properties: dict[str, Any] = found["properties"]
    return properties


def places(document: object) -> set[str]:
    """The key paths at which the schema finds fault, as the parser writes them."""
    found = set()
    pending = list(validator().iter_errors(document))
    while pending:
        error = pending.pop()
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        found.add(path.removeprefix("."))
        pending += error.context  # of what may come by itself or in an array
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
    assert set(properties("rule", "when")) == {field.name for field in fields(When)} - {"parameters"} | {"parameter"}
    for name, condition in CONDITIONS.items():
        assert set(properties("rule", "when", name)) == {field.name for field in fields(condition)}
    assert set(properties("rule", "guard")) == {field.name for field in fields(Guard)}
    assert set(properties("rule", "links")) == {field.name for field in fields(Link)}
    assert set(properties("rule", "devices")) == {field.name for field in fields(Device)} - {"kind"} | {"type"}
    assert FileType.CHARACTER_DEVICE.startswith("character")


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [
        ({"files": ["/a"], "optional": True}, True),
        ({"directories": ["/a"], "optional": False}, True),
        ({"filtered": ["/a"], "optional": True}, True),
        ({"nss": ["hosts"], "optional": True}, False),
        ({"sockets": ["/a"], "advice": "x"}, True),
        ({"files": ["/a"], "advice": "x"}, False),
        ({"files": ["/a"], "when": {"parameter": {"names": ["x"], "matches": "y"}}}, True),
        ({"files": ["/a"], "when": [{"parameter": [{"names": ["x"], "matches": "y"}]}]}, True),
        ({"files": ["/a"], "when": [{"parameter": [{"names": ["x"]}]}]}, False),
        ({"files": ["/a"], "when": [[{"libc": "glibc"}]]}, False),
    ],
)
def test_the_schema_and_the_parser_agree(keys: dict[str, Any], accepted: bool) -> None:
    document = {
        "ruleset": {"service": "s", "description": "d"},
        "rule": [{"id": "a", "why": "w", **keys}],
    }
    assert (not places(document)) is accepted
    text = "\n".join(f"{name} = {to_toml(value)}" for name, value in document.items())
    assert (parsed(text) is not None) is accepted


def test_every_key_says_what_it_means() -> None:
    for path in TABLES:
        assert all(value["description"] for value in properties(*path).values())


def keys_of(*path: str) -> dict[str, dict[str, Any]]:
    return {".".join((*path, name)): key for name, key in properties(*path).items()}


KEYS = {name: key for path in TABLES for name, key in keys_of(*path).items()}


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_an_example_that_the_schema_and_the_parser_take(name: str) -> None:
    *path, key = name.split(".")
    [example] = KEYS[name]["examples"]
    jsonschema.Draft202012Validator(KEYS[name]).validate(example)
    rule: dict[str, Any] = {"id": "a", "why": "w", "files": ["/a"], "sockets": ["/a"], "directories": ["/a"]}
    ruleset: dict[str, Any] = {"service": "s", "description": "d"}
    match path:
        case ["ruleset"]:
            ruleset[key] = example
        case ["rule"]:
            rule[key] = example
        case ["rule", outer]:
            [whole] = KEYS[f"rule.{outer}"]["examples"]
            table = {**(whole[0] if isinstance(whole, list) else whole), key: example}
            rule[outer] = [table] if isinstance(whole, list) else table
        case ["rule", "when", outer]:
            [whole] = KEYS[f"rule.when.{outer}"]["examples"]
            rule["when"] = {outer: {**whole, key: example}}
    if rule.get("presence"):  # which has no use for some
        rule.pop("sockets")
    document = {"ruleset": ruleset, "rule": [rule]}
    validator().validate(document)
    assert parsed("\n".join(f"{name} = {to_toml(value)}" for name, value in document.items())) is not None


def test_the_defaults_that_the_schema_tells_are_those_of_the_model() -> None:
    model = {field.name: field.default for field in fields(Rule)}
    told = {name: key["default"] for name, key in properties("rule").items() if "default" in key}
    assert set(told) == {"mirror", "optional", "presence", "on_change", "on_conflict"}
    assert told == {name: model[name] for name in told}


def test_the_reference_names_every_key() -> None:
    reference = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    for path in TABLES:
        for name in properties(*path):
            assert f"`{name}`" in reference, name


def test_the_examples_of_the_reference_are_right() -> None:
    reference = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    blocks = re.findall(r"(?s)```toml\n(.*?)```", reference)
    whole = [block for block in blocks if block.startswith("[ruleset]")]
    assert whole
    for block in whole:
        parse([("docs/rules.md", block)])
    head = '[ruleset]\nservice = "s"\ndescription = "d"\n'
    parse([("docs/rules.md", head + block) for block in blocks if block.startswith("[[rule]]")])
