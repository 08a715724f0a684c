"""What benchmarks make of what was measured; what they measure is seen by running them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import check, data, goals, peers, rows, table
from benchmarks.measure import Command, Sample, Samples, interleaved, ratio, run
from benchmarks.measurement import Measurement, from_json
from benchmarks.rows import Row

PYTHON = sys.executable


def samples(*times: float, mb: float = 10) -> Samples:
    return Samples([Sample(ms=ms, cpu_ms=ms / 2, mb=mb) for ms in times])


def named(name: str, **commands: Sequence[float]) -> Measurement:
    return Measurement(name=name, samples={one: samples(*times) for one, times in commands.items()})


# --- Running ----------------------------------------------------------------------------------------------------------


def test_a_command_that_ends_otherwise_measures_nothing() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        run(Command(name="fails", steps=((PYTHON, "-c", "raise SystemExit(3)"),)))


def test_a_run_tells_processor_time_and_memory() -> None:
    sample = run(Command(name="big", steps=((PYTHON, "-I", "-c", "x = b'x' * 100_000_000"),)))
    assert sample.mb > 95
    assert sample.cpu_ms > 0
    assert sample.ms > 0


def test_a_command_may_have_a_terminal() -> None:
    program = "import sys; print('shown', file=sys.stderr); raise SystemExit(0 if sys.stderr.isatty() else 1)"
    run(Command(name="terminal", steps=((PYTHON, "-c", program),), terminal=True))


def test_commands_take_turns_and_slow_ones_have_fewer(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def wrote(name: str, rounds: int = 1000) -> Command:
        step = ("/bin/sh", "-c", f"echo {name} >> {log}")
        return Command(name=name, steps=(step,), rounds=rounds)

    made = interleaved([wrote("a"), wrote("b"), wrote("slow", rounds=1)], 3)
    assert {name: len(one.runs) for name, one in made.items()} == {"a": 3, "b": 3, "slow": 1}
    warm_up, first, second, third = "ab", "ab" + "s", "ba", "ab"
    written = "".join(line[0] for line in log.read_text().split())
    assert written == warm_up + first + second + third


def test_ratios_are_those_of_one_round() -> None:
    compared = ratio([10, 20, 40, 80, 160], [10, 10, 10, 10, 10])
    assert (compared.low, compared.median, compared.high) == (2, 4, 8)
    compared = ratio([10, 20, 30], [10, 10])  # the peer had fewer rounds
    assert (compared.low, compared.median, compared.high) == (1, 1.5, 2)


# --- Rows -------------------------------------------------------------------------------------------------------------


def test_what_travels_as_json_comes_back() -> None:
    before = Measurement(name="5k", samples={"check": samples(1, 2)}, facts={"copies": 3})
    assert from_json(json.loads(json.dumps(before.to_json()))) == before


def test_a_row_says_whether_its_goal_is_met() -> None:
    measured = Measurement(
        name="100k",
        samples={"check": samples(120, 130, mb=97), "Fr": samples(100, 100), "rsync -anc": samples(200, 200)},
    )
    by_peer = {row.peer: row for row in rows.of_all([measured])}
    assert by_peer["Fr"].value == 1.25
    assert by_peer["Fr"].met is True
    assert by_peer["most memory held"].met is False
    assert set(by_peer) == {"Fr", "rsync -anc", "most memory held"}  # what was not measured has no row


def test_progress_is_compared_by_processor_time() -> None:
    measured = Measurement(
        name="progress 100k",
        samples={
            "check on a terminal": Samples([Sample(ms=500, cpu_ms=101, mb=1)]),
            "check --quiet": Samples([Sample(ms=100, cpu_ms=100, mb=1)]),
        },
    )
    [row] = rows.of_all([measured])
    assert row.value == pytest.approx(1.01)
    assert row.met


@pytest.mark.parametrize(
    ("power", "met"),
    [(0.5, [True, True]), (1, [True, True]), (2, [False, False])],
    ids=["less", "linear", "quadratic"],
)
def test_growth_is_told_by_its_exponent_and_its_worst_step(power: float, met: list[bool]) -> None:
    points = {str(n): samples(100 + n**power) for n in (1, 10, 100, 1000, 10_000)}
    found = rows.of_all([Measurement(name="growth with files", samples=points)])
    assert [row.met for row in found] == met
    assert found[0].value == pytest.approx(power, abs=0.15)


def test_a_series_that_hardly_grows_has_no_exponent() -> None:
    assert rows.exponent([(1, 100), (10, 101), (100, 99), (1000, 102)]) == 0


def test_every_comparison_has_its_note() -> None:
    notes = {one.note for _, comparisons in goals.COMPARISONS.values() for one in comparisons if one.note}
    assert notes <= set(goals.NOTES)


def test_the_table_names_the_work_once_and_brings_the_notes() -> None:
    measured = named("100k", check=[120.0], Fr=[100.0])
    lines = list(table.text(rows.of_all([measured])))
    assert lines[1].startswith("one jail of 100,000 files, 2 GB  check")
    assert lines[2].startswith("      ")
    assert any(line.startswith("[10] the floor in C") for line in lines)
    assert "| <= 1.4 | met |" in "\n".join(table.markdown(rows.of_all([measured])))


# --- Regressions ------------------------------------------------------------------------------------------------------


def test_what_is_worse_than_its_bound_is_named() -> None:
    measured = [
        Row(work="w", ours="check", peer="Fr", value=2.0),
        Row(work="w", ours="check", peer="rsync", value=1.0),
        Row(work="w", ours="check", peer="new", value=9.0),
    ]
    bounds = {"w / check / Fr": 1.9, "w / check / rsync": 1.1, "w / check / gone": 0.1}
    assert list(check.worse(measured, bounds)) == ["  w / check / Fr: 2.00, where 1.90 is the bound"]


def test_where_nothing_could_be_measured_there_is_no_all_clear() -> None:
    assert list(check.worse([], {"w / check / Fr": 1.9}))


def test_the_committed_bounds_are_of_rows_that_there_are() -> None:
    works = {work for work, _ in goals.COMPARISONS.values()}
    bounds = json.loads(check.BOUNDS.read_text())
    assert bounds
    assert {key.split(" / ")[0] for key in bounds} <= works


# --- Data sets and floors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["3x40", "3x180"])
def test_a_data_set_of_mail_is_in_sync(tmp_path: Path, name: str) -> None:
    made = data.build(name, str(tmp_path / name), data.chrootsync())
    assert made.copies == {"3x40": 120, "3x180": 540}[name]
    subprocess.run([*data.chrootsync(), "check", "--quiet", *made.options()], check=True)
    assert data.load(made.place) == made


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_floor_sees_what_differs(tmp_path: Path) -> None:
    program = peers.compile_floor(str(tmp_path))
    assert program is not None
    (tmp_path / "one").write_bytes(b"x" * 300_000)
    (tmp_path / "other").write_bytes(b"x" * 299_999 + b"y")
    (tmp_path / "pairs").write_bytes(os.fsencode(f"{tmp_path}/one\0{tmp_path}/other\0"))

    def floor(mode: str) -> int:
        with (tmp_path / "pairs").open() as pairs:
            return subprocess.run([program, mode], stdin=pairs, check=False, stderr=subprocess.DEVNULL).returncode

    assert [floor("stat"), floor("read"), floor("drop"), floor("guess")] == [0, 1, 0, 2]
    (tmp_path / "other").write_bytes(b"x")
    assert floor("stat") == 1
