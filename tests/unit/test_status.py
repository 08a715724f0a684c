"""How instances are: who runs, what waits in their queues, what is retried; and ``status`` as one types it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install
import pytest

from chrootsync import report as reports
from chrootsync.model import (
    Completed,
    Control,
    Finding,
    Host,
    Instance,
    InstanceReport,
    Outcome,
    Probe,
    Reload,
    Retry,
    Status,
    UnreadableError,
)
from chrootsync.model.queues import InstanceStatus, LastRepair, Master, Queues
from chrootsync.pipeline.retries import retry
from chrootsync.pipeline.status import QUEUE_TIMEOUT, ask, look, master
from chrootsync.report import status as words
from chrootsync.root import Root
from chrootsync.state import Store
from chrootsync.state.database import open_database
from tests.unit.report.report_samples import lost_library, stale_resolver
from tests.unit.scenery import snapshot
from tests.unit.test_cli import check, filled, image, plain_environment, rules, stale
from tests.unit.test_cli_history import on, state, update

__all__ = ["filled", "image", "plain_environment"]  # fixtures

QUEUE = ("/usr/sbin/postqueue", "-c", "/etc/postfix", "-j")
AGAIN = ("/usr/sbin/postqueue", "-c", "/etc/postfix", "-i")
PID_FILE = "/var/spool/postfix/pid/master.pid"
CONTROL = Control(queue=QUEUE, retry=AGAIN, pid_file=PID_FILE, master="master")
POSTFIX = Instance(
    name="postfix-out", service="postfix", provider="postfix", chroot="/var/spool/postfix", found="", control=CONTROL
)
DEFERRED = (
    b'{"queue_name": "deferred", "queue_id": "%s", "arrival_time": 5, "recipients": '
    b'[{"address": "a@b.test", "delay_reason": "unable to look up host b.test: Temporary failure"}]}'
)
REFUSED = DEFERRED.replace(b"unable to look up host b.test: Temporary failure", b"connect to b: Connection refused")
PROGRAM = "import sys; sys.argv[0] = 'chrootsync'; from chrootsync.__main__ import main; main()"
DOWN = "postqueue: fatal: Queue report unavailable - mail system is down (Connection refused)"


class Talker:
    """Prints the lines that it was given; implements Listen."""

    def __init__(self, *lines: bytes, done: Completed | UnreadableError | None = None) -> None:
        self.lines = lines
        self.done = done or Completed(code=0, output="")
        self.asked: list[tuple[tuple[str, ...], float]] = []

    def __call__(self, command: Sequence[str], hear: Callable[[bytes], None], *, timeout: float) -> Completed:
        self.asked.append((tuple(command), timeout))
        for line in self.lines:
            hear(line)
        if isinstance(self.done, UnreadableError):
            raise self.done
        return self.done


class Machine:
    """A Runner that notes what it is asked, and fails at the command that it was told."""

    def __init__(self, fails: Mapping[str, Completed | UnreadableError] | None = None) -> None:
        self.fails = fails or {}
        self.asked: list[tuple[str, ...]] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert 0 < timeout < 60
        self.asked.append(tuple(command))
        answer = self.fails.get(command[-1], Completed(code=0, output=""))
        if isinstance(answer, UnreadableError):
            raise answer
        return answer

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError((pid, child))


@contextmanager
def host(root: Path, machine: Machine | None = None) -> Iterator[Host]:
    with closing(Root(os.fspath(root))) as reader:
        yield Host(root=reader, run=machine, cache=Store(None))


def pid_file(root: Path, text: str) -> Path:
    path = root / PID_FILE.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@contextmanager
def process_called(name: str) -> Iterator[int]:
    """A process that calls itself so, as prctl(2) PR_SET_NAME lets it."""
    script = f"import ctypes, sys; ctypes.CDLL(None).prctl(15, b'{name}'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        yield one.pid
        one.kill()


def report(*findings: Finding, instance: Instance = POSTFIX, **changes: object) -> InstanceReport:
    made = InstanceReport(instance=instance, entries=1, findings=findings)
    return replace(made, **changes)  # type: ignore[arg-type]  # replace() checks at run time


# --- Whether it runs ----------------------------------------------------------------------------------------------


def test_a_master_that_lives_runs(tmp_path: Path) -> None:
    before = time.time()
    with process_called("master") as pid, host(tmp_path, Machine()) as live:
        pid_file(tmp_path, f"            {pid}\n")
        seen = master(live, POSTFIX)
    assert seen is not None
    assert (seen.running, seen.pid) == (True, pid)
    assert seen.began is not None
    assert before - 2 <= seen.began <= time.time() + 2


def test_another_process_of_that_number_is_no_master(tmp_path: Path) -> None:
    with process_called("manager") as pid, host(tmp_path, Machine()) as live:
        pid_file(tmp_path, str(pid))
        assert master(live, POSTFIX) == Master(running=False)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "4194305", "1 2", "9" * 60, "²", "1\n2"])
def test_a_file_with_no_number_of_a_master_means_that_none_runs(tmp_path: Path, text: str) -> None:
    pid_file(tmp_path, text)
    with host(tmp_path, Machine()) as live:
        assert master(live, POSTFIX) == Master(running=False)


def test_without_the_file_none_runs(tmp_path: Path) -> None:
    with host(tmp_path, Machine()) as live:
        assert master(live, POSTFIX) == Master(running=False)


def test_who_may_not_read_the_file_cannot_tell(tmp_path: Path) -> None:
    pid_file(tmp_path, "1" * 100)  # larger than such a file may be: refused as an unreadable one is
    with host(tmp_path, Machine()) as live:
        assert master(live, POSTFIX) == Master()


@pytest.mark.parametrize("control", [Control(), Control(pid_file=PID_FILE), Control(master="master")])
def test_where_nothing_tells_nobody_says_that_it_runs(tmp_path: Path, control: Control) -> None:
    with host(tmp_path, Machine()) as live:
        assert master(live, replace(POSTFIX, control=control)) is None


# --- What waits ---------------------------------------------------------------------------------------------------


def test_queues_are_asked_for_by_the_command_of_the_instance() -> None:
    talker = Talker(DEFERRED % b"A1B2C3", REFUSED % b"A1B2C4")
    found = ask(POSTFIX, talker)
    assert found is not None
    assert (found.counts["deferred"], found.name_errors, found.retries) == (2, 1, ("A1B2C3",))
    assert talker.asked == [(QUEUE, QUEUE_TIMEOUT)]


@pytest.mark.parametrize(
    ("done", "problem"),
    [
        (Completed(code=69, output=f"postqueue: warning: x\n{DOWN}\n"), DOWN),
        (Completed(code=1, output=""), "/usr/sbin/postqueue ended with status 1"),
        (Completed(code=-9, output="\n"), "/usr/sbin/postqueue ended with status -9"),
        (Completed(code=None, output="so far"), "/usr/sbin/postqueue did not end within 60 seconds"),
        (UnreadableError(QUEUE[0], "cannot be started: x"), "/usr/sbin/postqueue: cannot be started: x"),
    ],
)
def test_why_queues_cannot_be_told(done: Completed | UnreadableError, problem: str) -> None:
    found = ask(POSTFIX, Talker(done=done))
    assert found == Queues(problem=problem, down=problem == DOWN)


def test_who_has_no_queues_is_not_asked() -> None:
    talker = Talker()
    assert ask(replace(POSTFIX, provider="static"), talker) is None
    assert ask(replace(POSTFIX, control=Control()), talker) is None
    assert talker.asked == []


# --- How it is, all in all ----------------------------------------------------------------------------------------


def looked(root: Path, talker: Talker, *, before: Mapping[str, InstanceStatus] | None = None) -> InstanceStatus:
    repairs = {
        "postfix-out": LastRepair(id=3, began=1.0, trigger="apt"),
        "other": LastRepair(id=4, began=2.0, trigger=""),
    }
    with host(root, Machine()) as live:
        [found] = look(live, [report()], repairs, talker, before or {})
    return found


def test_all_that_is_known_comes_together(tmp_path: Path) -> None:
    with process_called("master") as pid:
        pid_file(tmp_path, str(pid))
        found = looked(tmp_path, Talker(DEFERRED % b"A1B2C3"))
    assert (found.role, found.repair) == ("output", LastRepair(id=3, began=1.0, trigger="apt"))
    assert found.master is not None
    assert found.master.running is True
    assert found.queues is not None
    assert found.queues.name_errors == 1


@pytest.mark.parametrize(
    ("done", "running"), [(Completed(code=0, output=""), True), (Completed(code=69, output=DOWN), False)]
)
def test_where_the_file_is_not_for_us_the_answer_tells(tmp_path: Path, done: Completed, running: bool) -> None:
    pid_file(tmp_path, "1" * 100)
    assert looked(tmp_path, Talker(done=done)).master == Master(running=running)


def test_where_neither_tells_nobody_knows(tmp_path: Path) -> None:
    pid_file(tmp_path, "1" * 100)
    assert looked(tmp_path, Talker(done=Completed(code=1, output="bad main.cf"))).master == Master()


def test_what_is_down_is_asked_once_because_postfix_logs_that(tmp_path: Path) -> None:
    talker = Talker(DEFERRED % b"A1B2C3")
    first = looked(tmp_path, talker)
    second = looked(tmp_path, talker, before={"postfix-out": first})
    assert first.master == second.master == Master(running=False)
    assert first.queues == second.queues
    assert len(talker.asked) == 1
    with process_called("master") as pid:
        pid_file(tmp_path, str(pid))
        looked(tmp_path, talker, before={"postfix-out": second})
    assert len(talker.asked) == 2


def test_in_an_image_nothing_is_asked_for(tmp_path: Path) -> None:
    talker = Talker()
    with host(tmp_path) as offline:
        [found] = look(offline, [report()], {}, talker, {})
    assert (found.master, found.queues, talker.asked) == (None, None, [])


def test_what_cannot_be_served_is_asked_for_nothing(tmp_path: Path) -> None:
    talker = Talker()
    with host(tmp_path, Machine()) as live:
        [found] = look(live, [report(instance=replace(POSTFIX, problem="broken"))], {}, talker, {})
    assert (found.role, found.master, found.queues, talker.asked) == ("", None, None, [])


# --- Retries ------------------------------------------------------------------------------------------------------

REPAIRED = stale_resolver(outcome=Outcome(status=Status.REPAIRED))
FAILED = lost_library(outcome=Outcome(status=Status.FAILED, reason="disk full"))
SKIPPED = lost_library(outcome=Outcome(status=Status.SKIPPED, reason="left there"))
DONE = Reload(needed=True, done=True)
WAITING = [DEFERRED % b"A1B2C3", REFUSED % b"A1B2C4", DEFERRED % b"A1B2C5"]


def retried(root: Path, whole: InstanceReport, machine: Machine | None, talker: Talker | None = None) -> Retry | None:
    with process_called("master") as pid, host(root, machine) as live:
        pid_file(root, str(pid))
        [found] = retry(live, [whole], talker or Talker(*WAITING))
    assert replace(found, retry=None) == whole
    return found.retry


@pytest.mark.parametrize(
    "whole",
    [
        report(REPAIRED, reload=DONE),
        report(REPAIRED),
        report(REPAIRED, SKIPPED, reload=DONE),
        report(reload=DONE),
        report(REPAIRED, reload=DONE, probe=Probe()),
    ],
    ids=["repaired and reloaded", "no reload needed", "something left", "an earlier repair's reload", "probed"],
)
def test_after_a_repair_what_name_errors_deferred_is_retried_and_nothing_else(
    tmp_path: Path, whole: InstanceReport
) -> None:
    machine = Machine()
    assert retried(tmp_path, whole, machine) == Retry(tried=2)
    assert machine.asked == [(*AGAIN, "A1B2C3"), (*AGAIN, "A1B2C5")]


@pytest.mark.parametrize(
    "whole",
    [
        report(),
        report(stale_resolver()),
        report(FAILED, reload=DONE),
        report(REPAIRED, FAILED, reload=DONE),
        report(REPAIRED, reload=Reload(needed=True, pending=True, error="too soon")),
        report(REPAIRED, reload=Reload(needed=True, error="it failed")),
        report(REPAIRED, reload=Reload(needed=True)),
        report(REPAIRED, reload=DONE, probe=Probe(lost=("getaddrinfo localhost",))),
        report(REPAIRED, reload=DONE, instance=replace(POSTFIX, provider="static", control=Control())),
    ],
    ids=[
        "in sync",
        "drift",
        "failed",
        "partly",
        "pending",
        "reload failed",
        "--no-reload",
        "lookups lost",
        "no queues",
    ],
)
def test_without_a_repair_that_daemons_know_of_nothing_is_retried(tmp_path: Path, whole: InstanceReport) -> None:
    machine = Machine()
    assert retried(tmp_path, whole, machine) is None
    assert machine.asked == []


def test_what_does_not_run_retries_when_it_starts(tmp_path: Path) -> None:
    talker = Talker(*WAITING)
    with host(tmp_path, Machine()) as live:
        [found] = retry(live, [report(REPAIRED)], talker)
    assert (found.retry, talker.asked) == (None, [])


def test_in_an_image_nothing_is_retried(tmp_path: Path) -> None:
    assert retried(tmp_path, report(REPAIRED), None) is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Completed(code=75, output="x"), "/usr/sbin/postqueue -c /etc/postfix -i A1B2C5 ended with status 75"),
        (
            Completed(code=None, output=""),
            "/usr/sbin/postqueue -c /etc/postfix -i A1B2C5 did not end within 10 seconds",
        ),
        (UnreadableError(AGAIN[0], "cannot be started: x"), "/usr/sbin/postqueue: cannot be started: x"),
    ],
)
def test_a_retry_that_fails_is_the_last_one(tmp_path: Path, answer: Completed | UnreadableError, error: str) -> None:
    machine = Machine({"A1B2C5": answer})
    talker = Talker(*WAITING, DEFERRED % b"A1B2C6")
    assert retried(tmp_path, report(REPAIRED), machine, talker) == Retry(tried=1, left=2, error=error)


def test_no_more_than_a_thousand_are_retried(tmp_path: Path) -> None:
    machine = Machine()
    talker = Talker(*(DEFERRED % (b"%06X" % number) for number in range(1200)))
    assert retried(tmp_path, report(REPAIRED), machine, talker) == Retry(tried=1000, left=200)
    assert len(machine.asked) == 1000


def test_where_queues_cannot_be_read_the_retry_says_why(tmp_path: Path) -> None:
    talker = Talker(done=Completed(code=69, output=DOWN))
    assert retried(tmp_path, report(REPAIRED), Machine(), talker) == Retry(error=DOWN)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Retry(tried=1), "postfix-out: 1 message deferred by name errors retried"),
        (Retry(tried=3, left=2), "postfix-out: 3 messages deferred by name errors retried, 2 left to their own time"),
        (Retry(error="it is \x1b down"), "postfix-out: 0 messages deferred by name errors retried: it is \\x1b down"),
    ],
)
def test_every_report_for_people_tells_of_retries(found: Retry, said: str) -> None:
    from tests.unit.report.report_samples import report as whole

    made = whole(report(REPAIRED, reload=DONE, retry=found), fixed=True)
    for name in ("plain", "table"):
        assert said in reports.render(name, made, reports.Options(width=200)).splitlines()


# --- What is remembered -------------------------------------------------------------------------------------------


def test_the_last_repair_of_each_instance_is_remembered(filled: Path) -> None:
    assert on(filled, "check", "--fix").exit_code == 0
    update(filled, b"nameserver 192.0.2.7\n")
    stale(filled)
    assert on(filled, "check", "--fix", "--trigger", "apt").exit_code == 0
    with closing(open_database(str(state(filled)), str(filled), write=False, now=time.time(), quota=0)) as memory:
        found = memory.last_repairs()
    assert {name: (one.id, one.trigger, one.rollback) for name, one in found.items()} == {
        "postfix": (1, "manual", False),
        "postfix-out": (2, "apt", False),
    }
    assert on(filled, "rollback", "2").exit_code == 0
    with closing(open_database(str(state(filled)), str(filled), write=False, now=time.time(), quota=0)) as memory:
        last = memory.last_repairs()["postfix-out"]
    assert (last.id, last.rollback) == (3, True)


def test_a_repair_that_failed_changed_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(filled, b"nameserver 192.0.2.7\n")

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    (filled / "etc/resolv.conf").write_bytes(b"nameserver 192.0.2.8\n")
    monkeypatch.setattr(os, "fsync", full)
    assert on(filled, "check", "--fix").exit_code == 3
    monkeypatch.undo()
    with closing(open_database(str(state(filled)), str(filled), write=False, now=time.time(), quota=0)) as memory:
        assert {one.id for one in memory.last_repairs().values()} == {1}


# --- The command line ---------------------------------------------------------------------------------------------


def test_an_image_that_is_in_sync(filled: Path) -> None:
    made = on(filled, "status")
    assert (made.exit_code, made.stderr) == (0, "")
    first, second, total = made.stdout.splitlines()
    assert first == "postfix: output; in sync; no repair; chroot /var/spool/postfix"
    assert second == "postfix-out: output; in sync; no repair; chroot /var/spool/postfix-out"
    assert total.endswith(": in sync")


def test_drift_gives_the_exit_status_of_a_check(filled: Path) -> None:
    stale(filled)
    made = on(filled, "status")
    assert made.exit_code == check(filled).exit_code == 1
    assert "postfix-out: output; 1 differs; no repair" in made.stdout
    assert on(filled, "status", "postfix").exit_code == 0


def test_nothing_is_changed_by_looking(filled: Path) -> None:
    before = snapshot(filled)
    assert on(filled, "status").exit_code == 0
    assert snapshot(filled) == before
    assert not (state(filled) / "state.db").exists()


def test_json_is_as_its_schema_says(filled: Path) -> None:
    update(filled, b"nameserver 192.0.2.7\n")
    made = json.loads(on(filled, "status", "out", "--format", "json").stdout)
    schema = json.loads(Path(words.__file__).with_name("status.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(made)
    [one] = made["instances"]
    assert (one["name"], one["role"], one["status"], one["running"]) == ("postfix-out", "output", "in-sync", None)
    assert (one["last_repair"]["id"], one["last_repair"]["trigger"]) == (1, "manual")


def test_a_table_is_drawn_where_it_is_asked_for(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made = on(filled, "status", "--format", "table").stdout.splitlines()
    assert made[0].split() == ["INSTANCE", "ROLE", "UP", "STATE", "LAST", "REPAIR"]
    assert made[2].split() == ["postfix", "output", "in", "sync", "none"]


def test_state_that_cannot_be_used_is_told_and_no_repair_is_made_up(filled: Path) -> None:
    update(filled, b"nameserver 192.0.2.7\n")
    (state(filled) / "state.db").write_bytes(b"SQLite format 3\0garbage" * 100)
    made = on(filled, "status")
    assert "postfix: output; in sync; last repair unknown; " in made.stdout
    assert "note: " in made.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "html"], "--format html: there is no such format; there is: table, plain, json"),
        (["--interval", "3"], "--interval: goes with --watch alone; add --watch, or leave it out"),
        (["--watch", "--interval", "0.1"], "--interval 0.1: must be a number of seconds from 0.5 on"),
        (["--watch", "--interval", "nan"], "--interval nan: must be a number of seconds from 0.5 on"),
        (["--watch", "--format", "json"], "--watch: shows the table alone; leave out --format json"),
        (
            ["--watch"],
            "--watch: standard output is not a terminal; run status without it as often as you need it",
        ),
        (["nowhere"], "there is no instance 'nowhere' here; there is: postfix, postfix-out"),
    ],
)
def test_wrong_usage_is_told(filled: Path, arguments: list[str], message: str) -> None:
    made = on(filled, "status", *arguments)
    assert (made.exit_code, made.stdout) == (2, "") if "json" not in arguments else made.exit_code == 2
    assert made.stderr == f"chrootsync: {message}\n"


@pytest.mark.parametrize("option", [["--flush"], ["--force"], ["--no-reload"], ["--wait", "3"]])
def test_what_a_repair_alone_has_a_use_for_goes_with_fix(filled: Path, option: list[str]) -> None:
    made = check(filled, *option)
    assert (made.exit_code, made.stdout) == (2, "")
    assert made.stderr == f"chrootsync: {option[0]}: goes with --fix alone; add --fix, or leave it out\n"
    assert check(filled, "--fix", *option).exit_code == 0


def test_no_dns_goes_with_lookups(filled: Path) -> None:
    made = check(filled, "--no-dns")
    assert (made.exit_code, made.stdout) == (2, "")
    assert made.stderr == "chrootsync: --no-dns: goes with --probe or --fix; add one of them, or leave it out\n"
    assert check(filled, "--fix", "--no-dns").exit_code == 0


def test_all_such_mistakes_are_told_at_once(filled: Path) -> None:
    made = check(filled, "--flush", "--force", "--no-reload", "--wait", "1")
    assert [line.split()[1] for line in made.stderr.splitlines()] == ["--no-reload:", "--flush:", "--force:", "--wait:"]


# --- Live ---------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal with a program on it; ``seen`` is all that it has printed."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, term: str = "xterm") -> None:
        self._own, other = os.openpty()
        self.resize(columns, rows)
        self.seen = ""
        command = [sys.executable, "-c", PROGRAM, *arguments]
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TERM": term}
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
        os.close(other)
        os.set_blocking(self._own, False)

    def resize(self, columns: int, rows: int = 24) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> bool:
        """Take what there is, a few KiB at the most; whether there was anything."""
        try:
            self.seen += os.read(self._own, 1 << 16).decode(errors="replace")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EIO):  # nothing yet; nobody has the other side any more
                raise
            time.sleep(0.01)
            return False
        return True

    def wait_for(self, text: str, *, times: int = 1) -> None:
        deadline = time.monotonic() + 30
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline, self.seen
            self._read()

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; the exit status, and what was printed from then on."""
        begin = len(self.seen)
        self.process.send_signal(number)
        deadline = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._read()
        while self._read():
            assert time.monotonic() < deadline, self.seen
        return self.process.returncode, self.seen[begin:]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)


