"""How instances are, for programs; ``status.schema.json`` beside this module describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chrootsync.report import status as words
from chrootsync.report.json import path_fields, utc
from chrootsync.report.text import clean
from chrootsync.report.verdict import ReloadVerdict, by_kind, findings, reload_verdict, verdict

if TYPE_CHECKING:
    from chrootsync.model.queues import InstanceStatus, LastRepair, Master, Queues
    from chrootsync.report.status import Overview

SCHEMA = 1
PENDING = (ReloadVerdict.PENDING, ReloadVerdict.FAILED)


def render(overview: Overview) -> str:
    """The overview as one JSON object."""
    return json.dumps(document(overview), indent=2) + "\n"


def document(overview: Overview) -> dict[str, Any]:
    """The overview as JSON types."""
    report = overview.report
    return {
        "schema": SCHEMA,
        "version": report.version,
        "generated": utc(report.generated),
        **path_fields("root", report.root),
        "status": verdict(findings(report)),
        "notes": [clean(note) for note in report.notes],
        "instances": [_instance(status) for status in overview.instances],
    }


def _instance(status: InstanceStatus) -> dict[str, Any]:
    report, instance = status.report, status.report.instance
    return {
        "name": clean(instance.name),
        "service": clean(instance.service),
        "provider": clean(instance.provider),
        **path_fields("chroot", instance.chroot),
        **path_fields("config", instance.config),
        "role": status.role or None,
        "enabled": instance.enabled,
        "problem": None if instance.problem is None else clean(instance.problem),
        "running": _running(status.master),
        "status": verdict(report.findings),
        "drift": len(words.drift(report)),
        "warnings": len(words.warnings(report)),
        "by_kind": by_kind(report.findings),
        "reload_pending": reload_verdict(report.reload) in PENDING,
        "stale_processes": len(report.stale),
        "queues": _queues(status.queues),
        "last_repair": _repair(status.repair),
    }


def _running(master: Master | None) -> dict[str, Any] | None:
    if master is None:
        return None
    since = None if master.began is None else utc(master.began)
    return {"running": master.running, "pid": master.pid, "since": since}


def _queues(queues: Queues | None) -> dict[str, Any] | None:
    if queues is None:
        return None
    oldest = queues.oldest_deferred
    return {
        "counts": dict(queues.counts),
        "oldest_deferred": None if oldest is None else utc(oldest),
        "name_errors": queues.name_errors if queues.counts else None,
        "problem": None if queues.problem is None else clean(queues.problem),
    }


def _repair(last: LastRepair | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {"id": last.id, "began": utc(last.began), "trigger": clean(last.trigger), "rollback": last.rollback}
