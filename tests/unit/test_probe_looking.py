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
        assert path in {"/queue", "/other"}
        if self.refusal is not None:
            raise self.refusal
        return self

    def close(self) -> None: ...


Said = Completed | UnreadableError | Sequence[tuple[bool, str]]


class Children:
    """Answers for children that are never started, in order; keeps their plans."""

    def __init__(self, *said: Said) -> None:
        self.said = iter(said)
        self.plans: list[dict[str, Any]] = []
        self.rounds = 0

    def feed(
        self, command: Sequence[str], inputs: Sequence[bytes], *, timeout: float
    ) -> list[Completed | UnreadableError]:
        assert command == (sys.executable, "-I", "-S", os.path.abspath(child.__file__))
        assert timeout == 15
        self.rounds += 1
        self.plans += map(json.loads, inputs)
        return [self._said(next(self.said)) for _ in inputs]

    def _said(self, said: Said) -> Completed | UnreadableError:
        if isinstance(said, (Completed, UnreadableError)):
            return said
        answers = [{"worked": worked, "text": text, "key": text} for worked, text in said]
        return Completed(code=0, output=json.dumps({"answers": answers, "names": []}))


FINE, LATE = (True, "port 25"), (False, "no answer within 8 seconds")
NOW = (True, "12:00:00 +0000 (UTC)")


def probe(monkeypatch: pytest.MonkeyPatch, children: Children, refusal: UnsafeError | None = None) -> Probe:
    monkeypatch.setattr(process, "feed", children.feed)
    host = cast("Host", type("Machine", (), {"root": Root(refusal)})())
    [found] = looking.probe(host, [(WHERE, SERVICES)], now=5.0, dns=True)
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
    assert children.plans == [{"chroot": "/queue", **common}, {"chroot": None, **common}]


def test_trouble_is_looked_at_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([LATE, NOW], [FINE, NOW], [FINE], [FINE])

    found = probe(monkeypatch, children)

    assert [one.answer for one in found.lookups] == [Answer.SAME, Answer.SAME]
    assert [plan["lookups"] for plan in children.plans[2:]] == [[["service", "smtp", "tcp"]]] * 2


@pytest.mark.parametrize("again", [([LATE], [FINE]), ([LATE], Completed(code=-9, output=""))])
def test_trouble_that_stays_is_told(monkeypatch: pytest.MonkeyPatch, again: tuple[Any, Any]) -> None:
    found = probe(monkeypatch, Children([LATE, NOW], [FINE, NOW], *again))

    assert [one.answer for one in found.lookups] == [Answer.FAILS_INSIDE, Answer.SAME]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Completed(code=None, output=""), "its process did not end within 15 seconds"),
        (Completed(code=-7, output=""), "its process was killed by signal 7"),
        (Completed(code=1, output="Traceback"), "its process gave no answer that makes sense"),
        (
            UnreadableError("/usr/bin/python3", "cannot be started: no memory"),
            "/usr/bin/python3: cannot be started: no memory",
        ),
    ],
)
def test_a_child_that_fails_is_an_error_of_the_probe(
    monkeypatch: pytest.MonkeyPatch, said: Completed | UnreadableError, error: str
) -> None:
    assert probe(monkeypatch, Children(said, [FINE, NOW])).error == error
    assert probe(monkeypatch, Children([FINE, NOW], said)).error == f"outside the chroot {error}"


def test_a_chroot_that_others_could_replace_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe(monkeypatch, Children(), UnsafeError("/queue", "belongs to somebody else"))

    assert found.error == "/queue: belongs to somebody else"


def test_before_a_repair_only_the_inside_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children([LATE, NOW])
    monkeypatch.setattr(process, "feed", children.feed)
    host = cast("Host", type("Machine", (), {"root": Root()})())

    assert looking.working(host, [(WHERE, SERVICES)], now=5.0, dns=True) == [Before(worked=frozenset({"localtime"}))]
    assert len(children.plans) == 1


def test_all_instances_are_asked_at_the_same_time_and_what_they_have_in_common_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    children = Children([LATE, NOW], [FINE, NOW], [FINE, NOW], [FINE], [FINE])
    monkeypatch.setattr(process, "feed", children.feed)
    host = cast("Host", type("Machine", (), {"root": Root()})())
    other = replace(WHERE, name="in", chroot="/other")

    found = looking.probe(host, [(WHERE, SERVICES), (jail(), Need()), (other, SERVICES)], now=5.0, dns=True)

    assert [[one.answer for one in probe.lookups] for probe in found] == [[Answer.SAME] * 2, [], [Answer.SAME] * 2]
    assert [plan["chroot"] for plan in children.plans] == ["/queue", None, "/other", "/queue", None]
    assert children.rounds == 2
    assert len(looking.working(host, [], now=5.0, dns=True)) == 0


def test_nothing_is_asked_where_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Children()
    monkeypatch.setattr(process, "feed", children.feed)
    host = cast("Host", type("Machine", (), {"root": Root()})())

    assert [one.lookups for one in looking.probe(host, [(jail(), Need())], now=5.0, dns=True)] == [()]
    assert looking.working(host, [(jail(), Need())], now=5.0, dns=True) == [Before()]
