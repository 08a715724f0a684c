"""The keys of ``when``: the conditions on which a rule holds."""

from __future__ import annotations

import re
from typing import Any

from chrootsync.model import FileCondition, ParameterCondition, TableCondition, When
from chrootsync.rules.getters import (
    EXPRESSION,
    NAME,
    PATH,
    TEXT,
    Getter,
    Key,
    Place,
    list_of,
    one_or_more,
    quoted,
    table_of,
)

_NAMES = list_of(NAME)


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


_PARAMETER = table_of(
    {
        "names": Key(
            list_of(TEXT),
            'Shell patterns for the names of parameters; "*" is any.',
            required=True,
            example=["smtp_tls_CApath"],
        ),
        "matches": Key(
            EXPRESSION,
            "What must be found in a value ('^$': it is empty); the rule holds once for each text that its group 1 "
            "catches, as `$1` in paths.",
            required=True,
            example="^(/.*[^/])",
        ),
    },
    ParameterCondition,
)
_TABLE = table_of(
    {
        "of": Key(
            list_of(TEXT),
            "Shell patterns for the names of the parameters that name the tables.",
            required=True,
            example=["*_maps"],
        ),
        "types": Key(_NAMES, "Types of tables that are looked into.", required=True, example=["ldap"]),
        "keys": Key(
            list_of(TEXT),
            "Shell patterns for what is set, or looked up, in a table.",
            required=True,
            example=["tls_ca_cert_file"],
        ),
        "matches": Key(
            EXPRESSION,
            "What must be found in what such a key has; `$1` as of a parameter.",
            required=True,
            example=r"^(/.*[^\s/])\s*$",
        ),
    },
    TableCondition,
)
_FILE = table_of(
    {
        "paths": Key(
            list_of(PATH),
            "The files; those that the host does not have count as empty.",
            required=True,
            example=["/etc/policyd.conf"],
        ),
        "matches": Key(
            EXPRESSION,
            "What must be found in a line of one of them; `$1` as of a parameter.",
            required=True,
            example=r"^listen\s*=\s*(/\S+)",
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
        "chrooted": Key(
            _NAMES,
            "Programs (as in the last column of master.cf) one of which runs chrooted; only their parameters and "
            "tables count.",
            example=["smtp", "lmtp"],
        ),
        "parameter": Key(
            one_or_more(_PARAMETER),
            "A parameter of a chrooted daemon has a certain value; of several all have.",
            example={"names": ["smtp_tls_CApath"], "matches": "^(/.*[^/])"},
        ),
        "table": Key(
            _TABLE,
            "A lookup table of a chrooted daemon has a certain entry.",
            example={"of": ["*_maps"], "types": ["ldap"], "keys": ["tls_ca_cert_file"], "matches": "^(/.*)"},
        ),
        "file": Key(
            _FILE,
            "A file of the host has a certain line.",
            example={"paths": ["/etc/policyd.conf"], "matches": "^listen=(/.+)"},
        ),
        "version": Key(
            Getter(_read_version, {**TEXT.schema, "title": "version specifier"}),
            "The version of the service; where that is not known, it holds.",
            example=">=3.6,<4",
        ),
        "libc": Key(
            Getter(_read_libc, {"type": "string", "pattern": "^(?:glibc|musl)"}),
            '"glibc" or "musl", or one with a specifier.',
            example="glibc>=2.34",
        ),
        "distribution": Key(
            list_of(NAME),
            "IDs as in os-release(5), one of which is the host's ID or in its ID_LIKE.",
            example=["debian"],
        ),
        "exists": Key(PATH, "A path that exists on the host.", example="/run/saslauthd/mux"),
    },
    _when,
)
WHEN = Getter(_read_when, _CONDITIONS.schema)
