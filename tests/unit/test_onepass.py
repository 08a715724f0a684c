"""What a pass tells the watcher to watch and to wait for, and what it logs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from chrootsync.cli import onepass
from chrootsync.cli.setup import Places, Scene
from chrootsync.model import (
    Code,
    Config,
    Drift,
    Entry,
    Finding,
    Host,
    InstanceReport,
    Kind,
    Outcome,
    Record,
    Reload,
    Remedy,
    Report,
    Rule,
    Severity,
    Status,
)
from chrootsync.root import Root
from chrootsync.root.noting import NotingRoot
from chrootsync.state import Store
from chrootsync.state.database import open_database

from .machine import mount, with_private_mounts
from .scenery import instance

STATE = "/"
REPORT = Report(generated=0, duration=0, version="1", root="/", instances=(), fixed=True)


def noted(*paths: str) -> NotingRoot:
    """A root of which these paths were asked."""
    with closing(NotingRoot("/")) as root:
        root.looked.update(paths)
        return root


def done(*chroots: str, logs: frozenset[str] = frozenset()) -> onepass._Done:
    return onepass._Done(report=REPORT, config=Config(), chroots=chroots, logs=logs, repair=None, reload_in=None)


def tell(result: onepass._Done | None, *paths: str) -> dict[str, frozenset[str] | None]:
    return onepass._places(Places(), result, [noted(*paths)])


def test_what_was_looked_up_is_watched() -> None:
    names = tell(done(), "/etc/no-such-file")["/etc"]
    assert names is not None
    assert "no-such-file" in names


def test_what_package_managers_write_is_not_and_neither_are_chroots_and_state() -> None:
    found = tell(done("/usr"), "/var/lib/dpkg/status", "/usr/bin/x", "/var/lib/chrootsync/state.db", "/proc/self/stat")
    assert not any(
        f"{path}/".startswith(("/usr/", "/proc/", "/var/lib/dpkg/", "/var/lib/chrootsync/")) for path in found
    )
    assert "usr" in (found["/"] or ())


@pytest.mark.skipif(not os.path.isdir("/var/lib/dpkg"), reason="needs the directory of a package manager")
def test_locks_of_package_managers_are_watched_only_while_something_waits() -> None:
    lock = "/var/lib/dpkg/lock"
    assert "/var/lib/dpkg" not in tell(done(), lock)
    with mock.patch.object(onepass, "waits", return_value=True):
        assert "lock" in (tell(done(), lock)["/var/lib/dpkg"] or ())


def test_a_pass_that_came_to_nothing_still_tells_where_the_mending_will_be_seen() -> None:
    told = onepass._told(Places(config="/etc/no-such.toml"), None, ["a\nb"], [])
    assert "no-such.toml" in (told.places["/etc"] or ())
    assert told.retry
    assert told.settle is None
    assert "\n" not in told.problems[0]
    assert told.status == "nothing could be checked"


def test_what_a_repair_asks_package_managers_is_no_new_place() -> None:
    asked = (
        "/var/lib/rpm",
        "/var/lib/dpkg/status",
        "/var/lib/dpkg/info/x.list",
        "/var/lib/pacman/local",
        "/usr/lib/apk/db/installed",
    )
    assert tell(done(), *asked) == tell(done())


def test_the_log_that_is_read_after_a_reload_wakes_nobody() -> None:
    result = done(logs=frozenset({"/var/log/mail.log"}))
    assert tell(result, "/etc/hosts", "/var/log/mail.log") == tell(result, "/etc/hosts")


# --- What is logged -----------------------------------------------------------------------------------------------


def found(reason: str = "it is old", status: Status | None = None, severity: Severity = Severity.ERROR) -> Finding:
    entry = Entry(
        instance=instance(),
        rule=Rule(id="test.file", why="a test wants it", origin="test.toml"),
        path="/etc/resolv.conf",
        source="/etc/resolv.conf",
        because="of a test",
    )
    drift = Drift(kind=Kind.OUTDATED, severity=severity, remedy=Remedy.COPY, reason=reason, entry=entry)
    return Finding(drift=drift, outcome=None if status is None else Outcome(status=status, reason=reason))


def report(*findings: Finding, reload: Reload | None = None, generated: float = 0.0) -> Report:
    one = InstanceReport(
        instance=instance(), entries=1, findings=findings, reload=reload if reload is not None else Reload(needed=False)
    )
    return replace(REPORT, instances=(one,), generated=generated)


def test_nothing_is_the_matter_where_all_is_in_sync_repaired_or_but_information() -> None:
    assert onepass._matters(report()) == ""
    assert onepass._matters(report(found(severity=Severity.INFO))) == ""
    assert onepass._matters(report(found(status=Status.REPAIRED), reload=Reload(needed=True, done=True))) == ""


def test_what_is_the_matter_is_told_from_anything_else() -> None:
    cases = [
        report(found()),
        report(found("it is missing")),
        report(found(status=Status.FAILED)),
        report(found(status=Status.WAITING)),
        report(reload=Reload(needed=True, pending=True, error="too soon")),
        replace(report(), notes=("there is no instance",)),
    ]
    marks = [onepass._matters(case) for case in cases]
    assert "" not in marks
    assert len(set(marks)) == len(marks)
    assert onepass._matters(report(found(), found(status=Status.REPAIRED))) == marks[0]


def test_what_is_the_matter_is_said_again_the_next_day() -> None:
    first, later, tomorrow = (onepass._matters(report(found(), generated=when)) for when in (0.0, 86399.0, 86400.0))
    assert first == later != tomorrow


@pytest.mark.parametrize(
    ("case", "did"),
    [
        pytest.param(report(found()), False, id="drift"),
        pytest.param(report(found(status=Status.WAITING)), False, id="waiting"),
        pytest.param(report(reload=Reload(needed=True, pending=True, error="too soon")), False, id="pending"),
        pytest.param(report(found(status=Status.REPAIRED)), True, id="repaired"),
        pytest.param(report(reload=Reload(needed=True, done=True)), True, id="reloaded"),
    ],
)
def test_what_was_done_is_always_logged(case: Report, did: bool) -> None:
    assert onepass._did_something(case) is did


def test_the_status_tells_what_is_waited_for() -> None:
    waiting = found("until apt-get (process 7) has ended", Status.WAITING)
    status = onepass._status(replace(done(), report=report(waiting)))
    assert status == "drift in 1 of 1 instance, waiting until apt-get (process 7) has ended"


# --- What the service may not write to ---------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_chroot_that_the_service_may_not_write_to_is_told(tmp_path: Path) -> None:
    failing = report(found("read-only file system", Status.FAILED))
    broken = replace(
        failing,
        instances=tuple(
            replace(one, instance=replace(one.instance, chroot=str(tmp_path))) for one in failing.instances
        ),
    )

    def check() -> None:
        assert onepass._shut_out(STATE, replace(done(), report=broken)) == []
        mount("-t", "tmpfs", "-o", "ro", "none", tmp_path)
        (sentence,) = onepass._shut_out(STATE, replace(done(), report=broken))
        assert sentence == (
            f"{tmp_path} is read-only for this service; where it is not so for others, run chrootsync install systemd"
        )
        assert sentence.endswith("run chrootsync install systemd")
        assert onepass._shut_out(STATE, replace(done(), report=report())) == []

    with_private_mounts(check)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_state_that_the_service_may_not_write_to_is_told(tmp_path: Path) -> None:
    state = tmp_path / "state"
    wanted = [f"{state} cannot be written to by this service, as where it was removed meanwhile; restart it"]
    assert onepass._shut_out(str(state), done()) == wanted
    state.mkdir()
    assert onepass._shut_out(str(state), done()) == []

    def check() -> None:
        mount("-t", "tmpfs", "-o", "ro", "none", state)
        assert onepass._shut_out(str(state), done()) == wanted

    with_private_mounts(check)


# --- Reloads ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A host with a state of its own."""
    tmp_path.chmod(0o700)
    with closing(Root("/")) as root:
        store = Store(str(tmp_path))
        yield Scene(
            root=root,
            host=Host(root=root, run=None, cache=store),
            config=Config(reload_interval=60.0),
            rule_sets=(),
            instances=(instance(),),
            store=store,
        )


