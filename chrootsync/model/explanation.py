"""Why a path is needed or not, and what a chroot must hold: what ``explain`` finds out, for reports to show.

Only ``explain`` needs this, so it is no part of ``chrootsync.model`` itself: import it where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from chrootsync.model.entries import Drift, Entry, State
from chrootsync.model.frozen import field, frozen
from chrootsync.model.instances import Instance
from chrootsync.model.rules import Rule


class Need(StrEnum):
    """What an instance has to do with a path."""

    NEEDED = "needed"
    KEPT_FRESH = "kept-fresh"
    SURPLUS = "surplus"
    NOT_NEEDED = "not-needed"
    UNDECIDED = "undecided"
    NOT_SERVED = "not-served"


class Sort(StrEnum):
    """What was asked about: a path, a bare file name, or an instance with all that it must hold."""

    PATH = "path"
    NAME = "name"
    INSTANCE = "instance"


@frozen
class Mapped:
    """Which chrooted programs have mapped a library before they call chroot, and so load no other copy of it.

    ``by`` and ``others`` are those that have and those that have not; of ``unknown`` nobody can tell.
    """

    by: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@frozen
class Item:
    """An entry with its drift (None: in sync); ``mapped`` belongs to libraries."""

    entry: Entry
    drift: Drift | None = None
    mapped: Mapped | None = None


@frozen
class Aside:
    """A rule that names a path, or could name it, and does not ask for it: ``reason`` is a clause.

    ``loose``: it names whatever path a setting has, so that it would be an aside of any path. ``holds``: it would ask
    for it, could its place in the chroot be walked to.
    """

    rule: Rule
    reason: str
    loose: bool = False
    holds: bool = False


@frozen
class Answer:
    """What one instance has to do with what was asked about.

    ``path`` is the path inside its chroot, by its own spelling there (None: a bare name was asked about, or the chroot
    cannot be entered), ``there`` what is at it, ``unseen`` why that cannot be told. ``items`` are the entries of that
    path, or of that name, or all of them where an instance was asked about; ``below`` are those below a directory.
    ``reason`` is a clause.
    """

    instance: Instance
    need: Need
    reason: str = ""
    path: str | None = None
    there: State | None = None
    unseen: str = ""
    items: tuple[Item, ...] = ()
    below: tuple[Item, ...] = ()
    asides: tuple[Aside, ...] = ()


@frozen
class Subject:
    """What was asked about, and the answer of each instance that it concerns.

    ``host`` is the state of the host's file and ``real`` its path without links; None where the host has none.
    """

    asked: str
    sort: Sort
    answers: tuple[Answer, ...]
    host: State | None = None
    real: str | None = None


@frozen
class Explanation:
    """All that was asked about; ``packages`` are those of sources, ``owners`` and ``groups`` give names to numbers."""

    root: str
    subjects: tuple[Subject, ...]
    packages: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
