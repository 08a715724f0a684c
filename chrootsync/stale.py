"""Processes that still use what was replaced: libraries that they have mapped, files that they have read before.

Nothing is remembered for that: a process tells when it began and what it has mapped, and a copy when it changed
(ctime). A process that began before its instance's last reload is finishing its job, and needs no other one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from chrootsync import daemons, procfs
from chrootsync.daemons import Running
from chrootsync.model import (
    Drift,
    Entry,
    FileType,
    Host,
    Instance,
    Kind,
    OnChange,
    Presence,
    Remedy,
    Severity,
    StaleProcess,
)
from chrootsync.model.frozen import field, frozen

SLACK = 0.02  # seconds; starts of processes are counted in ticks of a hundredth, and the clock of files is coarse

LastReloads = Callable[[], Mapping[str, float] | None]
"""By instance when chrootsync last reloaded it; None where it could not remember that it did."""

Found = tuple[StaleProcess, Drift]


@frozen
class Suspects:
    """The copies that changed since processes of their instance may have begun: only those can be in use as they were.

    ``since`` has, by name of its instance, a time before which no process of it began.
    """

    host: Host
    since: Mapping[str, float]
    copies: dict[str, list[Entry]] = field(default_factory=dict)

    def see(self, entry: Entry) -> None:
        """Notice one entry that was compared."""
        since = self.since.get(entry.instance.name)
        if since is not None and entry.rule.on_change is not OnChange.NOTHING and _changed(entry) > since:
            self.copies.setdefault(entry.instance.name, []).append(entry)


def suspects(host: Host, instances: Iterable[Instance]) -> Suspects:
    """What to hold entries against as they are compared; in an image nothing runs."""
    if host.run is None or not host.root.live:
        return Suspects(host=host, since={})
    asked = [one for one in instances if one.problem is None and one.chrooted and one.control.reload]
    since = {one.name: daemons.since(host.root, one) for one in asked}
    return Suspects(host=host, since={name: when for name, when in since.items() if when is not None})


def stale(suspects: Suspects, last: LastReloads) -> dict[str, list[Found]]:
    """By name of their instance, the processes that use one of the suspects, each with the drift that it amounts to."""
    root = suspects.host.root
    instances = [copies[0].instance for copies in suspects.copies.values()]
    running = daemons.chrooted(root, instances)
    found: dict[str, list[Found]] = {}
    for instance in instances:
        using = [
            (process, used)
            for process in running.get(instance.name, ())
            if (used := _used(process, instance, suspects.copies[instance.name])) and daemons.lives(process)
        ]
        if not using:
            continue
        reloaded = _reloaded(suspects.host, instance, last())
        if reloaded is not None:
            told = (_told(process, used, instance, reloaded) for process, used in using)
            found[instance.name] = [one for one in told if one is not None]
    return found


def _reloaded(host: Host, instance: Instance, last: Mapping[str, float] | None) -> float | None:
    """When an instance was last reloaded, by whomever; None where nobody would know that it was."""
    reborn = daemons.reborn(host.root, instance)
    if last is None and reborn is None:
        return None
    remembered = 0.0 if last is None else last.get(instance.name, 0.0)
    return max(0.0 if reborn is None else reborn.began, remembered if remembered <= time.time() else 0.0)


# --- What a process uses ------------------------------------------------------------------------------------------


def _used(process: Running, instance: Instance, copies: Sequence[Entry]) -> list[Entry]:
    """Those of the copies that a process uses as they were before they changed.

    What seems to have changed in the future tells nothing: a clock was wrong.
    """
    began, now = process.began + SLACK, time.time()
    newer = [entry for entry in copies if began < _changed(entry) <= now]
    libraries = [entry for entry in newer if _is_library(entry)]
    mapped = procfs.libraries(procfs.maps(process.pid)) if libraries else {}
    chroot = os.path.realpath(instance.chroot).rstrip("/")
    return [
        *(entry for entry in libraries if _maps(mapped, chroot, entry, began)),
        *(entry for entry in newer if not _is_library(entry) and _reads(process.name, entry)),
    ]


def _maps(mapped: Mapping[str, bool], chroot: str, entry: Entry, began: float) -> bool:
    """Whether a library is mapped that changed after ``began``: the copy, or the host's that was mapped before chroot.

    What was replaced has no name any more. A copy that has one was written to in place, or mapped since: in doubt that
    counts, for the libraries of a process have to fit each other.
    """
    for path, gone in mapped.items():
        folder, name = os.path.split(path)
        if not folder.startswith(f"{chroot}/"):
            if gone and _sourced(entry) > began and _is_called(name, entry.source or ""):
                return True
        elif name.startswith("."):  # a repair swapped it out, and removed it: the directory alone is known
            if folder.removeprefix(chroot) in _spellings(chroot, entry):
                return True
        elif (gone or _copied(entry) > began) and _is_called(name, entry.path):
            return True
    return False


def _is_called(name: str, path: str) -> bool:
    """Whether a file is called as a library is; behind the name of a link stands a version (libcap.so.2.66)."""
    wanted = os.path.basename(path)
    return name == wanted or name.startswith(f"{wanted}.")


def _spellings(chroot: str, entry: Entry) -> tuple[str, str]:
    """The directory of a copy as it is written, and without links."""
    folder = os.path.dirname(entry.path)
    return folder, os.path.realpath(chroot + folder).removeprefix(chroot)


def _reads(program: str, entry: Entry) -> bool:
    """Whether a program is one that reads a file.

    Rules whose conditions name programs tell; an instance of which no programs are known is one program, and reads what
    its rules require.
    """
    if not entry.instance.daemons:
        return entry.rule.presence is Presence.REQUIRED
    readers = {one.program for one in entry.instance.daemons if one.name in entry.evidence.daemons}
    return any(procfs.is_name_of(program, reader) for reader in readers)


def _is_library(entry: Entry) -> bool:
    return bool(entry.evidence.chain) or ".so" in os.path.basename(entry.path)


def _changed(entry: Entry) -> float:
    """When what a process may use of an entry last changed: the copy or, of a library, the host's file, too."""
    return max(_copied(entry), _sourced(entry) if _is_library(entry) else 0.0)