def remember(stage: Scene, record: Record, now: float) -> None:
    with closing(open_database(stage.store.directory, "/", write=True, now=now, quota=1 << 20)) as memory:
        memory.remember({instance().name: record})


PENDING = Reload(needed=True, pending=True, error="too soon")


@pytest.mark.parametrize(
    ("last", "reload", "wanted"),
    [
        pytest.param(990.0, PENDING, 40.0, id="comes due"),
        pytest.param(945.0, PENDING, 0.0, id="came due while the pass was under way"),
        pytest.param(940.0, PENDING, None, id="was due when the pass began: pending for another reason"),
        pytest.param(100.0, PENDING, None, id="was due long before"),
        pytest.param(990.0, Reload(needed=True, done=True), None, id="was done"),
    ],
)
def test_a_reload_that_is_pending_is_tried_when_it_comes_due(
    stage: Scene, last: float, reload: Reload, wanted: float | None
) -> None:
    began, now = 1000.0, 1010.0
    remember(stage, Record(last=last, pending=reload.pending, since=990.0), now)
    with mock.patch("time.time", return_value=now):
        assert onepass._recall(stage, report(reload=reload, generated=began)) == (None, wanted)


# --- What is looked at ahead --------------------------------------------------------------------------------------


def word(text: bytes | None) -> int:
    """A descriptor to read a word from; None where nobody is left to say it."""
    reading, writing = os.pipe()
    if text is not None:
        os.write(writing, text)
    os.close(writing)
    return reading


