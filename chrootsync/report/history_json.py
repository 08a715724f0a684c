"""What repairs did, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chrootsync.model import Status
from chrootsync.report import text
from chrootsync.report.history import by_instance, place, taken_back
from chrootsync.report.json import SCHEMA, dump, outcome_object, path_fields, reload_object, state_object, utc

if TYPE_CHECKING:
    from chrootsync.model import State
    from chrootsync.model.memory import Change, Repair
    from chrootsync.report.history import History, Place


def render(history: History, repairs: Sequence[Repair], *, notes: Sequence[str] = (), **more: object) -> str:
    """Some of the repairs of a history as one JSON object, with ``more`` fields of its own."""
    undone = taken_back(history.repairs)
    found = [_object(history, repair, undone.get(repair.id, {})) for repair in repairs]
    said = [text.clean(note) for note in notes]
    return dump({"schema": SCHEMA, **path_fields("root", history.root), "repairs": found, "notes": said, **more})


def _object(history: History, repair: Repair, undone: Mapping[Place, int]) -> dict[str, Any]:
    counted = Counter(change.outcome.status for change in repair.changes)
    return {
        "id": repair.id or None,
        "began": utc(repair.began),
        "trigger": text.clean(repair.trigger),
        "version": text.clean(repair.version),
        "undoes": repair.undoes,
        "undone_by": sorted(set(undone.values())),
        "finished": repair.id not in history.unfinished,
        "summary": {
            "changes": len(repair.changes),
            "by_status": {status: counted[status] for status in Status if counted[status]},
        },
        "instances": [
            {
                "name": text.clean(name),
                **path_fields("chroot", chroot or None),
                "changes": [_change_object(history, change, undone.get(place(change))) for change in changes],
                "reload": reload_object(repair.reloads[name]) if name in repair.reloads else None,
            }
            for (name, chroot), changes in by_instance(repair).items()
        ],
    }


def _change_object(history: History, change: Change, taker: int | None) -> dict[str, Any]:
    public = text.public(change.before, change.after)
    return {
        "kind": change.kind,
        **path_fields("path", change.path),
        **path_fields("source", change.source),
        "rule": text.clean(change.rule),
        "package": None if change.package is None else text.clean(change.package),
        "before": _state(history, change.before, public=public),
        "after": _state(history, change.after, public=public),
        "outcome": outcome_object(change.outcome),
        "kept": change.kept,
        "undone_by": taker,
    }


def _state(history: History, what: State | None, *, public: bool) -> dict[str, Any] | None:
    made = state_object(what, history, public=public)
    if what is None or made is None:
        return None
    return {**made, "extended": [text.clean(one) for one in what.extended]}
