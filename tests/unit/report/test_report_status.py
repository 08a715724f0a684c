"""How instances are at a glance, held against golden files, and what no golden file shows.

``UPDATE_GOLDEN=1 pytest tests/unit/report/test_report_status.py`` writes them anew: read the diff.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install
import pytest
from rich.cells import cell_len

from chrootsync.model import Finding, InstanceReport, Kind, Reload, Remedy, Severity, StaleProcess
from chrootsync.model.queues import InstanceStatus, LastRepair, Master, Queues
from chrootsync.report import status, status_json, status_table
from chrootsync.report.status import Overview
from tests.unit.report.report_samples import IN, OUT, SUBMISSION, finding, instance, report, stale_resolver

RICH = int(version("rich").partition(".")[0])
NEWEST_LAYOUT = 15  # the version of rich that the tables were drawn with
GOLDEN = Path(__file__).parents[2] / "golden" / "status"
SCHEMA = json.loads(Path(status.__file__).with_name("status.schema.json").read_text(encoding="utf-8"))
NOW = 1_760_000_000.25
DAY = 86_400.0


def local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def queues(*numbers: int, oldest: float | None = None, name_errors: int = 0, problem: str | None = None) -> Queues:
    names = ("active", "incoming", "deferred", "hold", "maildrop")
    waiting = None if oldest is None else NOW - oldest
    counts = dict(zip(names, numbers, strict=True)) if numbers else {}
    return Queues(counts=counts, oldest_deferred=waiting, name_errors=name_errors, problem=problem)


def overview(*statuses: InstanceStatus, notes: tuple[str, ...] = (), remembered: bool = True) -> Overview:
    whole = report(*(one.report for one in statuses), notes=notes)
    return Overview(report=whole, instances=statuses, local=local, remembered=remembered)


def running(seconds: float = 3 * DAY, pid: int = 812) -> Master:
    return Master(running=True, pid=pid, began=NOW - seconds)


def repaired(hours: float, number: int = 12, trigger: str = "watch", *, rollback: bool = False) -> LastRepair:
    return LastRepair(id=number, began=NOW - hours * 3600, trigger=trigger, rollback=rollback)


def _well() -> Overview:
    return overview(
        *(
            InstanceStatus(
                report=InstanceReport(instance=where, entries=42, findings=()),
                role=role,
                master=running(pid=number),
                queues=queues(0, 0, 0, 0, 0),
                repair=repaired(2),
            )
            for number, (where, role) in enumerate(
                [(instance("postfix"), "submission"), (IN, "input"), (OUT, "output")], start=812
            )
        )
    )


def _trouble() -> Overview:
    stale = StaleProcess(pid=4711, daemon="smtp", began=NOW - 3600, uses=("/etc/resolv.conf",), why="older")
    unknown = finding(Kind.UNREACHABLE, IN, "/dev/log", "nobody listens", severity=Severity.WARNING, remedy=Remedy.NONE)
    process = finding(
        Kind.STALE_PROCESS, OUT, "/etc/resolv.conf", "older", severity=Severity.WARNING, remedy=Remedy.RELOAD
    )
    return overview(
        InstanceStatus(
            report=InstanceReport(
                instance=OUT,
                entries=42,
                findings=(
                    stale_resolver(),
                    finding(Kind.MISSING, OUT, "/etc/hosts", "missing", remedy=Remedy.COPY),
                    process,
                ),
                reload=Reload(needed=True, pending=True, error="still due after an earlier repair"),
                stale=(stale, replace(stale, pid=4712)),
            ),
            role="output",
            master=running(50),
            queues=queues(3, 1, 1234, 2, 0, oldest=4 * 3600, name_errors=1200),
            repair=repaired(72, trigger="apt"),
        ),
        InstanceStatus(
            report=InstanceReport(instance=IN, entries=42, findings=(unknown,)),
            role="input",
            master=Master(running=False),
            queues=queues(0, 0, 5, 0, 7, oldest=120),
            repair=repaired(0.2, rollback=True),
        ),
        InstanceStatus(
            report=InstanceReport(instance=replace(SUBMISSION, enabled=False), entries=42, findings=()),
            master=Master(running=False),
            queues=queues(problem="postqueue: fatal: Queue report unavailable - mail system is down"),
        ),
        InstanceStatus(
            report=InstanceReport(instance=instance("postfix-big"), entries=42, findings=()),
            master=Master(),
            queues=queues(9, 9, 90_000, 9, 9, oldest=9 * DAY, name_errors=3, problem="it did not end in time"),
        ),
        InstanceStatus(
            report=InstanceReport(
                instance=instance("postfix-broken", problem="/etc/postfix-broken/main.cf: line 3: correct it"),
                entries=0,
                findings=(),
            )
        ),
        InstanceStatus(
            report=InstanceReport(
                instance=instance("named", service="named", provider="static", chroot="/var/lib/named", config=None),
                entries=4,
                findings=(),
            ),
            repair=repaired(0.001, trigger="manual"),
        ),
        notes=("the state is new",),
    )


def _hostile() -> Overview:
    evil = instance("post\x1b[31mfix\n::error", chroot="/var/spool/\u202eevil\udcff", config="/etc/\x9b0m")
    return overview(
        InstanceStatus(
            report=InstanceReport(instance=evil, entries=1, findings=()),
            role="",
            master=running(),
            queues=queues(1, 1, 1, 1, 1, problem="[bold]said\x1b]0;title\x07"),
            repair=repaired(1, trigger="a\x07b"),
        ),
        notes=("note\r\nnext",),
    )


OVERVIEWS: dict[str, Callable[[], Overview]] = {
    "well": _well,
    "trouble": _trouble,
    "hostile": _hostile,
    "nothing": overview,
}
FLAVOURS: dict[str, Callable[[Overview], str]] = {
    "table80.txt": lambda made: status_table.render(made, width=80, color=False),
    "table120.txt": lambda made: status_table.render(made, width=120, color=False),
    "table200.txt": lambda made: status_table.render(made, width=200, color=False),
    "plain.txt": status.plain,
    "json": status_json.render,
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", OVERVIEWS)
def test_golden(name: str, flavour: str) -> None:
    file = GOLDEN / f"{name}.{flavour}"
    made = FLAVOURS[flavour](OVERVIEWS[name]())
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(made, encoding="utf-8")
    golden = file.read_text(encoding="utf-8")
    if flavour.startswith("table") and RICH < NEWEST_LAYOUT:
        # Older versions of rich fold the same text a column or two earlier or later.
        assert sorted(re.sub(r"\s", "", made)) == sorted(re.sub(r"\s", "", golden))
    else:
        assert made == golden


def test_no_golden_file_is_left_over() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{name}.{end}" for name in OVERVIEWS for end in FLAVOURS}


@pytest.mark.parametrize("name", OVERVIEWS)
def test_json_is_as_its_schema_says(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    made = json.loads(status_json.render(OVERVIEWS[name]()))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(SCHEMA, format_checker=checker).validate(made)


@pytest.mark.parametrize("name", OVERVIEWS)
@pytest.mark.parametrize("width", [1, 40, 60, 79, 80, 119, 120, 131, 132, 200, 400])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    lines = status_table.render(OVERVIEWS[name](), width=width, color=False).splitlines()
    assert max(map(cell_len, lines)) <= max(width, status_table.LEAST)


@pytest.mark.parametrize(("width", "lines"), [(80, 2), (119, 2), (120, 1), (200, 1)])
def test_an_instance_has_two_lines_or_where_the_terminal_is_wide_one(width: int, lines: int) -> None:
    table, _, total = status_table.render(_well(), width=width, color=False).partition("\n\n")
    assert len(table.splitlines()) == (3 + 1) * lines
    assert total == "3 instances, 126 entries: in sync\n"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_nothing_hostile_comes_through(flavour: str) -> None:
    made = FLAVOURS[flavour](_hostile())
    assert re.findall(r"[^ -~\n]", made) == []
    assert not any(line.startswith(("::", "fix", "next")) for line in made.splitlines())


def test_colours_are_for_terminals_that_want_them() -> None:
    assert "\x1b" not in status_table.render(_trouble(), width=80, color=False)
    coloured = status_table.render(_trouble(), width=80, color=True)
    assert "\x1b[1;31mdown\x1b[0m" in coloured
    assert "\x1b[32min sync\x1b[0m" in status_table.render(_well(), width=80, color=True)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (2 * DAY - 1, "47 h"),
        (2 * DAY, "2 d"),
        (400 * DAY, "400 d"),
    ],
)
def test_ages_are_in_the_largest_unit_that_makes_sense(seconds: float, said: str) -> None:
    assert status.age(seconds) == said


@pytest.mark.parametrize(
    ("master", "said"),
    [
        (None, ""),
        (Master(), "?"),
        (Master(running=False), "down"),
        (Master(running=True), "yes"),
        (running(7200), "2 h"),
    ],
)
def test_for_how_long_an_instance_has_been_up(master: Master | None, said: str) -> None:
    assert (
        status.up(InstanceStatus(report=InstanceReport(instance=OUT, entries=1, findings=()), master=master), NOW)
        == said
    )


def test_kinds_are_named_where_there_is_one_alone() -> None:
    missing = finding(Kind.MISSING, OUT, "/etc/hosts", "missing", remedy=Remedy.COPY)
    info = finding(Kind.UNREACHABLE, OUT, "/dev/log", "nobody", severity=Severity.INFO)

    def said(*findings: Finding) -> list[tuple[str, Severity | None]]:
        return status.state(InstanceReport(instance=OUT, entries=2, findings=findings))

    assert said(stale_resolver(), info) == [("1 differs", Severity.ERROR)]
    assert said(stale_resolver(), missing) == [("2 drifted", Severity.ERROR)]
    assert said(info) == [("in sync", None)]


def test_without_a_memory_nobody_says_that_there_was_no_repair() -> None:
    one = InstanceStatus(report=InstanceReport(instance=OUT, entries=1, findings=()))
    assert status.repair(one, overview(one)) == "none"
    assert status.repair(one, overview(one, remembered=False)) == "?"
    assert "last repair unknown" in status.plain(overview(one, remembered=False))
