"""What the page tells of an instance beside its files: reloads, mail that was retried, stale processes, lookups."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import Answer
from chrootsync.model.frozen import frozen
from chrootsync.report import text
from chrootsync.report.html.cards import Tone
from chrootsync.report.json import utc
from chrootsync.report.probe import ANSWERS
from chrootsync.report.verdict import ReloadVerdict, probe_failed, reload_verdict

if TYPE_CHECKING:
    from chrootsync.model import InstanceReport, Lookup, Report, Retry, StaleProcess

RELOADS: Final[Mapping[ReloadVerdict, Tone]] = MappingProxyType(
    {ReloadVerdict.DONE: Tone.GOOD, ReloadVerdict.PENDING: Tone.WARN, ReloadVerdict.FAILED: Tone.BAD}
)


@frozen
class Looked:
    """One lookup of a probe; ``lost``: it worked before the repair."""

    what: str
    answer: str
    tone: Tone
    inside: str
    outside: str
    advice: str
    lost: bool


@frozen
class Probed:
    """What the lookups inside a chroot came to: those that tell something, and those that do not."""

    summary: str
    tone: Tone
    odd: tuple[Looked, ...]
    same: tuple[Looked, ...]


@frozen
class Process:
    """A stale process."""

    pid: int
    daemon: str
    began: str
    uses: tuple[str, ...]
    why: str


@frozen
class Reloaded:
    """What became of a reload; ``command`` is what to type where somebody has to."""

    line: str
    tone: Tone
    seen: tuple[str, ...]
    command: str
    output: tuple[str, ...]


def moment(seconds: float) -> str:
    """A time that means the same wherever the page is read."""
    told = utc(seconds)
    return "unknown" if told is None else f"{told[:10]} {told[11:19]} UTC"


def command(words: tuple[str, ...]) -> str:
    """A command to be typed; nothing where a word of it cannot be shown as it is."""
    return text.command_line(words) if all(text.clean(word) == word for word in words) else ""


def reloaded(instance: InstanceReport, report: Report) -> Reloaded | None:
    """What became of the reload of an instance; None where there is nothing to say."""
    line = text.reload_line(instance, report)
    if line is None:
        return None
    reload, became = instance.reload, reload_verdict(instance.reload)
    name = f"{text.clean(instance.instance.name)}: "
    return Reloaded(
        line="not reloaded" if became is ReloadVerdict.LEFT else line.removeprefix(name),
        tone=RELOADS.get(became, Tone.WARN),
        seen=tuple(map(text.clean, reload.seen)),
        command="" if reload.done else command(reload.command),
        output=tuple(text.lines(reload.output)),
    )


def retried(retry: Retry | None) -> str:
    """One sentence on the mail that was tried again; nothing where none was to be."""
    if retry is None:
        return ""
    said = f"{text.plural(retry.tried, 'deferred message')} tried again"
    left = f", {retry.left} left to their own time" if retry.left else ""
    return said + left + (f"; {text.clean(retry.error)}" if retry.error else "")


def probed(instance: InstanceReport) -> Probed | None:
    """What the lookups of an instance came to; None where nothing was looked up."""
    probe = instance.probe
    if probe is None:
        return None
    looked = [_looked(lookup, lost=lookup.what in probe.lost) for lookup in probe.lookups]
    same = tuple(one for one in looked if one.tone is Tone.GOOD)
    odd = tuple(one for one in looked if one.tone is not Tone.GOOD)
    parts = [f"{len(same)} of {text.plural(len(looked), 'lookup')} inside as outside"] if looked else []
    if probe.lost:
        parts.append(
            f"{len(probe.lost)} worked before the repair and {'fails' if len(probe.lost) == 1 else 'fail'} now"
        )
    if probe.error is not None:
        parts.append(text.clean(probe.error))
    calm = Tone.GOOD if not odd and probe.error is None else Tone.WARN
    return Probed(
        summary="; ".join(parts) or "its daemons look nothing up inside the chroot",
        tone=Tone.BAD if probe_failed(probe) else calm,
        odd=odd,
        same=same,
    )


def _looked(lookup: Lookup, *, lost: bool) -> Looked:
    tone = Tone.GOOD if lookup.answer is Answer.SAME else Tone.PLAIN
    return Looked(
        what=text.clean(lookup.what),
        answer=ANSWERS[lookup.answer],
        tone=Tone.BAD if lost or lookup.matters else tone,
        inside=text.clean(lookup.inside),
        outside=text.clean(lookup.outside),
        advice=text.clean(lookup.advice or ""),
        lost=lost,
    )


def process(stale: StaleProcess) -> Process:
    """A stale process as it is told."""
    return Process(
        pid=stale.pid,
        daemon=text.clean(stale.daemon),
        began=moment(stale.began),
        uses=tuple(map(text.clean, stale.uses)),
        why=text.clean(stale.why),
    )
