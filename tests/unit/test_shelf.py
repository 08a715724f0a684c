"""Shipped rule files that are parsed when somebody asks for their rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from chrootsync import rules, shipped
from chrootsync.model import ConfigError

TEXTS = [(str(path), path.read_bytes()) for path in sorted(Path(shipped.directory("rules")).glob("*.toml"))]


def test_each_shipped_rule_set_is_what_parsing_all_of_them_gives() -> None:
    shelved, parsed = rules.shelved(TEXTS), rules.parse(TEXTS)
    assert len(shelved) == len(parsed) > 5
    for one, other in zip(shelved, parsed, strict=True):
        assert (one.name, one.service, one.origin) == (other.name, other.service, other.origin)
        assert one.description == other.description
        assert [*one.rules] == [*other.rules]
        assert len(one.rules) == len(other.rules)


def test_rules_are_parsed_when_they_are_asked_for() -> None:
    (one,) = rules.shelved([("/x/local.toml", '[ruleset]\nservice = "x"\ndescription = "y"\n\n[[rule]]\nid = 1\n')])
    assert (one.name, one.service) == ("local", "x")
    with pytest.raises(ConfigError, match="must be a string"):
        len(one.rules)
