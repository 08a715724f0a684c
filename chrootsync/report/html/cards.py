"""A finding as the page tells it: a line that says what and where, and beneath it all that is known.

More than eight findings in one directory that are alike in all but their names share a card.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import Severity, Status
from chrootsync.model.frozen import frozen, replace
from chrootsync.report import text

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Kind, Report
    from chrootsync.report import Options


class Tone(StrEnum):
    """How a thing looks: whether it is neither, well, needs a look, or is wrong."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


STATUSES: Final[Mapping[Status, tuple[str, Tone]]] = MappingProxyType(
    {
        Status.REPAIRED: ("✓", Tone.GOOD),
        Status.FAILED: ("✗", Tone.BAD),
        Status.UNKNOWN: ("?", Tone.BAD),
        Status.SKIPPED: ("-", Tone.WARN),
        Status.WAITING: ("…", Tone.WARN),
    }
)
"""A sign and a look for what became of a repair."""


@frozen
class Card:
    """One finding, or a bundle of them: ``members`` are then their paths inside the chroot.

    ``row`` is what it is found under: a path inside the chroot or, for a bundle, a directory. ``rank`` is smaller for
    what is worse. ``mark`` is the sign of its outcome, empty where nothing was tried.
    """

    number: int
    kind: Kind
    severity: Severity
    row: str
    chroot: str
    inside: str
    reason: str
    end: str
    tone: Tone
    mark: str
    failure: str
    why: str
    facts: tuple[tuple[str, str], ...]
    difference: tuple[str, ...]
    members: tuple[str, ...]
    count: int
    rank: tuple[bool, int]
    explain: str


def cards(report: Report, options: Options) -> list[tuple[Card, ...]]:
    """The cards of each instance, the worst first; their numbers are theirs alone."""
    numbers = count(1)
    return [tuple(_cards(instance, report, options, numbers)) for instance in report.instances]


def _cards(instance: InstanceReport, report: Report, options: Options, numbers: count[int]) -> Iterator[Card]:
    everything = replace(options, verbose=1)  # who wants less does not open it
    for bundle in _bundles(text.shown(instance, everything)):
        yield _card(bundle, report, everything, next(numbers))


def _bundles(found: Sequence[Finding]) -> Iterator[Sequence[Finding]]:
    """Findings that are alike, where there are many of them; else each alone."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in found:
        groups.setdefault(text.likeness(finding), []).append(finding)
    for group in groups.values():
        yield from [group] if len(group) > text.BUNDLE else [[finding] for finding in group]


def _card(bundle: Sequence[Finding], report: Report, options: Options, number: int) -> Card:
    finding, many = bundle[0], len(bundle) > 1
    drift = finding.drift
    chroot, inside = text.location(drift)
    if many:
        inside = text.clean(drift.entry.path.rpartition("/")[0].rstrip("/") + "/")
    mark, tone = ("", Tone.PLAIN) if finding.outcome is None else STATUSES[finding.outcome.status]
    by_hand = finding.outcome is None and text.needs_hand(finding)
    return Card(
        number=number,
        kind=drift.kind,
        severity=drift.severity,
        row=inside,
        chroot=chroot,
        inside=inside,
        reason=text.clean(drift.reason),
        end=text.end(finding, report),
        tone=Tone.WARN if by_hand else tone,
        mark=mark,
        failure=text.clean(finding.outcome.reason) if finding.outcome else "",
        why=text.clean(drift.entry.rule.why),
        facts=tuple(_facts(finding, report, many=many)),
        difference=() if many else tuple(text.difference(finding, options)),
        members=tuple(text.location(one.drift)[1] for one in bundle) if many else (),
        count=len(bundle),
        rank=(_settled(finding), list(Severity).index(drift.severity)),
        explain="" if many else _explain(finding, report),
    )


def _settled(finding: Finding) -> bool:
    return finding.outcome is not None and finding.outcome.status is Status.REPAIRED


def _facts(finding: Finding, report: Report, *, many: bool) -> Iterator[tuple[str, str]]:
    """What is known of a finding; of a bundle what all of it have in common."""
    drift = finding.drift
    if drift.package is not None and not many:
        yield "package", text.clean(drift.package)
    for label, value in text.facts(finding, report):
        if not many or label == "rule":
            yield label, value
    yield "remedy", str(drift.remedy)


def _explain(finding: Finding, report: Report) -> str:
    """The command that tells more; nothing where the path cannot be typed as it is shown."""
    chroot, inside = text.location(finding.drift)
    path = f"{finding.drift.entry.instance.chroot.rstrip('/')}{finding.drift.entry.path}"
    if not chroot or f"{chroot}{inside}" != path or text.clean(report.root) != report.root:
        return ""
    image = "" if report.root == "/" else f"--root {shlex.quote(report.root)} "
    return f"chrootsync explain {image}{shlex.quote(path)}"
