"""Reloads: only what runs, not too often, never into an administrator's work, and nothing that is due is forgotten."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from chrootsync.model import Completed, Config, Control, Host, Instance, OnChange, Record, Reload, UnreadableError
from chrootsync.reload import MOST_BACKOFF, OUTPUT_LIMIT, Occasion, Steps, reload, still_due, together, why_due
from chrootsync.root import Root
from chrootsync.state import Store
from tests.unit.scenery import grow, instance

NOW = 1_700_000_000.0
STATUS = ("/usr/sbin/postfix", "-c", "/etc/postfix", "status")
RELOAD = ("/usr/sbin/postfix", "-c", "/etc/postfix", "reload")
RESTART = ("/usr/bin/systemctl", "try-restart", "postfix@-.service")
CONTROL = Control(reload=RELOAD, running=STATUS, unit="postfix@-.service")
FINE = Completed(code=0, output="")

Answer = Completed | UnreadableError | Callable[[], Completed]


class Machine:
    """A Runner that answers as it was told, and notes what it was asked."""

    def __init__(self, answers: Mapping[tuple[str, ...], Sequence[Answer]], started: float | None = None) -> None:
        """The last answer to a command is given again and again; what is not known works fine."""
        self.answers = {command: list(known) for command, known in answers.items()}
        self.starts = started
        self.asked: list[tuple[str, ...]] = []
        self.timeouts: set[float] = set()
        self.looked: list[tuple[int, str | None]] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        self.asked.append(tuple(command))
        self.timeouts.add(timeout)
        known = self.answers.get(tuple(command), [FINE])
        answer = known.pop(0) if len(known) > 1 else known[0]
        if isinstance(answer, UnreadableError):
            raise answer
        return answer if isinstance(answer, Completed) else answer()

    def started(self, pid: int, child: str | None) -> float | None:
        self.looked.append((pid, child))
        return self.starts


def reloaded(
    machine: Machine | None,
    *,
    control: Control = CONTROL,
    wanted: OnChange = OnChange.RELOAD,
    record: Record | None = None,
    automatic: bool = False,
    config: Config | None = None,
    root: str | os.PathLike[str] = "/",
    of: Instance | None = None,
) -> tuple[Reload, Record]:
    occasion = Occasion(now=NOW, automatic=automatic, config=config or Config())
    with closing(Root(os.fspath(root))) as reader:
        host = Host(root=reader, run=machine, cache=Store(None))
        [done] = together([reload(host, of or instance(control=control), wanted, record or Record(), occasion)])
        return done


# --- What is done -------------------------------------------------------------------------------------------------


def test_a_running_instance_is_reloaded_once_and_looked_at_again() -> None:
    machine = Machine({RELOAD: [Completed(code=0, output="refreshing\n")]})
    result, record = reloaded(machine)
    assert result == Reload(needed=True, done=True, command=RELOAD, output="refreshing\n")
    assert record == Record(last=NOW)
    assert machine.asked == [STATUS, RELOAD, STATUS]
    assert machine.timeouts == {60.0}


def test_a_rule_that_needs_a_restart_gets_one() -> None:
    machine = Machine({})
    result, record = reloaded(machine, wanted=OnChange.RESTART)
    assert result == Reload(needed=True, done=True, command=RESTART)
    assert record == Record(last=NOW)
    assert machine.asked == [STATUS, RESTART, STATUS]


def test_a_restart_that_is_still_due_is_stronger_than_a_reload() -> None:
    result, record = reloaded(Machine({}), record=Record(pending=True, restart=True, failures=2))
    assert result.command == RESTART
    assert record == Record(last=NOW)


def test_what_cannot_be_asked_always_runs() -> None:
    machine = Machine({})
    result, _ = reloaded(machine, control=Control(reload=RELOAD))
    assert result.done
    assert machine.asked == [RELOAD]


def test_the_timeout_is_configurable() -> None:
    machine = Machine({})
    reloaded(machine, config=Config(reload_timeout=7.0))
    assert machine.timeouts == {7.0}


def test_long_output_is_cut_to_its_end() -> None:
    machine = Machine({RELOAD: [Completed(code=0, output="x" * OUTPUT_LIMIT + "end")]})
    result, _ = reloaded(machine)
    assert result.output == "x" * (OUTPUT_LIMIT - 3) + "end"


# --- What is not needed -------------------------------------------------------------------------------------------


def test_in_an_image_nothing_runs() -> None:
    record = Record(last=5.0, pending=True)
    assert reloaded(None, record=record) == (Reload(needed=False), record)


@pytest.mark.parametrize("code", [1, 255, -9])
def test_an_instance_that_does_not_run_needs_nothing(code: int) -> None:
    """It reads everything anew when it starts."""
    machine = Machine({STATUS: [Completed(code=code, output="not running")]})
    result, record = reloaded(machine, record=Record(last=5.0, pending=True, restart=True, failures=4))
    assert result == Reload(needed=False, command=RESTART)
    assert record == Record(last=5.0)
    assert machine.asked == [STATUS]


def test_an_instance_without_a_reload_command_needs_nothing() -> None:
    machine = Machine({})
    result, record = reloaded(machine, control=Control(), record=Record(last=5.0))
    assert (result, record) == (Reload(needed=False), Record(last=5.0))
    assert machine.asked == []


def test_a_restart_without_a_unit_is_left_to_people_and_said_once() -> None:
    machine = Machine({})
    control = Control(reload=RELOAD, running=STATUS)
    result, record = reloaded(machine, control=control, wanted=OnChange.RESTART)
    assert result == Reload(needed=True, error="one has to be restarted by hand: no unit is known for it")
    assert record == Record()
    assert machine.asked == []
    assert reloaded(machine, control=control, record=record)[0].done  # a later reload is a reload again


# --- What fails ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "output"),
    [
        (
            Completed(code=1, output="fatal: bad main.cf\n"),
            "/usr/sbin/postfix -c /etc/postfix reload ended with status 1",
            "fatal: bad main.cf\n",
        ),
        (Completed(code=-15, output=""), "/usr/sbin/postfix -c /etc/postfix reload ended with status -15", ""),
        (Completed(code=None, output="so far"), "postfix did not end within 60 seconds", "so far"),
        (
            UnreadableError("/usr/sbin/postfix", "cannot be started: no such file or directory"),
            "/usr/sbin/postfix: cannot be started: no such file or directory",
            "",
        ),
    ],
)
def test_a_reload_that_fails_stays_pending(answer: Answer, error: str, output: str) -> None:
    result, record = reloaded(Machine({RELOAD: [answer]}), record=Record(last=5.0, failures=2))
    assert result == Reload(needed=True, pending=True, command=RELOAD, error=error, output=output)
    assert record == Record(last=NOW, pending=True, since=NOW, failures=3)


def test_a_restart_that_fails_stays_a_restart() -> None:
    machine = Machine({RESTART: [Completed(code=5, output="")]})
    result, record = reloaded(machine, wanted=OnChange.RESTART)
    assert result.error == "/usr/bin/systemctl try-restart postfix@-.service ended with status 5"
    assert record == Record(last=NOW, pending=True, since=NOW, restart=True, failures=1)


def test_an_instance_that_dies_of_its_reload_is_said_to() -> None:
    machine = Machine({STATUS: [FINE, Completed(code=1, output="")]})
    result, record = reloaded(machine)
    assert result == Reload(
        needed=True, pending=True, command=RELOAD, error="one does not run any more after its reload; look at its log"
    )
    assert record == Record(last=NOW, pending=True, since=NOW, failures=1)


NO_ANSWER = Completed(code=None, output="")
NO_PROGRAM = UnreadableError("/usr/sbin/postfix", "cannot be started: permission denied")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NO_ANSWER, "/usr/sbin/postfix -c /etc/postfix status: did not end within 60 seconds"),
        (NO_PROGRAM, "/usr/sbin/postfix: cannot be started: permission denied"),
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_cannot_be_told_to_run_stays_pending(answer: Answer, error: str, when: str) -> None:
    machine = Machine({STATUS: [answer] if when == "before" else [FINE, answer]})
    result, record = reloaded(machine)
    assert result == Reload(needed=True, pending=True, command=RELOAD, error=error)
    assert record == Record(last=NOW, pending=True, since=NOW, failures=1)
    assert machine.asked == ([STATUS] if when == "before" else [STATUS, RELOAD, STATUS])


# --- What has to wait ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "interval"), [(0, 60), (1, 120), (2, 240), (5, 1920), (6, MOST_BACKOFF), (20, MOST_BACKOFF)]
)
def test_automatic_reloads_keep_a_distance_that_grows_with_failures(failures: int, interval: float) -> None:
    machine = Machine({})
    record = Record(last=NOW - interval + 1, failures=failures)
    result, kept = reloaded(machine, record=record, automatic=True)
    error = f"one was reloaded less than {interval:.0f} seconds ago; the next run does it"
    assert result == Reload(needed=True, pending=True, command=RELOAD, error=error)
    assert kept == Record(last=record.last, pending=True, since=NOW, failures=failures)
    assert machine.asked == [STATUS]
    assert reloaded(machine, record=Record(last=NOW - interval, failures=failures), automatic=True)[0].done


def test_a_persons_own_command_does_not_wait() -> None:
    assert reloaded(Machine({}), record=Record(last=NOW, failures=20))[0].done


def test_the_distance_is_configurable() -> None:
    record = Record(last=NOW - 10)
    assert reloaded(Machine({}), record=record, automatic=True, config=Config(reload_interval=5.0))[0].done
    assert reloaded(Machine({}), record=Record(last=NOW), automatic=True, config=Config(reload_interval=0.0))[0].done


@pytest.mark.parametrize("last", [NOW + 61, NOW * 2, float("inf"), float("nan")])
def test_a_reload_in_the_future_is_a_clock_that_was_wrong(last: float) -> None:
    assert reloaded(Machine({}), record=Record(last=last), automatic=True)[0].done


@pytest.fixture
def host(tmp_path: Path) -> Path:
    grow(tmp_path, {"/etc/postfix/main.cf": b"", "/etc/postfix/master.cf": b"", "/var/pid": b"  1234\n"})
    return tmp_path


WATCHING = Control(
    reload=RELOAD,
    running=STATUS,
    watched=("/etc/postfix/main.cf", "/etc/postfix/master.cf"),
    pid_file="/var/pid",
    reborn="qmgr",
)


def test_a_check_says_who_does_a_reload_that_is_due(host: Path) -> None:
    changed = (host / "etc/postfix/main.cf").stat().st_ctime
    told = []
    for started in (changed - 2, changed + 3600):
        with closing(Root(os.fspath(host))) as reader:
            due = Host(root=reader, run=Machine({}, started=started), cache=Store(None))
            told.append(why_due(due, instance(control=WATCHING)))
    assert told == [
        "/etc/postfix/main.cf was changed after the last start or reload; reload one when it is complete",
        "still due after an earlier repair; check --fix does it",
    ]


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("wanted", [OnChange.RELOAD, OnChange.RESTART])
def test_while_an_administrator_is_at_work_nothing_is_reloaded(host: Path, automatic: bool, wanted: OnChange) -> None:
    changed = (host / "etc/postfix/main.cf").stat().st_ctime
    machine = Machine({}, started=changed - 2)
    control = Control(
        reload=RELOAD, running=STATUS, unit="u", watched=WATCHING.watched, pid_file="/var/pid", reborn="qmgr"
    )
    result, record = reloaded(machine, control=control, wanted=wanted, automatic=automatic, root=host)
    assert result.error == (
        "/etc/postfix/main.cf was changed after the last start or reload; reload one when it is complete"
    )
    assert (result.needed, result.done, result.pending) == (True, False, True)
    assert record == Record(pending=True, since=NOW, restart=wanted is OnChange.RESTART)
    assert machine.looked == [(1234, "qmgr")]
    assert machine.asked == [STATUS]


def test_a_configuration_older_than_the_last_start_or_reload_is_complete(host: Path) -> None:
    for slack in (0.0, 0.09):  # starts are counted in ticks
        changed = (host / "etc/postfix/master.cf").stat().st_ctime
        assert reloaded(Machine({}, started=changed - slack), control=WATCHING, root=host)[0].done


def test_the_second_watched_file_counts_as_the_first(host: Path) -> None:
    started = (host / "etc/postfix/main.cf").stat().st_ctime + 3600
    machine = Machine({}, started=started)
    assert reloaded(machine, control=WATCHING, root=host)[0].done
    (host / "etc/postfix/late.cf").write_bytes(b"")
    control = Control(reload=RELOAD, watched=("/etc/postfix/late.cf",), pid_file="/var/pid")
    machine.starts = (host / "etc/postfix/late.cf").stat().st_ctime - 5
    error = reloaded(machine, control=control, root=host)[0].error
    assert error == "/etc/postfix/late.cf was changed after the last start or reload; reload one when it is complete"


def test_a_watched_file_that_is_missing_keeps_the_reload_pending(host: Path) -> None:
    (host / "etc/postfix/master.cf").unlink()
    started = (host / "etc/postfix/main.cf").stat().st_ctime
    result, record = reloaded(Machine({}, started=started), control=WATCHING, root=host)
    expected = "/etc/postfix/master.cf: does not exist"
    assert result == Reload(needed=True, pending=True, command=RELOAD, error=expected)
    assert record == Record(last=NOW, pending=True, since=NOW, failures=1)


@pytest.mark.parametrize("text", [None, b"", b"\n", b"none\n", b"-5\n", b"\xb2\n", b"1" * 65])
def test_without_a_start_nobody_can_tell_and_the_reload_is_done(host: Path, text: bytes | None) -> None:
    (host / "var/pid").unlink()
    if text is not None:
        (host / "var/pid").write_bytes(text)
    machine = Machine({}, started=0.0)
    assert reloaded(machine, control=WATCHING, root=host)[0].done
    assert machine.looked == []


def test_a_master_that_is_gone_has_no_start(host: Path) -> None:
    assert reloaded(Machine({}, started=None), control=WATCHING, root=host)[0].done


# --- What is due, and since when --------------------------------------------------------------------------------------

DUE = Record(last=5.0, pending=True, since=NOW - 100)
ALONE = Control(reload=RELOAD, running=STATUS, pid_file="/var/pid", reborn="qmgr")


def test_a_pending_reload_that_somebody_else_has_done_is_forgotten(host: Path) -> None:
    machine = Machine({}, started=NOW - 50)
    result, record = reloaded(machine, control=ALONE, wanted=OnChange.NOTHING, record=DUE, root=host)
    assert (result, record) == (Reload(needed=False), Record(last=5.0))
    assert machine.asked == []


def test_a_pending_reload_that_somebody_else_does_at_this_moment_is_not_done_twice(host: Path) -> None:
    def reloaded_meanwhile() -> Completed:
        machine.starts = NOW
        return FINE

    machine = Machine({STATUS: [reloaded_meanwhile]}, started=NOW - 200)
    result, record = reloaded(machine, control=WATCHING, wanted=OnChange.NOTHING, record=DUE, root=host)
    assert (result.needed, result.pending) == (False, False)
    assert record == Record(last=DUE.last)
    assert machine.asked == [STATUS]


def test_a_pending_reload_of_what_does_not_run_any_more_is_forgotten(host: Path) -> None:
    machine = Machine({}, started=None)
    result, record = reloaded(machine, control=ALONE, wanted=OnChange.NOTHING, record=DUE, root=host)
    assert (result, record) == (Reload(needed=False), Record(last=5.0))


@pytest.mark.parametrize("started", [NOW - 200, NOW - 99.95])
def test_a_pending_reload_that_nobody_has_done_is_done(host: Path, started: float) -> None:
    machine = Machine({}, started=started)
    result, record = reloaded(machine, control=ALONE, wanted=OnChange.NOTHING, record=DUE, root=host)
    assert (result.done, record) == (True, Record(last=NOW))


def test_a_pending_reload_keeps_its_time_until_something_new_is_wanted(host: Path) -> None:
    failing: Mapping[tuple[str, ...], Sequence[Answer]] = {RELOAD: [Completed(code=1, output="")]}
    _, kept = reloaded(
        Machine(failing, started=NOW - 200), control=ALONE, wanted=OnChange.NOTHING, record=DUE, root=host
    )
    assert kept == Record(last=NOW, pending=True, since=NOW - 100, failures=1)
    _, kept = reloaded(
        Machine(failing, started=NOW - 200), control=ALONE, wanted=OnChange.RELOAD, record=DUE, root=host
    )
    assert kept == Record(last=NOW, pending=True, since=NOW, failures=1)


def test_what_is_not_pending_is_not_due(host: Path) -> None:
    with closing(Root(os.fspath(host))) as reader:
        machine = Host(root=reader, run=Machine({}, started=NOW - 200), cache=Store(None))
        assert not still_due(machine, instance(control=ALONE), Record(last=5.0))
        assert still_due(machine, instance(control=ALONE), DUE)


def test_what_reloads_come_to_is_waited_for_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("chrootsync.reload.time", SimpleNamespace(sleep=lambda _: told.append("waited")))

    def steps(name: str, waits: int) -> Steps[str]:
        told.append(f"{name} reloaded")
        for _ in range(waits):
            yield
        told.append(f"{name} is steady")
        return name

    assert together([steps("in", 2), steps("out", 1), steps("off", 0)]) == ["in", "out", "off"]
    assert told == [
        "in reloaded",
        "out reloaded",
        "off reloaded",
        "off is steady",
        "waited",
        "out is steady",
        "waited",
        "in is steady",
    ]
    assert together([]) == []
