"""Commands of the live host, run for real: whatever they do, they end, and what they said is known."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from chrootsync import process
from chrootsync.model import Completed, UnreadableError
from chrootsync.process import LiveRunner
from tests.unit.machine import descriptors, descriptors_left, promptly

SHELL = "/bin/sh"
LONG = 60.0
SHORT = 1.0  # seconds, in which even a busy machine starts a shell


def run(script: str, *, timeout: float = LONG) -> Completed:
    return LiveRunner().run((SHELL, "-c", script), timeout=timeout)


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def wait_for(path: Path) -> int:
    """The number of a process that writes it to a file as soon as it is ready."""
    deadline = time.monotonic() + LONG
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def gone(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return True
        if state in (b"Z", b"X"):
            return True
        time.sleep(0.01)
    return False


# --- What a command gets, and what it gives ---------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", -9), ("kill $$", -15)])
def test_the_exit_status_is_told(script: str, code: int) -> None:
    assert run(script) == Completed(code=code, output="")


def test_both_streams_are_kept_in_their_order() -> None:
    assert run("echo one; echo two >&2; echo three").output == "one\ntwo\nthree\n"


def test_undecodable_output_is_escaped() -> None:
    assert run(r"printf 'a\377b\n'").output == "a\\xffb\n"


def test_the_environment_is_minimal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SECRET", "x")
    done = LiveRunner().run(("/usr/bin/env",), timeout=LONG)
    assert sorted(done.output.splitlines()) == ["LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def test_it_runs_from_the_root_without_input_in_a_session_of_its_own() -> None:
    script = f"""
        pwd
        cat
        {sys.executable} -I -c 'import os; print(os.getsid(0) == os.getppid())'
    """
    assert run(script).output == "/\nTrue\n"


def test_no_other_descriptor_is_passed_on() -> None:
    fd = os.open("/", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        assert run("ls /proc/$$/fd").output.split()[:3] == ["0", "1", "2"]
        assert str(fd) not in run("ls /proc/$$/fd").output.split() or fd < 3
    finally:
        os.close(fd)


def test_arguments_are_no_shell_text() -> None:
    odd = "$(id) ; `id` * \n\udcff"
    assert LiveRunner().run(("/bin/echo", odd), timeout=LONG).output == "$(id) ; `id` * \n\\xff\n"


# --- What cannot be started ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((), "(no command): must be an absolute path to a program"),
        (("",), ": must be an absolute path to a program"),
        (("true",), "true: must be an absolute path to a program"),
        (("./true",), "./true: must be an absolute path to a program"),
        (("/none/such",), "/none/such: cannot be started: no such file or directory"),
        (("/etc/passwd",), "/etc/passwd: cannot be started: permission denied"),
        (("/",), "/: cannot be started: permission denied"),
        (("/bin/echo", "a\0b"), "/bin/echo: cannot be started: embedded null byte"),
        (("/bin/echo", "x" * (1 << 22)), "/bin/echo: cannot be started: argument list too long"),
    ],
)
def test_what_cannot_be_started_says_why(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        LiveRunner().run(command, timeout=LONG)
    assert str(caught.value) == message


def test_what_is_no_program_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o755)
    with pytest.raises(UnreadableError, match=r": cannot be started: exec format error$"):
        LiveRunner().run((os.fspath(tmp_path / "broken"),), timeout=LONG)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_running_out_of_descriptors_is_said(left: int) -> None:
    with descriptors_left(left), pytest.raises(UnreadableError) as caught:
        run("true")
    assert str(caught.value) == "/bin/sh: cannot be started: too many open files"


# --- Time ---------------------------------------------------------------------------------------------------------


def test_what_was_said_before_the_time_was_over_is_kept() -> None:
    with promptly(30):
        assert run("echo so far; exec sleep 60", timeout=SHORT) == Completed(code=None, output="so far\n")


@pytest.mark.parametrize("how", ["sleep 60", "trap '' TERM; while :; do sleep 60; done"], ids=["plain", "stubborn"])
def test_past_its_time_the_whole_group_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    child, leader = tmp_path / "child", tmp_path / "leader"
    script = f"({how}) & echo $! >{child}; echo $$ >{leader}; {how}"
    with promptly(30):
        assert run(script, timeout=SHORT).code is None
    assert gone(wait_for(leader))
    assert gone(wait_for(child))


def test_a_stubborn_child_of_a_willing_command_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.2)
    child = tmp_path / "child"
    script = f"(trap '' TERM; echo ready >{child}.up; while :; do sleep 60; done) & echo $! >{child}; exec sleep 60"
    with promptly(30):
        assert run(script, timeout=SHORT).code is None
    assert gone(wait_for(child))


def test_a_command_may_clean_up_when_it_is_told_to_end() -> None:
    script = "trap 'echo cleaned up; exit 0' TERM; while :; do sleep 0.05; done"
    with promptly(30):
        done = run(script, timeout=SHORT)
    assert done.code is None
    assert done.output.endswith("cleaned up\n")  # a shell may tell first that its child was ended


def test_an_interrupt_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> int | None:
        wait_for(tmp_path / "pid")
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "_wait", interrupt)
    with promptly(30), pytest.raises(KeyboardInterrupt):
        run(f"echo $$ >{tmp_path}/pid; exec sleep 60")
    assert gone(wait_for(tmp_path / "pid"))


# --- Daemons that stay, and output without end -------------------------------------------------------------------


def test_a_daemon_that_stays_and_holds_the_output_keeps_nobody(tmp_path: Path) -> None:
    script = f"echo started; (trap '' HUP; echo $$ >{tmp_path}/ready; exec sleep 60) & echo $! >{tmp_path}/pid; exit 0"
    with promptly(30):
        assert run(script) == Completed(code=0, output="started\n")
    pid = wait_for(tmp_path / "pid")
    assert not Path(f"/proc/{pid}/status").read_text().startswith("State:\tZ")
    os.kill(pid, 0)  # it was left alone
    os.kill(pid, signal.SIGKILL)


def test_a_daemon_that_goes_on_talking_is_not_killed_by_that(tmp_path: Path) -> None:
    script = f"(while [ ! -e {tmp_path}/stop ]; do echo talk; sleep 0.01; done; echo $? >{tmp_path}/code) & exit 0"
    with promptly(30):
        assert run(script).code == 0
        (tmp_path / "stop").touch()
        assert wait_for(tmp_path / "code") == 0


def test_long_output_is_cut() -> None:
    done = run(f"head -c {process.OUTPUT_LIMIT + 100} /dev/zero | tr '\\0' x")
    assert done == Completed(code=0, output="x" * process.OUTPUT_LIMIT)


def test_endless_output_is_thrown_away_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.ftruncate

    def trim(fd: int, size: int) -> None:
        sizes.append(size)
        real(fd, size)
        assert os.fstat(fd).st_blocks * 512 <= 64 * process.OUTPUT_LIMIT

    monkeypatch.setattr(process, "TRIM", 0.02)
    monkeypatch.setattr(os, "ftruncate", trim)
    with promptly(30):
        done = run("while :; do head -c 2000000 /dev/zero | tr '\\0' x; sleep 0.01; done", timeout=SHORT)
    assert done.code is None
    assert done.output == "x" * process.OUTPUT_LIMIT
    assert set(sizes) == {process.OUTPUT_LIMIT}


# --- Lines as they come -------------------------------------------------------------------------------------------


def stream(script: str, *, timeout: float = LONG) -> tuple[list[bytes], Completed]:
    heard: list[bytes] = []
    return heard, process.stream((SHELL, "-c", script), heard.append, timeout=timeout)


def test_each_line_is_told_as_it_comes(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def hear(line: bytes) -> None:
        heard.append(line)
        (tmp_path / "go").touch()  # the command waits for that before it says more

    script = f"echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo second; printf third; exit 5"
    with promptly(30):
        done = process.stream((SHELL, "-c", script), hear, timeout=LONG)
    assert heard == [b"first", b"second", b"third"]
    assert done == Completed(code=5, output="")


def test_empty_lines_are_left_out() -> None:
    assert stream(r"printf '\n\na\n\nb\n'")[0] == [b"a", b"b"]


def test_errors_are_kept_apart_and_cut() -> None:
    heard, done = stream("echo out; echo error >&2")
    assert (heard, done) == ([b"out"], Completed(code=0, output="error\n"))
    _, done = stream("head -c 100000 /dev/zero | tr '\\0' e >&2")
    assert done.output == "e" * process.ERROR_LIMIT


def test_of_a_line_without_end_only_the_beginning_is_told() -> None:
    script = f"printf a; head -c {3 * process.LINE_LIMIT} /dev/zero | tr '\\0' x; echo; echo next"
    heard, _ = stream(script)
    assert [line[:4] for line in heard] == [b"axxx", b"next"]
    assert [len(line) for line in heard] == [process.LINE_LIMIT, 4]


def test_any_number_of_lines_costs_no_memory() -> None:
    lengths = 0

    def hear(line: bytes) -> None:
        nonlocal lengths
        lengths += len(line)

    line = "x" * 1000
    tracemalloc.start()
    try:
        process.stream((SHELL, "-c", f"yes {line} | head -n 20000"), hear, timeout=LONG)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == 20_000_000
    assert peak < 2 << 20


def test_each_line_has_its_answer_from_the_same_process() -> None:
    script = "while read line; do echo $$ $line; echo unheard >&2; done"
    with contextlib.closing(process.answering((SHELL, "-c", script))) as asked:
        said = []
        for line in (b"one", b"two \xff"):
            asked.give(line, timeout=LONG)
            said.append(asked.answer(timeout=LONG))

    first, second = (done.output.split(" ", 1) for done in said)
    assert [done.code for done in said] == [0, 0]
    assert (first[0], first[1], second[1]) == (second[0], "one\n", "two \\xff\n")


def test_a_line_longer_than_a_pipe_is_given_as_a_whole() -> None:
    with contextlib.closing(process.answering((SHELL, "-c", "sleep 0.2; read line; echo ${#line}"))) as asked:
        asked.give(b"x" * 300_000, timeout=LONG)
        assert asked.answer(timeout=LONG).output == "300000\n"


@pytest.mark.parametrize("line", [b"given", b"x" * 300_000])
def test_who_ends_without_an_answer_tells_how(line: bytes) -> None:
    with contextlib.closing(process.answering((SHELL, "-c", "exec <&-; exit 3"))) as asked:
        asked.give(line, timeout=LONG)
        assert asked.answer(timeout=LONG) == Completed(code=3, output="")


def test_who_does_not_answer_in_time_is_ended_with_its_group(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; read line; wait"
    with contextlib.closing(process.answering((SHELL, "-c", script))) as asked:
        asked.give(b"said", timeout=LONG)
        assert asked.answer(timeout=SHORT).code is None
        pid = wait_for(tmp_path / "pid")
    assert gone(pid)


def test_who_takes_nothing_and_never_ends_a_line_is_not_waited_for() -> None:
    with promptly(30), contextlib.closing(process.answering((SHELL, "-c", "while :; do printf talk; done"))) as asked:
        asked.give(b"x" * 300_000, timeout=SHORT)
        assert asked.answer(timeout=LONG).code is None


def test_who_is_not_asked_any_more_is_ended(tmp_path: Path) -> None:
    asked = process.answering((SHELL, "-c", f"echo $$ > {tmp_path}/pid; read line"))
    pid = wait_for(tmp_path / "pid")
    asked.close()
    assert gone(pid)


def test_who_cannot_be_started_to_answer_says_why() -> None:
    with pytest.raises(UnreadableError, match=r"^/no/such/program: cannot be started: no such file or directory$"):
        process.answering(("/no/such/program",))


def test_the_end_of_a_command_is_noticed_at_once_or_before_long_where_no_descriptor_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refused)

    assert LiveRunner().run((SHELL, "-c", "sleep 0.1; exit 4"), timeout=LONG).code == 4
    assert LiveRunner().run((SHELL, "-c", "sleep 60"), timeout=SHORT).code is None


@pytest.mark.parametrize("rest", ["exec sleep 60", "while :; do echo talk; done", "exec >&-; exec sleep 60"])
def test_a_stream_past_its_time_is_ended_with_its_group(tmp_path: Path, rest: str) -> None:
    pid = tmp_path / "pid"
    with promptly(30):
        heard, done = stream(f"sleep 60 & echo $! >{pid}; echo begun; {rest}", timeout=SHORT)
    assert heard[0] == b"begun"
    assert done.code is None
    assert gone(wait_for(pid))


def test_who_hears_may_end_it(tmp_path: Path) -> None:
    def hear(_line: bytes) -> None:
        raise KeyboardInterrupt

    with promptly(30), pytest.raises(KeyboardInterrupt):
        process.stream((SHELL, "-c", f"echo $$ >{tmp_path}/pid; echo x; exec sleep 60"), hear, timeout=LONG)
    assert gone(wait_for(tmp_path / "pid"))


@pytest.mark.parametrize("command", [(), ("true",), ("/none/such",), ("/bin/echo", "a\0b")])
def test_a_stream_that_cannot_be_started_says_why(command: tuple[str, ...]) -> None:
    with pytest.raises(UnreadableError, match=r"cannot be started: |must be an absolute path to a program$"):
        process.stream(command, print, timeout=LONG)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_running_out_of_descriptors_before_a_stream_is_said(left: int) -> None:
    with descriptors_left(left), pytest.raises(UnreadableError) as caught:
        stream("true")
    assert str(caught.value) == "/bin/sh: cannot be started: too many open files"


# --- Processes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(script: str) -> Iterator[int]:
    """A program of our own that says when it is ready."""
    with subprocess.Popen([sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        yield one.pid
        one.kill()


# The name of a process is what it calls itself: prctl(2) PR_SET_NAME.
FAMILY = """
import ctypes, os, sys, time
def child(name):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, name)
        os.close(1)
        sys.stdin.read()
        os._exit(0)
