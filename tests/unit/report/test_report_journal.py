"""The log of automatic runs; ``UPDATE_GOLDEN=1 pytest tests/unit/report`` writes its golden files anew."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrootsync.model import Finding, InstanceReport, Kind, Outcome, Reload, Report, Severity, Status
from chrootsync.report.journal import LIMIT, MOST_PATHS, Level, Line, lines, render
from chrootsync.report.text import raw
from tests.unit.report.report_samples import (
    OUT,
    REPORTS,
    finding,
    instance,
    lost_library,
    report,
    stale_resolver,
    wrong_mode,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "journal"
PAIR = re.compile(r' ([a-z]+)=(?:"([^"]*)"|([\w.,:/@+-]+))', re.ASCII)
DONE = Outcome(status=Status.REPAIRED)
RELOADED = Reload(needed=True, done=True)


def one(*found: Finding, reload: Reload | None = None, notes: tuple[str, ...] = ()) -> Report:
    told = InstanceReport(instance=OUT, entries=42, findings=found, reload=reload or Reload(needed=False))
    return report(told, fixed=True, notes=notes)


def read(line: Line) -> tuple[str, Mapping[str, str]]:
    """A line as a program reads it: its word and its values, which are all that it holds."""
    event, space, rest = line.text.partition(" ")
    pairs = PAIR.findall(space + rest)
    assert "".join(found[0] for found in PAIR.finditer(space + rest)) == space + rest
    return event, {key: quoted or plain for key, quoted, plain in pairs}


def original(value: str) -> bytes:
    """The bytes that a value stands for."""
    parts = re.split(rb"\\x([0-9a-f]{2})", value.encode())
    return b"".join(bytes([int(part, 16)]) if index % 2 else part for index, part in enumerate(parts))


@pytest.mark.parametrize("name", REPORTS)
def test_golden(name: str) -> None:
    file = GOLDEN / f"{name}.txt"
    made = render(lines(REPORTS[name], "apt"), levels=True)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(made, encoding="utf-8")
    assert made == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{name}.txt" for name in REPORTS}


def test_a_repair_is_one_line_with_all_that_was_asked_for() -> None:
    [line] = lines(one(stale_resolver(outcome=DONE), lost_library(OUT, outcome=DONE), reload=RELOADED), "apt")
    assert line.level is Level.NOTICE
    assert line.text == (
        "repaired instance=postfix-out kinds=missing:1,differs:1 package=libc6 trigger=apt reload=done duration=0.1"
        " paths=/etc/resolv.conf,/lib/x86_64-linux-gnu/libnss_dns.so.2"
    )


def test_a_host_in_sync_is_told_in_passing() -> None:
    [line] = lines(REPORTS["in-sync"], "timer")
    assert line == Line(level=Level.INFO, text="in-sync instances=3 entries=126 trigger=timer duration=0.1")


@pytest.mark.parametrize(
    ("reload", "level", "values"),
    [
        (
            Reload(needed=True, pending=True, error="too soon"),
            Level.WARNING,
            {"reload": "pending", "reason": "too soon"},
        ),
        (Reload(needed=True, error="status 1"), Level.ERROR, {"reload": "failed", "reason": "status 1"}),
        (Reload(needed=True, command=("/bin/a b", "c")), Level.NOTICE, {"reload": "left", "command": "'/bin/a b' c"}),
        (
            Reload(needed=True, pending=True, error="status 1", output="one\n  two \n\n"),
            Level.WARNING,
            {"reload": "pending", "reason": "status 1", "output": "  two "},
        ),
    ],
)
def test_a_reload_that_did_not_happen_has_a_line_of_its_own(
    reload: Reload, level: Level, values: dict[str, str]
) -> None:
    repaired, line = lines(one(stale_resolver(outcome=DONE), reload=reload), "apt")
    assert read(repaired)[1]["reload"] == values["reload"]
    assert line.level is level
    assert read(line) == ("reload", {"instance": "postfix-out", "trigger": "apt", **values})


def test_a_reload_in_trouble_tells_what_was_made_sure_of() -> None:
    reload = replace(RELOADED, error="its log says: smtp[1]: fatal: x", seen=("the master runs", "a, b"))
    [line] = lines(one(reload=reload), "timer")
    assert line.level is Level.ERROR
    _, values = read(line)
    assert (values["reload"], values["seen"]) == ("failed", "the master runs; a, b")


def test_a_reload_that_was_still_due_is_told_without_a_repair() -> None:
    [line] = lines(one(reload=RELOADED), "timer")
    assert line == Line(level=Level.NOTICE, text="reload instance=postfix-out reload=done trigger=timer")


def test_a_check_tells_only_what_an_earlier_run_left_to_be_done() -> None:
    for reload, said in ((Reload(needed=True), "in-sync"), (Reload(needed=True, pending=True), "reload")):
        [line] = lines(replace(one(reload=reload), fixed=False), "timer")
        assert read(line)[0] == said


def test_what_failed_takes_along_what_was_left_for_it() -> None:
    full = Outcome(status=Status.FAILED, reason="no space left on device")
    left = Outcome(status=Status.SKIPPED, reason="left as it was")
    [line] = lines(one(wrong_mode(outcome=left), stale_resolver(outcome=full)), "apt")
    assert line.level is Level.ERROR
    event, values = read(line)
    assert (event, values["reason"]) == ("failed", "no space left on device")
    assert values["paths"] == "/etc/resolv.conf,/etc/services"


def test_what_waits_is_told_with_whom_it_waits_for() -> None:
    waits = Outcome(status=Status.WAITING, reason="until apt-get (process 7) has ended")
    [line] = lines(one(wrong_mode(outcome=waits)), "watch")
    assert line.level is Level.NOTICE
    event, values = read(line)
    assert (event, values["package"], values["reason"]) == ("waiting", "netbase", "until apt-get (process 7) has ended")


@pytest.mark.parametrize(
    ("severity", "levels"),
    [(Severity.ERROR, [Level.ERROR]), (Severity.WARNING, [Level.WARNING]), (Severity.INFO, [Level.INFO])],
)
def test_drift_that_remains_weighs_what_it_weighs_elsewhere(severity: Severity, levels: list[Level]) -> None:
    found = finding(Kind.CONTESTED, OUT, "/etc/hosts", "repaired three times", severity=severity)
    said = lines(one(found), "timer")
    assert [line.level for line in said] == levels
    if severity is not Severity.INFO:
        kinds = {"instance": "postfix-out", "kinds": "contested:1", "paths": "/etc/hosts", "trigger": "timer"}
        assert read(said[0]) == ("drift", {**kinds, "reason": "repaired three times"})


def test_notes_are_warnings() -> None:
    [line] = lines(one(notes=("the state is\nlost",)), "timer")
    assert line == Line(level=Level.WARNING, text='note trigger=timer reason="the state is\\x0alost"')


@pytest.mark.parametrize(("length", "shown"), [(4, MOST_PATHS), (200, 4), (2000, 0)])
def test_many_or_long_paths_are_counted(length: int, shown: int) -> None:
    paths = [f"/{index:02}{'x' * (length - 3)}" for index in range(30)]
    found = [finding(Kind.MISSING, OUT, path, "missing", outcome=DONE) for path in paths]
    _, values = read(lines(one(*found), "apt")[0])
    assert values.get("paths", "") == ",".join(paths[:shown])
    assert values["more"] == str(30 - shown)


def test_a_text_that_is_cut_says_so_and_has_no_half_escape() -> None:
    for length in range(240, 260):
        [line] = lines(one(notes=("a" * length + "\n" * 10,)), "t")
        reason = read(line)[1]["reason"]
        assert reason.endswith("…")
        assert re.fullmatch(r"a+(\\x0a)*…", reason)


def test_the_longest_lines_fit() -> None:
    long = "漢\n" * 500
    where, trigger = instance(long), "t" * 64
    waits = Outcome(status=Status.WAITING, reason=long)
    late = [replace(finding(kind, where, f"/{long}", long), outcome=waits) for kind in Kind]
    late = [replace(each, drift=replace(each.drift, package=long)) for each in late]
    reload = Reload(needed=True, pending=True, error=long, output=long, command=(long,))
    told = InstanceReport(instance=where, entries=3, findings=tuple(late), reload=reload)
    said = lines(report(told, fixed=True), trigger)
    assert [read(line)[0] for line in said] == ["waiting", "reload"]
    assert all(700 < len(line.text.encode()) < LIMIT for line in said)


hostile = st.text(st.characters() | st.sampled_from('\n"\\,=<>x \x1b\u202e\udcff'), max_size=400)


@settings(deadline=None)
@given(name=hostile, path=hostile, reason=hostile, package=hostile, printed=hostile, error=hostile)
def test_no_text_forges_anything(name: str, path: str, reason: str, package: str, printed: str, error: str) -> None:
    """Whatever files hold: lines stay lines, begin with a word of ours, and read as what they were made of."""
    where = instance(name)
    found = [
        replace(each, drift=replace(each.drift, package=package))
        for outcome in (DONE, Outcome(status=Status.FAILED, reason=reason), None)
        for each in [finding(Kind.MISSING, where, f"/{path}", reason, outcome=outcome)]
    ]
    reload = Reload(needed=True, pending=True, command=(path, reason), error=error, output=printed)
    told = InstanceReport(instance=where, entries=3, findings=tuple(found), reload=reload)
    said = lines(report(told, fixed=True, notes=(reason,)), "apt")

    text = render(said, levels=True)
    assert text.splitlines() == [f"<{line.level}>{line.text}" for line in said]
    text.encode()
    assert [read(line)[0] for line in said] == ["repaired", "failed", "drift", "reload", "note"]
    for line in said:
        _, values = read(line)
        assert values["trigger"] == "apt"
        assert len(line.text.encode()) < LIMIT
        if "paths" in values:
            assert [original(one) for one in values["paths"].split(",")] == [raw(f"/{path}")]


# --- Where it is printed ------------------------------------------------------------------------------------------

SHOW = """
import contextlib, sys
from chrootsync.cli import guard, output, streams
from tests.unit.report.report_samples import REPORTS
streams.prepare()
output.log(REPORTS["repaired"], "apt", 0)
streams.tell(["too bad"])

@guard.guarded
def stopped():
    raise KeyboardInterrupt

with contextlib.suppress(streams.Ended):
    stopped()
"""


@pytest.mark.parametrize("named", ["stdout", "other", "nothing"])
def test_levels_are_written_to_the_journal_alone(named: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(theirs.fileno())
        stream = {"stdout": f"{status.st_dev}:{status.st_ino}", "other": f"{status.st_dev}:{status.st_ino + 1}"}
        environment = {"JOURNAL_STREAM": stream[named]} if named in stream else {}
        command = [sys.executable, "-c", SHOW]
        subprocess.run(command, stdout=theirs.fileno(), stderr=theirs.fileno(), env=environment, check=True)
        theirs.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: ours.recv(1 << 16), b"")).decode()
    levels = named == "stdout"
    expected = render(lines(REPORTS["repaired"], "apt"), levels=levels)
    error, notice = ("<3>", "<5>") if levels else ("", "")
    told = f"{error}chrootsync: too bad\n{notice}chrootsync: interrupted; nothing is left half-done\n"
    assert said == expected + told
