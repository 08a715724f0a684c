"""Instances: what has a chroot of its own, and how it is reloaded."""

from __future__ import annotations

from collections.abc import Mapping

from chrootsync.model.frozen import field, frozen


@frozen
class Daemon:
    """One service line: its name (``smtp/inet``), the program it runs (``smtpd``), and the parameters it sees.

    ``parameters`` maps names to expanded values, command-line overrides included; it may compute them when asked.
    ``tables`` maps lookup tables as parameters name them (``ldap:/etc/postfix/aliases.cf``) to what is set, or looked
    up, in them; it reads them when asked, and raises UnreadableError, UnsafeError. ``command`` is the program's path
    on the host.
    """

    name: str
    program: str
    chrooted: bool
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False, compare=False)
    command: str | None = None


@frozen
class Control:
    """How an instance is reloaded and asked, as argument lists.

    ``running`` ends 0 while the instance runs (empty: it always counts as running). ``unit`` is what
    ``systemctl try-restart`` is given for rules that need a restart. ``watched`` are the configuration files that must
    be older than the last start or reload: newer ones mean that an administrator is at work. ``pid_file`` holds the
    number of the master process, ``reborn`` names the child that each reload starts anew, which tells when that was.
    ``master`` is the name of that process. ``logs`` are the files that may hold its log, ``log_names`` what stands
    before the names of programs in it (``postfix-out`` in ``postfix-out/smtp[123]: ...``). ``queue`` prints what waits
    in the queues, a message a line, and ``retry``, with a message's id behind it, has that one tried again at once.
    """

    reload: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    unit: str | None = None
    watched: tuple[str, ...] = ()
    pid_file: str | None = None
    reborn: str | None = None
    master: str | None = None
    logs: tuple[str, ...] = ()
    log_names: tuple[str, ...] = ()
    queue: tuple[str, ...] = ()
    retry: tuple[str, ...] = ()


@frozen
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


@frozen
class StaticInstance:
    """One ``[[instance]]`` table of the configuration file."""

    name: str
    chroot: str
    rules: tuple[str, ...]
    reload: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    unit: str | None = None


@frozen
class Config:
    """The configuration file, all of it optional; ``postfix`` is the default instance's configuration directory.

    ``package_wait`` are the seconds that the repair of a package's files waits for a package manager to end. What was
    replaced is kept for ``history_days``, for the newest ``history_repairs``, and up to ``history_size`` MiB.
    ``watch_settle``, ``watch_maximum``, ``watch_interval`` are seconds: how long the watcher lets changes settle, how
    long at most, and how far apart its passes are where nothing changes.
    """

    instances: tuple[StaticInstance, ...] = ()
    postfix: str = "/etc/postfix"
    reload_timeout: float = 60.0
    reload_interval: float = 60.0
    package_wait: float = 300.0
    history_days: float = 30.0
    history_repairs: int = 200
    history_size: float = 256.0
    watch_settle: float = 0.5
    watch_maximum: float = 10.0
    watch_interval: float = 3600.0
