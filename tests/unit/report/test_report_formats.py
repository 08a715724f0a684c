"""What every format must hold to, and what is particular to one."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chrootsync.report
from chrootsync.model import (
    Device,
    FileCondition,
    FileType,
    Finding,
    Guard,
    InstanceReport,
    Kind,
    Link,
    OnChange,
    OnConflict,
    Outcome,
    ParameterCondition,
    Presence,
    Remedy,
    Report,
    Rule,
    RuleSet,
    Severity,
    State,
    Status,
    TableCondition,
    When,
)
from chrootsync.report import FORMATS, Options, render
from chrootsync.report import instances as listed_instances
from chrootsync.report import rules as listed_rules
from chrootsync.report.json import error_json
from chrootsync.report.text import location
from chrootsync.report.verdict import Verdict, findings
from tests.unit.report.report_samples import OUT, REPORTS, instance, lost_library, report, stale_resolver, wrong_mode

SCHEMA: dict[str, Any] = json.loads(Path(chrootsync.report.__file__).with_name("schema.json").read_text("utf-8"))
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def closed(schema: Any) -> Any:
    """The schema with no room for fields that it does not describe."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        if "required" in made:
            made["additionalProperties"] = False
        return made
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


def valid(text: str) -> Any:
    made = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(made)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(closed(deepcopy(SCHEMA)), format_checker=checker).validate(made)
    return made


# --- Every format -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("verbose", [0, 1])
@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("style", FORMATS)
def test_nothing_in_a_report_does_anything_to_a_terminal(style: str, name: str, verbose: int, *, color: bool) -> None:
    made = render(style, REPORTS[name], Options(verbose=verbose, color=color))
    assert made.endswith("\n")
    assert not made.endswith("\n\n")
    bare = COLOURS.sub("", made) if color and style == "table" else made
    assert all(line.isprintable() for line in bare.split("\n"))
    made.encode("utf-8")


@pytest.mark.parametrize("style", FORMATS)
def test_colour_changes_no_word(style: str) -> None:
    plain = render(style, REPORTS["failed"], Options())
    coloured = COLOURS.sub("", render(style, REPORTS["failed"], Options(color=True)))
    assert [line.rstrip() for line in coloured.split("\n")] == plain.split("\n")


def column(lines: list[str], start: int, end: int | None = None) -> str:
    return "".join("".join(line[start:end].split()) for line in lines)


