"""Why a path is needed or not, as JSON; ``explanation`` in ``schema.json`` describes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from chrootsync.model import FileType, Presence
from chrootsync.model.explanation import Need
from chrootsync.report.json import SCHEMA, dump, path_fields, state_object
from chrootsync.report.rules import when
from chrootsync.report.text import clean, public
from chrootsync.report.tree import bytes_of

if TYPE_CHECKING:
    from chrootsync.model import Entry
    from chrootsync.model.explanation import Answer, Explanation, Item, Mapped, Subject


def render(explanation: Explanation) -> str:
    """The explanation as one JSON object."""
    return dump(
        {
            "schema": SCHEMA,
            **path_fields("root", explanation.root),
            "explained": [_subject(explanation, one) for one in explanation.subjects],
            "notes": [clean(note) for note in explanation.notes],
        }
    )


def _subject(explanation: Explanation, subject: Subject) -> dict[str, Any]:
    return {
        **path_fields("asked", subject.asked),
        "type": subject.sort,
        "host": state_object(subject.host, explanation, public=False),
        **path_fields("real", subject.real),
        "package": _package(explanation, subject.real),
        "instances": [_answer(explanation, one) for one in subject.answers],
    }


def _answer(explanation: Explanation, answer: Answer) -> dict[str, Any]:
    needed = {Need.NEEDED: True, Need.UNDECIDED: None, Need.NOT_SERVED: None}
    return {
        "name": clean(answer.instance.name),
        **path_fields("chroot", answer.instance.chroot or None),
        "needed": needed.get(answer.need, False),
        "verdict": answer.need,
        "reason": clean(answer.reason),
        **path_fields("path", answer.path),
        "there": state_object(answer.there, explanation, public=False),
        "unseen": clean(answer.unseen),
        "entries": [_item(explanation, one) for one in answer.items],
        "below": _shares(answer.below),
        "asides": [
            {
                "rule": clean(one.rule.id),
                "why": clean(one.rule.why),
                "presence": one.rule.presence,
                "reason": clean(one.reason),
                "loose": one.loose,
            }
            for one in answer.asides
        ],
        "totals": _totals((*answer.items, *answer.below)),
    }


def _item(explanation: Explanation, item: Item) -> dict[str, Any]:
    entry, drift = item.entry, item.drift
    is_public = public(entry.want, entry.have)
    return {
        **path_fields("path", entry.path),
        **path_fields("source", entry.source),
        "package": _package(explanation, entry.source),
        "rule": clean(entry.rule.id),
        "origin": clean(entry.rule.origin),
        "why": clean(entry.rule.why),
        "presence": entry.rule.presence,
        "because": clean(entry.because),
        "conditions": _conditions(entry),
        "chain": [clean(name) for name in entry.evidence.chain],
        "mapped": _mapped(item.mapped),
        "filtered": entry.filtered,
        "want": state_object(entry.want, explanation, public=is_public),
        "have": state_object(entry.have, explanation, public=is_public),
        "status": "in-sync" if drift is None else drift.kind,
        "severity": None if drift is None else drift.severity,
        "remedy": None if drift is None else drift.remedy,
        "drift": None if drift is None else clean(drift.reason),
    }


def _conditions(entry: Entry) -> dict[str, Any]:
    """What the rule asks for, and what of the configuration met it."""
    evidence = entry.evidence
    return {
        "when": [when(one) for one in entry.rule.when],
        "services": [clean(name) for name in evidence.daemons],
        "setting": None if evidence.setting is None else clean(evidence.setting),
        "value": None if evidence.value is None else clean(evidence.value),
    }


def _mapped(mapped: Mapped | None) -> dict[str, list[str]] | None:
    if mapped is None:
        return None
    return {
        "by": [clean(name) for name in mapped.by],
        "others": [clean(name) for name in mapped.others],
        "unknown": [clean(name) for name in mapped.unknown],
    }


def _shares(items: Iterable[Item]) -> list[dict[str, Any]]:
    """What is below a directory, by rule."""
    shares: dict[str, list[Item]] = {}
    for item in items:
        shares.setdefault(item.entry.rule.id, []).append(item)
    return [
        {
            "rule": clean(rule),
            "why": clean(found[0].entry.rule.why),
            "presence": found[0].entry.rule.presence,
            "conditions": _conditions(found[0].entry),
            **_totals(found),
        }
        for rule, found in sorted(shares.items())
    ]


def _totals(items: Iterable[Item]) -> dict[str, Any]:
    listed = list(items)
    drifted = Counter(str(item.drift.kind) for item in listed if item.drift is not None)
    wants = [item.entry.want for item in listed]
    return {
        "entries": len(listed),
        "required": sum(item.entry.rule.presence is Presence.REQUIRED for item in listed),
        "files": sum(want is not None and want.type is FileType.FILE for want in wants),
        "bytes": bytes_of(listed),
        "drift": dict(sorted(drifted.items())),
    }


def _package(explanation: Explanation, path: str | None) -> str | None:
    package = None if path is None else explanation.packages.get(path)
    return None if package is None else clean(package)
