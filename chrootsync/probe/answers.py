"""What the child said, checked for its form alone, and how it compares inside and outside; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chrootsync.model import Answer, Lookup
from chrootsync.model.frozen import frozen, replace
from chrootsync.probe.child import NAME, TEXT_LIMIT
from chrootsync.probe.plan import Item


@frozen
class Said:
    """What one lookup came to: ``key`` is what is compared."""

    worked: bool
    text: str
    key: str


@frozen
class Told:
    """What a child told: an answer for each lookup, those of further ``names`` behind them; ``error``: none of it."""

    answers: tuple[Said, ...] = ()
    names: tuple[str, ...] = ()
    error: str | None = None


def read(text: str, lookups: int, names: int) -> Told:
    """What a child printed that was given so many lookups, and may have added so many names.

    It may have been taken over by whoever owns its user: whatever has not the right form is an error.
    """
    try:
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("error"), str):
            return Told(error=value["error"][:TEXT_LIMIT])
        told = Told(answers=tuple(map(_said, value["answers"])), names=tuple(map(_name, value["names"])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Told(error="its process gave no answer that makes sense")
    if len(told.names) > names or len(told.answers) != lookups + len(told.names):
        return Told(error="its process answered what it was not asked")
    return told


def ends(text: str, sides: int) -> list[tuple[int, str]]:
    """By side how its process ended, see the child's ``Said``, and what that said."""
    try:
        found = [(int(number), str(said)) for number, said in json.loads(text)]
    except (ValueError, TypeError):
        found = []
    return found if len(found) == sides else [(0, "")] * sides


def _said(value: object) -> Said:
    match value:
        case {"worked": bool(worked), "text": str(text), "key": str(key)}:
            return Said(worked=worked, text=text[:TEXT_LIMIT], key=key[:TEXT_LIMIT])
    raise ValueError("not an answer")


def _name(value: object) -> str:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise ValueError("not a name")


def compare(items: Sequence[Item], inside: Sequence[Said], outside: Sequence[Said]) -> tuple[Lookup, ...]:
    """The lookups, each with how its two answers compare."""
    return tuple(_compare(*each) for each in zip(items, inside, outside, strict=True))


def _compare(item: Item, inside: Said, outside: Said) -> Lookup:
    found = Lookup(
        what=item.what,
        answer=Answer.SAME,
        inside=inside.text,
        outside=outside.text,
        worked_inside=inside.worked,
        worked_outside=outside.worked,
        matters=False,
    )
    if outside.worked and not inside.worked:
        return replace(found, answer=Answer.FAILS_INSIDE, matters=item.fails, advice=item.advice)
    if inside.worked and (not outside.worked or inside.key != outside.key):
        return replace(found, answer=Answer.DIFFERS, matters=item.differs, advice=item.advice)
    return found
