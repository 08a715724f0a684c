"""The words of chrootsync as data: what every stage takes and gives, and nothing that acts.

Paths are ``str`` as :func:`os.fsdecode` makes them (undecodable bytes as surrogate escapes) and absolute from the
root that is worked on, unless a field says otherwise. Sizes are bytes, times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """What is wrong with an entry."""

    MISSING = "missing"
    DIFFERS = "differs"
    METADATA = "metadata"
    TYPE = "type"
    BAD_SOURCE = "bad-source"
    BAD_INSTANCE = "bad-instance"
    UNREADABLE = "unreadable"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    UNSAFE = "unsafe"


class Severity(StrEnum):
    """How much a drift weighs: errors give exit 1, warnings only with --strict, info never."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Remedy(StrEnum):
    """What a repair does about a drift."""

    COPY = "copy"
    CREATE = "create"
    REPLACE = "replace"
    REMOVE = "remove"
    NONE = "none"


class Presence(StrEnum):
    """Whether a chroot must hold what a rule names, or only keep it fresh where it is there already."""

    REQUIRED = "required"
    IF_PRESENT = "if-present"


class OnChange(StrEnum):
    """What an instance needs after a copy was replaced."""

    RELOAD = "reload"
    RESTART = "restart"
    NOTHING = "nothing"


class OnConflict(StrEnum):
    """What happens to a copy that chrootsync cannot tell to be its own."""

    COPY = "copy"
    KEEP = "keep"


class FileType(StrEnum):
    """The type of a directory entry, as inode(7) lists them."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    SOCKET = "socket"
    FIFO = "fifo"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


class Status(StrEnum):
    """What became of a drift in a repair."""

    REPAIRED = "repaired"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


class Code:
    """Exit statuses, the same for every verb."""

    OK = 0
    DRIFT = 1
    USAGE = 2
    FAILED = 3
    RELOAD = 4
    LOCKED = 5
    BUG = 70
    INTERRUPTED = 130


# --- Errors -----------------------------------------------------------------------------------------------------


class ChrootsyncError(Exception):
    """An expected error: one sentence that says what, where and what to do; ``code`` is the exit status."""

    code: int = Code.FAILED


class ConfigError(ChrootsyncError):
    """Usage, configuration or rules are wrong; ``problems`` holds one sentence for each mistake."""

    code = Code.USAGE

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LockedError(ChrootsyncError):
    """Another repair holds the lock."""

    code = Code.LOCKED


class PathError(ChrootsyncError):
    """A path cannot be used; ``path`` is the path as asked for, ``reason`` a clause without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class AbsentError(PathError):
    """Nothing is at the path (ENOENT, ENOTDIR on the way)."""


class UnreadableError(PathError):
    """The path cannot be seen or read with these rights, or reading it failed."""


class UnsafeError(PathError):
    """The way to the path, or the thing itself, could be used against root; the reason says how to mend it."""


class RepairError(PathError):
    """A step of a repair failed; what it belongs to is unchanged."""


