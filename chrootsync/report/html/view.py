"""What the page shows: a report as plain data in the order of reading, every text of it clean.

Nothing here knows HTML. What is long is cut, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import Code, Remedy, Severity
from chrootsync.model.frozen import frozen, replace
from chrootsync.report import text
from chrootsync.report.history import cells
from chrootsync.report.html.cards import Card, Tone, cards
from chrootsync.report.html.matrix import Matrix, matrix
from chrootsync.report.html.proofs import (
    Probed,
    Process,
    Reloaded,
    command,
    moment,
    probed,
    process,
    reloaded,
    retried,
)
from chrootsync.report.verdict import (
    ReloadVerdict,
    Verdict,
    exit_code,
    findings,
    hint,
    probe_failed,
    reload_verdict,
    repaired,
    summary,
    verdict,
)

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Report
    from chrootsync.report import Options
    from chrootsync.report.history import Row

MOST: Final = 1000
"""So many findings are told in full, the worst first; a page with more of them is too slow for a phone."""

LONG: Final = 100
"""From more findings than this on, a browser lays out what is looked at, and nothing else."""

FEW: Final = 4
"""Up to so many findings are told with their why; where there are more, each is opened by whoever wants to know."""

HEADINGS: Final[Mapping[int, tuple[str, Tone]]] = MappingProxyType(
    {Code.DRIFT: ("Drift", Tone.BAD), Code.RELOAD: ("Reload due", Tone.WARN), Code.LOCKED: ("Waiting", Tone.WARN)}
)
VERDICTS: Final[Mapping[Verdict, tuple[str, Tone]]] = MappingProxyType(
    {
        Verdict.IN_SYNC: ("In sync", Tone.GOOD),
        Verdict.REPAIRED: ("Repaired", Tone.GOOD),
        Verdict.DRIFT: ("Drift", Tone.BAD),
        Verdict.FAILED: ("Failed", Tone.BAD),
    }
)
NO_PROOF: Final = ("Lookups fail", Tone.BAD)


@frozen
class Section:
    """All that is told of one instance; ``omitted`` counts findings that are not."""

    number: int
    name: str
    chroot: str
    line: str
    status: str
    tone: Tone
    reload: Reloaded | None
    retry: str
    cards: tuple[Card, ...]
    omitted: int
    probe: Probed | None
    stale: tuple[Process, ...]

    @property
    def tells(self) -> bool:
        """Whether there is anything to say but how much was looked at or left out."""
        return bool(self.cards or self.reload or self.retry or self.probe or self.stale)


@frozen
class Page:
    """The whole page. ``steps`` are what to do next: a command to type, perhaps, and what it does.

    ``clean`` are lines on instances of which there is nothing to tell, ``omitted`` counts findings that are not told.
    ``few`` and ``long`` say how much it is. ``history`` is None where nobody looked; ``live``: not that of an image, so
    that nothing but a number is needed to ask for more.
    """

    title: str
    heading: str
    tone: Tone
    summary: str
    when: str
    facts: tuple[tuple[str, str], ...]
    steps: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    matrix: Matrix | None
    sections: tuple[Section, ...]
    clean: tuple[str, ...]
    omitted: int
    few: bool
    long: bool
    history: tuple[Row, ...] | None
    live: bool


def page(report: Report, options: Options) -> Page:
    """The report as the page shows it."""
    told = cards(report, options)
    kept = _worst(told)
    sections = [
        _section(number, instance, report, options, _split(found, kept))
        for number, (instance, found) in enumerate(zip(report.instances, told, strict=True))
    ]
    telling = sorted((one for one in sections if one.tells), key=lambda one: [*Tone].index(one.tone), reverse=True)
    heading, tone = _heading(report, options)
    when = moment(report.generated)
    return Page(
        title=f"{heading}: chroots of {text.clean(report.root)}, {when}",
        heading=heading,
        tone=tone,
        summary=summary(report, strict=options.strict),
        when=when,
        facts=tuple(_facts(report)),
        steps=tuple(_steps(report)),
        notes=tuple(map(text.clean, report.notes)),
        matrix=matrix(report.instances, told, kept),
        sections=tuple(telling),
        clean=tuple(one.line for one in sections if not (one.tells or one.omitted)),
        omitted=sum(one.omitted for one in sections),
        few=len(kept) <= FEW,
        long=len(kept) > LONG,
        history=_history(options),
        live=report.root == "/",
    )


def _worst(told: Sequence[Sequence[Card]]) -> frozenset[int]:
    """The numbers of the cards that are told in full."""
    ranked = sorted((card for found in told for card in found), key=lambda card: (card.rank, card.number))
    return frozenset(card.number for card in ranked[:MOST])


def _split(found: Sequence[Card], kept: frozenset[int]) -> tuple[tuple[Card, ...], int]:
    """The cards that are told, and how many findings the others stand for."""
    shown = tuple(card for card in found if card.number in kept)
    return shown, sum(card.count for card in found) - sum(card.count for card in shown)


def _heading(report: Report, options: Options) -> tuple[str, Tone]:
    code = exit_code(report, strict=options.strict)
    status = verdict(findings(report), strict=options.strict)
    if code in HEADINGS:
        return HEADINGS[code]
    if code == Code.FAILED and status is not Verdict.FAILED:
        return NO_PROOF
    if not report.instances:
        return "Nothing to check", Tone.WARN
    return VERDICTS[status]


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "root", text.clean(report.root)
    yield "took", f"{report.duration:.2f} s" if report.duration >= 1 else f"{report.duration * 1000:.0f} ms"
    yield "by", f"chrootsync {text.clean(report.version)}"


def _steps(report: Report) -> Iterator[tuple[str, str]]:
    """What to do next: what to type, and what that does."""
    fix = command(("chrootsync", "check", *(() if report.root == "/" else ("--root", report.root)), "--fix"))
    said = hint(report)
    if said is not None:
        yield fix, said.removeprefix("check --fix ").replace("said above", "said below")
    if report.fixed and any(_worth_another(finding) for finding in findings(report)):
        yield fix, "tries again what was not repaired."
    for instance in report.instances:
        if reload_verdict(instance.reload) in {ReloadVerdict.FAILED, ReloadVerdict.LEFT} and report.fixed:
            yield command(instance.reload.command), f"reloads {text.clean(instance.instance.name)}."


def _worth_another(finding: Finding) -> bool:
    return finding.drift.remedy not in {Remedy.NONE, Remedy.RELOAD} and not repaired(finding)


def _section(
    number: int, instance: InstanceReport, report: Report, options: Options, found: tuple[tuple[Card, ...], int]
) -> Section:
    shown, omitted = found
    status, tone = _status(instance, options)
    return Section(
        number=number,
        name=text.clean(instance.instance.name),
        chroot=text.clean(instance.instance.chroot),
        line=text.instance_line(instance),
        status=status.lower(),
        tone=tone,
        reload=reloaded(instance, report),
        retry=retried(instance.retry),
        cards=shown,
        omitted=omitted,
        probe=probed(instance),
        stale=tuple(map(process, instance.stale)),
    )


def _status(instance: InstanceReport, options: Options) -> tuple[str, Tone]:
    """The status of an instance; one with warnings is in sync, and yet worth a look."""
    found = verdict(instance.findings, strict=options.strict)
    status, tone = VERDICTS[found]
    if tone is Tone.GOOD and probe_failed(instance.probe):
        return NO_PROOF
    warned = any(finding.drift.severity is Severity.WARNING for finding in instance.findings)
    return (status, Tone.WARN) if found is Verdict.IN_SYNC and warned else (status, tone)


def _history(options: Options) -> tuple[Row, ...] | None:
    """The last repairs; the page may be read anywhere, so that its times are UTC."""
    return None if options.history is None else tuple(cells(replace(options.history, local=moment)))
