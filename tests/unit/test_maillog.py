"""What an instance's log says since some moment: whose lines count, wherever they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chrootsync import maillog
from chrootsync.model import Completed, Control, Host, Runner, UnreadableError
from chrootsync.root import Root
from chrootsync.state import Store
from tests.unit.scenery import daemon, grow, instance

LOG = "/var/log/mail.log"
CONTROL = Control(logs=("/var/log/absent", LOG), log_names=("postfix-out", "out+x"), master="master")
OUT = instance(control=CONTROL, daemons=(daemon("smtp"), daemon("smtpd"), daemon("qmgr")))
BEFORE = b"Nov 23 08:00:00 host postfix-out/smtp[1]: fatal: long ago\n"


class Journal:
    """A Runner that has a journal, or none."""

    def __init__(self, answer: Completed | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert timeout == maillog.TIMEOUT
        self.asked.append(tuple(command))
        if self.answer is None:
            raise UnreadableError(command[0], "cannot be started: no such file or directory")
        return self.answer

    def started(self, pid: int, child: str | None) -> float | None:
        raise AssertionError(f"not asked: {pid} {child}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    grow(tmp_path, {LOG: BEFORE})
    return tmp_path


def written(root: Path, *lines: str, run: Runner | None = None) -> list[tuple[str, str]] | None:
    """What is read of lines that are written meanwhile."""

    def write(path: Path) -> None:
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    return meanwhile(root, write, run)


def meanwhile(root: Path, do: object, run: Runner | None = None) -> list[tuple[str, str]] | None:
    assert callable(do)
    with closing(Root(os.fspath(root))) as reader:
        log = maillog.begin(Host(root=reader, run=run, cache=Store(None)), OUT)
        with log.files:
            do(root / LOG[1:])
            lines = log.lines()
    return None if lines is None else [(line.who, line.message) for line in lines]


@pytest.mark.parametrize(
    "head", ["Nov 23 08:00:01 host", "Nov  3 08:00:01 host", "2026-11-23T08:00:01.123456+00:00 host"]
)
def test_the_lines_since_are_those_of_the_instances_own_daemons(root: Path, head: str) -> None:
    found = written(
        root,
        f"{head} postfix-out/smtp[12]: fatal: unknown service: smtp/tcp",
        f"{head} postfix-out/submission/smtpd[13]: warning: a b",
        f"{head} out+x/smtpd[14]: connect",
        f"{head} postfix-out/master[15]: reload -- version 3.7",
        f"{head} postfix/smtp[16]: fatal: another instance",
        f"{head} postfix-out2/smtp[16]: fatal: another instance",
        f"{head} postfix-out/sendmail[17]: fatal: a user's mistake",
        f"{head} sshd[18]: Invalid user postfix-out/smtp[19]: fatal: x",
        "fatal: no head at all",
    )
    assert found == [
        ("smtp[12]", "fatal: unknown service: smtp/tcp"),
        ("smtpd[13]", "warning: a b"),
        ("smtpd[14]", "connect"),
        ("master[15]", "reload -- version 3.7"),
    ]


LINE = "Nov 23 08:00:01 host postfix-out/qmgr[2]: new"
NEW = [("qmgr[2]", "new")]


def test_a_log_that_is_rotated_meanwhile_is_read_on(root: Path) -> None:
    def rotate(path: Path) -> None:
        with path.open("a") as file:
            file.write(LINE + "\n")
        path.rename(path.with_suffix(".1"))
        path.write_text(LINE.replace("new", "newer") + "\n")

    assert meanwhile(root, rotate) == [*NEW, ("qmgr[2]", "newer")]


def test_a_log_that_is_emptied_meanwhile_is_read_from_its_start(root: Path) -> None:
    assert meanwhile(root, lambda path: path.write_text(LINE[:59] + "\n")) == [("qmgr[2]", "new"[: 59 - len(LINE) + 3])]


def test_a_log_that_begins_meanwhile_is_read(root: Path) -> None:
    (root / LOG[1:]).unlink()
    assert meanwhile(root, lambda path: path.write_text(LINE + "\n")) == NEW


def test_a_log_that_goes_meanwhile_is_read_to_its_end(root: Path) -> None:
    def remove(path: Path) -> None:
        with path.open("a") as file:
            file.write(LINE + "\n")
        path.unlink()

    assert meanwhile(root, remove) == NEW


def test_a_log_that_is_no_file_is_none(root: Path) -> None:
    (root / LOG[1:]).unlink()
    os.mkfifo(root / LOG[1:])
    assert meanwhile(root, lambda _path: None) is None


def test_without_a_line_in_a_file_the_journal_is_asked(root: Path) -> None:
    said = [f"{when} host {line.partition('host ')[2]}" for when, line in (("1.5", LINE), ("99999999999.5", LINE))]
    journal = Journal(Completed(code=0, output="\n".join(["-- No entries --", *said, ""])))
    assert written(root, run=journal) == NEW
    [command] = journal.asked
    assert command[0] == "/usr/bin/journalctl"
    assert {"--identifier=postfix-out/smtp", "--identifier=out+x/master"} < set(command)


@pytest.mark.parametrize("answer", [None, Completed(code=1, output=LINE), Completed(code=0, output="")])
def test_where_there_is_no_journal_nothing_is_known(root: Path, answer: Completed | None) -> None:
    assert written(root, run=Journal(answer)) is None


@pytest.mark.parametrize(
    ("who", "message", "trouble"),
    [
        ("smtp[1]", "fatal: bad numerical configuration", True),
        ("smtp[1]", "panic: vstring_alloc", True),
        ("master[1]", "warning: /usr/lib/postfix/sbin/qmgr: bad command startup -- throttling", True),
        ("master[1]", "warning: master_spawn: fork: Resource temporarily unavailable -- throttling", True),
        ("master[1]", "warning: process /usr/lib/postfix/sbin/qmgr pid 1 exit status 1", False),
        ("smtp[1]", "to=<fatal: x>, status=sent", False),
        ("smtp[1]", "4A: to=<a@b>, status=deferred (host b[192.0.2.1] said: 421 too fast, throttling)", False),
        ("cleanup[1]", "4A: warning: header Subject: a fan is at 90 degrees -- throttling", False),
        ("cleanup[1]", "warning: a fan is at 90 degrees -- throttling", False),
    ],
)
def test_what_counts_as_trouble(who: str, message: str, *, trouble: bool) -> None:
    assert maillog.Line(who, message).is_trouble is trouble
