r"""The log: what an automatic run did, one line an event, for people and programs alike.

A line is a word and ``key=value`` pairs: ``repaired instance=postfix-out kinds=outdated:1 package=netbase trigger=apt
reload=done duration=0.8 paths=/etc/services``. A value that holds more than letters, digits and ``._,:/@+-`` stands in
double quotes. Nothing in a value is a quote or a line break, and nothing in a member of a list is a comma: those are
``\xNN``, as everything that is not printable. A line has at most LIMIT bytes, which logger(1) takes whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from chrootsync.model import Kind, Severity, Status
from chrootsync.model.frozen import frozen
from chrootsync.report.text import clean, command_line, location
from chrootsync.report.verdict import ReloadVerdict, by_kind, failed, reload_verdict, repaired, waiting

if TYPE_CHECKING:
    from chrootsync.model import Finding, InstanceReport, Probe, Report

LIMIT = 1000  # bytes of a line; logger(1) cuts at 1024, and so does what RFC 3164 describes
MOST_PATHS = 20
MOST_PACKAGES = 10
NAME = 100  # bytes of the name of an instance
TEXT = 250  # bytes of a reason, and of whatever else may be of any length

_PLAIN = re.compile(r"[\w.,:/@+-]+", re.ASCII)
_CUT_ESCAPE = re.compile(r"\\(?:x[0-9a-f]?)?$")


class Level(IntEnum):
    """How much a line weighs, as sd-daemon(3) and syslog(3) count."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


@frozen
class Line:
    """One line of the log, without a line break."""

    level: Level
    text: str


def lines(report: Report, trigger: str) -> list[Line]:
    """What a run did and found, and ``trigger``, who asked for it; where that is nothing, that it looked."""
    said = [line for instance in report.instances for line in _instance(instance, report, trigger)]
    said += [_line(Level.WARNING, "note", [("trigger", trigger), ("reason", clean(note))]) for note in report.notes]
    return said or [_checked(report, trigger)]


def render(said: Iterable[Line], *, levels: bool) -> str:
    """The lines as one text; with ``levels`` each begins with its own as the journal reads it (sd-daemon(3))."""
    return "".join(f"<{line.level}>{line.text}\n" if levels else f"{line.text}\n" for line in said)


# --- What is said of an instance ----------------------------------------------------------------------------------


def _instance(instance: InstanceReport, report: Report, trigger: str) -> Iterator[Line]:
    common = [("trigger", trigger)]
    mended = [one for one in instance.findings if repaired(one)]
    if mended:
        fate = [("reload", str(reload_verdict(instance.reload))), ("duration", f"{report.duration:.1f}")]
        yield _of(instance, Level.NOTICE, "repaired", mended, [*_packages(mended), *common, *fate])
    broken = _broken(instance.findings)
    if broken:
        yield _of(instance, Level.ERROR, "failed", broken, [*common, ("reason", _reason(broken[0]))])
    late = [one for one in instance.findings if waiting(one)]
    if late:
        yield _of(instance, Level.NOTICE, "waiting", late, [*_packages(late), *common, ("reason", _reason(late[0]))])
    settled = {id(one) for one in (*mended, *broken, *late)}
    for kind in Kind:
        left = [one for one in instance.findings if one.drift.kind is kind and id(one) not in settled]
        yield from _remaining(instance, left, common)
    if report.fixed or instance.reload.pending:
        yield from _reload(instance, common, told=bool(mended))
    yield from _retry(instance, common)
    if instance.probe is not None:
        yield from _probe(instance, instance.probe, common)


def _broken(findings: Sequence[Finding]) -> list[Finding]:
    """What could not be repaired, and behind it what was left alone for that: of an instance it is all or nothing."""
    broken = [one for one in findings if failed(one)]
    left = [one for one in findings if one.outcome is not None and one.outcome.status is Status.SKIPPED]
    return broken and [*broken, *left]


def _remaining(instance: InstanceReport, left: Sequence[Finding], common: list[tuple[str, str]]) -> Iterator[Line]:
    """The drift of one kind that nobody mended; the reason is the first one's of each severity."""
    for severity, level in ((Severity.ERROR, Level.ERROR), (Severity.WARNING, Level.WARNING)):
        chosen = [one for one in left if one.drift.severity is severity]
        if chosen:
            yield _of(instance, level, "drift", chosen, [*common, ("reason", _reason(chosen[0]))])


