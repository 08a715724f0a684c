"""Which distribution a root is, by os-release(5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chrootsync.model import AbsentError

PATHS = ("/etc/os-release", "/usr/lib/os-release")
"""Where the file is looked for; the first counts."""


def release(read: Callable[[str], bytes]) -> dict[str, str]:
    """The fields of a root's file; empty where there is none. Raises what ``read`` raises, an AbsentError aside."""
    for path in PATHS:
        try:
            return fields(read(path))
        except AbsentError:
            continue
    return {}


def fields(data: bytes) -> dict[str, str]:
    """The fields of such a file: lines as a shell would assign them, the last for a name counts."""
    found = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, mark, value = line.strip().partition("=")
        if mark and not name.startswith("#"):
            found[name] = _unquote(value)
    return found


def lineage(release: Mapping[str, str]) -> tuple[str, ...]:
    """The IDs of a distribution and of those that it descends from, nearest first; none where it does not say."""
    return tuple(f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split())


def _unquote(value: str) -> str:
    special = set("\"'\\")
    if special.isdisjoint(value):
        return value.partition(" ")[0]
    if value[0] in "\"'" and value[0] == value[-1] and special.isdisjoint(value[1:-1]):
        return value[1:-1]  # as nearly all are: shlex takes one character after the other
    import shlex

    try:
        return "".join(shlex.split(value)[:1])
    except ValueError:  # a quotation without an end
        return value.strip("\"'")