def _sourced(entry: Entry) -> float:
    return 0.0 if entry.want is None else _ctime(entry.want.identity)


def _copied(entry: Entry) -> float:
    is_copy = entry.source is not None and entry.have is not None and entry.have.type is FileType.FILE
    return _ctime(entry.have.identity) if is_copy and entry.have is not None else 0.0


def _ctime(identity: tuple[int, ...] | None) -> float:
    return 0.0 if identity is None else identity[4] / 1e9


# --- What is told of it -------------------------------------------------------------------------------------------


def _told(process: Running, used: Sequence[Entry], instance: Instance, reloaded: float) -> Found | None:
    """A process and its drift; None where a reload has brought it up to date, as it does where no process is new."""
    due = [entry for entry in used if _changed(entry) > reloaded + SLACK]
    ends = instance.control.reborn is not None
    kept = used if ends else [entry for entry in used if entry in due or _is_library(entry)]
    if not kept:
        return None
    entry = next((one for one in due if one.rule.on_change is OnChange.RESTART), (due or kept)[0])
    paths = tuple(dict.fromkeys(one.path for one in (entry, *kept)))
    remedy, severity, after = _way_out(instance, entry, due=bool(due))
    what = "still uses this library as it was" if _is_library(entry) else "began before this copy changed"
    more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
    why = f"{what}{more}; {after}"
    drift = Drift(
        kind=Kind.STALE_PROCESS,
        severity=severity,
        remedy=remedy,
        reason=f"{process.label} {why}",
        entry=entry,
    )
    return StaleProcess(pid=process.pid, daemon=process.name, began=process.began, uses=paths, why=why), drift


def _way_out(instance: Instance, entry: Entry, *, due: bool) -> tuple[Remedy, Severity, str]:
    if due and entry.rule.on_change is OnChange.RESTART:
        if instance.control.unit is not None:
            return Remedy.RELOAD, Severity.WARNING, "a restart ends that"
        return Remedy.NONE, Severity.WARNING, f"restart {instance.name} by hand: no unit is known for it"
    if due:
        return Remedy.RELOAD, Severity.WARNING, "a reload ends that"
    if instance.control.reborn is not None:
        return Remedy.NONE, Severity.INFO, "it was told to end, and is finishing its job"
    again = f"systemctl restart {instance.control.unit}" if instance.control.unit is not None else "restart it by hand"
    return Remedy.NONE, Severity.WARNING, f"no reload ends that: {again}"


def living(told: Iterable[StaleProcess]) -> Iterator[StaleProcess]:
    """Those that have not ended yet."""
    for one in told:
        process = procfs.process(one.pid)
        if process is not None and abs(process.began - one.began) < SLACK and procfs.root(one.pid) is not None:
            yield one
