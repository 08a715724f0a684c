"""The formats for other programs, held to what those programs accept: schemas, parsers and published rules."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from chrootsync.model import FileType, Finding, InstanceReport, Kind, Outcome, Report, Severity, State, Status
from chrootsync.report import FORMATS, LISTING, Options, render
from chrootsync.report.kinds import MEANINGS
from chrootsync.report.nagios import LIMIT, error, state
from chrootsync.report.text import raw
from chrootsync.report.verdict import findings
from tests.unit.report.report_samples import (
    COMPARED,
    IN,
    OUT,
    REPORTS,
    clean_instances,
    instance,
    lost_library,
    report,
    stale_resolver,
    wrong_mode,
)

SCHEMAS = Path(__file__).parents[2] / "schemas"
JUNIT = xmlschema.XMLSchema(SCHEMAS / "junit-10.xsd")
SARIF = jsonschema.Draft4Validator(
    json.loads((SCHEMAS / "sarif-2.1.0.json").read_text("utf-8")),
    format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER,
)
MACHINES = ("junit", "sarif", "github", "nagios", "prometheus")
NASTY = (
    "<script>alert(1)</script>",
    "a\x1b[31mb",
    "new\nline",
    "\n::error::spoof",
    "::error file=x::spoof",
    "##[error]spoof",
    "::stop-commands::x",
    "<3>spoof",
    "bidi\u202e\u2066",
    "latin1-\udce9",
    "]]>",
    "a|b=1;2",
    "quotes\"and'",
    "{0} and {{",
    "[link](http://x)",
    "100%25, a:b",
    "back\\slash\\x41",
    "\ufffe\U0001f4a9",
    "&amp; `id` $(id)",
)


def with_names(name: str, path: str) -> Report:
    """A report in which ``name`` and ``path`` stand wherever text from files can."""
    where = instance(name, chroot=f"/srv/{path}", config=f"/etc/{path}")
    finding = stale_resolver(where, Outcome(status=Status.FAILED, reason=path))
    entry = replace(finding.drift.entry, path=f"/{path}", source=path, because=path)
    drift = replace(finding.drift, entry=entry, reason=path, package=path)
    one = InstanceReport(instance=where, entries=1, findings=(replace(finding, drift=drift),))
    return report(one, *clean_instances(IN), fixed=True, root=f"/{path}", notes=(path,))


NAMES = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\0"), min_size=1))


def keep(artifacts: Path, name: str, text: str) -> None:
    (artifacts / "reports").mkdir(exist_ok=True)
    (artifacts / "reports" / name).write_text(text, encoding="utf-8")


# --- JUnit ------------------------------------------------------------------------------------------------------


def junit(made: str) -> ET.Element:
    """The document, once its schema has accepted it."""
    JUNIT.validate(made)
    root = ET.fromstring(made)  # noqa: S314 -- we have just made it
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        counted = {
            "tests": len(cases),
            "failures": sum(case.find("failure") is not None for case in cases),
            "errors": sum(case.find("error") is not None for case in cases),
        }
        assert {key: int(element.attrib[key]) for key in counted} == counted
    return root


@pytest.mark.parametrize("name", REPORTS)
def test_junit_is_accepted_by_its_schema(name: str, artifacts: Path) -> None:
    made = render("junit", REPORTS[name], Options(compared=COMPARED))
    keep(artifacts, f"{name}.junit.xml", made)
    root = junit(made)
    keep(artifacts, f"{name}.junit.validated.txt", f"junit-10.xsd accepts {name}: {root.attrib}\n")
    assert [suite.get("name") for suite in root][: len(REPORTS[name].instances)] == [
        suite.get("name") for suite in root if suite.find("properties") is not None
    ]


def test_junit_has_one_case_for_each_entry() -> None:
    made = junit(render("junit", REPORTS["drift"], Options(compared=COMPARED)))
    (suite,) = [one for one in made if one.get("name") == "chrootsync.postfix-out"]
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names[:4] == ["/etc/host.conf", "/etc/hosts", "/etc/localtime", "/etc/nsswitch.conf"]
    assert len(names) == len({*names})
    assert {*COMPARED["postfix-out"]} <= {*names}


def verdicts(made: ET.Element) -> dict[str, str]:
    """By the name of each case what it came to."""
    return {
        case.attrib["name"]: next((child.tag for child in case if child.tag != "system-out"), "passed")
        for case in made.iter("testcase")
    }


def test_junit_warnings_pass_unless_they_count() -> None:
    said = junit(render("junit", REPORTS["warnings"]))
    assert verdicts(said)["/etc/hosts"] == "passed"
    (output,) = [case.findtext("system-out") for case in said.iter("testcase") if case.get("name") == "/etc/hosts"]
    assert output == "warning: differs: contents differ"
    assert verdicts(junit(render("junit", REPORTS["warnings"], Options(strict=True))))["/etc/hosts"] == "failure"


def test_junit_tells_a_failed_repair_from_drift() -> None:
    assert verdicts(junit(render("junit", REPORTS["failed"]))) == {
        "/etc/resolv.conf": "failure",
        "reload": "failure",
        "/lib/x86_64-linux-gnu/libnss_dns.so.2": "error",
        "/etc/services": "error",
    }


def test_junit_has_cases_for_lookups_and_reloads() -> None:
    assert verdicts(junit(render("junit", REPORTS["proved"]))) == {
        "/lib/x86_64-linux-gnu/libnss_dns.so.2": "passed",
        "reload": "passed",
        "probe getaddrinfo localhost": "passed",
        "probe getservbyname smtp/tcp": "failure",
        "probe localtime": "passed",
        "probe": "failure",
    }


# --- SARIF ------------------------------------------------------------------------------------------------------


def sarif(made: str) -> Any:
    """The run, once the schema has accepted the log."""
    log = json.loads(made)
    SARIF.validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        for location in result["locations"]:
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            assert re.fullmatch(r"[A-Za-z0-9_.~%/-]+", uri)
            assert not uri.startswith("/")
    return run


@pytest.mark.parametrize("name", REPORTS)
def test_sarif_is_accepted_by_its_schema(name: str, artifacts: Path) -> None:
    made = render("sarif", REPORTS[name])
    keep(artifacts, f"{name}.sarif", made)
    run = sarif(made)
    keep(artifacts, f"{name}.sarif.validated.txt", f"sarif-2.1.0.json accepts {name}: {len(run['results'])} results\n")


def test_sarif_has_a_rule_for_each_kind() -> None:
    run = sarif(render("sarif", REPORTS["drift"]))
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [*Kind, "reload", "probe"]
    assert {result["ruleId"] for result in run["results"]} == {*Kind}
    assert set(MEANINGS) == set(Kind)


def test_sarif_leaves_out_what_was_repaired() -> None:
    run = sarif(render("sarif", REPORTS["repaired"]))
    assert [result["ruleId"] for result in run["results"]] == ["reload"]
    assert run["properties"]["repaired"] == 3


def test_sarif_places_are_relative_to_the_root_and_exact() -> None:
    run = sarif(render("sarif", REPORTS["hostile"]))
    (place,) = REPORTS["hostile"].instances
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in run["results"]]
    exact = [raw(place.instance.chroot + finding.drift.entry.path) for finding in place.findings]
    assert [b"/" + unquote_to_bytes(one["uri"]) for one in uris][: len(exact)] == exact
    assert {one["uriBaseId"] for one in uris} == {*run["originalUriBaseIds"]}


def fingerprints(what: Report) -> list[str]:
    return [one["partialFingerprints"]["drift/v1"] for one in sarif(render("sarif", what))["results"]]


def test_sarif_fingerprints_depend_on_the_place_alone() -> None:
    drift = REPORTS["drift"]
    one = fingerprints(drift)
    assert len({*one}) == len(one)
    later = replace(drift, generated=drift.generated + 86_400, duration=9.0, version="9")
    assert fingerprints(later) == one


def test_sarif_fingerprints_do_not_change_with_contents() -> None:
    def drifted(kind: Kind, size: int) -> Report:
        finding = stale_resolver()
        entry = replace(finding.drift.entry, have=State(type=FileType.FILE, size=size))
        finding = Finding(drift=replace(finding.drift, kind=kind, entry=entry, reason=f"{size} bytes"))
        return report(InstanceReport(instance=OUT, entries=1, findings=(finding,)))

    assert fingerprints(drifted(Kind.OUTDATED, 1)) == fingerprints(drifted(Kind.MODIFIED, 2))


# --- GitHub -----------------------------------------------------------------------------------------------------


def commands(made: str) -> list[tuple[str, dict[str, str], str]]:
    """What GitHub's runner takes for commands: lines that begin with ``::`` behind spaces, and ``##[`` anywhere."""
    found = []
    for line in made.splitlines():
        assert "##[" not in line
        match = re.fullmatch(r"\s*::(\S+?)(?: (.*?))?::(.*)", line)
        if match is not None:
            pairs = (pair.partition("=") for pair in (match[2] or "").split(",") if pair)
            found.append((match[1], {key: value for key, _, value in pairs}, match[3]))
    return found


