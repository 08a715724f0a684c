"""docs/monitoring.md, tried as it stands there: units that write metrics, reports of a repair, the plugin."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install
import pytest
import xmlschema
from prometheus_client.parser import text_string_to_metric_families

from chrootsync.report import FORMATS

from .container import Container
from .image import PROJECT
from .mail import INSTANCES, OUTPUT
from .test_main_job import check, spoil, synced

TEXT = (PROJECT / "docs" / "monitoring.md").read_text()
PLACE = "/var/lib/prometheus/node-exporter"
UNITS = "/etc/systemd/system"
INTERPRETER = "/usr/local/lib/chrootsync/bin/python"
SCHEMAS = PROJECT / "tests" / "schemas"


def written(path: str) -> str:
    """The file that the documentation shows behind its path."""
    [shown] = re.findall(rf"`{re.escape(path)}`:\n\n```ini\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert INTERPRETER in shown or path.endswith(".timer")
    return str(shown)


@pytest.fixture(scope="module")
def monitored(container: Container) -> Container:
    """A host in sync with the units of chrootsync, those of the documentation, and a place for metrics."""
    # Automatic reloads keep a minute's distance, which tests have no time for.
    container.write("/etc/chrootsync/chrootsync.toml", "[reload]\ninterval = 0\n")
    container.run(["chrootsync", "install", "systemd", "--mode", "timer"])
    [interpreter] = re.findall(r"^ExecStart=(\S+)", container.read(f"{UNITS}/chrootsync.service"), re.MULTILINE)
    container.run(["mkdir", "-p", PLACE, f"{UNITS}/chrootsync.service.d"])
    for name in ("chrootsync-metrics.service", "chrootsync-metrics.timer", "chrootsync.service.d/report.conf"):
        container.write(f"{UNITS}/{name}", written(f"{UNITS}/{name}").replace(INTERPRETER, interpreter))
    [commands] = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    check(container, "--fix", code=0)
    container.shell(str(commands))
    return container


def metrics(container: Container, name: str) -> dict[tuple[str, ...], float]:
    """All samples of a file by their name and the values of their labels."""
    families = text_string_to_metric_families(container.read(f"{PLACE}/{name}"))
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def of(instance_config: str) -> str:
    """The name of an instance, which is its directory's."""
    return Path(instance_config).name


def test_systemd_finds_no_fault_with_the_units(monitored: Container) -> None:
    paths = [f"{UNITS}/{name}" for name in ("chrootsync-metrics.service", "chrootsync-metrics.timer")]
    done = monitored.run(["systemd-analyze", "verify", "--man=no", *paths, "chrootsync.service"], check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert monitored.run(["systemctl", "is-active", "chrootsync-metrics.timer"]).stdout == "active\n"


def test_the_unit_writes_metrics_whether_there_is_drift_or_not(monitored: Container) -> None:
    monitored.run(["systemctl", "start", "chrootsync-metrics.service"])
    found = metrics(monitored, "chrootsync.prom")
    assert [found["chrootsync_in_sync", of(one.config)] for one in INSTANCES] == [1, 1, 1]

    spoil(monitored, OUTPUT, "/etc/services", "# stale\n")
    monitored.run(["systemctl", "start", "chrootsync-metrics.service"])
    found = metrics(monitored, "chrootsync.prom")
    assert [found["chrootsync_in_sync", of(one.config)] for one in INSTANCES] == [
        float(one is not OUTPUT) for one in INSTANCES
    ]
    assert any(key[:2] == ("chrootsync_drift", of(OUTPUT.config)) and key[3] == "error" for key in found)
    assert monitored.shell(f"ls -A {PLACE}; stat -c %a {PLACE}/chrootsync.prom") == "chrootsync.prom\n644\n"


def test_the_service_of_repairs_writes_a_report_too(monitored: Container) -> None:
    spoil(monitored, OUTPUT, "/etc/services", "# stale\n")
    monitored.run(["systemctl", "start", "chrootsync.service"])
    assert synced(monitored, OUTPUT, "/etc/services")
    found = metrics(monitored, "chrootsync-repair.prom")
    assert found["chrootsync_repaired", of(OUTPUT.config)] == 1
    assert found["chrootsync_in_sync", of(OUTPUT.config)] == 1


def test_the_plugin_tells_its_state(monitored: Container) -> None:
    fine = monitored.run(["chrootsync", "check", "--format", "nagios"], check=False)
    assert (fine.returncode, fine.stdout[:16]) == (0, "CHROOTSYNC OK - ")
    spoil(monitored, OUTPUT, "/etc/services", "# stale\n")
    broken = monitored.run(["chrootsync", "check", "--format", "nagios"], check=False)
    assert (broken.returncode, broken.stdout[:22]) == (2, "CHROOTSYNC CRITICAL - ")
    assert f"{of(OUTPUT.config)} {OUTPUT.chroot}/etc/services: " in broken.stdout
    wrong = monitored.run(["chrootsync", "check", "nobody", "--format", "nagios"], check=False)
    assert (wrong.returncode, wrong.stdout[:21]) == (3, "CHROOTSYNC UNKNOWN - ")


def test_reports_of_a_real_host_are_what_their_readers_accept(monitored: Container, artifacts: Path) -> None:
    spoil(monitored, OUTPUT, "/etc/services", "# stale\n")
    monitored.run(["mkdir", "-p", "/root/reports"])
    requests = [f"--report={name}=/root/reports/{name}" for name in FORMATS]
    entries = {one["name"]: one["entries"] for one in check(monitored, *requests, code=1).report["instances"]}
    texts = {name: monitored.read(f"/root/reports/{name}") for name in FORMATS}
    (artifacts / "host").mkdir(exist_ok=True)
    for name, text in texts.items():
        (artifacts / "host" / f"report.{name}").write_text(text, "utf-8")

    xmlschema.XMLSchema(SCHEMAS / "junit-10.xsd").validate(texts["junit"])
    suites = dict(re.findall(r'<testsuite name="chrootsync\.(\S+)" tests="(\d+)"', texts["junit"]))
    assert all(int(suites[name]) >= count > 0 for name, count in entries.items())
    sarif = json.loads(texts["sarif"])
    jsonschema.Draft4Validator(json.loads((SCHEMAS / "sarif-2.1.0.json").read_text("utf-8"))).validate(sarif)
    places = [
        location["physicalLocation"]["artifactLocation"]["uri"]
        for result in sarif["runs"][0]["results"]
        for location in result["locations"]
    ]
    assert f"{OUTPUT.chroot}/etc/services".lstrip("/") in places
    assert f"::error file={OUTPUT.chroot.lstrip('/')}/etc/services,title=" in texts["github"]
