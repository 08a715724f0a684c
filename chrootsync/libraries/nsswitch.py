"""Reads nsswitch.conf(5) the way glibc does (nss_database.c, nss_action_parse.c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chrootsync.libraries.inputs import Inputs

# SUSE's glibc looks in the second place where the first is missing.
PATHS = ("/etc/nsswitch.conf", "/usr/etc/nsswitch.conf")

# What glibc uses where a database has no line, built without the obsolete NIS support as distributions do since 2.26.
DEFAULT = ("files",)
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "hosts": ("dns", "files"),
    "networks": ("dns", "files"),
    "initgroups": (),
    "passwd_compat": ("nis",),
    "group_compat": ("nis",),
    "shadow_compat": ("nis",),
}

# A database without a line takes over the line of another one.
BORROWED = {"shadow": "passwd", "gshadow": "group", "shadow_compat": "passwd_compat"}

# The compat module asks one more database for what lines like "+::::::" bring in.
COMPAT = frozenset({"passwd", "group", "shadow"})


def modules(inputs: Inputs, databases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modules that nsswitch.conf names, in its order, each with the databases that name it.

    Raises UnreadableError.
    """
    lines = parse(inputs.first(PATHS) or b"")
    found: dict[str, list[str]] = {}
    for database in databases:
        for module in _services(lines, database):
            found.setdefault(module, []).append(database)
            if module == "compat" and database in COMPAT:
                for inner in _services(lines, f"{database}_compat"):
                    found.setdefault(inner, []).append(f"{database}_compat")
    return {module: tuple(dict.fromkeys(named_by)) for module, named_by in found.items()}


def _services(lines: Mapping[str, tuple[str, ...]], database: str) -> tuple[str, ...]:
    for name in (database, BORROWED.get(database, "")):
        if name in lines:
            return lines[name]
    return DEFAULTS.get(database, DEFAULT)


def parse(data: bytes) -> dict[str, tuple[str, ...]]:
    """Each database with its modules; the last line for a database wins.

    Only a ``#`` that begins a line makes a comment: behind the modules, glibc since 2.33 takes it and the words after
    it for modules as well, and loads those that are installed. Lines do not continue.
    """
    lines: dict[str, tuple[str, ...]] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.lstrip()
        name = text.partition(":")[0].split(None, 1)
        if not name or name[0].startswith("#"):
            continue
        rest = text[len(name[0]) :].lstrip(": \t\r\f\v")
        lines[name[0]] = _actions(rest)
    return lines


def _actions(text: str) -> tuple[str, ...]:
    """The modules of one line, without the actions in brackets behind them."""
    names: list[str] = []
    while True:
        text = text.lstrip()
        end = next((index for index, char in enumerate(text) if char == "[" or char.isspace()), len(text))
        if not end:  # nothing left, or a bracket where a module should be: glibc stops here
            return tuple(dict.fromkeys(names))
        if _loadable(text[:end]):
            names.append(text[:end])
        text = text[end:].lstrip()
        if text.startswith("["):
            text = text.partition("]")[2]


def _loadable(name: str) -> bool:
    """Whether a file libnss_NAME.so.2 can be meant: a slash would make the loader leave its directories."""
    return "/" not in name and "\0" not in name and len(name) < 200
