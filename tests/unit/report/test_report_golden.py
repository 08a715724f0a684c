"""Reports held against golden files; ``UPDATE_GOLDEN=1 pytest tests/unit/report`` writes them anew: read the diff."""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from chrootsync.model import Kind
from chrootsync.report import Options, render
from chrootsync.report.verdict import findings
from tests.unit.report.report_samples import COMPARED, DIFFS, REPORTS

RICH = int(version("rich").partition(".")[0])
NEWEST_LAYOUT = 15  # the version of rich that the tables were drawn with
GOLDEN = Path(__file__).parents[2] / "golden"
FLAVOURS = {
    "table80.txt": ("table", Options(width=80)),
    "table200.txt": ("table", Options(width=200)),
    "verbose80.txt": ("table", Options(width=80, verbose=1, diffs=DIFFS)),
    "plain.txt": ("plain", Options()),
    "verbose.txt": ("plain", Options(verbose=1, diffs=DIFFS)),
    "json": ("json", Options()),
    "junit.xml": ("junit", Options(compared=COMPARED, diffs=DIFFS)),
    "sarif.json": ("sarif", Options()),
    "github.txt": ("github", Options()),
    "nagios.txt": ("nagios", Options()),
    "prom": ("prometheus", Options()),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", REPORTS)
def test_golden(name: str, flavour: str) -> None:
    file = GOLDEN / f"{name}.{flavour}"
    style, options = FLAVOURS[flavour]
    made = render(style, REPORTS[name], options)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(made, encoding="utf-8")
    golden = file.read_text(encoding="utf-8")
    if style == "table" and RICH < NEWEST_LAYOUT:
        # Older versions of rich fold the same text a column or two earlier or later.
        assert sorted(re.sub(r"[\s─]", "", made)) == sorted(re.sub(r"[\s─]", "", golden))
    else:
        assert made == golden


def test_every_kind_has_an_example() -> None:
    assert {finding.drift.kind for finding in findings(REPORTS["drift"])} == set(Kind)


def test_no_golden_file_is_left_over() -> None:
    ours = {f"{name}.{flavour}" for name in REPORTS for flavour in FLAVOURS}
    assert {file.name for file in GOLDEN.iterdir() if file.is_file()} == ours