child(b"qmgr")
time.sleep(0.05)
child(b"a) b (c)")
time.sleep(0.05)
child(b"name-of-15-bytes-and-more")
time.sleep(0.05)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_start_of_a_process_and_of_its_newest_child_of_a_name() -> None:
    before = time.time()
    with running(FAMILY) as pid:
        after = time.time()
        runner = LiveRunner()
        deadline = time.monotonic() + LONG
        while True:  # the children name themselves when it is their turn
            starts = [
                runner.started(pid, name)
                for name in (None, "qmgr", "a) b (c)", "name-of-15-bytes-and-more", "none of them")
            ]
            # Two clocks are read for each start, so that only a hundredth of a second tells two of them apart.
            if len({round(one or 0.0, 2) for one in starts}) == 4 or time.monotonic() > deadline:
                break
        own, first, second, third, other = starts
        assert None not in starts
        assert own is not None
        assert own == pytest.approx(other, abs=0.01)
        assert sorted([own, first or 0, second or 0, third or 0]) == [own, first, second, third]
        assert len({own, first, second, third}) == 4
        assert before - 2 <= own <= after + 2  # the kernel's boot time is rounded to seconds


def test_a_grandchild_is_no_child() -> None:
    runner = LiveRunner()
    assert runner.started(os.getpid(), "no such child") == pytest.approx(runner.started(os.getpid(), None), abs=0.01)


def test_a_process_that_is_gone_has_no_start() -> None:
    with running("print('ready', flush=True); input()") as pid:
        assert LiveRunner().started(pid, None) is not None
    assert LiveRunner().started(pid, None) is None
    assert LiveRunner().started(1 << 40, "qmgr") is None
