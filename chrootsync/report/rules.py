"""The rules in force, for people and for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from chrootsync.model import Presence, Rule, RuleSet, When
from chrootsync.report.text import clean

WIDTH = 80


def render(rule_sets: Sequence[RuleSet], *, as_json: bool) -> str:
    """The rule sets as blocks of lines, or as JSON."""
    if as_json:
        return json.dumps({"schema": 1, "rule_sets": [_object(one) for one in rule_sets]}, indent=2) + "\n"
    return "\n".join("".join(f"{line}\n" for line in _block(one)) for one in rule_sets)


def _object(rule_set: RuleSet) -> dict[str, Any]:
    """The rule set as its file has it; only file names can hold what is not to be shown."""
    made = asdict(rule_set)
    for one in (made, *made["rules"]):
        one["origin"] = clean(one["origin"])
    return made


def _block(rule_set: RuleSet) -> Iterator[str]:
    yield f"{clean(rule_set.name)} (for {clean(rule_set.service)}): {clean(rule_set.description)}"
    yield f"  {clean(rule_set.origin)}"
    for rule in rule_set.rules:
        yield ""
        yield f"  {clean(rule.id)}"
        yield from _wrapped("holds", what(rule))
        for index, condition in enumerate(rule.when or (When(),)):
            yield from _wrapped("or" if index else "when", when(condition))
        yield from _wrapped("why", clean(rule.why))


def what(rule: Rule) -> str:
    """What a rule wants a chroot to hold, in words."""
    parts: list[tuple[str, Sequence[str]]] = [
        ("", rule.files),
        ("without password fields: ", rule.filtered),
        ("all of " if rule.match is None else f"{rule.match} in ", rule.directories),
        ("name service modules for ", rule.nss),
        ("libraries ", rule.libraries),
        ("devices ", [device.path for device in rule.devices]),
        ("links ", [link.path for link in rule.links]),
        ("sockets ", rule.sockets),
    ]
    said = "; ".join(clean(f"{label}{', '.join(names)}") for label, names in parts if names)
    if rule.presence is Presence.IF_PRESENT:
        return f"{said}, where it is present already"
    return f"{said}, as far as the host has it" if rule.optional else said


def when(condition: When) -> str:
    """One alternative of a rule's conditions in words."""
    said = []
    if condition.chrooted:
        said.append(f"{', '.join(condition.chrooted)} run chrooted")
    said += [f"{', '.join(one.names)} matches {one.matches}" for one in condition.parameters]
    if condition.table is not None:
        table = condition.table
        where = f"{', '.join(table.types)} tables of {', '.join(table.of)}"
        said.append(f"{', '.join(table.keys)} in {where} matches {table.matches}")
    if condition.file is not None:
        said.append(f"a line of {' or '.join(condition.file.paths)} matches {condition.file.matches}")
    if condition.version is not None:
        said.append(f"version {condition.version}")
    if condition.libc is not None:
        said.append(condition.libc)
    if condition.distribution:
        said.append(f"distribution {', '.join(condition.distribution)}")
    if condition.exists is not None:
        said.append(f"{condition.exists} exists")
    return clean("; ".join(said)) or "always"


def _wrapped(label: str, text: str) -> Iterator[str]:
    lines: list[Any] = textwrap.wrap(text, WIDTH - 11, break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines):
        yield f"    {label if index == 0 else '':<7}{line}"