# --- The state of a path ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is, or should be, at a path.

    ``mode`` holds the twelve permission bits; ``size`` and ``sha256`` (hex) belong to files, ``target`` to links,
    ``device`` (major, minor) to device nodes. ``None`` means "does not apply", in a wanted state "does not matter".
    ``identity`` is (device, inode, size, mtime, ctime) of a state that was seen: it tells whether it is still the same.
    """

    type: FileType
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    identity: tuple[int, int, int, int, int] | None = None


# --- Rules ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """What a source must satisfy before it may replace a copy: ``matches`` is a regular expression, found in a line."""

    matches: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCondition:
    """True where one of the ``names`` (shell patterns) has a value in which ``matches`` is found.

    What group 1 of ``matches`` caught replaces ``$1`` in the rule's paths: the rule then holds once for each catch.
    """

    names: tuple[str, ...]
    matches: str


@dataclass(frozen=True, kw_only=True, slots=True)
class When:
    """The conditions of a rule; all that are given must hold.

    ``chrooted``: programs (smtp, smtpd) one of which must run chrooted; only their parameters count for ``parameter``.
    ``version`` is a specifier for the service's version, ``libc`` one of ``glibc``, ``musl``, or with a specifier
    behind it; ``distribution`` holds IDs as in os-release(5); ``exists`` is a path on the host.
    """

    chrooted: tuple[str, ...] = ()
    parameter: ParameterCondition | None = None
    version: str | None = None
    libc: str | None = None
    distribution: tuple[str, ...] = ()
    exists: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device node: ``kind`` is FileType.CHARACTER_DEVICE or BLOCK_DEVICE."""

    path: str
    kind: FileType
    major: int
    minor: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A symbolic link inside the chroot: ``target`` is its text."""

    path: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What a chroot must hold, when, and why; one ``[[rule]]`` of a rule set.

    ``match`` (a regular expression for whole names) chooses the files of ``directories``; without it all regular files
    there count, and those of directories below. ``filtered`` names passwd(5) or group(5) files whose password fields
    are left out of the copy. ``mode``, ``owner`` and ``group`` are what the copy shall have (default: root's, and the
    source's mode without write for others and without set-id).
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
    when: When = field(default_factory=When)
    presence: Presence = Presence.REQUIRED
    guard: Guard | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    on_change: OnChange = OnChange.RELOAD
    on_conflict: OnConflict = OnConflict.COPY
    severity: Severity | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSet:
    """One TOML file of rules.

    ``name`` is its file name without ``.toml``, ``service`` the kind of instance it is for.
    """

    name: str
    service: str
    description: str
    origin: str
    rules: tuple[Rule, ...]


# --- Instances --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Daemon:
    """One service line: its name (``smtp/inet``), the program it runs (``smtpd``), and the parameters it sees.

    ``parameters`` maps names to expanded values, command-line overrides included; it may compute them when asked.
    """

    name: str
    program: str
    chrooted: bool
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """How an instance is reloaded, as argument lists.

    ``running`` ends 0 while the instance runs (empty: it always counts as running). ``unit`` is what
    ``systemctl try-restart`` is given for rules that need a restart. ``watched`` are the configuration files that must
    be older than the last start or reload: newer ones mean that an administrator is at work. ``pid_file`` holds the
    number of the master process, ``reborn`` names the child that each reload starts anew, which tells when that was.
    """

    reload: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    unit: str | None = None
    watched: tuple[str, ...] = ()
    pid_file: str | None = None
    reborn: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One service instance with a chroot of its own.

    ``found`` says how it was discovered, ``aliases`` are other names it answers to, ``rule_sets`` the names of the rule
    sets that apply. ``chrooted`` is false where no daemon of it runs chrooted: then it needs nothing. ``problem`` tells
    why it cannot be served (drift kind ``bad-instance``); the other fields are then as far as they could be read.
    """

    name: str
    service: str
    provider: str
    chroot: str
    found: str
    config: str | None = None
    aliases: tuple[str, ...] = ()
    rule_sets: tuple[str, ...] = ()
    chrooted: bool = True
    enabled: bool = True
    daemons: tuple[Daemon, ...] = ()
    version: str | None = None
    control: Control = field(default_factory=Control)
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticInstance:
    """One ``[[instance]]`` table of the configuration file."""

    name: str
    chroot: str
    rules: tuple[str, ...]
    reload: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The configuration file, all of it optional; ``postfix`` is the default instance's configuration directory."""

    instances: tuple[StaticInstance, ...] = ()
    postfix: str = "/etc/postfix"
    reload_timeout: float = 60.0
    reload_interval: float = 60.0


# --- Libraries --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """A shared library that a chroot needs.

    ``path`` is where the loader inside the chroot looks for it, ``source`` the host's file, ``because`` the chain that
    led to it (``libcap.so.2 ← libnss_systemd.so.2 ← nsswitch.conf hosts``).
    """

    path: str
    source: str
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unresolved:
    """A library that something needs and that the loader would not find on the host."""

    name: str
    because: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LibrarySet:
    """What a list of modules or libraries comes to."""

    libraries: tuple[Library, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Libc:
    """The C library of a root: ``name`` is glibc or musl, ``version`` as its release is named; None: not found."""

    name: str | None = None
    version: str | None = None


# --- Entries, drift, outcomes -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why an entry's state could not be established: the kind of drift that it is, and a clause."""

    kind: Kind
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One concrete thing that one chroot must hold, with its wanted and its actual state.

    ``path`` is where it belongs inside the chroot (absolute from the chroot), ``source`` the host's path (None for
    what has no source: directories, devices, links); ``want.identity`` is then the source's as it was compared.
    ``filtered`` says that the copy is an account file without its password fields. ``same`` says whether the contents
    are equal, byte for byte; None where that was not asked because something else already tells. ``because`` tells
    which parameter, daemon or library led here. ``have`` is None where nothing is there.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The difference between an entry and what is there; ``reason`` is one clause for people."""

    kind: Kind
    severity: Severity
    remedy: Remedy
    reason: str
    entry: Entry
    package: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of repairing one drift."""

    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reload:
    """What a reload was, or why there was none: ``output`` is what the command printed, cut to 4 KiB."""

    needed: bool
    done: bool = False
    pending: bool = False
    command: tuple[str, ...] = ()
    error: str | None = None
    output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is remembered of an instance's reloads between runs.

    ``last`` is when the last one was tried (seconds since the epoch), ``failures`` how many failed since one worked.
    """

    last: float = 0.0
    pending: bool = False
    restart: bool = False
    failures: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A drift with what became of it (None where nothing was tried)."""

    drift: Drift
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceReport:
    """All that a run found out about one instance; ``entries`` counts what was compared."""

    instance: Instance
    entries: int
    findings: tuple[Finding, ...]
    reload: Reload = field(default_factory=lambda: Reload(needed=False))


