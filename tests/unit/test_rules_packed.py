"""Rule sets that were packed are those that were read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from chrootsync import shipped
from chrootsync.model import RuleSet
from chrootsync.rules import packed
from chrootsync.rules.ruleset import parse

TEXTS = [(str(path), path.read_bytes()) for path in sorted(Path(shipped.directory("rules")).glob("*.toml"))]

EVERYTHING = r"""
[ruleset]
service = "x"
description = "all that a rule can say"

[[rule]]
id = "x.files"
why = "x"
files = ["/etc/x"]
directories = ["/etc/y"]
match = '^\w+$'
nss = ["hosts"]
libraries = ["libx.so.1"]
sockets = ["/run/x"]
filtered = ["/etc/passwd"]
devices = [{ path = "/dev/null", type = "character", major = 1, minor = 0 }]
links = [{ path = "/lib64", target = "lib" }]
optional = true
advice = "do it"
presence = "if-present"
guard = { matches = "^x" }
mode = "0000"
owner = "root"
group = "mail"
on_change = "nothing"
on_conflict = "keep"
severity = "info"
when = [
    { chrooted = ["smtp"], parameter = { names = ["a", "b*"], matches = "^y$" } },
    { parameter = [{ names = ["a"], matches = "x" }], version = ">=3", libc = "glibc" },
    { table = { of = ["*"], types = ["ldap"], keys = ["k"], matches = "x" }, distribution = ["debian"] },
    { file = { paths = ["/etc/z"], matches = "x" }, exists = "/x" },
]

[[rule]]
id = "x.mirror"
why = "y"
directories = ["/etc/z"]
mirror = true
"""


def sent(rule_sets: tuple[RuleSet, ...]) -> Any:
    """Packed, written and read."""
    return json.loads(json.dumps(packed.pack(rule_sets)))


@pytest.mark.parametrize("texts", [TEXTS, [("/x/everything.toml", EVERYTHING)]], ids=["shipped", "everything"])
def test_what_is_unpacked_is_what_was_packed(texts: list[tuple[str, bytes]]) -> None:
    parsed = parse(texts)
    found = packed.unpack(sent(parsed))
    assert found is not None
    assert len(found) == len(texts)
    assert found == parsed
    assert repr(found) == repr(parsed)  # tells words from texts, and lists from tuples


def test_the_example_above_says_all_that_can_be_said() -> None:
    """Else a part that nobody thought of here could be lost on the way."""
    (one,) = parse([("/x/everything.toml", EVERYTHING)])
    said = {name for rule in one.rules for name in get_type_hints(type(rule)) if getattr(rule, name)}
    assert said | {"mode"} == set(get_type_hints(type(one.rules[0])))
    assert one.rules[0].mode == 0
    alternatives = one.rules[0].when
    given = {name for when in alternatives for name in get_type_hints(type(when)) if getattr(when, name)}
    assert given == set(get_type_hints(type(alternatives[0])))


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", {}, [1], [None], [{"name": "x"}], [{"rules": [{"when": 1}]}], [{"rules": [{"presence": "never"}]}]],
)
def test_anything_else_is_as_good_as_nothing(value: object) -> None:
    assert packed.unpack(value) in (None, ())
