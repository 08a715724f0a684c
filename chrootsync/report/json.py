"""JSON, the interface for programs; ``schema.json`` beside this module describes it, ``docs/report.md`` explains it.

Strings are clean, as in every report. Where cleaning changed a path, its exact bytes stand beside it in base64.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chrootsync.model import Severity
from chrootsync.report import text
from chrootsync.report.verdict import by_kind, failed, findings, repaired, verdict

if TYPE_CHECKING:
    from chrootsync.model import (
        Finding,
        InstanceReport,
        Lookup,
        Outcome,
        Probe,
        Reload,
        Report,
        Retry,
        StaleProcess,
        State,
    )
    from chrootsync.report import Options
    from chrootsync.report.text import Named

SCHEMA = 1


def render(report: Report, options: Options) -> str:
    """The report as one JSON object."""
    return dump(document(report, options))


def error_json(messages: Iterable[str], code: int) -> str:
    """An error as one JSON object: ``messages`` holds its sentences, ``code`` the exit status."""
    return dump({"schema": SCHEMA, "error": {"code": code, "messages": [text.clean(line) for line in messages]}})


def dump(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def document(report: Report, options: Options) -> dict[str, Any]:
    """The report as JSON types."""
    found = findings(report)
    drifted = [finding for finding in found if finding.drift.severity is not Severity.INFO]
    return {
        "schema": SCHEMA,
        "version": report.version,
        "generated": utc(report.generated),
        **path_fields("root", report.root),
        "status": verdict(found, strict=options.strict),
        "summary": {
            "instances": len(report.instances),
            "entries": sum(instance.entries for instance in report.instances),
            "drift": len(drifted),
            "repaired": sum(map(repaired, found)),
            "failed": sum(map(failed, found)),
            "by_kind": by_kind(drifted),
        },
        "duration_ms": round(report.duration * 1000, 1),
        "notes": [text.clean(note) for note in report.notes],
        "instances": [_instance(instance, report, options) for instance in report.instances],
    }


def _instance(instance: InstanceReport, report: Report, options: Options) -> dict[str, Any]:
    what = instance.instance
    return {
        "name": text.clean(what.name),
        "service": text.clean(what.service),
        "provider": text.clean(what.provider),
        **path_fields("chroot", what.chroot),
        **path_fields("config", what.config),
        "status": verdict(instance.findings, strict=options.strict),
        "entries": instance.entries,
        "drift": [_drift(finding, report) for finding in instance.findings],
        "reload": reload_object(instance.reload),
        "probe": probe_object(instance.probe),
        "stale": [_stale(process) for process in instance.stale],
        "retry": _retry(instance.retry),
    }


def probe_object(probe: Probe | None) -> dict[str, Any]:
    """What the lookups came to; nothing where none was asked for."""
    if probe is None:
        return {}
    return {
        "lookups": [lookup_object(lookup) for lookup in probe.lookups],
        "error": None if probe.error is None else text.clean(probe.error),
        "lost": [text.clean(what) for what in probe.lost],
        "asked": probe.asked,
        "duration_ms": round(probe.duration * 1000, 1),
    }


def lookup_object(lookup: Lookup) -> dict[str, Any]:
    """One lookup."""
    return {
        "what": text.clean(lookup.what),
        "answer": lookup.answer,
        "inside": text.clean(lookup.inside),
        "outside": text.clean(lookup.outside),
        "worked_inside": lookup.worked_inside,
        "worked_outside": lookup.worked_outside,
        "advice": None if lookup.advice is None else text.clean(lookup.advice),
        "matters": lookup.matters,
    }


def _stale(process: StaleProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "daemon": text.clean(process.daemon),
        "began": utc(process.began),
        "uses": [path_fields("path", path) for path in process.uses],
        "why": text.clean(process.why),
    }


def _retry(retry: Retry | None) -> dict[str, Any] | None:
    if retry is None:
        return None
    error = None if retry.error is None else text.clean(retry.error)
    return {"tried": retry.tried, "left": retry.left, "error": error}


def _drift(finding: Finding, report: Report) -> dict[str, Any]:
    drift = finding.drift
    entry = drift.entry
    public = text.public(entry.want, entry.have)
    return {
        "kind": drift.kind,
        "severity": drift.severity,
        **path_fields("path", entry.path),
        **path_fields("source", entry.source),
        "rule": text.clean(entry.rule.id),
        "why": text.clean(entry.rule.why),
        "because": text.clean(entry.because),
        "package": None if drift.package is None else text.clean(drift.package),
        "want": state_object(entry.want, report, public=public),
        "have": state_object(entry.have, report, public=public),
        "remedy": drift.remedy,
        "reason": text.clean(drift.reason),
        "outcome": outcome_object(finding.outcome),
    }


def utc(seconds: float) -> str | None:
    """A time as JSON has it; None for what is no time."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:-6] + "Z"
    except (ValueError, OverflowError, OSError):
        return None


def state_object(state: State | None, named: Named, *, public: bool) -> dict[str, Any] | None:
    """A state; ``public`` tells whether everybody may know its checksum."""
    if state is None:
        return None
    return {
        "type": state.type,
        "mode": None if state.mode is None else text.mode(state.mode),
        "owner": text.owner(state.uid, named),
        "group": text.group(state.gid, named),
        "size": state.size,
        "sha256": state.sha256 if public else None,
        **path_fields("target", state.target),
        "device": None if state.device is None else list(state.device),
    }


def outcome_object(outcome: Outcome | None) -> dict[str, Any] | None:
    return None if outcome is None else {"status": outcome.status, "reason": text.clean(outcome.reason)}


def reload_object(reload: Reload) -> dict[str, Any]:
    return {
        "needed": reload.needed,
        "done": reload.done,
        "pending": reload.pending,
        "command": [text.clean(word) for word in reload.command],
        "error": None if reload.error is None else text.clean(reload.error),
        "output": "\n".join(text.lines(reload.output)),
        "seen": [text.clean(clause) for clause in reload.seen],
    }


def path_fields(key: str, path: str | None) -> dict[str, str | None]:
    """A path under its key and, where it could not be shown as it is, its bytes in base64 under ``KEY_b64``."""
    if path is None:
        return {key: None}
    shown = text.clean(path)
    if shown == path:
        return {key: shown}
    return {key: shown, f"{key}_b64": b2a_base64(text.raw(path), newline=False).decode("ascii")}
