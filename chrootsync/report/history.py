"""What repairs did, for people; a rollback is told as the repair that it is.

They get a line for each repair, or all of one. What is remembered may be wrong or hostile, as everything that comes
from files: names and reasons are cleaned, and a time that is none is said to be unknown.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chrootsync.model import FileType, Status
from chrootsync.model.frozen import field, frozen
from chrootsync.report import text
from chrootsync.report.verdict import ReloadVerdict, reload_verdict

if TYPE_CHECKING:
    from chrootsync.model import Reload, State
    from chrootsync.model.memory import Change, Repair

GAP = "  "
DAY = 86_400.0
NAMES = 3  # more names of instances than these do not fit on a line
NONE = "none"  # so that every column has a word, but the last
DONE = frozenset({Status.REPAIRED, Status.UNKNOWN})
TAKEN_BACK = "taken back"
RELOADS: Final[Mapping[ReloadVerdict, str]] = MappingProxyType(
    {
        ReloadVerdict.DONE: "done",
        ReloadVerdict.FAILED: "failed",
        ReloadVerdict.PENDING: "pending",
        ReloadVerdict.LEFT: "not done",
    }
)

Place = tuple[str, str]
"""A chroot, and a path inside it."""


@frozen
class History:
    """Repairs, the newest first, with all that came after the oldest of them: a later one may have taken it back.

    ``local`` says when something was (seconds since the epoch) as the clock on the wall did. ``unfinished`` are the
    numbers of repairs that have not ended. ``owners`` and ``groups`` give names to numbers. A repair of which nothing
    is remembered has the number 0.
    """

    root: str
    repairs: Sequence[Repair]
    local: Callable[[float], str]
    unfinished: frozenset[int] = frozenset()
    owners: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)


# --- What was taken back ------------------------------------------------------------------------------------------


def taken_back(repairs: Sequence[Repair]) -> dict[int, dict[Place, int]]:
    """For each repair the places where it was taken back, and the number of the rollback that did so.

    A rollback that was itself taken back at some place does not count there. ``repairs`` come in any order.
    """
    undone: dict[int, dict[Place, int]] = {repair.id: {} for repair in repairs}
    # Whatever takes a repair back is newer than it, and so has been looked at before.
    for repair in sorted(repairs, key=lambda one: one.id, reverse=True):
        if repair.undoes is None or not repair.undoes < repair.id:
            continue
        for change in repair.changes:
            if change.outcome.status is Status.REPAIRED and place(change) not in undone[repair.id]:
                undone.setdefault(repair.undoes, {}).setdefault(place(change), repair.id)
    return undone


def remaining(repair: Repair, undone: Mapping[Place, int]) -> tuple[Change, ...]:
    """The changes of a repair that took effect and were not taken back since.

    Once that is nothing but directories that it made, which stay for the sake of what is in them, it is nothing.
    """
    left = [change for change in repair.changes if change.outcome.status in DONE and place(change) not in undone]
    return () if undone and all(map(made_directory, left)) else tuple(left)


def place(change: Change) -> Place:
    """Where a change was made."""
    return change.chroot, change.path


def made_directory(change: Change) -> bool:
    """Whether the change was to make a directory where nothing was."""
    return change.before is None and change.after is not None and change.after.type is FileType.DIRECTORY


def _mark(history: History, repair: Repair, undone: Mapping[Place, int]) -> str:
    """What is special about a repair: ``takes back 12``, ``taken back by 14``."""
    said = ["under way or cut short"] if repair.id in history.unfinished else []
    if repair.undoes is not None:
        said.append(f"takes back {repair.undoes}")
    if undone:
        partly = "partly " if remaining(repair, undone) else ""
        said.append(f"{partly}taken back by {' and '.join(str(number) for number in sorted(set(undone.values())))}")
    return ", ".join(said)


# --- All of them --------------------------------------------------------------------------------------------------


@frozen
class Row:
    """The cells of one repair."""

    id: str
    when: str
    trigger: str
    instances: str
    changes: str
    reloads: str
    mark: str

    def cells(self) -> tuple[str, ...]:
        return (self.id, self.when, self.trigger, self.instances, self.changes, self.reloads, self.mark)


HEAD = Row(
    id="ID", when="WHEN", trigger="TRIGGER", instances="INSTANCES", changes="CHANGES", reloads="RELOADS", mark=""
)


def cells(history: History) -> list[Row]:
    """The cells of each repair, in their order."""
    undone = taken_back(history.repairs)
    return [_row(history, repair, undone[repair.id]) for repair in history.repairs]


def listing(history: History, *, width: int | None = None, more: bool = False) -> str:
    """A line for each repair; two where that is wider than ``width`` columns. ``more``: there are older ones."""
    if not history.repairs:
        return "no repair is remembered here yet; check --fix remembers each that it makes\n"
    rows = cells(history)
    lines = _aligned([HEAD, *rows])
    if width is not None and max(map(len, lines)) > width:
        lines = [line for row in rows for line in _two_lines(row, max(len(one.id) for one in rows), width)]
    if more:
        lines.append("There are older ones: history --limit 0 lists them all.")
    return "".join(f"{line}\n" for line in lines)


def _row(history: History, repair: Repair, undone: Mapping[Place, int]) -> Row:
    reloads = Counter(reload_verdict(reload) for reload in repair.reloads.values())
    return Row(
        id=str(repair.id),
        when=history.local(repair.began),
        trigger=text.clean(repair.trigger),
        instances=_instances(repair),
        changes=_counts(repair) or NONE,
        reloads=", ".join(f"{reloads[what]} {word}" for what, word in RELOADS.items() if reloads[what]) or NONE,
        mark=_mark(history, repair, undone),
    )


def _instances(repair: Repair) -> str:
    names = list(dict.fromkeys([*(change.instance for change in repair.changes), *repair.reloads]))
    if len(names) > NAMES:
        return text.plural(len(names), "instance")
    return ", ".join(map(text.clean, names)) or NONE


def _counts(repair: Repair) -> str:
    """How many changes came to what: ``3 repaired, 1 failed``."""
    counted = Counter(change.outcome.status for change in repair.changes)
    return ", ".join(f"{counted[status]} {_word(repair, status)}" for status in Status if counted[status])


def _word(repair: Repair, status: Status) -> str:
    return TAKEN_BACK if repair.undoes is not None and status is Status.REPAIRED else str(status)


def _aligned(rows: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*(row.cells() for row in rows), strict=True)]
    return [
        GAP.join(
            cell.rjust(size) if index == 0 else cell.ljust(size)
            for index, (cell, size) in enumerate(zip(row.cells(), widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _two_lines(row: Row, digits: int, width: int) -> Iterator[str]:
    head = [f"{row.id:>{digits}}", row.when, row.trigger + (f" ({row.mark})" if row.mark else "")]
    yield GAP.join(head)
    reloads = "" if row.reloads == NONE else f"; reloads: {row.reloads}"
    indent = " " * digits + GAP
    yield from textwrap.wrap(
        f"{row.instances}: {row.changes}{reloads}" if {row.changes, row.reloads} != {NONE} else "nothing was changed",
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


# --- One of them --------------------------------------------------------------------------------------------------


def single(history: History, repair: Repair) -> str:
    """All of one repair: what it did to which path, why, and whether that can be taken back."""
    return "".join(f"{line}\n" for line in _single(history, repair))


def _single(history: History, repair: Repair) -> Iterator[str]:
    undone = taken_back(history.repairs).get(repair.id, {})
    number = f" {repair.id}" if repair.id else ""
    head = f"repair{number}: {history.local(repair.began)}, trigger {text.clean(repair.trigger)}"
    mark = _mark(history, repair, undone)
    yield f"{head}, chrootsync {text.clean(repair.version)}" + (f"; {mark}" if mark else "")
    if not repair.changes:
        yield "  no change was made"
    width = max((len(_word(repair, change.outcome.status)) for change in repair.changes), default=0)
    kinds = max((len(change.kind) for change in repair.changes), default=0)
    for (name, chroot), changes in by_instance(repair).items():
        yield ""
        yield f"{text.clean(name)}{GAP}{text.clean(chroot)}".rstrip()
        for change in changes:
            head = f"{_word(repair, change.outcome.status):<{width}}{GAP}{change.kind:<{kinds}}"
            yield f"{GAP}{head}{GAP}{_where(change)}"
            yield from (f"{' ' * (width + 2 * len(GAP))}{line}" for line in _facts(history, change, undone))
        if name in repair.reloads:
            yield from _reload(repair.reloads[name])


def by_instance(repair: Repair) -> dict[tuple[str, str], list[Change]]:
    """The changes by instance and chroot; instances that were only reloaded come last, without any."""
    found: dict[tuple[str, str], list[Change]] = {}
    for change in repair.changes:
        found.setdefault((change.instance, change.chroot), []).append(change)
    changed = {name for name, _ in found}
    return found | {(name, ""): [] for name in repair.reloads if name not in changed}


def _where(change: Change) -> str:
    why = f": {text.clean(change.outcome.reason)}" if change.outcome.reason else ""
    return f"{text.clean(change.chroot.rstrip('/'))}{text.clean(change.path)}{why}"


def _facts(history: History, change: Change, undone: Mapping[Place, int]) -> Iterator[str]:
    """What was there before and after a change that took effect, and where it came from."""
    if change.outcome.status in DONE:
        yield f"{_side(history, change, change.before)} -> {_side(history, change, change.after)}"
    said = [f"rule {text.clean(change.rule)}"]
    if change.source is not None:
        said.append(f"source {text.clean(change.source)}")
    if change.package is not None:
        said.append(f"package {text.clean(change.package)}")
    yield ", ".join([*said, *_way_back(change, undone.get(place(change)))])


def _way_back(change: Change, taker: int | None) -> Iterator[str]:
    """Whether a change can be taken back, or was."""
    if taker is not None:
        yield f"taken back by {taker}"
    elif change.outcome.status in DONE and change.before is not None and change.before.type is FileType.FILE:
        yield "old contents kept" if change.kept else "old contents not kept: cannot be taken back"


def _side(history: History, change: Change, what: State | None) -> str:
    """One side of a change: what was there before it, or after it, as far as the other side does not tell it."""
    if what is None:
        return "(nothing)"
    other = change.after if what is change.before else change.before
    parts = [] if other is not None and what.type is other.type is FileType.FILE else [_type(what)]
    if what.size is not None and what.type is FileType.FILE:
        parts.append(text.plural(what.size, "byte"))
    if what.mode is not None and what.type is not FileType.LINK and (other is None or other.mode != what.mode):
        parts.append(f"mode {text.mode(what.mode)}")
    usual = (0, 0) if other is None else (other.uid, other.gid)
    pairs = zip((what.uid, what.gid), usual, strict=True)
    if any(one != another and None not in (one, another) for one, another in pairs):
        parts.append(f"owner {text.owner(what.uid, history) or 'any'}:{text.group(what.gid, history) or 'any'}")
    if what.sha256 is not None and text.public(change.before, change.after):
        parts.append(f"sha256 {text.clean(what.sha256[:12])}")
    if what.extended:
        parts.append(f"with {' and '.join(map(text.clean, what.extended))}")
    return ", ".join(parts) or str(what.type)


def _type(what: State) -> str:
    if what.target is not None:
        return f"{what.type} to {text.clean(what.target)}"
    if what.device is not None:
        return f"{what.type} {what.device[0]}:{what.device[1]}"
    return str(what.type)


def _reload(reload: Reload) -> Iterator[str]:
    why = f": {text.clean(reload.error)}" if reload.error else ""
    line = {
        ReloadVerdict.DONE: "reloaded",
        ReloadVerdict.PENDING: f"reload pending{why}",
        ReloadVerdict.FAILED: f"reload failed{why}",
        ReloadVerdict.NONE: "reload: none was needed",
        ReloadVerdict.LEFT: "not reloaded"
        + (f"; do it with: {text.command_line(reload.command)}" if reload.command else ""),
    }[reload_verdict(reload)]
    yield f"{GAP}{line}"
    if reload.error is not None:
        yield from (f"{GAP * 2}{printed}" for printed in text.lines(reload.output))


# --- What a rollback came to --------------------------------------------------------------------------------------


def rollback_summary(history: History, repair: Repair, *, until: float | None) -> str:
    """What taking a repair back came to, in sentences; ``until`` is how long something is held, None: nothing is."""
    counted = Counter(change.outcome.status for change in repair.changes)
    done, total = counted[Status.REPAIRED], len(repair.changes)
    lines = [f"{done} of {text.plural(total, 'change')} of repair {repair.undoes} taken back."]
    if done + counted[Status.UNKNOWN] < total:
        lines.append("What was not taken back stays as it was, for the reasons above.")
    if until is not None:
        days = f"{(until - repair.began) / DAY:.0f} days"
        lines += [
            f"What was taken back is held for {days} (until {history.local(until)}), or until its source changes:",
            "check --fix leaves it alone; check --fix --force repairs it at once.",
        ]
    return "".join(f"{line}\n" for line in lines)