@pytest.mark.parametrize("name", REPORTS)
def test_github_has_an_annotation_for_each_drift(name: str, artifacts: Path) -> None:
    made = render("github", REPORTS[name])
    keep(artifacts, f"{name}.github.txt", made)
    found = [
        (command, properties) for command, properties, _ in commands(made) if command in {"error", "warning", "notice"}
    ]
    shown = [one for one in findings(REPORTS[name]) if one.drift.severity is not Severity.INFO]
    assert sum("file" in properties for _, properties in found) == len(shown)
    assert all(properties["title"] for _, properties in found)
    assert {command for command, _, _ in commands(made)} <= {"error", "warning", "notice", "group", "endgroup"}


def test_github_escapes_what_ends_a_property_or_a_message() -> None:
    where = instance("a,b:c%d", chroot="/srv/a,b:c%d")
    made = render("github", report(InstanceReport(instance=where, entries=1, findings=(stale_resolver(where),))))
    (annotation,) = [one for one in commands(made) if one[0] == "error"]
    assert annotation[1] == {
        "file": "srv/a%2Cb%3Ac%25d/etc/resolv.conf",
        "title": "differs in a%2Cb%3Ac%25d",
    }
    assert annotation[2] == (
        "/srv/a,b:c%25d/etc/resolv.conf: size differs: 120 bytes instead of 95%0A"
        "smtp(8), lmtp(8) and smtpd(8) read it after chroot; a stale one defers mail"
    )


