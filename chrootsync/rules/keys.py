"""The keys of a rule file: one table that the parser reads by and that the JSON Schema is made from."""

from __future__ import annotations

import re
from typing import Any

from chrootsync.model import (
    Device,
    FileType,
    Guard,
    Link,
    OnChange,
    OnConflict,
    Presence,
    Severity,
)
from chrootsync.rules.conditions import WHEN
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
    titled,
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


def _device(*, type: FileType, **values: Any) -> Device:  # noqa: A002  # the key's name in TOML
    return Device(kind=type, **values)


_MAJOR = integer(0, 0xFFF)  # makedev(3): 12 and 20 bits on Linux
_MINOR = integer(0, 0xFFFFF)
_NAMES = list_of(NAME)
_PATHS = list_of(CATCHING_PATH)
_LIBRARY = titled("library name", text(r"[^/\x00]+|/[^\x00]+", "a file name (libgcc_s.so.1) or an absolute path"))

_DEVICE = table_of(
    {
        "path": Key(PATH, "Where the node belongs in the chroot.", required=True, example="/dev/urandom"),
        "type": Key(
            Getter(_read_device_type, {"enum": list(_DEVICE_TYPES)}),
            "Which kind of device it is.",
            required=True,
            example="character",
        ),
        "major": Key(_MAJOR, "The major number.", required=True, example=1),
        "minor": Key(_MINOR, "The minor number.", required=True, example=9),
    },
    _device,
)
_LINK = table_of(
    {
        "path": Key(CATCHING_PATH, "Where the link belongs in the chroot.", required=True, example="/var/run"),
        "target": Key(
            text(r"[^\x00]+", "without a NUL character"), "The text of the link.", required=True, example="../run"
        ),
    },
    Link,
)
_GUARD = table_of(
    {
        "matches": Key(
            EXPRESSION,
            "What must be found in a line of the source.",
            required=True,
            example=r"^\s*nameserver\s",
        )
    },
    Guard,
)
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

_MODE = Getter(
    _read_mode,
    {
        "anyOf": [{"type": "string", "pattern": "^0?[0-7]{3}$"}, {**integer(0, 0o777).schema}],
        "title": "octal string or integer",
    },
)

RULE_KEYS = {
    "id": Key(NAME, "A name that no other rule of any file has.", required=True, example="postfix.resolver"),
    "why": Key(
        TEXT,
        "Which daemon needs it, and what happens without it; reports show it.",
        required=True,
        example="smtp(8) reads it after chroot",
    ),
    "files": Key(
        _PATHS,
        "Files of the host whose copies the chroot must hold; links are followed on the host.",
        example=["/etc/resolv.conf"],
    ),
    "directories": Key(
        _PATHS,
        "Directories of the host: all regular files in them and below, or those that `match` chooses. Links are "
        "followed: to a file, and to a directory that was not listed already.",
        example=["/etc/bind"],
    ),
    "match": Key(
        EXPRESSION,
        "What whole file names must match; only with `directories`, and then not below them.",
        example=r".*\.pem",
    ),
    "mirror": Key(
        FLAG,
        "Whether matching files and links that the host does not have are an orphan, as when a CA is distrusted: a "
        'repair moves them out and keeps them. Only with `directories`, not with "if-present".',
        default=False,
        example=True,
    ),
    "nss": Key(
        list_of(titled("database of nsswitch.conf(5)", Getter(_read_database, {"enum": list(_DATABASES)}))),
        "Databases of nsswitch.conf(5): the modules that the host's file names and libc has not built in, with all "
        "libraries that those need; a module that the host lacks is passed over.",
        example=["hosts"],
    ),
    "libraries": Key(
        list_of(_LIBRARY),
        "Shared libraries by file name or path, with all libraries that those need.",
        example=["libgcc_s.so.1"],
    ),
    "devices": Key(
        list_of(_DEVICE), "Device nodes.", example=[{"path": "/dev/null", "type": "character", "major": 1, "minor": 3}]
    ),
    "links": Key(list_of(_LINK), "Symbolic links.", example=[{"path": "/var/run", "target": "../run"}]),
    "sockets": Key(
        _PATHS,
        "Sockets that must be there; they cannot be copied, so that they are only looked for.",
        example=["/dev/log"],
    ),
    "filtered": Key(
        _PATHS,
        "passwd(5) or group(5) files, copied with `x` in place of every password field.",
        example=["/etc/passwd"],
    ),
    "when": Key(
        one_or_more(WHEN),
        "Conditions, all of which must hold; of several tables of them, one. Without, the rule always applies.",
        example={"chrooted": ["smtp"]},
    ),
    "optional": Key(
        FLAG,
        "Whether of `files`, `filtered` and `directories` only what the host has is needed.",
        default=False,
        example=True,
    ),
    "presence": Key(
        choice(Presence),
        'Whether the chroot must hold it; "if-present" refreshes what it holds already and adds nothing.',
        default=Presence.REQUIRED.value,
        example=Presence.IF_PRESENT.value,
    ),
    "guard": Key(
        _GUARD,
        "What a source must satisfy: one that fails it is never copied.",
        example={"matches": r"^\s*nameserver\s"},
    ),
    "mode": Key(
        _MODE,
        "Permission bits of the copy, without set-id. By default the source's without write for group and others, a "
        "device's 0666.",
        example="0644",
    ),
    "owner": Key(
        NAME, "Of the copy: a name of the host's passwd(5), or a number in a string. By default root.", example="named"
    ),
    "group": Key(
        NAME, "Of the copy: a name of the host's group(5), or a number in a string. By default root's.", example="sasl"
    ),
    "advice": Key(
        TEXT,
        "What to do where a socket is missing, a clause that ends the report's sentence; only with `sockets`.",
        example="use inet: instead",
    ),
    "on_change": Key(
        choice(OnChange),
        "What the instance needs after a change.",
        default=OnChange.RELOAD.value,
        example=OnChange.RESTART.value,
    ),
    "on_conflict": Key(
        choice(OnConflict),
        'What happens to a copy that chrootsync cannot tell to be its own (modified, differs): "copy" replaces it, '
        '"keep" only reports it.',
        default=OnConflict.COPY.value,
        example=OnConflict.KEEP.value,
    ),
    "severity": Key(
        choice(Severity),
        'How a drift weighs, whatever its kind: "warning" gives exit 1 only with --strict, "info" never. By default '
        '"warning" for orphan and unreachable, else "error".',
        example=Severity.WARNING.value,
    ),
}

RULESET_KEYS = {
    "service": Key(
        NAME,
        'The kind of instance that the rules are for: "postfix", or a name of your own.',
        required=True,
        example="postfix",
    ),
    "description": Key(
        TEXT, "One line for `chrootsync rules list`.", required=True, example="What our own policy daemon needs"
    ),
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
