"""Reads nsswitch.conf(5) the way glibc does (nss_database.c, nss_action_parse.c)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chrootsync.libraries.inputs import Inputs
from chrootsync.model.frozen import field, frozen

# SUSE's glibc looks in the second place where the first is missing.
PATHS = ("/etc/nsswitch.conf", "/usr/etc/nsswitch.conf")

# Since the reader was written anew, a ``#`` no longer ends a line, but the end of the file swallows one without an end.
ANEW = (2, 33)

STATUSES = ("SUCCESS", "NOTFOUND", "UNAVAIL", "TRYAGAIN")
CONTINUE, RETURN, MERGE = "continue", "return", "merge"

# White space is that of the C locale. Where the bracket has no end, what is in it is malformed.
LINE = re.compile(r"\s*([^\s:]+)[\s:]+(.*)", re.ASCII | re.DOTALL)
SERVICE = re.compile(r"\s*([^\s\[]+)\s*(?:\[\s*([^\]]*\]?))?", re.ASCII)
ACTION = re.compile(
    rf"(!?)({'|'.join(STATUSES)})\s*=\s*({CONTINUE}|{RETURN}|{MERGE})(?=[\s=\]])\s*", re.ASCII | re.IGNORECASE
)


@frozen
class Service:
    """One module of a line, and the actions in brackets behind it where they are not the default; by status."""

    module: str
    actions: Mapping[str, str] = field(default_factory=dict)

    def action(self, status: str) -> str:
        """What follows a status: ``continue``, ``return`` or ``merge``."""
        return self.actions.get(status, RETURN if status == "SUCCESS" else CONTINUE)


Lines = Mapping[str, tuple[Service, ...]]

# What glibc uses where a database has no line, built without the obsolete NIS support as distributions do since 2.26.
DEFAULT = (Service(module="files"),)
DEFAULTS: Lines = {
    "hosts": (Service(module="dns"), Service(module="files")),
    "networks": (Service(module="dns"), Service(module="files")),
    "initgroups": (),
    "passwd_compat": (Service(module="nis"),),
    "group_compat": (Service(module="nis"),),
    "shadow_compat": (Service(module="nis"),),
}

# A database without a line takes over the line of another one.
BORROWED = {"shadow": "passwd", "gshadow": "group", "shadow_compat": "passwd_compat"}

# The compat module asks one more database for what lines like "+::::::" bring in.
COMPAT = frozenset({"passwd", "group", "shadow"})


def read(inputs: Inputs, version: tuple[int, ...] | None = None) -> Lines:
    """The lines of the host's file for a glibc of some version (None: a recent one). Raises UnreadableError."""
    data = inputs.first(PATHS) or b""
    if version is not None and version < ANEW:
        return parse(re.sub(rb"#[^\n]*", b"", data))
    return parse(data[: data.rfind(b"\n") + 1])


def modules(lines: Lines, databases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modules that the lines of some databases name, in their order, each with the databases that name it."""
    found: dict[str, list[str]] = {}
    for database in databases:
        for service in services(lines, database):
            found.setdefault(service.module, []).append(database)
            if service.module == "compat" and database in COMPAT:
                for inner in services(lines, f"{database}_compat"):
                    found.setdefault(inner.module, []).append(f"{database}_compat")
    return {module: tuple(dict.fromkeys(named_by)) for module, named_by in found.items()}


def services(lines: Lines, database: str) -> tuple[Service, ...]:
    """What a lookup in a database asks: its line, the one that it borrows, or libc's default."""
    for name in (database, BORROWED.get(database, "")):
        if name in lines:
            return lines[name]
    return DEFAULTS.get(database, DEFAULT)


def parse(data: bytes) -> dict[str, tuple[Service, ...]]:
    """Each database with its modules; the last line for a database wins.

    Only a ``#`` that begins a line makes a comment: behind the modules, it and the words after it are modules as well,
    of which those are loaded that are installed. Lines do not continue.
    """
    lines: dict[str, tuple[Service, ...]] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        match = LINE.match(f"{line}\n")
        if match is not None and not match[1].startswith("#"):
            lines[match[1]] = _services(match[2])
    return lines


def _services(text: str) -> tuple[Service, ...]:
    """The modules of one line with the actions in brackets behind them.

    It ends where nothing is left, or at a bracket where a module should be. A malformed action counts for nothing here.
    To glibc, the whole file does then, until somebody mends it: taking modules away meanwhile would help nobody.
    """
    found: list[Service] = []
    place = 0
    while (match := SERVICE.match(text, place)) is not None:
        if _loadable(match[1]):
            found.append(Service(module=match[1], actions=_actions(match[2] or "")))
        place = match.end()
    return tuple(found)


def _actions(text: str) -> dict[str, str]:
    """The actions of one pair of brackets, up to one that is malformed; ``!`` means every other status."""
    actions: dict[str, str] = {}
    place = 0
    while (match := ACTION.match(text, place)) is not None:
        named, action = match[2].upper(), match[3].lower()
        for status in STATUSES:
            if (status != named) == bool(match[1]):
                actions[status] = action
        place = match.end()
    return actions


def _loadable(name: str) -> bool:
    """Whether a file libnss_NAME.so.2 can be meant: a slash would make the loader leave its directories."""
    return "/" not in name and "\0" not in name and len(name) < 200
