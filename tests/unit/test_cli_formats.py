"""Formats as one asks for them on the command line: reports beside reports, plugin states, and errors in each."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chrootsync.model import Code
from chrootsync.report import FORMATS
from tests.unit.test_cli import check, filled, image, plain_environment, process, run, stale

__all__ = ["filled", "image", "plain_environment"]  # fixtures

MACHINES = [name for name in FORMATS if name not in ("table", "plain")]


@pytest.mark.parametrize("fix", [False, True])
def test_reports_of_all_formats_are_written_at_once(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, fix: bool
) -> None:
    """Each is a file of its own that everybody may read, whole at any time; what was there before is replaced."""
    place = tmp_path_factory.mktemp("reports")
    stale(filled)
    for name in FORMATS:
        (place / name).write_text("before")
        (place / name).chmod(0o600)
    before = {name: (place / name).stat().st_ino for name in FORMATS}
    requests = [word for name in FORMATS for word in ("--report", f"{name}={place / name}")]
    result = check(filled, "-q", *(["--fix"] if fix else []), *requests)
    assert (result.exit_code, result.stdout, result.stderr) == (0 if fix else 1, "", "")
    assert sorted(path.name for path in place.iterdir()) == sorted(FORMATS)
    for name in FORMATS:
        status = (place / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o644
        assert status.st_ino != before[name]
        assert (place / name).read_text("utf-8").endswith("\n")
    assert json.loads((place / "json").read_text())["status"] == ("repaired" if fix else "drift")
    assert (f'chrootsync_in_sync{{name="postfix-out"}} {int(fix)}\n') in (place / "prometheus").read_text()


@pytest.mark.parametrize("name", MACHINES)
def test_each_format_can_be_printed(filled: Path, name: str) -> None:
    result = check(filled, "--format", name)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith("\n")


def test_junit_lists_every_entry_that_was_compared(filled: Path) -> None:
    stale(filled)
    counted = {one["name"]: one["entries"] for one in json.loads(check(filled, "--format", "json").stdout)["instances"]}
    root = ET.fromstring(check(filled, "--format", "junit").stdout)  # noqa: S314 -- our own
    suites = {suite.attrib["name"]: suite for suite in root}
    assert {name: int(suites[f"chrootsync.{name}"].attrib["tests"]) for name in counted} == counted
    failed = [case.attrib["name"] for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["/etc/resolv.conf"]


def test_junit_lists_every_entry_of_a_repair(filled: Path) -> None:
    stale(filled)
    root = ET.fromstring(check(filled, "--fix", "--format", "junit").stdout)  # noqa: S314 -- our own
    assert (root.attrib["tests"], root.attrib["failures"]) == ("10", "0")
    (said,) = [element.text for element in root.iter("system-out") if element.text and "repaired" in element.text][:1]
    assert said.startswith("error: ")


# --- Nagios -----------------------------------------------------------------------------------------------------


def test_nagios_has_states_of_its_own(filled: Path) -> None:
    fine = check(filled, "--format", "nagios")
    assert fine.exit_code == 0
    assert fine.stdout.startswith(f"CHROOTSYNC OK - 2 instances, 10 entries in {filled}: in sync | 'drift'=0;;0;0 ")
    stale(filled)
    broken = check(filled, "--format", "nagios")
    assert broken.exit_code == 2
    assert broken.stdout.startswith("CHROOTSYNC CRITICAL - ")
    assert check(filled, "--format", "nagios", "--quiet").exit_code == 2
    assert check(filled, "--report", "nagios=/dev/null", "--quiet").exit_code == 1


def test_nagios_finds_it_unknown_where_nothing_is_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    result = run("check", "--root", str(tmp_path), "--format", "nagios")
    assert result.exit_code == 3
    assert result.stdout.startswith(f"CHROOTSYNC UNKNOWN - no instance in {tmp_path} found: nothing to check | ")


def test_nagios_errors_are_unknown(filled: Path) -> None:
    message = "there is no instance 'nobody' here; there is: postfix, postfix-out"
    result = check(filled, "nobody", "--format", "nagios")
    assert (result.exit_code, result.stdout) == (3, f"CHROOTSYNC UNKNOWN - {message}\n")
    assert result.stderr == f"chrootsync: {message}\n"


@pytest.mark.parametrize("option", ["--format=nagios", "--format nagios"])
def test_nagios_wrong_usage_is_unknown(option: str) -> None:
    done = process("check", *option.split(), "--fx")
    message = "no such option: --fx"
    assert done.returncode == 3
    assert done.stdout.startswith(f"CHROOTSYNC UNKNOWN - {message}")
    assert done.stderr.startswith(f"chrootsync: {message}")


def test_nagios_a_bug_is_unknown(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "1")  # the trace goes to standard error
    monkeypatch.setattr(sys.modules["chrootsync.cli.output"], "show", lambda *_arguments: 1 // 0)
    result = check(filled, "--format", "nagios")
    assert result.exit_code == 3
    assert result.stdout.startswith("CHROOTSYNC UNKNOWN - this is a bug in chrootsync")


def test_nagios_a_report_that_cannot_be_written_is_unknown(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: str, _target: str) -> None:
        raise OSError(28, os.strerror(28))

    target = tmp_path_factory.mktemp("reports") / "report.prom"
    monkeypatch.setattr(sys.modules["chrootsync.cli.output"].os, "replace", full)
    result = check(filled, "--format", "nagios", "--report", f"prometheus={target}")
    assert result.exit_code == 3
    assert "cannot be written: no space left on device" in result.stderr


# --- Errors and other verbs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MACHINES if name not in ("json", "nagios")])
def test_errors_of_other_formats_are_a_sentence_and_a_status(filled: Path, name: str) -> None:
    result = check(filled, "nobody", "--format", name)
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert result.stderr == "chrootsync: there is no instance 'nobody' here; there is: postfix, postfix-out\n"


@pytest.mark.parametrize("verb", [["instances"], ["history"], ["rules", "list"], ["explain", "/etc/hosts"]])
def test_other_verbs_have_no_such_formats(verb: list[str]) -> None:
    result = run(*verb, "--format", "sarif")
    assert result.exit_code == Code.USAGE
    assert result.stderr == "chrootsync: --format sarif: there is no such format; there is: table, plain, json\n"
