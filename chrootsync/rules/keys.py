"""The keys of a rule file: one table that the parser reads by and that the JSON Schema is made from."""

from __future__ import annotations

import re
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
    Severity,
    TableCondition,
    When,
)
from chrootsync.rules.getters import (
    CATCHING_PATH,
    EXPRESSION,
    FLAG,
    NAME,
    PATH,
    TEXT,
    Getter,
    Key,
    Place,
    choice,
    integer,
    list_of,
    object_schema,
    one_or_more,
    quoted,
    table_of,
    text,
    unknown,
)

_DATABASES = (
    "aliases",
    "ethers",
    "group",
    "gshadow",
    "hosts",
    "initgroups",
    "netgroup",
    "networks",
    "passwd",
    "protocols",
    "publickey",
    "rpc",
    "services",
    "shadow",
    "subgid",
    "subuid",
)
_DEVICE_TYPES = {"character": FileType.CHARACTER_DEVICE, "block": FileType.BLOCK_DEVICE}


def _read_database(place: Place, value: object) -> str | None:
    name = TEXT.read(place, value)
    if name is None or name in _DATABASES:
        return name
    place.report(unknown(name, "database of nsswitch.conf(5)", _DATABASES))
    return None


def _read_device_type(place: Place, value: object) -> FileType | None:
    name = TEXT.read(place, value)
    if name is None or name in _DEVICE_TYPES:
        return _DEVICE_TYPES.get(name or "")
    place.report(f'must be "character" or "block", not {quoted(name)}')
    return None


def _read_mode(place: Place, value: object) -> int | None:
    """Permission bits from ``"0644"`` or ``0o644``."""
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        place.mistyped('a mode as "0644" or 0o644', value)
    elif isinstance(value, int) and 0 <= value <= 0o777:
        return value
    else:
        place.report('must be permission bits as "0644" or 0o644, without set-id and sticky bits')
    return None


