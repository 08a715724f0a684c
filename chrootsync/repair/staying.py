"""What should be taken away and stays for now: in doubt nothing goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from chrootsync.model import Drift, Entry, Outcome, PathError, Remedy, Source, Status
from chrootsync.model.frozen import replace

LIBRARY_DIRECTORIES = ("/lib", "/usr/lib")
REST = 3  # seconds; while update-ca-certificates links everything anew, it pauses for half a second, and holds no lock

Origin = Callable[[Entry], Source]
"""Gives what an entry's copy is made of. Raises AbsentError, UnreadableError."""


def staying(origin: Origin, drifts: Sequence[Drift]) -> dict[int, Outcome]:
    """By id, the outcomes of those of an instance's drifts that are to be taken away and stay."""
    found = {id(drift): _why(origin, drift, drifts) for drift in drifts if drift.remedy is Remedy.REMOVE}
    return {number: outcome for number, outcome in found.items() if outcome is not None}


def _why(origin: Origin, drift: Drift, drifts: Sequence[Drift]) -> Outcome | None:
    entry = drift.entry
    if not entry.surplus:
        return None  # a rollback takes away what was added, whatever else there is
    if entry.rule.mirror:
        return _being_filled(origin, entry)
    if entry.path.startswith(LIBRARY_DIRECTORIES):
        return _may_be_needed(drifts)
    return None


def _being_filled(origin: Origin, entry: Entry) -> Outcome | None:
    """Whether the host's directory may be in the middle of being filled anew, or has been since it was looked at."""
    folder = os.path.dirname(entry.path)
    try:
        with closing(origin(replace(entry, source=folder))) as directory:
            changed = 0 if directory.state.identity is None else directory.state.identity[3]
    except PathError:
        return None  # that it cannot be seen was told where it was looked at
    # A time to come is that of a clock that was wrong.
    if 0 <= time.time() - changed / 1e9 < REST:
        reason = f"until the host's {folder} has been left as it is for {REST} seconds"
        return Outcome(status=Status.WAITING, reason=reason)
    try:
        origin(replace(entry, source=entry.path)).close()
    except PathError:
        return None
    return Outcome(status=Status.SKIPPED, reason="left there, because the host has it again; run check --fix once more")


def _may_be_needed(drifts: Sequence[Drift]) -> Outcome | None:
    """Whether a library that is held, contested or kept as it is may be one that needs an old one."""
    for drift in drifts:
        entry = drift.entry
        if drift.remedy is Remedy.NONE and not entry.surplus and entry.path.startswith(LIBRARY_DIRECTORIES):
            reason = f"left there, because {entry.path} is left as it is and may need it"
            return Outcome(status=Status.SKIPPED, reason=reason)
    return None
