"""The configuration file: instances that no provider discovers, and a few settings."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from chrootsync.model import Config, ConfigError, StaticInstance
from chrootsync.rules.getters import (
    NAME,
    PATH,
    TEXT,
    Getter,
    Key,
    Place,
    integer,
    list_of,
    load,
    number,
    path_problem,
    table_at,
    tables_at,
    unknown,
    unknown_key,
)

_SECONDS_A_DAY = 86400


def _read_chroot(place: Place, value: object) -> str | None:
    # Said before anything else about the spelling: "//", "/." and "/usr/.." are the root too.
    if isinstance(value, str) and value.startswith("/") and _leads_to_root(value):
        place.report("must not be the root itself")
        return None
    return PATH.read(place, value)


def _leads_to_root(path: str) -> bool:
    depth = 0
    for name in path.split("/"):
        if name == "..":
            depth = max(depth - 1, 0)
        elif name not in ("", "."):
            depth += 1
    return depth == 0


def _read_command(place: Place, value: object) -> tuple[str, ...] | None:
    command = _ARGUMENTS.read(place, value)
    if command is None:
        return None
    problem = path_problem(command[0])
    if problem is None:
        return command
    place.item(0).report(problem)
    return None


def _read_argument(place: Place, value: object) -> str | None:
    if not isinstance(value, str):
        place.mistyped("a string", value)
    elif "\0" in value:
        place.report("must not contain a NUL character")
    else:
        return value
    return None


def _read_unit(place: Place, value: object) -> str | None:
    unit = TEXT.read(place, value)
    if unit is None or re.fullmatch(r"[\w:\\][\w:.\\@-]*", unit, re.ASCII):
        return unit
    place.report('must be the name of a systemd unit such as "named.service"')
    return None


_ARGUMENTS = list_of(Getter(_read_argument, {}))
_COMMAND = Getter(_read_command, {})

INSTANCE_KEYS = {
    "name": Key(NAME, "What the instance is called on the command line and in reports.", required=True),
    "chroot": Key(Getter(_read_chroot, {}), "The directory that the daemon changes its root to.", required=True),
    "rules": Key(list_of(NAME), "The names of the rule sets that apply.", required=True),
    "reload": Key(_COMMAND, "The command that reloads it, an argument list."),
    "running": Key(_COMMAND, "A command that ends 0 while it runs."),
    "unit": Key(Getter(_read_unit, {}), "Its systemd unit, for rules that need a restart."),
}
POSTFIX_KEYS = {"config_directory": Key(PATH, "The configuration directory of the default instance.")}
RELOAD_KEYS = {
    "timeout": Key(number(1, _SECONDS_A_DAY), "Seconds that a reload may take."),
    "interval": Key(number(0, _SECONDS_A_DAY), "Seconds between two automatic reloads of an instance."),
}
PACKAGES_KEYS = {
    "wait": Key(number(0, _SECONDS_A_DAY), "Seconds that a package's files wait for a package manager to end."),
}
HISTORY_KEYS = {
    "days": Key(number(0, 36500), "Days for which what was replaced is kept."),
    "repairs": Key(integer(0, 1_000_000), "The number of repairs that can be taken back."),
    "size": Key(number(0, 1 << 20), "MiB that what was replaced may take."),
}
WATCH_KEYS = {
    "settle": Key(number(0, 60), "Seconds without a further change after which the watcher begins a pass."),
    "maximum": Key(number(0, 3600), "Seconds after a first change at most, however many follow."),
    "interval": Key(number(10, _SECONDS_A_DAY), "Seconds between two passes where nothing changes."),
}
_TABLES = {
    "postfix": POSTFIX_KEYS,
    "reload": RELOAD_KEYS,
    "packages": PACKAGES_KEYS,
    "history": HISTORY_KEYS,
    "watch": WATCH_KEYS,
}


def parse_config(origin: str, text: str | bytes, *, rule_sets: Collection[str] | None = None) -> Config:
    """The configuration in ``text``; ``rule_sets`` are the names that instances may use (None: not checked).

    Raises one ConfigError with all mistakes.
    """
    problems: list[str] = []
    loaded = load(origin, text, problems)
    if loaded is None:
        raise ConfigError(*problems)
    place, document = loaded
    for name in document:
        if name not in (known := ("instance", *_TABLES)):
            unknown_key(place, name, known)
    tables = {
        name: table_at(place.key(name), document[name], keys) for name, keys in _TABLES.items() if name in document
    }
    instances = _instances(place, document, rule_sets)
    if problems:
        raise ConfigError(*problems)
    settings: dict[str, Any] = {}
    for table, key, field in (
        ("postfix", "config_directory", "postfix"),
        ("reload", "timeout", "reload_timeout"),
        ("reload", "interval", "reload_interval"),
        ("packages", "wait", "package_wait"),
        ("history", "days", "history_days"),
        ("history", "repairs", "history_repairs"),
        ("history", "size", "history_size"),
        ("watch", "settle", "watch_settle"),
        ("watch", "maximum", "watch_maximum"),
        ("watch", "interval", "watch_interval"),
    ):
        values = tables.get(table) or {}
        if key in values:
            settings[field] = values[key]
    return Config(instances=tuple(StaticInstance(**values) for values in instances), **settings)


def _instances(place: Place, document: dict[str, Any], rule_sets: Collection[str] | None) -> list[dict[str, Any]]:
    instances: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for where, raw in tables_at(place, document, "instance"):
        values = table_at(where, raw, INSTANCE_KEYS)
        if values is None:
            continue
        instances.append(values)
        name = values.get("name")
        if name in seen:
            where.key("name").report(f'"{name}" is used already in {seen[name]}')
        elif name is not None:
            seen[name] = where.path
        for index, rule_set in enumerate(values.get("rules", ()) if rule_sets is not None else ()):
            if rule_set not in (rule_sets or ()):
                where.key("rules").item(index).report(unknown(rule_set, "rule set", tuple(sorted(rule_sets or ()))))
    return instances