def test_github_levels_follow_the_severity() -> None:
    warned = REPORTS["warnings"]
    assert [one[0] for one in commands(render("github", warned))][:1] == ["warning"]
    assert [one[0] for one in commands(render("github", warned, Options(strict=True)))][:1] == ["error"]
    assert render("github", REPORTS["in-sync"]) == "chrootsync: 3 instances, 126 entries: in sync\n"


# --- Nagios -----------------------------------------------------------------------------------------------------

PERFORMANCE = re.compile(r"'([^'=]+)'=(-?[0-9.]+)(s|%|B|c)?;([0-9.:~@]*);([0-9.:~@]*);([0-9.]*)(?:;[0-9.]*)?")


def plugin(made: str) -> tuple[str, dict[str, str], list[str]]:
    """The state, the performance data and the other lines of a plugin's output, as the guidelines lay it out."""
    first, *rest = made.removesuffix("\n").split("\n")
    text, bar, performance = first.partition("|")
    assert bar
    assert "|" not in performance + "".join(rest)
    match = re.match(r"CHROOTSYNC (OK|WARNING|CRITICAL|UNKNOWN) - .+ $", text)
    assert match is not None
    items = performance.split()
    assert all(PERFORMANCE.fullmatch(item) for item in items)
    assert len(made.encode()) <= LIMIT
    assert len(first.encode()) < 1000
    return match[1], {item.split("'")[1]: item.partition("=")[2] for item in items}, rest


@pytest.mark.parametrize(
    ("name", "strict", "status"),
    [
        ("in-sync", False, "OK"),
        ("unchrooted", False, "OK"),
        ("warnings", False, "OK"),
        ("warnings", True, "WARNING"),
        ("drift", False, "CRITICAL"),
        ("repaired", False, "WARNING"),
        ("failed", False, "CRITICAL"),
        ("proved", False, "CRITICAL"),
        ("hostile", False, "CRITICAL"),
        ("nothing", False, "UNKNOWN"),
    ],
)
def test_nagios_states(name: str, strict: bool, status: str, artifacts: Path) -> None:
    made = render("nagios", REPORTS[name], Options(strict=strict))
    keep(artifacts, f"{name}{'.strict' if strict else ''}.nagios.txt", made)
    found, performance, _ = plugin(made)
    assert (found, state(REPORTS[name], strict=strict).name) == (status, status)
    assert performance["instances"] == f"{len(REPORTS[name].instances)};;;0"
    assert performance["time"] == "0.067s;;;0"


def test_nagios_tells_the_worst_first() -> None:
    _, performance, lines = plugin(render("nagios", REPORTS["drift"]))
    severities = [line.split(":")[0] for line in lines if not line.startswith("note")]
    assert severities == sorted(severities)
    drifted = sum(one.drift.severity is Severity.ERROR for one in findings(REPORTS["drift"]))
    assert performance["drift"] == f"{drifted};;0;0"


def test_nagios_output_has_a_limit() -> None:
    found = tuple(lost_library(OUT, f"libnss_{number:04}.so.2") for number in range(3000))
    _, performance, lines = plugin(render("nagios", report(InstanceReport(instance=OUT, entries=1, findings=found))))
    assert performance["drift"] == "3000;;0;0"
    assert lines[-1] == f"... and {3000 - len(lines) + 1} more: chrootsync check"


def test_nagios_waiting_for_a_package_manager_is_a_warning() -> None:
    late = wrong_mode(outcome=Outcome(status=Status.WAITING, reason="until dpkg has ended"))
    one = report(InstanceReport(instance=OUT, entries=1, findings=(late,)), fixed=True)
    assert state(one, strict=False).name == "WARNING"


