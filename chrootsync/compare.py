"""Entry -> Drift or nothing, and the remedy; pure."""

from __future__ import annotations

from chrootsync.model import Drift, Entry, FileType, Kind, OnConflict, Remedy, Severity, State

NODES = (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)


def judge(entry: Entry) -> Drift | None:
    """The drift of an entry, None where it is as wanted."""
    if entry.problem is not None:
        return _drift(entry, entry.problem.kind, Remedy.NONE, entry.problem.reason)
    want, have = entry.want, entry.have
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


def in_sync(entry: Entry) -> bool:
    """Whether there is nothing to say about an entry."""
    return judge(entry) is None


def _judge_socket(entry: Entry, have: State | None) -> Drift | None:
    if have is not None and have.type is FileType.SOCKET:
        return None
    what = "no socket is there" if have is None else f"a {have.type} stands where a socket should"
    reason = f"{what}; let its service listen inside the chroot, a socket cannot be copied"
    return _drift(entry, Kind.UNREACHABLE, Remedy.NONE, reason)


def _judge_contents(entry: Entry, want: State, have: State) -> Drift | None:
    reason = _difference(entry, want, have)
    if reason is None:
        return None
    if entry.rule.on_conflict is OnConflict.KEEP:
        return _drift(entry, Kind.DIFFERS, Remedy.NONE, f"{reason}; kept as its rule says")
    remedy = Remedy.COPY if want.type is FileType.FILE else Remedy.REPLACE
    return _drift(entry, Kind.DIFFERS, remedy, reason)


def _difference(entry: Entry, want: State, have: State) -> str | None:
    if want.type is FileType.FILE and want.size != have.size:
        return f"{have.size} bytes here, {want.size} on the host"
    if want.type is FileType.FILE and entry.same is False:
        return f"other contents than on the host, {want.size} bytes both"
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
    wrong.extend(f"has {what}" for what in have.extended)
    return _drift(entry, Kind.METADATA, Remedy.REPLACE, ", ".join(wrong)) if wrong else None


def _numbers(state: State) -> str:
    return "{}:{}".format(*state.device) if state.device is not None else "?"


def _drift(entry: Entry, kind: Kind, remedy: Remedy, reason: str) -> Drift:
    default = Severity.WARNING if kind in (Kind.UNREACHABLE, Kind.ORPHAN) else Severity.ERROR
    severity = entry.severity or entry.rule.severity or default
    return Drift(kind=kind, severity=severity, remedy=remedy, reason=reason, entry=entry)