def _is_specifier(specifier: str) -> bool:
    """Whether ``packaging`` takes it; only rules with a version condition pay for the import."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(specifier)
    except InvalidSpecifier:
        return False
    return True


def _read_version(place: Place, value: object) -> str | None:
    specifier = TEXT.read(place, value)
    if specifier is None or _is_specifier(specifier):
        return specifier
    place.report(f'must be a version specifier such as ">=3.6,<4", not {quoted(specifier)}')
    return None


def _read_libc(place: Place, value: object) -> str | None:
    libc = TEXT.read(place, value)
    if libc is None:
        return None
    found = re.fullmatch(r"(?:glibc|musl)(.*)", libc)
    if found and (not found[1] or _is_specifier(found[1])):
        return libc
    place.report(f'must be "glibc" or "musl", or one with a specifier as in "glibc>=2.34", not {quoted(libc)}')
    return None


def _device(*, type: FileType, **values: Any) -> Device:  # noqa: A002  # the key's name in TOML
    return Device(kind=type, **values)


_MAJOR = integer(0, 0xFFF)  # makedev(3): 12 and 20 bits on Linux
_MINOR = integer(0, 0xFFFFF)
_NAMES = list_of(NAME)
_PATHS = list_of(CATCHING_PATH)
_LIBRARY = text(r"[^/\x00]+|/[^\x00]+", "a file name (libgcc_s.so.1) or an absolute path")

_DEVICE = table_of(
    {
        "path": Key(PATH, "Where the node belongs in the chroot.", required=True),
        "type": Key(Getter(_read_device_type, {"enum": list(_DEVICE_TYPES)}), "character or block.", required=True),
        "major": Key(_MAJOR, "The major number.", required=True),
        "minor": Key(_MINOR, "The minor number.", required=True),
    },
    _device,
)
_LINK = table_of(
    {
        "path": Key(CATCHING_PATH, "Where the link belongs in the chroot.", required=True),
        "target": Key(text(r"[^\x00]+", "without a NUL character"), "The text of the link.", required=True),
    },
    Link,
)
_GUARD = table_of(
    {"matches": Key(EXPRESSION, "A regular expression that must be found in a line of the source.", required=True)},
    Guard,
)
_PARAMETER = table_of(
    {
        "names": Key(list_of(TEXT), "Shell patterns for the names of parameters.", required=True),
        "matches": Key(
            EXPRESSION,
            "A regular expression that must be found in a value; the rule holds once for each text that its group 1 "
            "catches, as $1 in paths.",
            required=True,
        ),
    },
    ParameterCondition,
)
_TABLE = table_of(
    {
        "of": Key(list_of(TEXT), "Shell patterns for the parameters that name the tables.", required=True),
        "types": Key(_NAMES, "Types of tables that are looked into: ldap, mysql, hash.", required=True),
        "keys": Key(list_of(TEXT), "Shell patterns for what is set, or looked up, in them.", required=True),
        "matches": Key(
            EXPRESSION, "A regular expression that must be found in one of these; $1 as of a parameter.", required=True
        ),
    },
    TableCondition,
)
_FILE = table_of(
    {
        "paths": Key(list_of(PATH), "Files of the host; those that are missing do not count.", required=True),
        "matches": Key(
            EXPRESSION, "A regular expression that must be found in a line of one; $1 as of a parameter.", required=True
        ),
    },
    FileCondition,
)


def _when(*, parameter: tuple[ParameterCondition, ...] = (), **values: Any) -> When:
    return When(parameters=parameter, **values)


def _read_when(place: Place, value: object) -> When | None:
    """One alternative; of two conditions that catch something, nobody could tell which one ``$1`` stands for."""
    when = _CONDITIONS.read(place, value)
    if when is None or not isinstance(value, dict):
        return None
    parameter = place.key("parameter")
    several = isinstance(value.get("parameter"), list)
    conditions = [
        *((parameter.item(index) if several else parameter, one) for index, one in enumerate(when.parameters)),
        (place.key("table"), when.table),
        (place.key("file"), when.file),
    ]
    catching = [where.key("matches") for where, one in conditions if one is not None and catches(one.matches)]
    for where in catching[1:]:
        what = f"has a group, as {catching[0].path} has, and only one may catch $1"
        where.report(f"{what}; write (?:...) where nothing is to be caught")
    return None if catching[1:] else when


def catches(expression: str) -> bool:
    """Whether an expression has a group 1."""
    return re.compile(expression).groups > 0


_CONDITIONS = table_of(
    {
        "chrooted": Key(_NAMES, "Programs one of which must run chrooted; only their parameters and tables count."),
        "parameter": Key(
            one_or_more(_PARAMETER), "A parameter of a chrooted daemon must have a value; all of several."
        ),
        "table": Key(_TABLE, "A lookup table that a chrooted daemon uses must hold something."),
        "file": Key(_FILE, "A file of the host must have a certain line."),
        "version": Key(Getter(_read_version, TEXT.schema), "A specifier for the version of the service."),
        "libc": Key(Getter(_read_libc, {"type": "string", "pattern": "^(?:glibc|musl)"}), "glibc, musl, glibc>=2.34."),
        "distribution": Key(list_of(NAME), "IDs as in os-release(5), one of which the host must have."),
        "exists": Key(PATH, "A path that must exist on the host."),
    },
    _when,
)
_WHEN = Getter(_read_when, _CONDITIONS.schema)

WHAT = ("files", "directories", "nss", "libraries", "devices", "links", "sockets", "filtered")
"""The keys one of which every rule has: what the chroot must hold."""

NEEDS = {
    "match": ("directories",),
    "mirror": ("directories",),
    "optional": ("files", "filtered", "directories"),
    "advice": ("sockets",),
}
"""Keys that mean nothing without one of the others."""

PATH_KEYS = ("files", "directories", "sockets", "filtered", "links")
"""The keys in whose paths ``$1`` may stand."""

RULE_KEYS = {
    "id": Key(NAME, "The name of the rule, unique among all files.", required=True),
    "why": Key(TEXT, "Which daemon needs it, and what happens without it.", required=True),
    "files": Key(_PATHS, "Host files whose copies the chroot must hold."),
    "directories": Key(_PATHS, "Host directories whose regular files the chroot must hold copies of."),
    "match": Key(EXPRESSION, "A regular expression for whole file names in the directories."),
    "mirror": Key(FLAG, "Whether matching files that the host does not have are orphans, and moved out."),
    "nss": Key(
        list_of(Getter(_read_database, {"enum": list(_DATABASES)})),
        "Databases of nsswitch.conf(5) whose modules the chroot must hold, with the libraries that they need.",
    ),
    "libraries": Key(list_of(_LIBRARY), "Shared libraries, with the libraries that they need."),
    "devices": Key(list_of(_DEVICE), "Device nodes."),
    "links": Key(list_of(_LINK), "Symbolic links."),
    "sockets": Key(_PATHS, "Sockets that must be there; they are never copied."),
    "filtered": Key(_PATHS, "passwd(5) and group(5) files, copied without password fields."),
    "when": Key(one_or_more(_WHEN), "Conditions, all of which must hold; of several tables of them, one."),
    "optional": Key(FLAG, "Whether the host may lack the files and directories; what it lacks is not needed."),
    "presence": Key(choice(Presence), "if-present: only refresh what the chroot holds already."),
    "guard": Key(_GUARD, "What a source must satisfy before it replaces a copy."),
    "mode": Key(
        Getter(
            _read_mode,
            {"anyOf": [{"type": "string", "pattern": "^0?[0-7]{3}$"}, {**integer(0, 0o777).schema}]},
        ),
        "The permission bits of the copy.",
    ),
    "owner": Key(NAME, "The owner of the copy, a name or a number; default root."),
    "group": Key(NAME, "The group of the copy, a name or a number; default root's."),
    "advice": Key(TEXT, "What to do where a socket is missing, as a clause."),
    "on_change": Key(choice(OnChange), "What the instance needs after a change."),
    "on_conflict": Key(choice(OnConflict), "What happens to a copy that chrootsync cannot tell to be its own."),
    "severity": Key(choice(Severity), "How much a drift of this rule weighs."),
}

RULESET_KEYS = {
    "service": Key(NAME, "The kind of instance that the rules are for.", required=True),
    "description": Key(TEXT, "What the rules are about.", required=True),
}

FILE_KEYS = ("ruleset", "rule", "override")


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a rule file.

    It tells what an editor can know from one file; what needs more (regular expressions, ``$1``, ids that are used
    twice) only the parser tells.
    """
    rule = object_schema(RULE_KEYS) | {
        "anyOf": [{"required": [name]} for name in WHAT],
        "dependentSchemas": {
            name: {"anyOf": [{"required": [other]} for other in others]} for name, others in NEEDS.items()
        },
    }
    override = object_schema(RULE_KEYS, partial=True) | {"required": ["id"], "minProperties": 2}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "chrootsync rule file",
        "type": "object",
        "properties": {
            "ruleset": {**object_schema(RULESET_KEYS), "description": "The rule set of this file."},
            "rule": {"type": "array", "items": rule, "description": "What a chroot must hold, when, and why."},
            "override": {"type": "array", "items": override, "description": "Changes of a rule of any file, by id."},
        },
        "additionalProperties": False,
        "dependentRequired": {"rule": ["ruleset"]},
    }