@contextmanager
def watching(root: Path, **changes: int | str) -> Iterator[Terminal]:
    arguments = ["status", "--watch", "--interval", "0.5", "--root", str(root), "--rules", rules(root)]
    terminal = Terminal(*arguments, **changes)  # type: ignore[arg-type]  # checked at run time
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_it_is_shown_again_and_again_until_it_is_ended(filled: Path, number: int) -> None:
    with watching(filled) as terminal:
        terminal.wait_for("every 0.5 s", times=2)
        assert "1 differs" not in terminal.seen
        stale(filled)
        terminal.wait_for("1 differs")
        code, last = terminal.end(number)
    assert code == 130
    assert "\x1b[?1049h" in terminal.seen  # it had a screen of its own
    _, restored, left = last.rpartition("\x1b[?1049l")
    assert restored, "the screen that was there before is not back"
    assert "\x1b[?25h" in last
    assert "1 differs" in left
    assert "every 0.5 s" not in left


def test_live_a_terminal_that_changes_its_size_is_drawn_anew(filled: Path) -> None:
    with watching(filled) as terminal:
        terminal.wait_for("LAST REPAIR")
        assert "chrootsync status, every 0.5 s, 20" in terminal.seen
        assert "; ^C ends it" in terminal.seen
        assert "ACT " not in terminal.seen
        terminal.resize(120)
        terminal.wait_for("DEFER")
        terminal.resize(80, 4)
        terminal.wait_for("lines more; make the terminal higher")
        assert re.search(r"and [0-9]+ lines more; make the terminal higher", terminal.seen)
        assert terminal.end(signal.SIGINT)[0] == 130


