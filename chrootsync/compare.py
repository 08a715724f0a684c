"""Entry -> Drift or nothing, and the remedy; pure.

``judge`` knows what is there alone; ``recall`` adds what is remembered: which side changed, what is to be left alone.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from chrootsync.model import Drift, Entry, FileType, Kind, OnConflict, Remedy, Severity, State
from chrootsync.model.frozen import replace

if TYPE_CHECKING:
    from chrootsync.model.memory import Hold, Memory

CONTESTED = 3  # repairs without a change of the source, after which something else must be at work
KEPT = "; kept as its rule says"
REMOVABLE = (FileType.FILE, FileType.LINK)
NODES = (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)


def judge(entry: Entry) -> Drift | None:
    """The drift of an entry, None where it is as wanted."""
    if entry.problem is not None:
        return _drift(entry, entry.problem.kind, Remedy.NONE, entry.problem.reason)
    want, have = entry.want, entry.have
    if entry.same and want is not None and have is not None and _is_clean(want, have):
        return None  # as most files are: nothing else has to be asked
    if entry.surplus:
        return _judge_surplus(entry, have)
    if want is None:
        return None
    if want.type is FileType.SOCKET:
        return _judge_socket(entry, have)
    if have is None:
        remedy = Remedy.COPY if want.type is FileType.FILE else Remedy.CREATE
        return _drift(entry, Kind.MISSING, remedy, f"this {want.type} is not in the chroot")
    if have.type is not want.type:
        return _drift(entry, Kind.TYPE, Remedy.REPLACE, f"a {have.type} stands where a {want.type} should")
    return _judge_contents(entry, want, have) or _judge_metadata(entry, want, have)


def recall(
    drift: Drift, memory: Memory, *, want: str | None, have: str | None, until: str = "", force: bool = False
) -> Drift:
    """A drift in the light of what is remembered of its place: who changed it, and whether it is to be left alone.

    ``want`` and ``have`` are the checksums of the source and of what is there (None: no file, or not to be had),
    ``until`` is the date at which a hold ends.
    ``force`` repairs also what was rolled back, or is contested.
    """
    if drift.kind is Kind.DIFFERS:
        drift = _who_changed(drift, memory, have)
    if drift.remedy is Remedy.NONE or force:
        return drift
    hold = memory.hold
    if hold is not None and _is_held(hold, drift.entry, want, have):
        ends = "" if drift.entry.surplus else "until the source changes, or "
        reason = f"repair {hold.repair} was rolled back here; held {ends}until {until}"
        return _left_alone(drift, Kind.HELD, f"{reason}; check --fix --force releases it")
    times = len(list(takewhile(lambda put: put == want, memory.repaired)))
    if times >= CONTESTED and not _is_too_open(drift.entry):
        reason = f"repaired {times} times while its source stayed the same: something else keeps changing it"
        if drift.entry.surplus:
            reason = f"removed {times} times: something else keeps putting it there"
        return _left_alone(drift, Kind.CONTESTED, f"{reason}; find out what, then check --fix --force")
    return drift


def in_sync(entry: Entry) -> bool:
    """Whether there is nothing to say about an entry."""
    return judge(entry) is None


def orphan(entry: Entry, reason: str) -> Drift:
    """The drift of what should not be there, and is."""
    return _drift(entry, Kind.ORPHAN, Remedy.REMOVE, reason)


def is_as_written(state: State, there: State, sha256: str | None) -> bool:
    """Whether what is there, with that checksum, is exactly what a remembered state says."""
    return not there.extended and _has_metadata(there, state) and _is_same(state, there, sha256)


def _is_clean(want: State, have: State) -> bool:
    """Whether a file whose contents are the same has nothing else that is wrong with it."""
    if have.type is not want.type or want.size != have.size or have.extended:
        return False
    return want.mode == have.mode and want.uid == have.uid and want.gid == have.gid


def _judge_surplus(entry: Entry, have: State | None) -> Drift | None:
    if have is None:
        return None
    gone = "the host has no such file any more"
    if have.type not in REMOVABLE:
        return _drift(entry, Kind.ORPHAN, Remedy.NONE, f"{gone}; a {have.type} is never removed: do it by hand")
    if entry.rule.on_conflict is OnConflict.KEEP:
        return _drift(entry, Kind.ORPHAN, Remedy.NONE, f"{gone}{KEPT}")
    return orphan(entry, gone)


def _judge_socket(entry: Entry, have: State | None) -> Drift | None:
    if have is not None and have.type is FileType.SOCKET:
        return None
    what = "no socket is there" if have is None else f"a {have.type} stands where a socket should"
    advice = entry.advice or "let its service listen inside the chroot, a socket cannot be copied"
    reason = f"{what}; {advice}"
    return _drift(entry, Kind.UNREACHABLE, Remedy.NONE, reason)


def _judge_contents(entry: Entry, want: State, have: State) -> Drift | None:
    reason = _difference(entry, want, have)
    if reason is None:
        return None
    if entry.rule.on_conflict is OnConflict.KEEP:
        wrong = _judge_metadata(entry, want, have)
        beside = "" if wrong is None else f"; {wrong.reason}: put that right by hand"
        return _drift(entry, Kind.DIFFERS, Remedy.NONE, f"{reason}{beside}{KEPT}")
    remedy = Remedy.COPY if want.type is FileType.FILE else Remedy.REPLACE
    return _drift(entry, Kind.DIFFERS, remedy, reason)


def _who_changed(drift: Drift, memory: Memory, have: str | None) -> Drift:
    """Whether the copy is what the source once was, or somebody changed it inside the chroot."""
    there, baseline = drift.entry.have, memory.baseline
    if there is None or (there.type is FileType.FILE and have is None):
        return drift
    known = memory.digests if there.type is FileType.FILE else frozenset()
    written = baseline is not None and _is_same(baseline.state, there, have)
    if have in known or written:
        remedy = Remedy.COPY if there.type is FileType.FILE else Remedy.REPLACE
        reason = drift.reason.removesuffix(KEPT)
        why = "the host's side has changed" if have in known else "this is what was written here last"
        return replace(drift, kind=Kind.OUTDATED, remedy=remedy, reason=f"{reason}; {why}")
    if baseline is not None:
        return replace(drift, kind=Kind.MODIFIED, reason=f"{drift.reason}; this was not written by chrootsync")
    return drift


def _is_same(state: State, there: State, sha256: str | None) -> bool:
    """Whether what is there is what a remembered state says, its metadata aside."""
    if state.type is not there.type:
        return False
    return (state.sha256, state.target, state.device) == (sha256, there.target, there.device)


def _is_held(hold: Hold, entry: Entry, want: str | None, have: str | None) -> bool:
    """Whether a hold is still in force; what is needed no more has no source that could change."""
    return (entry.surplus or hold.source == want) and _is_restored(hold, entry, have)


def _is_restored(hold: Hold, entry: Entry, sha256: str | None) -> bool:
    """Whether what is there is what a rollback put, and may still be as open as it is."""
    there, want = entry.have, entry.want
    if hold.restored is None or there is None:
        return hold.restored is there
    opened = 0 if want is None or want.mode is None else (there.mode or 0) & ~want.mode & 0o077
    if there.type is FileType.FILE and (opened or not _has_metadata(there, hold.restored)):
        return False
    return _is_same(hold.restored, there, sha256)


def _has_metadata(there: State, wanted: State) -> bool:
    """Whether mode, owner and group are those of a state, as far as it tells."""
    pairs = ((there.mode, wanted.mode), (there.uid, wanted.uid), (there.gid, wanted.gid))
    return all(wish is None or found == wish for found, wish in pairs)


def _is_too_open(entry: Entry) -> bool:
    """Whether somebody may do more with a copy than he should: that is put right however often it takes."""
    want, there = entry.want, entry.have
    if want is None or there is None or want.type is not there.type or want.type is FileType.LINK:
        return False
    others = [(want.uid, there.uid), (want.gid, there.gid)]
    if any(wanted is not None and wanted != found for wanted, found in others):
        return True
    return bool(there.extended) or (want.mode is not None and bool((there.mode or 0) & ~want.mode))


def _left_alone(drift: Drift, kind: Kind, reason: str) -> Drift:
    return replace(drift, kind=kind, remedy=Remedy.NONE, severity=Severity.WARNING, reason=reason)


def _difference(entry: Entry, want: State, have: State) -> str | None:
    if want.type is FileType.FILE:
        if want.size != have.size:
            return f"{have.size} bytes here, {want.size} on the host"
        return f"other contents than on the host, {want.size} bytes both" if entry.same is False else None
    if want.type is FileType.LINK and want.target != have.target:
        return f"points to {have.target}, not to {want.target}"
    if want.type in NODES and want.device != have.device:
        return f"is device {_numbers(have)}, not {_numbers(want)}"
    return None


def _judge_metadata(entry: Entry, want: State, have: State) -> Drift | None:
    wrong = []
    if want.mode is not None and want.mode != have.mode:
        wrong.append(f"mode {have.mode:04o}, not {want.mode:04o}")
    if want.uid is not None and want.uid != have.uid:
        wrong.append(f"owner {have.uid}, not {want.uid}")
    if want.gid is not None and want.gid != have.gid:
        wrong.append(f"group {have.gid}, not {want.gid}")
    if have.extended:
        wrong.extend(f"has {what}" for what in have.extended)
    return _drift(entry, Kind.METADATA, Remedy.REPLACE, ", ".join(wrong)) if wrong else None


def _numbers(state: State) -> str:
    return "{}:{}".format(*state.device) if state.device is not None else "?"


def _drift(entry: Entry, kind: Kind, remedy: Remedy, reason: str) -> Drift:
    default = Severity.WARNING if kind in (Kind.UNREACHABLE, Kind.ORPHAN) else Severity.ERROR
    severity = entry.severity or entry.rule.severity or default
    return Drift(kind=kind, severity=severity, remedy=remedy, reason=reason, entry=entry)
