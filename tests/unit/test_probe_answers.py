"""What a child says is taken for what it is, and never believed beyond its form."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chrootsync.model import Answer, Lookup, Probe
from chrootsync.probe.answers import Said, Told, compare, read
from chrootsync.probe.looking import Before, joined, lost
from chrootsync.probe.plan import Item

GOOD = {"worked": True, "text": "127.0.0.1", "key": "127.0.0.1"}


def said(text: str, *, worked: bool = True, key: str | None = None) -> Said:
    return Said(worked=worked, text=text, key=text if key is None else key)


def test_an_answer_is_read() -> None:
    text = json.dumps({"answers": [GOOD, GOOD], "names": ["mx.example"]})

    assert read(text, 1, 8) == Told(answers=(said("127.0.0.1"),) * 2, names=("mx.example",))
    assert read('{"error": "no"}', 1, 8) == Told(error="no")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"error": 5}',
        json.dumps({"answers": [{**GOOD, "worked": 1}], "names": []}),
        json.dumps({"answers": [{**GOOD, "text": None}], "names": []}),
        json.dumps({"answers": 5, "names": []}),
        json.dumps({"answers": [GOOD, GOOD], "names": ["-x; rm"]}),
        json.dumps({"answers": [GOOD, GOOD], "names": ["10.0.0.1"]}),
        json.dumps({"answers": [GOOD, GOOD], "names": [7]}),
    ],
)
def test_what_makes_no_sense_is_no_answer(text: str) -> None:
    assert read(text, 1, 8) == Told(error="its process gave no answer that makes sense")


@pytest.mark.parametrize(
    "value",
    [
        {"answers": [], "names": []},
        {"answers": [GOOD, GOOD], "names": []},
        {"answers": [GOOD] * 3, "names": ["a.example", "b.example"]},
    ],
)
def test_it_may_not_say_more_or_less_than_it_was_asked(value: object) -> None:
    assert read(json.dumps(value), 1, 1) == Told(error="its process answered what it was not asked")


def test_texts_are_cut() -> None:
    told = read(json.dumps({"answers": [{**GOOD, "text": "x" * 9999}], "names": []}), 1, 0)

    assert len(told.answers[0].text) == 300


@pytest.mark.parametrize(
    ("inside", "outside", "answer", "matters"),
    [
        (said("a"), said("a"), Answer.SAME, False),
        (said("a", key="x"), said("b", key="x"), Answer.SAME, False),
        (said("a"), said("b"), Answer.DIFFERS, False),
        (said("no", worked=False), said("b"), Answer.FAILS_INSIDE, True),
        (said("a"), said("no", worked=False), Answer.DIFFERS, False),
        (said("no", worked=False), said("neither", worked=False), Answer.SAME, False),
    ],
)
def test_two_answers_are_compared(inside: Said, outside: Said, answer: Answer, *, matters: bool) -> None:
    item = Item(what="it", inside=("host", "x"), outside=("host", "x"), fails=True, differs=False, advice="do this")

    [found] = compare([item], [inside], [outside])

    assert found == Lookup(
        what="it",
        answer=answer,
        inside=inside.text,
        outside=outside.text,
        worked_inside=inside.worked,
        worked_outside=outside.worked,
        matters=matters,
        advice=None if answer is Answer.SAME else "do this",
    )


def lookup(what: str, answer: Answer = Answer.FAILS_INSIDE, advice: str | None = None) -> Lookup:
    return Lookup(
        what=what,
        answer=answer,
        inside="",
        outside="",
        worked_inside=answer is not Answer.FAILS_INSIDE,
        worked_outside=True,
        matters=answer is Answer.FAILS_INSIDE,
        advice=advice,
    )


def test_lost_is_what_worked_before_and_fails_now_though_it_works_outside() -> None:
    before = Before(worked=frozenset({"broken", "fine", "both"}))
    both = replace(lookup("both", Answer.SAME), worked_inside=False, worked_outside=False)
    found = Probe(lookups=(lookup("broken"), lookup("never worked"), lookup("fine", Answer.SAME), both))

    after = lost(before, found, "go back")

    assert after.lost == ("broken",)
    assert [one.advice for one in after.lookups] == ["go back", None, None, None]


def test_what_daemons_get_along_without_is_never_lost() -> None:
    """A syslog that is restarted during a repair takes its socket away for a moment."""
    log = replace(lookup("socket /dev/log"), matters=False)

    after = lost(Before(worked=frozenset({"socket /dev/log"})), Probe(lookups=(log,)), "go back")

    assert after == Probe(lookups=(log,))


def test_what_the_first_of_two_passes_lost_stays_lost_while_it_fails() -> None:
    first = Probe(lookups=(lookup("a", advice="go back"), lookup("b", advice="go back")), lost=("a", "b"))
    second = Probe(lookups=(lookup("a"), lookup("b", Answer.SAME), lookup("c", advice="new")), lost=("c",))

    whole = joined(first, second)

    assert whole.lost == ("a", "c")
    assert [one.advice for one in whole.lookups] == ["go back", None, "new"]
