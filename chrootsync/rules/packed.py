"""Rule sets as JSON has values, so that files that were read once need not be parsed again.

Parsing the shipped files takes a fifth of a clean check: tomllib has to be loaded, and each expression is compiled to
see that it is one. What is packed was found without mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from chrootsync.model import (
    Device,
    FileCondition,
    FileType,
    Guard,
    Link,
    OnChange,
    OnConflict,
    ParameterCondition,
    Presence,
    Rule,
    RuleSet,
    Severity,
    TableCondition,
    When,
)


def pack(rule_sets: Sequence[RuleSet]) -> object:
    """Rule sets as objects of what they say, without what they leave to defaults."""
    return [_packed(one) for one in rule_sets]


def _packed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_packed(item) for item in value]
    if type(value) not in _INNER:
        return value
    said = {name: getattr(value, name) for name in value.__slots__}
    return {name: _packed(one) for name, one in said.items() if one is not None and one is not False and one != ()}


def unpack(value: object) -> tuple[RuleSet, ...] | None:
    """The rule sets that were packed; None for anything else."""
    try:
        return _each(RuleSet)(value)
    except (TypeError, ValueError, AttributeError):
        return None


def _one(kind: type[Any]) -> Callable[[Any], Any]:
    """Makes an object of what it was packed as."""
    inner = _INNER[kind]

    def make(values: Any) -> Any:
        return kind(**{name: _value(inner.get(name), one) for name, one in values.items()})

    return make


def _each(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    make = _one(kind)
    return lambda values: tuple(make(one) for one in values)


def _value(make: Callable[[Any], Any] | None, value: Any) -> Any:
    if make is not None:
        return make(value)
    return tuple(value) if isinstance(value, list) else value


# What is no text, number, flag or list of texts, by the class that it is a part of; parts come before the whole.
_INNER: dict[type[Any], Mapping[str, Callable[[Any], Any]]] = {}
for _kind in (Guard, Link, ParameterCondition, TableCondition, FileCondition):
    _INNER[_kind] = MappingProxyType({})
_INNER[Device] = {"kind": FileType}
_INNER[When] = {
    "parameters": _each(ParameterCondition),
    "table": _one(TableCondition),
    "file": _one(FileCondition),
}
_INNER[Rule] = {
    "devices": _each(Device),
    "links": _each(Link),
    "when": _each(When),
    "guard": _one(Guard),
    "presence": Presence,
    "on_change": OnChange,
    "on_conflict": OnConflict,
    "severity": Severity,
}
_INNER[RuleSet] = {"rules": _each(Rule)}
