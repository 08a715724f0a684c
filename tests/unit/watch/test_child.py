"""A process that waits for a word and leaves a report, for real."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence

import pytest

from chrootsync import process

DEADLINE = 30_000  # ms


def ended(child: process.Child) -> int | None:
    """Wait until it has ended; its exit status."""
    poll = select.poll()
    poll.register(child.fileno(), select.POLLIN)
    assert poll.poll(DEADLINE), "it does not end"
    return child.code()


def python(code: str) -> process.Child:
    def command(word: int, report: int) -> Sequence[str]:
        return [sys.executable, "-I", "-c", f"import os, signal, sys; word, report = {word}, {report}\n{code}"]

    return process.start(command, {"TRIGGER": "test"})


def test_it_waits_for_the_word_and_leaves_its_report() -> None:
    child = python("os.write(report, b'said:' + os.read(word, 9)); sys.exit(7)")
    assert child.code() is None
    child.begin(b"go")
    assert ended(child) == 7
    assert child.report() == b"said:go\n"
    child.close()


def test_it_hears_where_nobody_is_left_to_say_the_word() -> None:
    child = python("os.write(report, b'nobody' if os.read(word, 1) == b'' else b'somebody')")
    report = os.dup(child._report)
    child.close()
    assert child._process.wait(30) == 0
    assert os.pread(report, 99, 0) == b"nobody"
    os.close(report)


def test_its_surroundings_are_bare() -> None:
    code = "os.write(report, repr((os.getcwd(), sorted(os.environ), os.getpgrp() == os.getpid())).encode())"
    child = python(code)
    child.begin(b"go")
    assert ended(child) == 0
    assert child.report().decode() == repr(("/", ["LC_ALL", "PATH", "TRIGGER"], True))
    child.close()


def test_it_has_no_other_descriptors_of_ours() -> None:
    child = python(
        "os.write(report, repr(sorted(map(int, os.listdir('/proc/self/fd')))).encode() + repr((word, report)).encode())"
    )
    child.begin(b"go")
    assert ended(child) == 0
    listed, _, pair = child.report().decode().partition("]")
    numbers = set(map(int, listed.strip("[").split(",")))
    ours = set(map(int, pair.strip("()").split(",")))
    assert len(numbers - {0, 1, 2} - ours) <= 1  # that of the listing
    child.close()


def test_a_signal_reaches_it() -> None:
    child = python("os.read(word, 1); signal.pause()")
    child.begin(b"go")
    child.send(signal.SIGTERM)
    assert ended(child) == -signal.SIGTERM
    child.send(signal.SIGTERM)  # nothing is left to send it to
    child.close()


def test_a_word_to_one_that_has_ended_is_no_error() -> None:
    child = python("sys.exit(3)")
    assert ended(child) == 3
    child.begin(b"go")
    child.close()


def test_what_cannot_be_started_is_an_error_and_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        process.start(lambda _word, _report: ["/nowhere/python"], {})
    assert os.listdir("/proc/self/fd") == before
