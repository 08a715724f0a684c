"""Rule sets that were packed are those that were read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from chrootsync import shipped
from chrootsync.cli.setup import RULES, Places, read_rules
from chrootsync.model import ConfigError, RuleSet
from chrootsync.root import Root
from chrootsync.rules import packed
from chrootsync.rules.ruleset import parse
from chrootsync.state import Store

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


def test_what_is_kept_is_that_of_the_very_texts(tmp_path: Path) -> None:
    """A file that is changed, added or taken away is never answered for by what was kept before."""
    state, local = tmp_path / "state", tmp_path / "rules"
    for directory in (tmp_path, state, local):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o700)
    store, places = Store(str(state)), Places(rules=str(local))

    def read() -> tuple[set[str], bool]:
        with closing(Root("/")) as live:
            found, news = read_rules(live, places, store, image=True)
        if news is not None:
            store.put(RULES, news.fingerprint, news.value)
        return {rule.id for rule_set in found for rule in rule_set.rules}, news is None

    shipped_rules, kept = read()
    assert not kept
    assert read() == (shipped_rules, True)
    (local / "own.toml").write_text(EVERYTHING)
    assert read() == (shipped_rules | {"x.files", "x.mirror"}, False)
    assert read() == (shipped_rules | {"x.files", "x.mirror"}, True)
    (local / "own.toml").write_text(EVERYTHING.replace("x.mirror", "y.mirror"))
    assert read() == (shipped_rules | {"x.files", "y.mirror"}, False)
    (local / "own.toml").write_text("[[rule]]\nid = 1\n")
    with pytest.raises(ConfigError, match="must be a string"):
        read()
    (local / "own.toml").unlink()
    assert read() == (shipped_rules, False)
    assert read() == (shipped_rules, True)