@pytest.mark.parametrize("width", [1, 30, 80, 131, 132, 140, 200, 400])
@pytest.mark.parametrize("name", ["drift", "failed", "repaired"])
def test_a_table_cuts_nothing_off(name: str, width: int) -> None:
    lines = render("table", REPORTS[name], Options(width=width)).splitlines()
    found = findings(REPORTS[name])
    if width < 132:
        kinds = {finding.drift.kind for finding in found}
        firsts = [line for line in lines if line.startswith("  ") and line.split()[0] in kinds]
        start = 2 + max(map(len, kinds)) + 2
        cells = [column(lines, start, max(line.rindex("  ") for line in firsts))]
    else:
        head = lines[1]
        starts = [head.index(word) for word in ("Path", "Why", "Outcome" if REPORTS[name].fixed else "Remedy")]
        cells = [column(lines, start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    shown = "\n".join(cells)
    for finding in found:
        failure = finding.outcome.reason if finding.outcome else ""
        for what in ("".join(location(finding.drift)[width < 132 :]), finding.drift.reason, failure):
            assert "".join(what.split()) in shown


@pytest.mark.parametrize("width", [30, 80, 200])
def test_a_table_leaves_commands_and_their_output_in_one_piece(width: int) -> None:
    lines = render("table", REPORTS["failed"], Options(width=width)).splitlines()
    assert "postfix-submission: not reloaded; do it with: /usr/sbin/postfix -c /etc/postfix-submission reload" in lines
    assert "    postfix: fatal: parameter inet_interfaces: no local interface found for 192.0.2.1" in lines


def test_a_table_shows_the_first_of_many_that_are_alike_and_counts_the_others() -> None:
    found = tuple(lost_library(OUT, f"libnss_{number:03}.so.2") for number in range(120))
    many = report(InstanceReport(instance=OUT, entries=120, findings=found))
    for width in (80, 200):
        made = render("table", many, Options(width=width))
        assert len(re.findall(r"libnss_\d{3}\.so\.2", made)) == 2
        assert "and 118 more in /lib/x86_64-linux-gnu, the same with each (-v shows them)" in " ".join(made.split())
        assert made.count("nsswitch.conf names") == 1


def test_a_table_lists_every_row_when_asked_for_all() -> None:
    found = tuple(lost_library(OUT, f"libnss_{number:03}.so.2") for number in range(120))
    many = report(InstanceReport(instance=OUT, entries=120, findings=found))
    made = render("table", many, Options(width=200, verbose=1))
    rows = [line for line in made.splitlines() if line.startswith(" postfix-out")]
    assert len(rows) == 120


def test_a_quiet_format_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from tests.unit.report.report_samples import REPORTS; from chrootsync.report import render;"
        "[render(style, REPORTS['drift']) for style in ('plain', 'json')];"
        "print([name for name in ('rich', 'asyncio', 'sqlite3', 'subprocess', 'pathlib') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    cwd = Path(chrootsync.report.__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    assert done.stdout == "[]\n"


def test_an_unknown_format_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        render("xml", REPORTS["in-sync"])


@settings(max_examples=50)
@given(name=st.text(st.characters(), min_size=1), path=st.text(st.characters()), style=st.sampled_from([*FORMATS]))
def test_any_name_is_survived(name: str, path: str, style: str) -> None:
    where = instance(name, chroot="/" + path)
    finding = stale_resolver(where, Outcome(status=Status.FAILED, reason=path))
    entry = replace(finding.drift.entry, path="/" + path, source=path, because=path)
    one = InstanceReport(
        instance=where, entries=1, findings=(replace(finding, drift=replace(finding.drift, entry=entry, reason=path)),)
    )
    made = render(style, report(one, fixed=True), Options(verbose=1))
    assert all(line.isprintable() for line in made.split("\n"))
    made.encode("utf-8")


# --- Table ------------------------------------------------------------------------------------------------------


def hint(*found: Finding) -> str:
    made = render("table", report(InstanceReport(instance=OUT, entries=2, findings=found)), Options())
    return made.splitlines()[-1]


def test_a_table_says_what_to_do_next() -> None:
    by_hand = wrong_mode()
    by_hand = replace(by_hand, drift=replace(by_hand.drift, remedy=Remedy.NONE))
    assert hint(stale_resolver()) == "check --fix repairs it."
    assert hint(stale_resolver(), wrong_mode()) == "check --fix repairs all of it."
    assert hint(stale_resolver(), by_hand) == "check --fix repairs 1 of 2; what the others need is said above."
    assert hint(by_hand) == "1 instance, 2 entries: 1 drifted (1 metadata)"


# --- JSON -------------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", REPORTS)
def test_json_keeps_to_its_schema(name: str) -> None:
    made = valid(render("json", REPORTS[name]))
    assert made["summary"]["drift"] == sum(made["summary"]["by_kind"].values())


def test_the_schema_knows_every_word() -> None:
    defs = SCHEMA["$defs"]
    drift = defs["drift"]["properties"]
    assert set(Kind) <= set(defs["kind"]["enum"])
    assert list(Verdict) == defs["status"]["enum"]
    assert list(Severity) == drift["severity"]["enum"]
    assert list(Remedy) == drift["remedy"]["enum"]
    assert list(Status) == drift["outcome"]["oneOf"][1]["properties"]["status"]["enum"]
    rule = defs["rule"]["properties"]
    assert list(Presence) == rule["presence"]["enum"]
    assert list(OnChange) == rule["on_change"]["enum"]
    assert list(OnConflict) == rule["on_conflict"]["enum"]
    assert list(Severity) == rule["severity"]["oneOf"][1]["enum"]
    assert list(FileType) == defs["state"]["oneOf"][1]["properties"]["type"]["enum"]


def test_json_gives_the_bytes_of_a_path_that_it_cannot_show() -> None:
    made = valid(render("json", REPORTS["hostile"]))
    paths = [
        (base64.b64decode(d["path_b64"]) if "path_b64" in d else None, d["path"]) for d in made["instances"][0]["drift"]
    ]
    assert (b"/etc/latin1-\xe9\xff", "/etc/latin1-\\xe9\\xff") in paths
    assert (b"/etc/backslash\\x41 and \\ alone", "/etc/backslash\\x5cx41 and \\ alone") in paths
    assert (None, "/etc/ünïcode-漢字-is-fine") in paths


def test_json_hides_digests_of_what_not_everybody_may_read() -> None:
    made = valid(
        render("json", report(InstanceReport(instance=OUT, entries=2, findings=(wrong_mode(), stale_resolver()))))
    )
    secret, public = made["instances"][0]["drift"]
    assert [secret[side]["sha256"] for side in ("want", "have")] == [None, None]
    assert all(public[side]["sha256"] for side in ("want", "have"))


def test_json_shows_links_and_devices() -> None:
    link = State(type=FileType.LINK, target="/etc/\udcff")
    node = State(type=FileType.BLOCK_DEVICE, device=(8, 1))
    finding = stale_resolver()
    entry = replace(finding.drift.entry, want=link, have=node)
    finding = replace(finding, drift=replace(finding.drift, entry=entry))
    one = report(InstanceReport(instance=OUT, entries=1, findings=(finding,)))
    drift = valid(render("json", one))["instances"][0]["drift"][0]
    assert (drift["want"]["target"], drift["want"]["target_b64"]) == ("/etc/\\xff", "L2V0Yy//")
    assert drift["have"]["device"] == [8, 1]
    said = render("plain", one, Options(verbose=1))
    assert "want: link, to /etc/\\xff\n" in said
    assert "have: block-device 8:1\n" in said


def test_an_error_is_json_too() -> None:
    made = valid(error_json(["chrootsync.toml: instance[0].chroot: must be absolute", "a\x1bb"], 2))
    assert made["error"] == {
        "code": 2,
        "messages": ["chrootsync.toml: instance[0].chroot: must be absolute", "a\\x1bb"],
    }


def test_what_was_discovered_is_json_too() -> None:
    broken = replace(OUT, problem="a\x1bb", config=None, version="3.7.11")
    made = valid(listed_instances.render([OUT, broken], as_json=True))
    assert [one["problem"] for one in made["instances"]] == [None, "a\\x1bb"]
    assert valid(listed_instances.render([], as_json=True)) == {"schema": 1, "instances": []}


def test_rules_are_json_too() -> None:
    rule = Rule(id="a.b", why="c", origin="/etc/\x1b.toml: rule[0]", files=("/etc/hosts",))
    full = replace(
        rule,
        devices=(Device(path="/dev/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3),),
        links=(Link(path="/lib", target="usr/lib"),),
        when=(When(chrooted=("smtp",), parameters=(ParameterCondition(names=("x_*",), matches="^/(.*)"),)),),
        guard=Guard(matches=r"^\s*nameserver\s"),
        match=r"\.pem$",
        mode=0o644,
        severity=Severity.WARNING,
    )
    one = RuleSet(name="a", service="postfix", description="d", origin="/etc/\x1b.toml", rules=(rule, full))
    (made,) = valid(listed_rules.render([one], as_json=True))["rule_sets"]
    assert (made["origin"], made["rules"][0]["origin"]) == ("/etc/\\x1b.toml", "/etc/\\x1b.toml: rule[0]")
    assert (made["rules"][1]["match"], made["rules"][1]["mode"]) == (r"\.pem$", 0o644)


def test_conditions_of_every_kind_are_json_and_words() -> None:
    parameters = tuple(ParameterCondition(names=(name,), matches=f"^{name}") for name in ("x", "y"))
    table = TableCondition(of=("*_maps",), types=("ldap", "mysql"), keys=("ca_*",), matches="(/.+)")
    file = FileCondition(paths=("/etc/a", "/etc/b"), matches="^socket")
    conditions = (
        When(chrooted=("smtp", "lmtp"), parameters=parameters, version=">=3.6", libc="musl", exists="/x"),
        When(table=table, file=file, distribution=("debian",)),
        When(),
    )
    rule = Rule(id="a", why="c", origin="/a.toml", files=("$1",), when=conditions, optional=True)
    advised = Rule(id="b", why="c", origin="/a.toml", sockets=("/run/x",), advice="let it listen inside")
    kept = Rule(id="d", why="c", origin="/a.toml", files=("/etc/x",), presence=Presence.IF_PRESENT)
    one = RuleSet(name="a", service="postfix", description="d", origin="/a.toml", rules=(rule, advised, kept))
    (made,) = valid(listed_rules.render([one], as_json=True))["rule_sets"]
    assert [when["parameters"] for when in made["rules"][0]["when"]] == [
        [{"names": ["x"], "matches": "^x"}, {"names": ["y"], "matches": "^y"}],
        [],
        [],
    ]
    assert made["rules"][0]["when"][1]["table"] == {
        "of": ["*_maps"],
        "types": ["ldap", "mysql"],
        "keys": ["ca_*"],
        "matches": "(/.+)",
    }
    assert made["rules"][0]["when"][1]["file"] == {"paths": ["/etc/a", "/etc/b"], "matches": "^socket"}
    assert [(one["when"] == [], one["optional"], one["advice"]) for one in made["rules"]] == [
        (False, True, None),
        (True, False, "let it listen inside"),
        (True, False, None),
    ]
    text = " ".join(listed_rules.render([one], as_json=False).split())
    assert "holds $1, as far as the host has it when smtp, lmtp run chrooted; x matches ^x; y matches ^y;" in text
    assert "; version >=3.6; musl; /x exists or ca_* in ldap, mysql tables of *_maps matches (/.+);" in text
    assert "; a line of /etc/a or /etc/b matches ^socket; distribution debian or always why c" in text
    assert "holds sockets /run/x when always why c" in text
    assert "holds /etc/x, where it is present already when always why c" in text


def test_each_document_is_one_of_its_kind() -> None:
    """The branches of the schema keep each other out, also where a list is empty."""
    for text in (
        render("json", report()),
        listed_instances.render([], as_json=True),
        listed_rules.render([], as_json=True),
        error_json(["x"], 2),
    ):
        valid(text)
    for wrong in ({"schema": 1}, {"schema": 2, "instances": []}, {"schema": 1, "rule_sets": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            valid(json.dumps(wrong))


def test_the_time_is_utc() -> None:
    made: Report = REPORTS["in-sync"]
    assert json.loads(render("json", made))["generated"] == "2025-10-09T08:53:20Z"
