"""How the child is asked, and what is made of it where it does not answer as it should."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from chrootsync import process
from chrootsync.model import Answer, Completed, Daemon, Host, Instance, Probe, UnreadableError, UnsafeError
from chrootsync.probe import child, looking
from chrootsync.probe.asking import PROGRAM, Asker
from chrootsync.probe.looking import Before
from chrootsync.probe.needs import Need
from tests.unit.scenery import instance

WHERE = instance(
    "out",
    provider="postfix",
    service="postfix",
    chroot="/queue",
    daemons=(Daemon(name="smtp/unix", program="smtp", chrooted=True, parameters={"mail_owner": "postfix"}),),
)
SERVICES = Need(files={"/etc/services"})


def jail() -> Instance:
    return instance("jail")


class Root:
    """As much of a root as is asked for: no hosts file, and a chroot that may be refused."""

    def __init__(self, refusal: UnsafeError | None = None) -> None:
        self.refusal = refusal

    def read(self, path: str, *, limit: int) -> bytes:
        raise UnreadableError(path, f"not here, whatever the limit of {limit} is")

    def chroot(self, path: str) -> Root:
        assert path in {"/queue", "/other", "/third"}
        if self.refusal is not None:
            raise self.refusal
        return self

    def close(self) -> None: ...


Said = tuple[int, str] | Sequence[tuple[bool, str]]
"""How the process of one side ended, or what it answered."""


class Children:
    """Answers for children that are never started, in order; keeps their plans."""

    def __init__(self, *said: Said, instead: Completed | UnreadableError | None = None, after: int = 0) -> None:
        self.said = iter(said)
        self.instead = instead
        self.after = after
        self.plans: list[list[dict[str, Any]]] = []
        self.begun = self.ended = 0

    def answering(self, command: Sequence[str]) -> Children:
        assert command == (sys.executable, "-I", "-S", "-c", PROGRAM, os.path.dirname(os.path.abspath(child.__file__)))
        if isinstance(self.instead, UnreadableError) and len(self.plans) >= self.after:
            raise self.instead
        self.begun += 1
        return self

    def give(self, line: bytes, *, timeout: float) -> None:
        assert timeout == 15
        self.plans.append(json.loads(line))

    def answer(self, *, timeout: float) -> Completed:
        assert timeout == 15
        if isinstance(self.instead, Completed) and len(self.plans) > self.after:
            return self.instead
        return Completed(code=0, output=json.dumps([self._end(next(self.said)) for _ in self.plans[-1]]))

    def close(self) -> None:
        self.ended += 1

    def _end(self, said: Said) -> tuple[int, str]:
        if isinstance(said, tuple):
            return said
        answers = [{"worked": worked, "text": text, "key": text} for worked, text in said]
        return 0, json.dumps({"answers": answers, "names": []})


FINE, LATE = (True, "port 25"), (False, "no answer within 8 seconds")
NOW = (True, "12:00:00 +0000 (UTC)")


def probe(monkeypatch: pytest.MonkeyPatch, children: Children, refusal: UnsafeError | None = None) -> Probe:
    monkeypatch.setattr(process, "answering", children.answering)
    host = cast("Host", type("Machine", (), {"root": Root(refusal)})())
    [found] = looking.probe(host, Asker(), [(WHERE, SERVICES)], now=5.0, dns=True).result()
    return found


def test_both_sides_are_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([FINE, NOW], [FINE, NOW])

    found = probe(monkeypatch, children)

    assert [one.answer for one in found.lookups] == [Answer.SAME, Answer.SAME]
    assert found.duration > 0
    common = {
        "users": ["postfix"],
        "seconds": 8.0,
        "names": 0,
        "lookups": [["service", "smtp", "tcp"], ["time", 5, "early"]],
    }
    assert children.plans == [[{"chroot": "/queue", **common}, {"chroot": None, **common}]]


def test_trouble_is_looked_at_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([LATE, NOW], [FINE, NOW], [FINE], [FINE])

    found = probe(monkeypatch, children)

    assert [one.answer for one in found.lookups] == [Answer.SAME, Answer.SAME]
    assert [plan["lookups"] for plan in children.plans[1]] == [[["service", "smtp", "tcp"]]] * 2


@pytest.mark.parametrize("again", [([LATE], [FINE]), ([LATE], (9, ""))])
def test_trouble_that_stays_is_told(monkeypatch: pytest.MonkeyPatch, again: tuple[Said, Said]) -> None:
    found = probe(monkeypatch, Children([LATE, NOW], [FINE, NOW], *again))

    assert [one.answer for one in found.lookups] == [Answer.FAILS_INSIDE, Answer.SAME]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((child.LATE, ""), "its process did not end within 13 seconds"),
        ((child.NEVER, ""), "its process could not be started"),
        ((7, ""), "its process was killed by signal 7"),
        ((0, "Traceback"), "its process gave no answer that makes sense"),
    ],
)
def test_one_side_that_fails_is_an_error_of_the_probe(
    monkeypatch: pytest.MonkeyPatch, said: tuple[int, str], error: str
) -> None:
    assert probe(monkeypatch, Children(said, [FINE, NOW])).error == error
    assert probe(monkeypatch, Children([FINE, NOW], said)).error == f"outside the chroot {error}"


@pytest.mark.parametrize(
    ("instead", "error"),
    [
        (Completed(code=None, output=""), "its process did not end within 13 seconds"),
        (Completed(code=-7, output=""), "its process was killed by signal 7"),
        (Completed(code=1, output=""), "its process gave no answer that makes sense"),
        (Completed(code=0, output="[[0]]"), "its process gave no answer that makes sense"),
        (Completed(code=0, output='[[0, "{}"]]'), "its process gave no answer that makes sense"),
        (
            UnreadableError("/usr/bin/python3", "cannot be started: no memory"),
            "/usr/bin/python3: cannot be started: no memory",
        ),
    ],
)
def test_a_child_that_fails_is_an_error_of_the_probe(
    monkeypatch: pytest.MonkeyPatch, instead: Completed | UnreadableError, error: str
) -> None:
    children = Children(instead=instead)
    assert probe(monkeypatch, children).error == error
    if isinstance(instead, UnreadableError):
        return
    assert children.begun - children.ended == bool(instead.output), "one that says nothing is asked nothing more"
    found = probe(monkeypatch, Children([LATE, NOW], [FINE, NOW], instead=instead, after=1))
    assert found.error is None
    assert found.lookups[0].answer is Answer.FAILS_INSIDE


def test_a_chroot_that_others_could_replace_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, Children(), UnsafeError("/queue", "belongs to somebody else"))

    assert found.error == "/queue: belongs to somebody else"


def test_before_a_repair_only_the_inside_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([LATE, NOW])
    monkeypatch.setattr(process, "answering", children.answering)
    host = cast("Host", type("Machine", (), {"root": Root()})())

    assert looking.working(host, Asker(), [(WHERE, SERVICES)], now=5.0, dns=True).result() == [
        Before(worked=frozenset({"localtime"}))
    ]
    assert len(children.plans) == 1


def test_all_instances_are_asked_at_the_same_time_and_what_they_have_in_common_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    children = Children([LATE, NOW], [FINE, NOW], [FINE, NOW], [FINE], [FINE])
    monkeypatch.setattr(process, "answering", children.answering)
    host = cast("Host", type("Machine", (), {"root": Root()})())
    other = replace(WHERE, name="in", chroot="/other")

    found = looking.probe(
        host, Asker(), [(WHERE, SERVICES), (jail(), Need()), (other, SERVICES)], now=5.0, dns=True
    ).result()

    assert [[one.answer for one in probe.lookups] for probe in found] == [[Answer.SAME] * 2, [], [Answer.SAME] * 2]
    asked = [[plan["chroot"] for plan in plans] for plans in children.plans]
    assert asked == [["/queue", "/other", None], ["/queue", None]]
    assert len(looking.working(host, Asker(), [], now=5.0, dns=True).result()) == 0


def test_many_are_asked_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children(*[[FINE, NOW]] * 3)
    monkeypatch.setattr(process, "answering", children.answering)
    monkeypatch.setattr(looking, "AT_ONCE", 2)
    host = cast("Host", type("Machine", (), {"root": Root()})())
    many = [(WHERE, SERVICES), (replace(WHERE, chroot="/other"), SERVICES), (replace(WHERE, chroot="/third"), SERVICES)]

    assert [len(one.worked) for one in looking.working(host, Asker(), many, now=5.0, dns=True).result()] == [2, 2, 2]
    assert [len(plans) for plans in children.plans] == [2, 1]


def test_nothing_is_asked_where_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children()
    monkeypatch.setattr(process, "answering", children.answering)
    host = cast("Host", type("Machine", (), {"root": Root()})())

    assert [one.lookups for one in looking.probe(host, Asker(), [(jail(), Need())], now=5.0, dns=True).result()] == [()]
    assert looking.working(host, Asker(), [(jail(), Need())], now=5.0, dns=True).result() == [Before()]


def test_what_is_asked_outside_is_asked_once_for_all_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    port = (True, "port 587")
    children = Children([FINE, NOW], [FINE, port, NOW], [FINE, NOW], [port])
    monkeypatch.setattr(process, "answering", children.answering)
    monkeypatch.setattr(looking, "SHARED", 2)
    host = cast("Host", type("Machine", (), {"root": Root()})())
    submission = Daemon(name="submission/inet", program="smtpd", chrooted=True, parameters={"mail_owner": "postfix"})
    other = replace(WHERE, name="in", chroot="/other", daemons=(submission,))

    found = looking.probe(host, Asker(), [(WHERE, SERVICES), (other, SERVICES)], now=5.0, dns=True).result()

    lookups = [(plan["chroot"], [lookup[1] for lookup in plan["lookups"]]) for plan in children.plans[0]]
    assert lookups == [
        ("/queue", ["smtp", 5]),
        ("/other", ["smtp", "submission", 5]),
        (None, ["smtp", 5]),
        (None, ["submission"]),
    ]
    assert [[one.answer for one in probe.lookups] for probe in found] == [[Answer.SAME] * 2, [Answer.SAME] * 3]


def test_one_process_is_asked_until_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([LATE, NOW], [LATE, NOW], [LATE, NOW])
    monkeypatch.setattr(process, "answering", children.answering)
    host = cast("Host", type("Machine", (), {"root": Root()})())
    asker = Asker()

    def ask() -> int:
        (before,) = looking.working(host, asker, [(WHERE, SERVICES)], now=5.0, dns=True).result()
        return len(before.worked)

    assert [ask(), ask()] == [1, 1]
    assert (children.begun, children.ended) == (1, 0)
    children.instead, children.after = Completed(code=None, output=""), 2
    assert ask() == 0
    children.instead = None
    assert ask() == 1
    asker.close()
    assert (children.begun, children.ended) == (2, 2)
