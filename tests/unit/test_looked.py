"""What a repair finds ahead of time, and when it has to look once more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from chrootsync import pipeline, transactions
from chrootsync.cli.check import look_once, task_of
from chrootsync.cli.compare import Wishes
from chrootsync.cli.looked import Looked, look_ahead
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import Places, Scene, places, scene
from chrootsync.model import Report, Status
from chrootsync.report.verdict import exit_code, findings
from chrootsync.transactions import Transaction
from tests.unit.scenery import grow

WISHES = Wishes(trigger="watch")
SOURCE, COPY = "etc/resolv.conf", "var/spool/postfix/etc/resolv.conf"
OLD, NEW, OTHER = b"nameserver 192.0.2.1\n", b"nameserver 192.0.2.2\n", b"nameserver 192.0.2.3\n"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with an instance whose chroot is in sync."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    grow(
        tmp_path,
        {
            "/rules/postfix-nss.toml": b"",
            "/image/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
            "/image/etc/nsswitch.conf": b"hosts: files dns\n",
            "/image/etc/resolv.conf": OLD,
            "/image/etc/services": b"smtp 25/tcp\n",
            "/image/etc/hosts": b"127.0.0.1 localhost\n",
            "/image/etc/postfix/main.cf": b"compatibility_level = 3.6\n",
            "/image/etc/postfix/master.cf": b"smtp unix - - y - - smtp\n",
            "/image/var/spool/postfix": None,
        },
    )
    (tmp_path / "state").mkdir(mode=0o700)
    assert fixed(tmp_path) == 0
    return tmp_path / "image"


def where(place: Path) -> Places:
    return places(root=str(place / "image"), rules=str(place / "rules"), state=str(place / "state"))


def fixed(place: Path) -> int:
    """What somebody's own repair ends with."""
    with scene(where(place)) as stage:
        report, _ = look_once(where(place), stage, Wishes(), Progress(), fix=True)
        return exit_code(report)


def change(path: Path, text: bytes) -> None:
    """Put another file there."""
    new = path.with_name("new")
    new.write_bytes(text)
    new.chmod(0o644)
    new.rename(path)


@pytest.fixture
def stage(image: Path) -> Iterator[Scene]:
    with scene(where(image.parent)) as stage:
        yield stage


def repaired(stage: Scene, ahead: Looked | None) -> tuple[Report, bool]:
    """The report of a repair, and whether it compared everything once more."""
    compare = mock.Mock(wraps=pipeline.compared)
    with mock.patch.object(pipeline, "compared", compare):
        report, _ = look_once(Places(), stage, WISHES, Progress(), fix=True, ahead=ahead)
    return report, bool(compare.call_count)


def ahead(stage: Scene) -> Looked:
    found = look_ahead(stage, task_of(stage, WISHES, Progress()), WISHES, time.time(), Progress())
    assert found is not None
    return found


def test_while_a_package_manager_is_at_work_nothing_is_looked_at_ahead(
    stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = (Transaction(manager="dpkg", lock="/var/lib/dpkg/lock"),)
    monkeypatch.setattr(transactions, "under_way", lambda root: working if root is stage.root else ())
    assert look_ahead(stage, task_of(stage, WISHES, Progress()), WISHES, time.time(), Progress()) is None


def outcomes(report: Report) -> dict[str, Status]:
    return {
        os.path.basename(one.drift.entry.path): one.outcome.status
        for one in findings(report)
        if one.outcome is not None
    }


def test_what_was_found_ahead_is_repaired_without_another_look(image: Path, stage: Scene) -> None:
    change(image / SOURCE, NEW)

    report, again = repaired(stage, ahead(stage))

    assert outcomes(report) == {"resolv.conf": Status.REPAIRED}
    assert (image / COPY).read_bytes() == NEW
    assert not again


def test_the_report_is_the_same_as_without_looking_ahead(image: Path, stage: Scene) -> None:
    change(image / SOURCE, NEW)
    (image / "var/spool/postfix/etc/services").unlink()
    found = ahead(stage)
    (compared,) = pipeline.check(task_of(stage, WISHES, Progress()))

    assert [one.drift.entry.path for one in found.reports[0].findings] == [
        one.drift.entry.path for one in compared.findings
    ]
    assert set(found.observed.sources) >= {"/etc/resolv.conf", "/etc/services"}


def test_looking_ahead_changes_nothing(image: Path, stage: Scene) -> None:
    change(image / SOURCE, NEW)
    before = (image.parent / "state/state.db").read_bytes()

    ahead(stage)

    assert (image / COPY).read_bytes() == OLD
    assert (image.parent / "state/state.db").read_bytes() == before


def _by_hand(image: Path) -> None:
    assert fixed(image.parent) == 0


def _copied(image: Path) -> None:
    change(image / COPY, NEW)


def _overwritten(image: Path) -> None:
    change(image / COPY, OTHER)


def _removed(image: Path) -> None:
    (image / COPY).unlink()


@pytest.mark.parametrize("meanwhile", [_by_hand, _copied, _overwritten, _removed])
def test_where_the_copy_changed_meanwhile_all_is_looked_at_once_more(
    image: Path, stage: Scene, meanwhile: Callable[[Path], None]
) -> None:
    change(image / SOURCE, NEW)
    found = ahead(stage)
    meanwhile(image)

    report, again = repaired(stage, found)

    assert again
    assert set(outcomes(report).values()) <= {Status.REPAIRED}
    assert (image / COPY).read_bytes() == NEW


def test_another_repair_meanwhile_means_another_look_even_where_the_copies_are_as_they_were(
    image: Path, stage: Scene
) -> None:
    change(image / SOURCE, NEW)
    found = ahead(stage)

    _, again = repaired(stage, replace(found, newest=99))

    assert again


def test_a_source_that_changed_after_all_is_compared_again_before_it_is_copied(image: Path, stage: Scene) -> None:
    change(image / SOURCE, NEW)
    found = ahead(stage)
    change(image / SOURCE, OTHER)

    report, again = repaired(stage, found)

    assert again
    assert outcomes(report) == {"resolv.conf": Status.REPAIRED}
    assert (image / COPY).read_bytes() == OTHER
