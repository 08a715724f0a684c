"""Shipped rule files, each of which is parsed when somebody asks for its rules.

Parsing all of them takes a sixth of a check's time, and most machines have instances of one service only. Their headers
tell which that is. That all of them are without mistakes is for the tests to see, and ``chrootsync rules check``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cached_property
from typing import overload

from chrootsync.model import Rule, RuleSet
from chrootsync.rules.ruleset import Text, file_name, parse


class _Rules(Sequence[Rule]):
    """The rules of one file, parsed at the first look."""

    def __init__(self, text: Text) -> None:
        self._text = text

    @cached_property
    def _rules(self) -> Sequence[Rule]:
        (found,) = parse([self._text])
        return found.rules

    def __len__(self) -> int:
        return len(self._rules)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        return self._rules[index]


def shelved(shipped: Sequence[Text]) -> tuple[RuleSet, ...]:
    """The rule sets of shipped files, whose ``[ruleset]`` stands first; their rules are parsed when asked for."""
    return tuple(_shelved(text) for text in shipped)


def _shelved(text: Text) -> RuleSet:
    origin, content = text
    written = content if isinstance(content, str) else content.decode()
    header = tomllib.loads(written.partition("\n[[")[0])["ruleset"]
    return RuleSet(name=file_name(origin).removesuffix(".toml"), origin=origin, rules=_Rules(text), **header)