@pytest.mark.parametrize(
    ("text", "logged", "heard"),
    [
        (b"c0ffee 12.500000\n", "c0ffee", 12.5),
        (b" 12.500000\n", "", 12.5),
        (b"c0ffee\n", "c0ffee", None),
        (b"\n", "", None),
        (b"c0ffee later\n", "c0ffee", None),
    ],
)
def test_the_word_tells_what_is_logged_and_when_a_change_was_heard_of(
    text: bytes, logged: str, heard: float | None
) -> None:
    assert onepass._hear(word(text)) == onepass._Word(logged=logged, heard=heard)


def test_without_a_word_there_is_nothing_to_do() -> None:
    assert onepass._hear(word(None)) is None


def test_nothing_is_looked_at_ahead_of_a_word_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onepass, "look_ahead", mock.Mock(side_effect=AssertionError))
    with ExitStack() as undo:
        assert onepass._prepared(Places(), word(b"\n"), undo) is None


@pytest.mark.parametrize(
    ("heard", "used"),
    [
        pytest.param(b" 99.9", True, id="a change before"),
        pytest.param(b" 100.0", False, id="a change in the same moment"),
        pytest.param(b" 100.1", False, id="a change afterwards"),
        pytest.param(b"", False, id="other reasons"),
    ],
)
def test_what_was_looked_at_ahead_is_used_unless_a_change_came_afterwards(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, heard: bytes, used: bool
) -> None:
    ahead = onepass._Ahead(began=100.0, stage=stage, root=mock.Mock(), looked=mock.Mock())
    run = mock.Mock(return_value=0)
    monkeypatch.setattr(onepass, "_prepared", lambda *_: ahead)
    monkeypatch.setattr(onepass, "_run", run)

    assert onepass.run(Places(), word(b"c0ffee" + heard + b"\n"), os.memfd_create("report")) == 0

    run.assert_called_once_with(Places(), mock.ANY, "c0ffee", ahead if used else None)


def test_a_signal_before_the_word_ends_it_without_a_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(onepass, "_prepared", stopped)

    assert onepass.run(Places(), word(b"\n"), os.memfd_create("report")) == Code.INTERRUPTED
