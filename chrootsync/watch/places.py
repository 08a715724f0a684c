"""Which names in which directories lead to a path: what has to be watched, lest a change on the way be missed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

Places = dict[str, frozenset[str] | None]
"""By directory, spelled without links, the names that matter in it; None: all of them."""

ReadLink = Callable[[str], str | None]
"""The text of a link, "" for anything else that exists, None where nothing is."""

MANY = 500  # names in one directory beyond which all of them count
MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)


def hops(path: str, read_link: ReadLink) -> Iterator[tuple[str, str]]:
    """Every (directory, name) that a walk to ``path`` looks up, links followed, until something is missing.

    To change what the path leads to, one of these names has to change: the file itself, a link on the way, or a
    directory that is made, moved or removed. Where something is missing, the last one is the name that would have to
    appear. The directories exist, as far as ``read_link`` tells, and are spelled without links.
    """
    here: list[str] = []
    pending = _names(path)[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            del here[-1:]
            continue
        directory = "/" + "/".join(here)
        yield directory, name
        target = read_link(f"{directory.rstrip('/')}/{name}")
        if target is None:
            return
        if not target:
            here.append(name)
            continue
        links += 1
        if links > MAX_LINKS:
            return
        if target.startswith("/"):
            here.clear()
        pending.extend(reversed(_names(target)))


def end(path: str, read_link: ReadLink) -> str:
    """Where a path leads to, spelled without links, as far as it exists."""
    directory, name = "/", ""
    for directory, name in hops(path, read_link):  # noqa: B007 -- the last one is what is wanted
        pass
    return f"{directory.rstrip('/')}/{name}"


def places(paths: Iterable[str], listed: Iterable[str], read_link: ReadLink, beneath: Iterable[str] = ()) -> Places:
    """What to watch for ``paths``, and for all the names in the directories ``listed``.

    What lies ``beneath`` one of these directories is left out: they are ours to write, or change all the time.
    """
    found: dict[str, set[str] | None] = {}
    ours = tuple(f"{directory.rstrip('/')}/" for directory in beneath)
    listed = list(listed)
    for path in (*paths, *listed):
        for directory, name in hops(path, read_link):
            names = found.setdefault(directory, set())
            if names is not None:
                names.add(name)
    for path in listed:
        directory = end(path, read_link)
        if read_link(directory) == "":
            found[directory] = None
    return {
        directory: None if names is None or len(names) > MANY else frozenset(names)
        for directory, names in sorted(found.items())
        if not f"{directory}/".startswith(ours)
    }


def merged(one: Places, other: Places) -> Places:
    """What to watch for both."""
    both = dict(one)
    for directory, names in other.items():
        mine = both.get(directory, frozenset())
        both[directory] = None if mine is None or names is None else mine | names
    return both


def read_link(path: str) -> str | None:
    """The text of a link of this machine, "" for anything else that exists, None where nothing can be seen."""
    try:
        return os.readlink(path)
    except OSError as error:
        return "" if error.errno == errno.EINVAL else None


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]
