"""Why a path is needed or not, and what a chroot must hold, for people: the answer first, then what it rests on.

Instances with the same answer share a block. An inventory is a tree, in which what is alike is shown by two examples
and a count, unless more is asked for. Nothing is cut off: what does not fit on a line goes to the next one.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chrootsync.model import ARROW, FileType, Presence, Remedy, Severity
from chrootsync.model.explanation import Need, Sort
from chrootsync.report.rules import when
from chrootsync.report.text import clean, group, mode, owner
from chrootsync.report.tree import amount, size, total, tree

if TYPE_CHECKING:
    from chrootsync.model import Entry, State
    from chrootsync.model.explanation import Answer, Aside, Explanation, Item, Mapped, Subject

LABEL = 11
LEAST = 40  # a narrower terminal gets lines of this length, and wraps them
SERVICES = 6  # more names of services than these do not help


def render(explanation: Explanation, *, width: int = 80, verbose: bool = False) -> str:
    """Everything that was asked about; ``verbose`` tells also of what is merely alike, or merely possible."""
    width = max(width, LEAST)
    blocks = [
        block
        for subject in explanation.subjects
        for block in (
            _inventory(subject, width, verbose=verbose)
            if subject.sort is Sort.INSTANCE
            else _subject(explanation, subject, width, verbose=verbose)
        )
    ]
    notes = [f"note: {clean(note)}" for note in explanation.notes]
    return "\n".join("".join(f"{line}\n" for line in block) for block in (*blocks, notes) if block)


# --- An instance --------------------------------------------------------------------------------------------------


def _inventory(subject: Subject, width: int, *, verbose: bool) -> Iterator[list[str]]:
    (answer,) = subject.answers
    instance = answer.instance
    head = f"{clean(instance.name)}: "
    if answer.need is Need.NOT_SERVED:
        yield _wrapped(f"{head}cannot be served: {clean(answer.reason)}", width)
        return
    if not instance.chrooted:
        what = "only what is there is kept fresh" if answer.items else "it needs nothing"
        head += f"{clean(answer.reason)}: {what}"
    else:
        services = [clean(one.name) for one in instance.daemons if one.chrooted]
        head += _run_chrooted(services) if services else "chrooted as a whole"
    lines = [*_wrapped(head, width)]
    if answer.items:
        lines += ["", *tree(clean(instance.chroot), answer.items, width, verbose=verbose), "", *_sums(answer, width)]
    yield lines


def _sums(answer: Answer, width: int) -> list[str]:
    """What an inventory comes to."""
    drifted = _counted(answer.items)
    state = f"drifted: {drifted} (see chrootsync check)" if drifted else "in sync"
    return _wrapped(f"{total(answer.items)}: {state}", width)


# --- A path -------------------------------------------------------------------------------------------------------


def _subject(explanation: Explanation, subject: Subject, width: int, *, verbose: bool) -> Iterator[list[str]]:
    """What was asked about, then a block for each answer with the instances that share it."""
    yield _wrapped(_title(explanation, subject), width)
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for answer in subject.answers:
        fields = tuple(_fields(explanation, subject, answer, verbose=verbose))
        groups.setdefault((_verdict(subject, answer), fields), []).append(clean(answer.instance.name))
    for (verdict, fields), names in groups.items():
        lines = _wrapped(f"{', '.join(names)}: {verdict}", width)
        for label, text in fields:
            lines += _wrapped(text, width, label)
        yield lines


def _title(explanation: Explanation, subject: Subject) -> str:
    """What was asked about, and what the host has there where no block tells it."""
    asked = clean(subject.asked)
    if not subject.answers:
        return f"{asked}: no instance was found, so nothing needs it"
    if any(item.entry.source is not None for answer in subject.answers for item in answer.items):
        return asked
    nobody = not any(answer.items or answer.below or answer.asides for answer in subject.answers)
    if subject.host is None:
        if subject.sort is Sort.NAME:
            return f"{asked}: no instance has this name, and no chroot needs such a file" if nobody else asked
        there = any(answer.there is not None for answer in subject.answers)
        told = any(answer.need not in (Need.NOT_NEEDED, Need.NOT_SERVED) for answer in subject.answers)
        if not there and not told:
            return f"{asked}: neither the host nor any chroot that can be seen has it"
        return f"{asked}: the host has no such file"
    real = "" if subject.real in (None, subject.asked) else f" at {clean(subject.real or '')}"
    return f"{asked}: the host has a {_state(explanation, subject.host)}{real}{_package(explanation, subject.real)}"


def _verdict(subject: Subject, answer: Answer) -> str:
    """The answer in a few words."""
    reason = clean(answer.reason)
    if answer.need is Need.NOT_SERVED:
        return f"cannot be served: {reason}"
    why = f" ({reason})" if reason else ""
    if answer.below:
        drifted = _counted((*answer.items, *answer.below))
        return f"{_below(answer, why)}; {f'drifted: {drifted}' if drifted else 'in sync'}"
    said = {
        Need.NEEDED: f"needed{why}",
        Need.KEPT_FRESH: f"not needed{why}, but kept as the host has it",
        Need.SURPLUS: f"should not be there{why}",
        Need.NOT_NEEDED: f"not needed{why}",
        Need.UNDECIDED: f"whether it is needed cannot be told{why}",
    }[answer.need]
    if answer.items:
        others = sorted({clean(item.entry.path) for item in answer.items} - {clean(answer.path or "")})
        known_as = f" as {_some(others)}" if others and subject.sort is Sort.PATH else ""
        return f"{said}{known_as}; {_now(answer.items)}"
    if subject.sort is Sort.NAME or answer.unseen:
        return said
    return f"{said}, and not there" if answer.there is None else f"{said}, though a {answer.there.type} is there"


def _now(items: Sequence[Item]) -> str:
    kinds = dict.fromkeys(str(item.drift.kind) for item in items if item.drift is not None)
    return " and ".join(kinds) or "in sync"


def _below(answer: Answer, why: str) -> str:
    needed = [item for item in answer.below if item.entry.rule.presence is Presence.REQUIRED]
    counted = amount(needed or answer.below)
    return f"{counted} needed below it" if needed else f"not needed{why}, but {counted} below it kept fresh"


def _fields(explanation: Explanation, subject: Subject, answer: Answer, *, verbose: bool) -> Iterator[tuple[str, str]]:
    """What an answer rests on."""
    for index, item in enumerate(answer.items):
        if answer.below:
            yield from _state_now(explanation, item, verbose=verbose)
            continue
        if index:
            yield "", ""
        yield from _of_item(explanation, subject, answer, item, verbose=verbose)
    yield from _of_directory(answer)
    if answer.unseen:
        yield "there", f"cannot be seen: {clean(answer.unseen)}"
    for aside in sorted(answer.asides, key=_is_optional):
        if verbose or not aside.loose:
            yield _label(aside, answer), f"{clean(aside.rule.id)}: {clean(aside.reason)}"
    somewhere = subject.host is not None or answer.there is not None
    if not verbose and somewhere and any(one.loose for one in answer.asides):
        yield "settings", "that could name any file do not name this one (-v lists them)"


def _is_optional(aside: Aside) -> bool:
    return aside.rule.presence is Presence.IF_PRESENT


def _label(aside: Aside, answer: Answer) -> str:
    if aside.holds and not _is_optional(aside):
        return "by"
    if _is_optional(aside):
        return "if there" if answer.there is None else "fresh"
    return "not by"


def _of_item(
    explanation: Explanation, subject: Subject, answer: Answer, item: Item, *, verbose: bool
) -> Iterator[tuple[str, str]]:
    entry = item.entry
    if subject.sort is Sort.NAME or len(answer.items) > 1:
        yield "path", clean(entry.path)
    origin = f" ({clean(entry.rule.origin)})" if verbose and entry.rule.origin else ""
    yield "rule", f"{clean(entry.rule.id)}{origin}"
    yield "why", clean(entry.rule.why)
    yield from _conditions(entry)
    if item.mapped is not None and (verbose or item.mapped.by or item.mapped.others):
        yield "mapped", _mapped(item.mapped)
    if entry.source is not None:
        yield "source", _source(explanation, subject, entry)
    elif entry.want is not None:
        yield "wanted", _state(explanation, entry.want)
    yield from _state_now(explanation, item, verbose=verbose)


def _source(explanation: Explanation, subject: Subject, entry: Entry) -> str:
    """Where the copy comes from: the path, the file that it leads to, its size and its package."""
    said = clean(entry.source or "")
    if entry.source == subject.asked and subject.real not in (None, subject.asked):
        said += f" ({clean(subject.real or '')})"
    if entry.filtered:
        said += ", without its password fields"
    if entry.want is not None and entry.want.size is not None:
        said += f", {size(entry.want.size)}"
    return said + _package(explanation, entry.source)


def _state_now(explanation: Explanation, item: Item, *, verbose: bool) -> Iterator[tuple[str, str]]:
    """What is there now, and what a repair would do about it."""
    drift = item.drift
    if verbose and item.entry.want is not None and item.entry.source is not None:
        yield "wanted", _state(explanation, item.entry.want)
    if drift is None:
        if verbose and item.entry.have is not None:
            yield "now", _state(explanation, item.entry.have)
        return
    weight = "" if drift.severity is Severity.ERROR else f" ({drift.severity})"
    yield "now", f"{drift.kind}{weight}: {clean(drift.reason)}"
    if item.entry.have is not None:
        yield "there", _state(explanation, item.entry.have)
    yield "repair", _REPAIRS[drift.remedy]


_REPAIRS = {
    Remedy.COPY: "check --fix copies the source",
    Remedy.CREATE: "check --fix makes it",
    Remedy.REPLACE: "check --fix replaces it",
    Remedy.REMOVE: "check --fix removes it",
    Remedy.NONE: "none: check --fix leaves it as it is",
}


def _conditions(entry: Entry) -> Iterator[tuple[str, str]]:
    """What led to an entry: the setting or the services, the library, what it holds."""
    if entry.because.startswith("holds "):
        yield "since", f"it {clean(entry.because)}"
        return
    yield "condition", condition(entry)
    if entry.evidence.chain:
        yield "since", clean(ARROW.join(entry.evidence.chain))


def condition(entry: Entry) -> str:
    """The condition that held, in words."""
    evidence = entry.evidence
    services = _some([clean(name) for name in evidence.daemons])
    if evidence.setting is not None:
        where = f" ({services})" if services else ""
        value = f"= {clean(evidence.value)}" if evidence.value else "is empty"
        return f"{clean(evidence.setting)} {value}{where}"
    if services:
        return _run_chrooted([clean(name) for name in evidence.daemons])
    if entry.rule.presence is Presence.IF_PRESENT:
        return "it is there already"
    words = "; or ".join(map(when, entry.rule.when))
    return words or "none, it is always needed"


def _run_chrooted(services: Sequence[str]) -> str:
    return f"{_some(services)} run{'s' if len(services) == 1 else ''} chrooted"


def _mapped(mapped: Mapped) -> str:
    """Whether programs have a library already when they enter the chroot, so that they never look at the copy."""
    by, others, unknown = (
        _some([clean(name) for name in names]) for names in (mapped.by, mapped.others, mapped.unknown)
    )
    said = []
    if by:
        said.append(f"before chroot by {by}, for which the copy is never opened")
    if others:
        said.append(f"after chroot, if it is used, by {others}")
    if unknown:
        said.append(f"not known of {unknown}, whose programs cannot be seen")
    return "; ".join(said)


def _of_directory(answer: Answer) -> Iterator[tuple[str, str]]:
    """What is needed below a directory, a line for each rule and condition."""
    shares: dict[tuple[str, str], list[Item]] = {}
    for item in answer.below:
        if item.entry.want is None or item.entry.want.type is not FileType.DIRECTORY:
            setting = condition(item.entry) if item.entry.evidence.setting is not None else ""
            shares.setdefault((item.entry.rule.id, setting), []).append(item)
    width = max((len(clean(rule)) for rule, _ in shares), default=0)
    label = "below"
    for (rule, setting), items in sorted(shares.items(), key=lambda one: -len(one[1])):
        drifted = _counted(items)
        fresh = ", only kept fresh" if items[0].entry.rule.presence is Presence.IF_PRESENT else ""
        told = f"{fresh}, {drifted}" if drifted else fresh
        yield label, f"{clean(rule):<{width}}  {amount(items)}{told}{f'; {setting}' if setting else ''}"
        label = ""


def _counted(items: Sequence[Item]) -> str:
    """How many drifted, by kind: ``1 missing, 2 differs``; what is merely information does not count."""
    counted = Counter(
        item.drift.kind for item in items if item.drift is not None and item.drift.severity is not Severity.INFO
    )
    return ", ".join(f"{count} {kind}" for kind, count in counted.most_common())


def _state(explanation: Explanation, state: State) -> str:
    """A state in one line: ``file 0644 root:root, 1.2 KiB``."""
    head = str(state.type)
    if state.device is not None:
        head += f" {state.device[0]}:{state.device[1]}"
    if state.mode is not None and state.type is not FileType.LINK:
        head += f" {mode(state.mode)}"
    if state.uid is not None and state.gid is not None:
        head += f" {owner(state.uid, explanation)}:{group(state.gid, explanation)}"
    if state.target is not None:
        head += f" to {clean(state.target)}"
    return f"{head}, {size(state.size)}" if state.size is not None and state.type is FileType.FILE else head


def _package(explanation: Explanation, path: str | None) -> str:
    package = None if path is None else explanation.packages.get(path)
    return "" if package is None else f", package {clean(package)}"


def _some(names: Sequence[str]) -> str:
    if len(names) > SERVICES:
        return f"{', '.join(names[: SERVICES - 1])} and {len(names) - SERVICES + 1} more"
    return ", ".join(names)


def _wrapped(text: str, width: int, label: str | None = None) -> list[str]:
    """Lines of a text, behind its label if it has one."""
    first = "" if label is None else f"  {label:<{LABEL}}"
    room = {"initial_indent": first, "subsequent_indent": "  " if label is None else " " * len(first)}
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False, **room)  # type: ignore[arg-type]  # its keywords have types of their own
    return [line.rstrip() for line in lines] or [""]
