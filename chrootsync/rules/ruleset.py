"""Rule files to rule sets: masks, overrides, and the checks that need more than one key or one file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chrootsync.model import ConfigError, Link, Presence, Rule, RuleSet, When
from chrootsync.model.frozen import replace
from chrootsync.rules.conditions import catches
from chrootsync.rules.getters import Place, load, table_at, tables_at, unknown, unknown_key
from chrootsync.rules.keys import FILE_KEYS, NEEDS, PATH_KEYS, RULE_KEYS, RULESET_KEYS, WHAT

Text = tuple[str, str | bytes]
"""The path of a file, for messages, and its contents."""


class _Table(NamedTuple):
    """A ``[[rule]]`` or ``[[override]]`` as it stands: ``raw`` is what was written, ``values`` what of it is right."""

    place: Place
    raw: Mapping[str, Any]
    values: dict[str, Any]


class _File(NamedTuple):
    """One rule file, read but not yet held against the others."""

    origin: str
    ruleset: dict[str, Any] | None
    rules: list[_Table]
    overrides: list[_Table]


def parse(shipped: Sequence[Text], local: Sequence[Text] = ()) -> tuple[RuleSet, ...]:
    """The rule sets of the shipped and the local files, overrides applied, in the order given.

    A local file masks the shipped one of the same file name. Raises one ConfigError with the mistakes of all files.
    """
    problems: list[str] = []
    masks = {file_name(origin) for origin, _ in local}
    texts = [*(text for text in shipped if file_name(text[0]) not in masks), *local]
    read = [_read(origin, text, problems) for origin, text in texts]
    files = [file for file in read if file is not None]
    rules = _unique(table for file in files for table in file.rules)
    # What is wrong by itself is not held against overrides too, and no override misses a rule of an unreadable file.
    sound = {name for name, table in rules.items() if _check(table.place, table.raw, table.values)}
    overrides = [table for file in files for table in file.overrides]
    changes = _changes(overrides, rules, sound, complete=None not in read)
    if problems:
        raise ConfigError(*problems)
    return tuple(_build(file, changes) for file in files if file.ruleset)


def file_name(origin: str) -> str:
    """A file's name without its directory."""
    return origin.rpartition("/")[2]


def _read(origin: str, text: str | bytes, problems: list[str]) -> _File | None:
    loaded = load(origin, text, problems)
    if loaded is None:
        return None
    place, document = loaded
    for name in document:
        if name not in FILE_KEYS:
            unknown_key(place, name, FILE_KEYS)
    ruleset = None
    if "ruleset" in document:
        ruleset = table_at(place.key("ruleset"), document["ruleset"], RULESET_KEYS)
    elif document.get("rule"):
        place.key("ruleset").report("is missing")
    rules = list(_tables(place, document, "rule"))
    return _File(origin, ruleset, rules, list(_tables(place, document, "override")))


def _tables(place: Place, document: Mapping[str, Any], name: str) -> Iterator[_Table]:
    for where, raw in tables_at(place, document, name):
        values = table_at(where, raw, RULE_KEYS, partial=name == "override")
        if values is not None:
            yield _Table(where, raw, values)


def _unique(tables: Iterator[_Table]) -> dict[str, _Table]:
    """The rules by id; one whose id is missing or taken stands under its place, so that it is checked all the same."""
    rules: dict[str, _Table] = {}
    for table in tables:
        name = table.values.get("id")
        if name in rules:
            first = rules[name].place
            table.place.key("id").report(f'"{name}" is used already in {first.origin}: {first.path}')
        rules[f"{table.place.origin}: {table.place.path}" if name is None or name in rules else name] = table
    return rules


def _check(place: Place, raw: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Report what is wrong with the keys of a rule together; True where nothing is."""
    before = len(place.problems)
    if not any(name in raw for name in WHAT):
        place.report(f"must say what the chroot is to hold: one of {', '.join(WHAT)}")
    for name, others in NEEDS.items():
        if name in raw and not any(other in raw for other in others):
            place.key(name).report(f"has no {', '.join(others)} to act on")
    if values.get("mirror") and values.get("presence") == Presence.IF_PRESENT:
        # The files of the chroot that the host does not have would be moved out, whoever put them there.
        place.key("mirror").report('cannot go with presence = "if-present"')
    # Conditions that could not be read may have caught something.
    if "when" in values or "when" not in raw:
        _check_catch(place, raw, values)
    return len(place.problems) == before


def _check_catch(place: Place, raw: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Report ``$1`` where one of the alternatives does not catch anything that it could stand for."""
    lacking = _lacking(raw, values)
    if lacking is None:
        return
    for name in PATH_KEYS:
        for index, item in enumerate(values.get(name, ())):
            path = item.path if isinstance(item, Link) else item
            if "$1" in path:
                place.key(name).item(index).report(f"has $1, but {lacking}")


def _lacking(raw: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The first alternative that catches nothing, as a clause; None where all of them do."""
    alternatives: tuple[When, ...] = values.get("when", ())
    if not alternatives:
        return "when is missing"
    for index, when in enumerate(alternatives):
        conditions = (*when.parameters, when.table, when.file)
        if not any(catches(condition.matches) for condition in conditions if condition is not None):
            name = f"when[{index}]" if isinstance(raw["when"], list) else "when"
            return f"{name} catches nothing: none of its matches has a group"
    return None


def _changes(
    overrides: Sequence[_Table], rules: Mapping[str, _Table], sound: Collection[str], *, complete: bool
) -> dict[str, list[_Table]]:
    """The overrides by the id of the rule that they change, in order; ``complete``: all files could be read."""
    changes: dict[str, list[_Table]] = {}
    for table in overrides:
        if "id" not in table.raw:
            table.place.key("id").report("is missing")
        elif len(table.raw) == 1:
            table.place.report("changes nothing")
        name = table.values.get("id")
        if name is None:
            continue
        if name in sound:
            changes.setdefault(name, []).append(table)
            _check(table.place, *_merged([rules[name], *changes[name]]))
        elif name not in rules and complete:
            known = dict.fromkeys(rule.values["id"] for rule in rules.values() if "id" in rule.values)
            table.place.key("id").report(unknown(name, "rule", known))
    return changes


def _merged(tables: Sequence[_Table]) -> tuple[dict[str, Any], dict[str, Any]]:
    raw: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for table in tables:
        raw |= table.raw
        values |= table.values
    return raw, values


def _build(file: _File, changes: Mapping[str, Sequence[_Table]]) -> RuleSet:
    rules = []
    for table in file.rules:
        rule = Rule(origin=file.origin, **table.values)
        for change in changes.get(rule.id, ()):
            rule = replace(rule, **change.values, origin=f"{rule.origin}, changed by {change.place.origin}")
        rules.append(rule)
    name = file_name(file.origin).removesuffix(".toml")
    return RuleSet(name=name, origin=file.origin, rules=tuple(rules), **(file.ruleset or {}))
