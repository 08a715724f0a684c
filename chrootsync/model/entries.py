"""Entries, drift and outcomes: what flows from inventory to report."""

from __future__ import annotations

from collections.abc import Mapping

from chrootsync.model.frozen import field, frozen
from chrootsync.model.instances import Instance
from chrootsync.model.proofs import Probe, Retry, StaleProcess
from chrootsync.model.rules import Rule
from chrootsync.model.words import FileType, Kind, Remedy, Severity, Status

ARROW = " ← "
"""Stands between the links of a chain: the thing, and what needs it."""


Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime of something that was seen."""


@frozen
class State:
    """What is, or should be, at a path.

    ``mode`` holds the twelve permission bits; ``size`` and ``sha256`` (hex) belong to files, ``target`` to links,
    ``device`` (major, minor) to device nodes. ``None`` means "does not apply", in a wanted state "does not matter".
    ``identity`` is (device, inode, size, mtime, ctime) of a state that was seen: it tells whether it is still the same.
    ``extended`` names what a copy has beyond its mode and must not have: ``an ACL``, ``file capabilities``. ``mtime``
    belongs to a wanted state alone: the time that a file gets in place of its source's.
    """

    type: FileType
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    identity: Identity | None = None
    extended: tuple[str, ...] = ()
    mtime: int | None = None


@frozen
class Library:
    """A shared library that a chroot needs.

    ``path`` is where the loader inside the chroot looks for it, ``source`` the host's file, ``chain`` what led to it,
    itself first (``libcap.so.2``, ``libnss_systemd.so.2``, ``nsswitch.conf hosts``).
    """

    path: str
    source: str
    chain: tuple[str, ...]

    @property
    def because(self) -> str:
        """The chain as one text."""
        return ARROW.join(self.chain)


@frozen
class ModuleSocket:
    """What a name service module talks to, without which it answers nothing.

    ``path`` is the socket's, ``chain`` what led to the module, ``falls_through`` whether lookups go on to a module that
    works without any; ``advice`` is the way out.
    """

    path: str
    chain: tuple[str, ...]
    falls_through: bool
    advice: str


@frozen
class Unresolved:
    """A library that something needs and that the loader would not find on the host."""

    name: str
    because: str


@frozen
class LibrarySet:
    """What a list of modules or libraries comes to."""

    libraries: tuple[Library, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    sockets: tuple[ModuleSocket, ...] = ()


@frozen
class Libc:
    """The C library of a root: ``name`` is glibc or musl, ``version`` as its release is named; None: not found."""

    name: str | None = None
    version: str | None = None


@frozen
class Problem:
    """Why an entry's state could not be established: the kind of drift that it is, and a clause."""

    kind: Kind
    reason: str


@frozen
class Evidence:
    """What of the configuration led to an entry, as far as its rule has conditions: the first that was found.

    ``daemons`` are the service lines that need it, ``setting`` names a parameter or a line of a file or table
    (``smtp_tls_CApath``) and ``value`` what it is; ``chain`` is that of a library.
    """

    daemons: tuple[str, ...] = ()
    setting: str | None = None
    value: str | None = None
    chain: tuple[str, ...] = ()


NO_EVIDENCE = Evidence()


@frozen
class Entry:
    """One concrete thing that one chroot must hold, with its wanted and its actual state.

    ``path`` is where it belongs inside the chroot (absolute from the chroot), ``source`` the host's path (None for
    what has no source: directories, devices, links); ``want.identity`` is then the source's as it was compared.
    ``filtered`` says that the copy is an account file without its password fields. ``same`` says whether the contents
    are equal, byte for byte; None where that was not asked because something else already tells. ``because`` tells
    which parameter, daemon or library led here in one clause, ``evidence`` in its parts. ``have`` is None where nothing
    is there. ``surplus`` is what should not be there: nothing is wanted, and it is to be removed. ``advice`` is what to
    do about a socket that is missing.
    """

    instance: Instance
    rule: Rule
    path: str
    source: str | None
    because: str
    filtered: bool = False
    want: State | None = None
    have: State | None = None
    same: bool | None = None
    problem: Problem | None = None
    severity: Severity | None = None
    evidence: Evidence = NO_EVIDENCE
    surplus: bool = False
    advice: str | None = None


@frozen
class Drift:
    """The difference between an entry and what is there; ``reason`` is one clause for people."""

    kind: Kind
    severity: Severity
    remedy: Remedy
    reason: str
    entry: Entry
    package: str | None = None


@frozen
class Outcome:
    """What came of repairing one drift."""

    status: Status
    reason: str = ""


@frozen
class Reload:
    """What a reload was, or why there was none: ``output`` is what the command printed, cut to 4 KiB.

    ``seen`` are clauses on what was made sure of after it: that the master lives, what became of stale processes, and
    what the log says.
    """

    needed: bool
    done: bool = False
    pending: bool = False
    command: tuple[str, ...] = ()
    error: str | None = None
    output: str = ""
    seen: tuple[str, ...] = ()


@frozen
class Record:
    """What is remembered of an instance's reloads between runs.

    ``last`` is when the last one was tried, ``since`` since when one is pending (seconds since the epoch), ``failures``
    how many failed since one worked.
    """

    last: float = 0.0
    pending: bool = False
    since: float = 0.0
    restart: bool = False
    failures: int = 0


@frozen
class Finding:
    """A drift with what became of it (None where nothing was tried)."""

    drift: Drift
    outcome: Outcome | None = None


@frozen
class InstanceReport:
    """All that a run found out about one instance; ``entries`` counts what was compared.

    ``probe`` is None where nothing was looked up. Each of the processes in ``stale`` has a finding, too. ``retry`` is
    None where no deferred message was to be tried again.
    """

    instance: Instance
    entries: int
    findings: tuple[Finding, ...]
    reload: Reload = field(default_factory=lambda: Reload(needed=False))
    probe: Probe | None = None
    stale: tuple[StaleProcess, ...] = ()
    retry: Retry | None = None


@frozen
class Report:
    """What a run found and did: ``generated`` is seconds since the epoch, ``duration`` seconds.

    ``owners`` and ``groups`` give names to the numbers that occur in findings. ``notes`` are sentences on the run as a
    whole.
    """

    generated: float
    duration: float
    version: str
    root: str
    instances: tuple[InstanceReport, ...]
    fixed: bool
    owners: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
