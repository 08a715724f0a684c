"""An instance with its chroot opened, and the chroots that are refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from chrootsync.model import Chroot, Entry, Instance, Kind, PathError, Problem, Reader, Rule

INSTANCE_RULE = Rule(
    id="chrootsync.instance",
    why="an instance is served only where its configuration can be read and its chroot is safe to walk",
    origin="built in",
)


class Jail:
    """One instance and its chroot; knows which paths a rule has named there already."""

    def __init__(self, instance: Instance, chroot: Chroot) -> None:
        """Take over the open ``chroot``."""
        self.instance = instance
        self.chroot = chroot
        self._spelling: dict[str, str] = {"/": "/"}
        self._named: set[str] = set()

    def close(self) -> None:
        """Close the chroot."""
        self.chroot.close()

    def canonical(self, path: str) -> str:
        """A path's spelling with no link on the way, so that two spellings of one place are one entry.

        What is missing is spelled as asked for below the last directory that exists. Raises UnsafeError,
        UnreadableError.
        """
        head, _, name = path.rpartition("/")
        directory = self._spelling.get(head or "/") or self._canonical_directory(head or "/")
        if directory == head:
            return path  # the same text, which is kept for as long as the run
        return f"/{name}" if directory == "/" else f"{directory}/{name}"

    def _canonical_directory(self, path: str) -> str:
        missing: list[str] = []
        asked = path
        while (known := self._spelling.get(asked) or self.chroot.canonical(asked)) is None:
            asked, name = os.path.split(asked)
            missing.append(name)
        self._spelling[asked] = known
        spelled = "/".join([known.rstrip("/"), *reversed(missing)]) or "/"
        self._spelling[path] = spelled
        return spelled

    def is_named(self, path: str) -> bool:
        """Whether a rule has named a path. Raises UnsafeError, UnreadableError."""
        return self.canonical(path) in self._named

    def claim(self, path: str) -> bool:
        """Whether no rule has named this canonical path before; from now on one has."""
        if path in self._named:
            return False
        self._named.add(path)
        return True


def open_jails(root: Reader, instances: Iterable[Instance], keep_out: Sequence[str]) -> tuple[list[Jail], list[Entry]]:
    """Open the chroots of all instances; those that cannot be served come back as entries with their problem."""
    jails: dict[str, Jail] = {}
    problems: list[Entry] = []
    for instance in instances:
        if instance.problem is not None:
            problems.append(_problem(instance, instance.problem))
            continue
        try:
            chroot = root.chroot(instance.chroot)
        except PathError as error:
            problems.append(_problem(instance, f"the chroot cannot be used: {error}"))
            continue
        refused = next((path for path in keep_out if overlap(chroot.path, path)), None)
        if refused is not None:
            chroot.close()
            problems.append(_problem(instance, f"the chroot {chroot.path} is refused: it overlaps with {refused}"))
            continue
        other = jails.get(chroot.path)
        if other is not None:
            chroot.close()
            of = other.instance.name
            reason = f"the chroot {chroot.path} is that of {of} already; let one instance have all its rule sets"
            problems.append(_problem(instance, reason))
            continue
        jails[chroot.path] = Jail(instance, chroot)
    return list(jails.values()), problems


def overlap(one: str, other: str) -> bool:
    """Whether one of two directories is the other, or lies beneath it."""
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def _problem(instance: Instance, reason: str) -> Entry:
    return Entry(
        instance=instance,
        rule=INSTANCE_RULE,
        path="/",
        source=None,
        because="",
        problem=Problem(kind=Kind.BAD_INSTANCE, reason=reason),
    )