@dataclass(frozen=True, kw_only=True, slots=True)
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


# --- What touches the machine -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """A finished command: ``code`` is its exit status, negative for a signal, None where it ran out of time."""

    code: int | None
    output: str


class Runner(Protocol):
    """Runs commands of the live host; there is none for an image."""

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        """Run ``command`` (absolute program first) in a minimal environment and give its exit status and output.

        Raises UnreadableError where the program cannot be started.
        """
        ...

    def started(self, pid: int, child: str | None) -> float | None:
        """When the newest child of ``pid`` called ``child``, else it itself, began (seconds since the epoch).

        None where the process is gone.
        """
        ...


class Source(Protocol):
    """A host file; links were followed as a daemon outside the chroot would. Whoever got it closes it."""

    path: str
    state: State

    @property
    def data(self) -> bytes | None:
        """Contents at hand, which stand for what is in the file."""
        ...

    def contents(self, limit: int) -> bytes:
        """The file's contents. Raises UnreadableError, also where there is more than ``limit``."""
        ...

    def stand_in(self, data: bytes) -> None:
        """Let ``data`` stand for the file's contents from now on."""
        ...

    def fileno(self) -> int:
        """A descriptor for reading, the same each time. Raises UnreadableError."""
        ...

    def open(self) -> int:
        """A descriptor for reading that the caller closes. Raises UnreadableError."""
        ...

    def readers(self) -> int:
        """The permission bits that a copy may have at most, ACLs counted."""
        ...

    def close(self) -> None: ...


class Copy(Protocol):
    """A place inside a chroot: its state (None: nothing there) as seen without following a link."""

    path: str
    state: State | None

    def open(self) -> int:
        """A descriptor for reading that the caller closes. Raises PathError."""
        ...

    def contents(self, limit: int) -> bytes:
        """The file's contents. Raises PathError, also where there is more than ``limit``."""
        ...


class Chroot(Protocol):
    """One chroot, walked from the root; every path is absolute from the chroot. Whoever got it closes it."""

    path: str

    def canonical(self, directory: str) -> str | None:
        """The spelling of a directory without links on the way; None where it is missing.

        Raises UnsafeError, UnreadableError.
        """
        ...

    def look(self, path: str) -> Copy:
        """What is at ``path``. Raises UnsafeError, UnreadableError."""
        ...

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a directory, sorted, with their types; empty where it is missing.

        Raises UnsafeError, UnreadableError.
        """
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Sees a root and cannot change it. All methods raise AbsentError or UnreadableError for host paths."""

    path: str
    """The root as given: ``/``, or the directory of an image."""
    live: bool
    """Whether the root is the one that this process lives in."""
    owners: frozenset[int]
    """The users that count as root: 0, and whoever runs this."""

    def source(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root, and open it where it is a file."""
        ...

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """The contents of a host file of at most ``limit`` bytes; a larger one is an UnreadableError."""
        ...

    def read_trusted(self, path: str) -> bytes:
        """The contents of a configuration file that only root could have written, its directories included.

        Raises UnsafeError where somebody else could have. In an image nothing is trusted, so that nothing is refused.
        """
        ...

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a host directory, sorted, with their types (of links: the link's)."""
        ...

    def resolve(self, path: str) -> str:
        """The host path without links."""
        ...

    def chroot(self, path: str) -> Chroot:
        """Walk to a chroot. Raises AbsentError, UnsafeError, UnreadableError."""
        ...

    def same(self, source: Source, copies: Sequence[Copy]) -> Iterator[bool | Problem]:
        """For each copy, whether its bytes equal the source's; the source is read once."""
        ...

    def sha256(self, thing: Source | Copy) -> str | None:
        """The SHA-256 checksum (hex) of a file; None where it is too large, is not a file or cannot be read."""
        ...


class Cache(Protocol):
    """Small JSON values that can be lost at any time, kept beside the state."""

    def get(self, name: str, fingerprint: str) -> object | None:
        """The value last put under ``name``, if it was put with the same fingerprint."""
        ...

    def put(self, name: str, fingerprint: str, value: object) -> None:
        """Keep a value; failing to do so is no error."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """The machine as the stages see it: ``run`` is None offline, so that every caller faces it."""

    root: Reader
    run: Runner | None
    cache: Cache


class Provider(Protocol):
    """Discovers instances; a module with this function is one row of ``providers.PROVIDERS``."""

    def __call__(self, host: Host, config: Config, rule_sets: Iterable[RuleSet]) -> list[Instance]:
        """All instances of this kind, broken ones with their ``problem``."""
        ...
