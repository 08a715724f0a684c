"""Rules: what a chroot must hold, when, and why."""

from __future__ import annotations

from collections.abc import Sequence

from chrootsync.model.frozen import frozen
from chrootsync.model.words import FileType, OnChange, OnConflict, Presence, Severity


@frozen
class Guard:
    """What a source must satisfy before it may replace a copy: ``matches`` is a regular expression, found in a line."""

    matches: str


@frozen
class ParameterCondition:
    """True where one of the ``names`` (shell patterns) has a value in which ``matches`` is found."""

    names: tuple[str, ...]
    matches: str


@frozen
class TableCondition:
    """True where ``matches`` is found in a value of a lookup table that a parameter names.

    ``of`` are shell patterns for parameters, ``types`` those of their tables (``ldap``, ``hash``) that are looked into,
    ``keys`` shell patterns for what is set, or looked up, there.
    """

    of: tuple[str, ...]
    types: tuple[str, ...]
    keys: tuple[str, ...]
    matches: str


@frozen
class FileCondition:
    """True where ``matches`` is found in a line of one of the host's files ``paths``."""

    paths: tuple[str, ...]
    matches: str


@frozen
class When:
    """Conditions, all of which must hold that are given.

    ``chrooted``: programs (smtp, smtpd) one of which must run chrooted; only their parameters and tables count then.
    ``version`` is a specifier for the service's version, ``libc`` one of ``glibc``, ``musl``, or with a specifier
    behind it; ``distribution`` holds IDs as in os-release(5); ``exists`` is a path on the host.
    What group 1 of a ``matches`` caught (of one of ``parameters``, ``table`` and ``file``) replaces ``$1`` in the
    rule's paths: the rule then holds once for each catch.
    """

    chrooted: tuple[str, ...] = ()
    parameters: tuple[ParameterCondition, ...] = ()
    table: TableCondition | None = None
    file: FileCondition | None = None
    version: str | None = None
    libc: str | None = None
    distribution: tuple[str, ...] = ()
    exists: str | None = None


@frozen
class Device:
    """A device node: ``kind`` is FileType.CHARACTER_DEVICE or BLOCK_DEVICE."""

    path: str
    kind: FileType
    major: int
    minor: int


@frozen
class Link:
    """A symbolic link inside the chroot: ``target`` is its text."""

    path: str
    target: str


@frozen
class Rule:
    """What a chroot must hold, when, and why; one ``[[rule]]`` of a rule set.

    ``match`` (a regular expression for whole names) chooses the files of ``directories``; without it all regular files
    there count, and those of directories below. ``filtered`` names passwd(5) or group(5) files whose password fields
    are left out of the copy. One of ``when`` must hold (none: always). With ``optional`` a source that the host lacks
    is no drift. ``advice`` is what to do where a socket is missing. ``mode``, ``owner`` and ``group`` are what the copy
    shall have (default: root's, and the source's mode without write for group and others and without set-id).
    """

    id: str
    why: str
    origin: str
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    match: str | None = None
    mirror: bool = False
    nss: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    links: tuple[Link, ...] = ()
    sockets: tuple[str, ...] = ()
    filtered: tuple[str, ...] = ()
    when: tuple[When, ...] = ()
    optional: bool = False
    advice: str | None = None
    presence: Presence = Presence.REQUIRED
    guard: Guard | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    on_change: OnChange = OnChange.RELOAD
    on_conflict: OnConflict = OnConflict.COPY
    severity: Severity | None = None


@frozen
class RuleSet:
    """One TOML file of rules.

    ``name`` is its file name without ``.toml``, ``service`` the kind of instance it is for. ``rules`` may be read when
    they are asked for.
    """

    name: str
    service: str
    description: str
    origin: str
    rules: Sequence[Rule]