def test_live_a_file_that_is_being_edited_does_not_end_it(filled: Path) -> None:
    main_cf = filled / "etc/postfix/main.cf"
    with watching(filled) as terminal:
        terminal.wait_for("in sync")
        os_release = main_cf.with_name("main.cf.kept")
        main_cf.rename(os_release)
        main_cf.write_text("= broken\n")
        terminal.wait_for("cannot be served")
        os_release.rename(main_cf)
        terminal.wait_for("in sync", times=terminal.seen.count("in sync") + 1)
        assert terminal.end(signal.SIGINT)[0] == 130


def test_live_rules_that_break_meanwhile_leave_the_last_look(filled: Path) -> None:
    with watching(filled) as terminal:
        terminal.wait_for("in sync")
        broken = Path(rules(filled)) / "broken.toml"
        broken.write_text("= nonsense")
        broken.chmod(0o644)
        terminal.wait_for("this is how it was before")
        broken.unlink()
        assert terminal.end(signal.SIGINT)[0] == 130


def test_live_needs_a_terminal_that_can_be_drawn_on(filled: Path) -> None:
    with watching(filled, term="dumb") as terminal:
        terminal.wait_for("--watch: nothing can be drawn on this terminal (TERM); run status without it")
        assert terminal.process.wait(30) == 2


def test_live_a_first_look_that_fails_is_told_as_ever(filled: Path) -> None:
    arguments = ["status", "--watch", "--root", str(filled), "--config", "/none/such"]
    terminal = Terminal(*arguments)
    try:
        terminal.wait_for("--config /none/such: does not exist")
        assert terminal.process.wait(30) == 2
        assert "\x1b[?1049h" not in terminal.seen
    finally:
        terminal.close()