def _reload(instance: InstanceReport, common: list[tuple[str, str]], *, told: bool) -> Iterator[Line]:
    """What became of a reload, unless the line of the repair has told already that all is well."""
    reload, became = instance.reload, reload_verdict(instance.reload)
    levels = {
        ReloadVerdict.FAILED: Level.ERROR,
        ReloadVerdict.PENDING: Level.WARNING,
        ReloadVerdict.LEFT: Level.NOTICE,
        ReloadVerdict.DONE: Level.NOTICE,
    }
    if became is ReloadVerdict.NONE or (told and became is ReloadVerdict.DONE):
        return
    pairs = [("instance", _short(clean(instance.instance.name), NAME)), ("reload", str(became)), *common]
    if reload.error:
        pairs.append(("reason", clean(reload.error)))
        pairs += [("seen", clean("; ".join(reload.seen)))] if reload.seen else []
        printed = reload.output.split("\n")
        pairs += [("output", clean(line)) for line in [one for one in printed if one.strip()][-1:]]
    if reload.command and became is not ReloadVerdict.DONE:
        pairs.append(("command", command_line(reload.command)))
    yield _line(levels[became], "reload", pairs)


def _probe(instance: InstanceReport, probe: Probe, common: list[tuple[str, str]]) -> Iterator[Line]:
    """What was lost by a repair, and what else does not work inside the chroot; nothing of what does."""
    name = ("instance", _short(clean(instance.instance.name), NAME))
    if probe.error is not None:
        yield _line(Level.WARNING, "probe", [name, ("answer", "none"), *common, ("reason", clean(probe.error))])
    for lookup in probe.lookups:
        lost = lookup.what in probe.lost
        if not (lost or lookup.matters):
            continue
        answer = "lost" if lost else str(lookup.answer)
        pairs = [name, ("lookup", clean(lookup.what)), ("answer", answer), *common]
        pairs += [("inside", clean(lookup.inside)), ("outside", clean(lookup.outside))]
        pairs += [("reason", clean(lookup.advice))] if lookup.advice else []
        yield _line(Level.ERROR if lost else Level.WARNING, "probe", pairs)


def _retry(instance: InstanceReport, common: list[tuple[str, str]]) -> Iterator[Line]:
    """How many deferred messages were retried, where that was asked for."""
    retry = instance.retry
    if retry is None:
        return
    pairs = [("instance", _short(clean(instance.instance.name), NAME)), ("messages", str(retry.tried))]
    pairs += [("left", str(retry.left)), *common]
    if retry.error is not None:
        pairs.append(("reason", clean(retry.error)))
    yield _line(Level.NOTICE if retry.error is None else Level.WARNING, "retry", pairs)


def _checked(report: Report, trigger: str) -> Line:
    entries = sum(instance.entries for instance in report.instances)
    counted = [("instances", str(len(report.instances))), ("entries", str(entries))]
    return _line(Level.INFO, "in-sync", [*counted, ("trigger", trigger), ("duration", f"{report.duration:.1f}")])


# --- Lines --------------------------------------------------------------------------------------------------------


def _of(
    instance: InstanceReport, level: Level, event: str, found: Sequence[Finding], pairs: Sequence[tuple[str, str]]
) -> Line:
    """A line on findings of one instance; their paths come last, as many as there is room for."""
    kinds = ",".join(f"{kind}:{count}" for kind, count in by_kind(found).items())
    name = _short(clean(instance.instance.name), NAME)
    head = _line(level, event, [("instance", name), ("kinds", kinds), *pairs])
    paths = list(dict.fromkeys(_member(location(one.drift)[1]) for one in found))
    for count in range(min(len(paths), MOST_PATHS), -1, -1):
        more = [("more", str(len(paths) - count))] if count < len(paths) else []
        shown = [("paths", ",".join(paths[:count]))] if count else []
        line = Line(level=level, text=" ".join([head.text, *map(_pair, [*shown, *more])]))
        if len(line.text.encode()) < LIMIT:
            return line
    return head


def _line(level: Level, event: str, pairs: Sequence[tuple[str, str]]) -> Line:
    return Line(level=level, text=" ".join([event, *(_pair((key, _short(value, TEXT))) for key, value in pairs)]))


def _pair(pair: tuple[str, str]) -> str:
    key, value = pair
    if _PLAIN.fullmatch(value):
        return f"{key}={value}"
    quoted = value.replace('"', "\\x22")
    return f'{key}="{quoted}"'


def _member(value: str) -> str:
    """What is clean already, as a member of a list."""
    return value.replace(",", "\\x2c")


def _short(value: str, most: int) -> str:
    """A clean text of at most ``most`` bytes, whose end tells where it was cut."""
    whole = value.replace('"', "\\x22").encode()
    if len(whole) <= most:
        return value
    return _CUT_ESCAPE.sub("", whole[: most - 3].decode(errors="ignore")) + "…"


def _packages(found: Iterable[Finding]) -> list[tuple[str, str]]:
    names = sorted({one.drift.package for one in found if one.drift.package is not None})
    listed = ",".join(_member(clean(name)) for name in names[:MOST_PACKAGES])
    return [("package", listed + (",…" if len(names) > MOST_PACKAGES else ""))] if names else []


def _reason(finding: Finding) -> str:
    """Why a finding is still there: what the repair said, else what the comparison did."""
    outcome = finding.outcome
    return clean(outcome.reason if outcome is not None and outcome.reason else finding.drift.reason)
