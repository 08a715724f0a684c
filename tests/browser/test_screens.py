"""Pictures of what the commands show, made of a host with drift: files of the test run to be looked at."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.browser.terminal import page, shown

COLUMNS = 80


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options for the demonstration's host, after a repair and all of its drift."""
    place = tmp_path_factory.mktemp("screens")
    root = place / "root"
    root.mkdir()
    for directory in (place, root):
        directory.chmod(0o755)
    demo = importlib.import_module("chrootsync.cli.demo")
    demo._build(str(root))
    options = ("--root", str(root), "--state", str(place / "state"))
    code, said = chrootsync("check", "--fix", *options)
    assert code == 0, said
    for drift in demo.DRIFTS.values():
        drift(str(root))
    return options


def chrootsync(*arguments: str, columns: int = COLUMNS) -> tuple[int, str]:
    return shown([sys.executable, "-m", "chrootsync", *arguments], columns=columns)


@pytest.mark.parametrize(
    ("verb", "code"), [("check", 1), ("status", 1), ("history", 0)], ids=["check", "status", "history"]
)
def test_a_terminal(
    browser: Chromium, host: tuple[str, ...], tmp_path: Path, artifacts: Path, verb: str, code: int
) -> None:
    ended, said = chrootsync(verb, *host)
    assert ended == code, said
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert any("postfix" in line for line in lines)
    browser.open(page(f"chrootsync {verb}", said, tmp_path / "terminal.html", columns=COLUMNS), width=760, height=300)
    assert "postfix" in browser.ask("document.body.innerText")
    assert browser.ask("document.documentElement.scrollWidth") == 760
    assert browser.picture(artifacts / f"terminal-{verb}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_of_a_host(
    browser: Chromium, host: tuple[str, ...], tmp_path: Path, artifacts: Path, width: int
) -> None:
    file = tmp_path / "report.html"
    code, said = chrootsync("check", "--diff", "--report", f"html={file}", *host)
    assert code == 1, said
    browser.open(file, width=width)
    assert browser.ask("document.querySelector('h1').innerText") == "Drift"
    assert browser.ask("document.querySelectorAll('.matrix .badge').length") >= 4
    assert browser.ask("[...document.querySelectorAll('.diff')].some(one => one.textContent.includes('+nameserver'))")
    assert "36 repaired" in browser.ask("document.querySelector('#history').innerText")
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.picture(artifacts / f"report-host-{width}.png").read_bytes().startswith(b"\x89PNG")