def test_nagios_errors_are_unknown() -> None:
    assert error(["main.cf: | cannot\nbe read", "b"]) == "CHROOTSYNC UNKNOWN - main.cf: \\x7c cannot\\x0abe read; b\n"
    assert len(error(["a" * 9999])) < 500


# --- Prometheus -------------------------------------------------------------------------------------------------

UNITS = {"seconds", "info"}


def samples(made: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """The samples, parsed by the official library, once they keep to the rules that ``promtool check metrics`` has."""
    seen = set()
    for family in text_string_to_metric_families(made):
        assert family.documentation
        assert family.type == "gauge"
        assert not re.search(
            r"_(total|count|sum|bucket|gauge)$|[A-Z]|_(ms|milliseconds|minutes|hours|kb|mb)$", family.name
        )
        assert family.samples
        for sample in family.samples:
            assert set(sample.labels) <= {"name", "kind", "severity", "version"}
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in seen
            seen.add(key)
            yield sample.name, sample.labels, sample.value


@pytest.mark.parametrize("name", REPORTS)
def test_prometheus_is_parsed_by_the_official_library(name: str, artifacts: Path) -> None:
    made = render("prometheus", REPORTS[name])
    keep(artifacts, f"{name}.prom", made)
    found = {sample: value for sample, labels, value in samples(made) if not labels}
    assert found["chrootsync_last_check_timestamp_seconds"] == 1_760_000_000.25
    assert found["chrootsync_last_check_duration_seconds"] == 0.067
    assert found["chrootsync_instances"] == len(REPORTS[name].instances)


def test_prometheus_counts_what_is_left_by_kind() -> None:
    found = {
        (sample, *labels.values()): value for sample, labels, value in samples(render("prometheus", REPORTS["failed"]))
    }
    assert found["chrootsync_drift", "postfix-in", "differs", "error"] == 2
    assert ("chrootsync_drift", "postfix-submission", "differs", "error") not in found
    assert found["chrootsync_repaired", "postfix-submission"] == 1
    assert found["chrootsync_repairs_failed", "postfix-out"] == 1
    assert found["chrootsync_reload_failed", "postfix-out"] == 1
    assert [found["chrootsync_in_sync", one.instance.name] for one in REPORTS["failed"].instances] == [1, 0, 0]


def test_prometheus_tells_of_lookups_where_there_were_some() -> None:
    found = {
        (sample, *labels.values()): value for sample, labels, value in samples(render("prometheus", REPORTS["proved"]))
    }
    assert found["chrootsync_probe_failing", "postfix-out"] == 1
    assert found["chrootsync_probe_complete", "postfix-in"] == 0
    assert found["chrootsync_stale_processes", "postfix-out"] == 1
    assert "probe" not in render("prometheus", REPORTS["drift"])


def test_prometheus_names_no_path() -> None:
    assert "/etc" not in render("prometheus", REPORTS["hostile"])


# --- All of them ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(name=NAMES, path=NAMES)
def test_hostile_names_stay_names(name: str, path: str) -> None:
    """What each format's own reader finds is as much as with harmless names, and is the same text again."""
    hostile, harmless = with_names(name, path), with_names("name", "path")
    for style in MACHINES:
        made = render(style, hostile)
        assert all(line.isprintable() for line in made.split("\n"))
        assert made.encode("utf-8").endswith(b"\n")
    assert len(list(junit(render("junit", hostile)).iter())) == len(list(junit(render("junit", harmless)).iter()))
    assert len(sarif(render("sarif", hostile))["results"]) == 1
    (message,) = [one["message"]["text"] for one in sarif(render("sarif", hostile))["results"]]
    assert not re.search(r"\]\(|(?<!\{)(?:\{\{)*\{(?!\{)", message)
    assert [one[0] for one in commands(render("github", hostile))] == ["error", "group", "endgroup"]
    assert plugin(render("nagios", hostile))[1].keys() == plugin(render("nagios", harmless))[1].keys()
    assert len([*samples(render("prometheus", hostile))]) == len([*samples(render("prometheus", harmless))])


@pytest.mark.parametrize("name", NASTY)
def test_names_can_be_read_back(name: str) -> None:
    def undone(shown: str) -> str:
        data = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), shown.encode())
        return data.decode("utf-8", "surrogateescape")

    made = with_names(name, "path")
    (suite, *_) = junit(render("junit", made))
    assert undone(suite.attrib["name"]) == f"chrootsync.{name}"
    assert undone(sarif(render("sarif", made))["results"][0]["properties"]["instance"]) == name
    labels = [labels for _, labels, _ in samples(render("prometheus", made)) if "name" in labels]
    assert undone(labels[0]["name"]) == name


def test_each_machine_format_has_its_module() -> None:
    assert {*MACHINES, "table", "plain", "json"} <= set(FORMATS)
    assert set(FORMATS) >= LISTING
    for name in FORMATS.values():
        assert callable(importlib.import_module(name).render)
