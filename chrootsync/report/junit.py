"""JUnit XML, as Jenkins, GitLab and others read it: one suite for each instance, one case for each entry.

Drift that counts is a failure, a repair that went wrong an error; what does not count passes, and is told in the
case's output. Reloads and lookups inside the chroot are cases of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # it writes here, and never parses

from chrootsync.model import Answer, Severity
from chrootsync.model.frozen import frozen
from chrootsync.report import text
from chrootsync.report.troubles import troubles
from chrootsync.report.verdict import ReloadVerdict, counts, failed, reload_verdict, repaired, summary, waiting

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.report import Options


@frozen
class _Fault:
    """Why a case does not pass: ``tag`` is failure or error."""

    tag: str
    type: str
    message: str
    details: str = ""


@frozen
class _Case:
    """One case; with neither faults nor anything said it passes silently."""

    name: str
    faults: Sequence[_Fault] = ()
    said: Sequence[str] = ()


def render(report: Report, options: Options) -> str:
    """The report as an XML document."""
    suites = [_suite(instance, report, options) for instance in report.instances]
    if report.notes or not report.instances:
        suites.append(_of_the_run(report, options))
    root = ET.Element("testsuites", name="chrootsync", time=f"{report.duration:.3f}")
    root.extend(suites)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in suites)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(instance: InstanceReport, report: Report, options: Options) -> Element:
    what = instance.instance
    name = text.clean(what.name)
    suite = _element("chrootsync." + name, [*_entries(instance, report, options), *_beside(instance)], report)
    properties = ET.Element("properties")
    facts = {"chroot": what.chroot, "config": what.config, "service": what.service, "provider": what.provider}
    for key, value in facts.items():
        ET.SubElement(properties, "property", name=key, value=text.clean(value or ""))
    suite.insert(0, properties)
    return suite


def _of_the_run(report: Report, options: Options) -> Element:
    """A suite without cases for what is said of the whole run."""
    suite = _element("chrootsync", [], report)
    said = [f"note: {text.clean(note)}" for note in report.notes]
    ET.SubElement(suite, "system-out").text = "\n".join([*said, summary(report, strict=options.strict)])
    return suite


def _element(name: str, cases: Sequence[_Case], report: Report) -> Element:
    faults = [fault.tag for case in cases for fault in case.faults[:1]]
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(faults.count("failure")),
        errors=str(faults.count("error")),
        skipped="0",
    )
    when = _time(report.generated)
    if when is not None:
        suite.set("timestamp", when)
    suite.extend(_case(case, name) for case in cases)
    return suite


def _case(case: _Case, suite: str) -> Element:
    """A case; a second fault of it is told with the first, since programs count cases by their faults."""
    made = ET.Element("testcase", classname=suite, name=case.name)
    for fault in case.faults[:1]:
        inside = ET.SubElement(made, fault.tag, type=fault.type, message=fault.message)
        more = [line for other in case.faults[1:] for line in (f"{other.type}: {other.message}", other.details)]
        inside.text = "\n".join(filter(None, [fault.details, *more])) or None
    if case.said:
        ET.SubElement(made, "system-out").text = "\n".join(case.said)
    return made


def _time(seconds: float) -> str | None:
    """A time in UTC as the schemas have it, without its zone."""
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


# --- Entries ------------------------------------------------------------------------------------------------------


def _entries(instance: InstanceReport, report: Report, options: Options) -> Iterator[_Case]:
    """A case for each path that was compared, or that something was found of."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding in instance.findings:
        found[finding.drift.entry.path].append(finding)
    for path in sorted({*options.compared.get(instance.instance.name, ()), *found}):
        yield _entry(path, found.get(path, ()), report, options)


def _entry(path: str, found: Iterable[Finding], report: Report, options: Options) -> _Case:
    faults: list[_Fault] = []
    said: list[str] = []
    for finding in found:
        fault = _fault(finding, report, options)
        if fault is not None:
            faults.append(fault)
        else:
            said.append(f"{finding.drift.severity}: {_sentence(finding)}")
    return _Case(name=text.clean(path), faults=sorted(faults, key=lambda fault: fault.tag), said=said)


def _fault(finding: Finding, report: Report, options: Options) -> _Fault | None:
    if repaired(finding) or not (failed(finding) or waiting(finding) or counts(finding, strict=options.strict)):
        return None
    tag = "error" if failed(finding) else "failure"
    lines = [f"why: {text.clean(finding.drift.entry.rule.why)}"] if finding.drift.entry.rule.why else []
    lines += [f"{label}: {value}" for label, value in text.facts(finding, report)]
    lines += text.difference(finding, options)
    return _Fault(tag=tag, type=str(finding.drift.kind), message=_sentence(finding), details="\n".join(lines))


def _sentence(finding: Finding) -> str:
    became = text.outcome(finding)
    return f"{finding.drift.kind}: {text.reason(finding.drift)}" + (f" -> {became}" if became else "")


# --- Reloads and lookups ------------------------------------------------------------------------------------------


def _beside(instance: InstanceReport) -> Iterator[_Case]:
    wrong = {(trouble.topic, trouble.what): trouble for trouble in troubles(instance)}
    became = reload_verdict(instance.reload)
    if became is not ReloadVerdict.NONE:
        trouble = wrong.get(("reload", became))
        yield _of_topic("reload", "reload", trouble.reason if trouble else None, f"reload: {became}", became)
    if instance.probe is None:
        return
    for lookup in instance.probe.lookups:
        what = text.clean(lookup.what)
        trouble = wrong.get(("probe", what))
        told = None if trouble is None or trouble.severity is not Severity.ERROR else trouble.reason
        said = trouble.reason if trouble else f"{lookup.answer}: {text.clean(lookup.inside)}"
        yield _of_topic("probe", f"probe {what}", told, said, lookup.answer)
    if instance.probe.error is not None:
        trouble = wrong["probe", "error"]
        told = trouble.reason if trouble.severity is Severity.ERROR else None
        yield _of_topic("probe", "probe", told, trouble.reason, "error")


def _of_topic(topic: str, name: str, wrong: str | None, said: str, became: Answer | ReloadVerdict | str) -> _Case:
    """A case of something that went wrong, or of what there is to say where it did not."""
    if wrong is None:
        return _Case(name=name, said=[said])
    return _Case(name=name, faults=[_Fault(tag="failure", type=f"{topic}-{became}", message=wrong)])
