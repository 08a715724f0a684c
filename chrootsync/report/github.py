"""GitHub workflow commands: an annotation for each drift, then the whole report folded away, then one line.

The runner takes a line for a command that begins with ``::`` behind spaces, or that has ``##[`` anywhere (its source:
ActionCommand.cs). Every line here begins with a word of ours, and ``##[`` is broken up. In a command's data %, CR and
LF are escaped, in its properties ``:`` and ``,`` too (the same source).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chrootsync.model import Severity
from chrootsync.report import plain, text
from chrootsync.report.troubles import troubles
from chrootsync.report.verdict import counts, repaired, summary

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.report import Options

_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, options: Options) -> str:
    """The report as lines for the log of a workflow."""
    annotations = [line for instance in report.instances for line in _annotations(instance, options)]
    lines = [*annotations, *_group(report, options)] if annotations or report.notes else []
    return "".join(f"{_unmarked(line)}\n" for line in [*lines, f"chrootsync: {summary(report, strict=options.strict)}"])


def _annotations(instance: InstanceReport, options: Options) -> Iterator[str]:
    name = text.clean(instance.instance.name)
    for finding in text.shown(instance, options):
        file = "".join(text.location(finding.drift)).lstrip("/")
        yield _annotation(_command(finding, options), f"{finding.drift.kind} in {name}", _message(finding), file)
    for trouble in troubles(instance):
        if trouble.severity is Severity.INFO and not options.verbose:
            continue
        yield _annotation(_COMMANDS[trouble.severity], f"{trouble.topic} of {name}", trouble.reason)


def _command(finding: Finding, options: Options) -> str:
    if repaired(finding):
        return "notice"
    return "error" if counts(finding, strict=options.strict) else _COMMANDS[finding.drift.severity]


def _message(finding: Finding) -> str:
    """What is wrong, why that matters, and what became of it; the first words tell it all in a list."""
    drift = finding.drift
    became = text.outcome(finding)
    why = text.clean(drift.entry.rule.why)
    head = f"{''.join(text.location(drift))}: {text.reason(drift)}"
    return head + (f" -> {became}" if became else "") + (f"\n{why}" if why else "")


def _annotation(command: str, title: str, message: str, file: str = "") -> str:
    properties = {"file": file, "title": title}
    given = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items() if value)
    return f"::{command} {given}::{message.translate(_DATA)}"


def _group(report: Report, options: Options) -> Iterator[str]:
    """The plain report between the lines that fold it, each of its lines behind a mark of ours."""
    yield "::group::All that was found"
    for line in plain.render(report, options).splitlines():
        yield f"| {line}"
    yield "::endgroup::"


def _unmarked(line: str) -> str:
    """A line without the other mark of a command, which counts wherever it stands."""
    return line.replace("##[", "#\\x23[")
