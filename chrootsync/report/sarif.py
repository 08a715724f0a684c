"""SARIF 2.1.0, the format of code scanning: one rule for each kind of drift, one result for each drift that is left.

Paths are relative to the root that was checked, SRCROOT, so that an image's report can be uploaded from wherever it was
unpacked. Fingerprints come from the instance, the path and the rule: neither time nor contents change them. What was
repaired is no result any more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from chrootsync.model import Kind, Severity
from chrootsync.report import text
from chrootsync.report.json import utc
from chrootsync.report.kinds import MEANINGS, Meaning
from chrootsync.report.troubles import troubles
from chrootsync.report.verdict import findings, repaired, summary

if TYPE_CHECKING:
    from chrootsync.model import Drift, Finding, InstanceReport, Report
    from chrootsync.report import Options
    from chrootsync.report.troubles import Trouble

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
BASE = "SRCROOT"

_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_BESIDE = {
    "reload": Meaning(
        "The daemons of an instance were not reloaded after a repair.",
        "chrootsync check --fix tries it again; the message tells what keeps it back.",
        Severity.WARNING,
    ),
    "probe": Meaning(
        "A lookup inside the chroot gives something else than outside.",
        "chrootsync probe shows all lookups; chrootsync check --fix brings the chroot in sync.",
    ),
}
_RULES = {**{str(kind): meaning for kind, meaning in MEANINGS.items()}, **_BESIDE}
_INDEX = {name: index for index, name in enumerate(_RULES)}


def render(report: Report, options: Options) -> str:
    """The report as one SARIF log with one run."""
    run = {
        "tool": {"driver": _driver(report)},
        "invocations": [_invocation(report)],
        "originalUriBaseIds": {
            BASE: {"description": _message(f"The root that was checked: {text.clean(report.root)}")}
        },
        "columnKind": "unicodeCodePoints",
        "results": [one for instance in report.instances for one in _results(instance, options)],
        "properties": {
            "summary": summary(report, strict=options.strict),
            "repaired": sum(map(repaired, findings(report))),
            "entries": sum(instance.entries for instance in report.instances),
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _driver(report: Report) -> dict[str, Any]:
    return {
        "name": "chrootsync",
        "version": report.version,
        "rules": [_rule(name, meaning) for name, meaning in _RULES.items()],
    }


def _rule(name: str, meaning: Meaning) -> dict[str, Any]:
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": meaning.text},
        "fullDescription": {"text": meaning.text},
        "help": {"text": meaning.advice},
        "defaultConfiguration": {"level": _LEVELS[meaning.severity]},
    }


def _invocation(report: Report) -> dict[str, Any]:
    """How the run went; what was said of it as a whole are notifications."""
    notes = [{"level": "note", "message": _message(text.clean(note))} for note in report.notes]
    began = utc(report.generated)
    times = {"startTimeUtc": began} if began is not None else {}
    return {"executionSuccessful": True, **times, "toolExecutionNotifications": notes}


# --- Results ------------------------------------------------------------------------------------------------------


def _results(instance: InstanceReport, options: Options) -> Iterator[dict[str, Any]]:
    for finding in instance.findings:
        if not repaired(finding) and (options.verbose or finding.drift.severity is not Severity.INFO):
            yield _of_finding(finding)
    for trouble in troubles(instance):
        if options.verbose or trouble.severity is not Severity.INFO:
            yield _of_trouble(trouble, instance)


def _of_finding(finding: Finding) -> dict[str, Any]:
    drift = finding.drift
    entry = drift.entry
    became = text.outcome(finding)
    said = f"{''.join(text.location(drift))}: {text.reason(drift)}" + (f" -> {became}" if became else "")
    why = text.clean(entry.rule.why)
    return {
        **_result(drift.kind, drift.severity, f"{said}. Why it matters: {why}." if why else said),
        "locations": [_location(_uri(drift), entry.instance.name)],
        **_fingerprints(entry.instance.name, entry.path, entry.rule.id),
        "properties": {
            "instance": text.clean(entry.instance.name),
            "rule": text.clean(entry.rule.id),
            "because": text.clean(entry.because),
            "source": None if entry.source is None else text.clean(entry.source),
            "package": None if drift.package is None else text.clean(drift.package),
            "remedy": drift.remedy,
        },
    }


def _of_trouble(trouble: Trouble, instance: InstanceReport) -> dict[str, Any]:
    what = instance.instance
    return {
        **_result(trouble.topic, trouble.severity, f"{text.clean(what.name)}: {trouble.reason}"),
        "locations": [_location(_quoted(what.config or what.chroot), what.name)],
        **_fingerprints(what.name, trouble.topic, trouble.what if trouble.topic == "probe" else ""),
        "properties": {"instance": text.clean(what.name)},
    }


def _result(rule: str, severity: Severity, said: str) -> dict[str, Any]:
    return {"ruleId": rule, "ruleIndex": _INDEX[rule], "level": _LEVELS[severity], "message": _message(said)}


def _message(said: str) -> dict[str, str]:
    """A plain text message: braces would be placeholders (3.11.5), and ``](`` the middle of a link (3.11.6)."""
    return {"text": said.replace("{", "{{").replace("}", "}}").replace("](", "]\\x28")}


def _location(uri: str, instance: str) -> dict[str, Any]:
    """A place of one file; code scanning wants a line, and for a whole file it is the first."""
    return {
        "physicalLocation": {"artifactLocation": {"uri": uri, "uriBaseId": BASE}, "region": {"startLine": 1}},
        "logicalLocations": [{"name": text.clean(instance), "kind": "instance"}],
    }


def _uri(drift: Drift) -> str:
    """Where the drift is, from the root; of a bad instance it is its configuration, of what has no path the chroot."""
    instance = drift.entry.instance
    if drift.kind is Kind.BAD_INSTANCE:
        return _quoted(instance.config or instance.chroot)
    path = drift.entry.path if drift.entry.path.startswith("/") else ""
    return _quoted(instance.chroot.rstrip("/") + path)


def _quoted(path: str) -> str:
    """A path as a relative reference (RFC 3986), byte by byte."""
    return quote(text.raw(path).lstrip(b"/"), safe="/") or "."


def _fingerprints(*parts: str) -> dict[str, Any]:
    """What tells a result from others in the next run; the second name is the one that GitHub looks for."""
    digest = hashlib.sha256(b"\0".join(map(text.raw, parts))).hexdigest()
    return {"partialFingerprints": {"drift/v1": digest, "primaryLocationLineHash": f"{digest[:16]}:1"}}
