"""``probe`` and what a repair asks of it: who is looked at, when, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from chrootsync.cli.compare import MANUAL, Wishes
from chrootsync.cli.probing import Prober, prober, refuse_elsewhere
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import STATE, Scene
from chrootsync.model import (
    Answer,
    Code,
    ConfigError,
    Finding,
    Instance,
    InstanceReport,
    Lookup,
    Outcome,
    Probe,
    Remedy,
    Status,
)
from chrootsync.probe import looking
from chrootsync.probe.asking import Asker
from chrootsync.probe.looking import Before, Wanted
from tests.unit.report.report_samples import IN, OUT, SUBMISSION, finding, instance
from tests.unit.scenery import grow
from tests.unit.test_cli import run

BROKEN = Lookup(
    what="getservbyname smtp/tcp",
    answer=Answer.FAILS_INSIDE,
    inside="unknown service",
    outside="port 25",
    worked_inside=False,
    worked_outside=True,
    matters=True,
)


def stage(directory: str | None = STATE, *, live: bool = True) -> Scene:
    """As much of a scene as is asked for here."""
    host = SimpleNamespace(run=object() if live else None)
    return cast("Scene", SimpleNamespace(host=host, store=SimpleNamespace(directory=directory)))


def looker(directory: str | None = STATE) -> Prober:
    return Prober(stage=stage(directory), now=0.0, dns=True, shown=Progress())


def report(where: Instance, remedy: Remedy = Remedy.COPY, status: Status | None = None) -> InstanceReport:
    from chrootsync.model import Kind

    drift = finding(Kind.MISSING, where, "/etc/services", "it is not there", remedy=remedy).drift
    outcome = None if status is None else Outcome(status=status)
    return InstanceReport(instance=where, entries=1, findings=(Finding(drift=drift, outcome=outcome),))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose lookups were done, in order; no process is started."""
    names: list[str] = []

    def working(_: object, _asker: Asker, wanted: Sequence[Wanted], **_options: Any) -> mock.Mock:
        names.extend(f"before {where.name}" for where, _need in wanted)
        return mock.Mock(result=lambda: [Before(worked=frozenset({BROKEN.what}))] * len(wanted))

    def probe(_: object, _asker: Asker, wanted: Sequence[Wanted], **_options: Any) -> mock.Mock:
        names.extend(f"after {where.name}" for where, _need in wanted)
        return mock.Mock(result=lambda: [Probe(lookups=(BROKEN,))] * len(wanted))

    monkeypatch.setattr(looking, "working", working)
    monkeypatch.setattr(looking, "probe", probe)
    return names


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_only_what_is_repaired_is_looked_at(asked: list[str]) -> None:
    at_work = looker()
    unfit: Sequence[InstanceReport] = (
        report(SUBMISSION, Remedy.NONE),
        report(instance("stale"), Remedy.RELOAD),
        report(instance("free", chrooted=False)),
        report(instance("ill", problem="no main.cf")),
        InstanceReport(instance=instance("clean"), entries=1, findings=()),
    )

    before = at_work.before([report(IN), report(OUT), *unfit])()
    after = at_work.after(
        [report(IN, status=Status.FAILED), report(OUT, status=Status.REPAIRED), *unfit], before, repair=12
    )()

    assert asked == ["before postfix-in", "before postfix-out", "after postfix-out"]
    assert [one.probe is None for one in after] == [True, False, *(True for _ in unfit)]
    told = after[1].probe
    assert told is not None
    assert told.lost == (BROKEN.what,)
    assert not told.asked
    assert told.lookups[0].advice == "take the repair back with: chrootsync rollback 12"


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("directory", "repair", "advice"),
    [
        (None, 3, "take the repair back with: chrootsync rollback 3"),
        ("/some where", 3, "take the repair back with: chrootsync rollback 3 --state '/some where'"),
        (STATE, None, "nothing is remembered of this repair: put back by hand what it replaced"),
    ],
)
def test_the_way_back_can_be_typed_as_it_is(directory: str | None, repair: int | None, advice: str) -> None:
    at_work = looker(directory)

    [after] = at_work.after([report(OUT, status=Status.UNKNOWN)], at_work.before([report(OUT)])(), repair)()

    assert after.probe is not None
    assert after.probe.lookups[0].advice == advice


def test_who_asks_is_told_of_every_instance_and_nobody_is_looked_at_twice(asked: list[str]) -> None:
    at_work = looker()
    done = at_work.after([report(OUT, status=Status.REPAIRED)], {OUT.name: Before()}, 1)()
    others = [report(IN), report(instance("free", chrooted=False)), report(instance("ill", problem="no main.cf"))]

    probes = [one.probe for one in at_work.all([*done, *others])]

    assert asked == ["after postfix-out", "after postfix-in"]
    assert probes == [
        Probe(lookups=(BROKEN,), asked=True),
        Probe(lookups=(BROKEN,), asked=True),
        Probe(asked=True),
        Probe(error="no main.cf", asked=True),
    ]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("wishes", "dns"),
    [
        (Wishes(), True),
        (Wishes(dns=False), False),
        (Wishes(trigger="watch"), False),
        (Wishes(trigger="cron", probe=True), True),
        (Wishes(trigger="cron", probe=True, dns=False), False),
    ],
)
def test_automatic_repairs_ask_no_name_server(wishes: Wishes, *, dns: bool) -> None:
    made = prober(stage(), wishes, 0.0, Progress())

    assert made is not None
    assert made.dns is dns
    assert Wishes().trigger == MANUAL


def test_where_no_chroot_can_be_entered_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert prober(stage(), Wishes(), 0.0, Progress()) is None
    assert prober(stage(live=False), Wishes(), 0.0, Progress()) is None
    with pytest.raises(ConfigError, match=r"^--probe: only root can enter a chroot \(chroot\(2\)\); run it as root$"):
        refuse_elsewhere(stage(), "--probe")


@pytest.mark.parametrize("verb", [("probe",), ("check", "--probe"), ("check", "--fix", "--probe")])
def test_an_image_is_refused(tmp_path: Path, verb: tuple[str, ...]) -> None:
    grow(tmp_path, {"/etc/os-release": b"ID=debian\n"})

    result = run(*verb, "--root", str(tmp_path))

    what = verb[-1]
    assert result.exit_code == Code.USAGE
    assert result.stderr == (
        f"chrootsync: {what}: an image runs no daemons to look things up for; run it on the host itself\n"
    )
