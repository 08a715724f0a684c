"""Metrics and alerts as Prometheus' own checker sees them, and the documentation of both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install

from chrootsync.report import render
from tests.unit.report.report_samples import REPORTS

DOCS = Path(__file__).parents[3] / "docs"
ALERTS = DOCS / "chrootsync-alerts.yml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chrootsync-tests"
METRIC = re.compile(r"chrootsync_[a-z_]+")


def exported() -> set[str]:
    """The names of all metrics that there are."""
    everything = "".join(render("prometheus", report) for report in REPORTS.values())
    return set(re.findall(r"^# TYPE (\S+) gauge$", everything, re.MULTILINE))


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_name_metrics_that_there_are() -> None:
    named = {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    assert named
    assert named <= exported()


def test_every_alert_says_what_is_wrong_where_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_the_documentation_has_every_metric_and_every_alert() -> None:
    text = (DOCS / "monitoring.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(chrootsync_[a-z_]+)` \|", text, re.MULTILINE)) == exported()
    assert set(re.findall(r"`(Chroot\w+)`", text)) == {rule["alert"] for rule in rules()}


# --- With promtool ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def promtool() -> str:
    """Where scripts/setup-system-tests puts it, unless it is installed."""
    found = shutil.which("promtool") or shutil.which("promtool", path=CACHE / "tools")
    if found is not None:
        return found
    reason = "needs promtool, of Debian's package prometheus (scripts/setup-system-tests fetches it)"
    if os.environ.get("CHROOTSYNC_REQUIRE_SYSTEM", "0") not in {"", "0"}:
        pytest.fail(f"CHROOTSYNC_REQUIRE_SYSTEM is set, but a test cannot run: {reason}", pytrace=False)
    pytest.skip(reason)


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*arguments], input=given, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", REPORTS)
def test_promtool_finds_no_fault_with_metrics(promtool: str, name: str, artifacts: Path) -> None:
    done = run(promtool, "check", "metrics", given=render("prometheus", REPORTS[name]))
    (artifacts / "reports").mkdir(exist_ok=True)
    said = f"promtool check metrics < {name}.prom: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    (artifacts / "reports" / f"{name}.promtool.txt").write_text(said, "utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_accepts_the_alerts(promtool: str, artifacts: Path) -> None:
    done = run(promtool, "check", "rules", str(ALERTS))
    (artifacts / "reports").mkdir(exist_ok=True)
    (artifacts / "reports" / "alerts.promtool.txt").write_text(done.stdout + done.stderr, "utf-8")
    assert done.returncode == 0
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def series(name: str, labels: str, values: str) -> dict[str, str]:
    return {"series": f'chrootsync_{name}{{instance="mx1",{labels}}}', "values": values}


CASES = {
    "ChrootDrift": [series("in_sync", 'name="postfix-out"', "0x600")],
    "ChrootRepairFailed": [series("repairs_failed", 'name="postfix-out"', "1x600")],
    "ChrootReloadFailed": [series("reload_failed", 'name="postfix-out"', "1x600")],
    "ChrootReloadPending": [series("reload_pending", 'name="postfix-out"', "1x600")],
    "ChrootLookupsFail": [
        series("probe_failing", 'name="postfix-out"', "2x600"),
        series("probe_complete", 'name="postfix-out"', "1x600"),
    ],
    "ChrootStaleProcesses": [series("stale_processes", 'name="postfix-out"', "1x600")],
    "ChrootCheckMissing": [series("last_check_timestamp_seconds", "", "0x600")],
    "ChrootInstancesGone": [series("instances", "", "0x600")],
}


def test_each_alert_has_a_case() -> None:
    assert set(CASES) == {rule["alert"] for rule in rules()}


def test_each_alert_fires_when_it_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    tests = []
    for rule in rules():
        alert = rule["alert"]
        name = 'name="' in CASES[alert][0]["series"]
        labels = {
            "severity": rule["labels"]["severity"],
            "instance": "mx1",
            **({"name": "postfix-out"} if name else {}),
        }
        told = {
            key: text.replace("{{ $labels.instance }}", "mx1").replace("{{ $labels.name }}", "postfix-out")
            for key, text in rule["annotations"].items()
        }
        fires = {"eval_time": "9h", "alertname": alert, "exp_alerts": [{"exp_labels": labels, "exp_annotations": told}]}
        quiet = {"eval_time": "0m", "alertname": alert, "exp_alerts": []}
        at = [fires] if "for" not in rule else [quiet, fires]
        tests.append({"interval": "1m", "input_series": CASES[alert], "alert_rule_test": at})
    fine = [
        series("in_sync", 'name="postfix-out"', "1x600"),
        *(
            series(metric, 'name="postfix-out"', "0x600")
            for metric in ("repairs_failed", "reload_failed", "reload_pending", "probe_failing", "stale_processes")
        ),
        series("probe_complete", 'name="postfix-out"', "1x600"),
        series("last_check_timestamp_seconds", "", "0+60x600"),
        series("instances", "", "3x600"),
    ]
    none = [{"eval_time": "9h", "alertname": alert, "exp_alerts": []} for alert in CASES]
    tests.append({"interval": "1m", "input_series": fine, "alert_rule_test": none})
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": tests}), "utf-8")
    done = run(promtool, "test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
