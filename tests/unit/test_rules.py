"""Rule files: masks, overrides, and every mistake of every file, told at once with its key path."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import (
    ConfigError,
    Device,
    FileCondition,
    FileType,
    Guard,
    Link,
    OnChange,
    OnConflict,
    ParameterCondition,
    Presence,
    Rule,
    RuleSet,
    Severity,
    TableCondition,
    When,
)
from chrootsync.rules.ruleset import parse

CASES = Path(__file__).parent.parent / "cases" / "rules"
GOOD = sorted((CASES / "good").glob("*.toml"))
BAD = sorted((CASES / "bad").glob("*.toml"))

HEAD = '[ruleset]\nservice = "postfix"\ndescription = "d"\n'


def rule(name: str, more: str = 'files = ["/etc/hosts"]') -> str:
    return f'[[rule]]\nid = "{name}"\nwhy = "w"\n{more}\n'


def accepted(text: str | bytes) -> tuple[RuleSet, ...] | None:
    """What the parser makes of a file; None where it says what is wrong, and where."""
    try:
        return parse([("a.toml", text)])
    except ConfigError as error:
        told = error.problems
    assert told
    assert all(problem.startswith("a.toml: ") for problem in told)
    return None


def problems(*args: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(*args)
    return list(caught.value.problems)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_parses(path: Path) -> None:
    found = [(rule_set.name, rule_set.origin) for rule_set in parse([(path.name, path.read_bytes())])]
    assert found == ([(path.stem, path.name)] if path.stat().st_size else [])


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gives_exactly_these_messages(path: Path) -> None:
    expected = path.with_suffix(".errors").read_text().splitlines()
    assert problems([(path.name, path.read_bytes())]) == expected


def test_every_key_becomes_its_field() -> None:
    path = CASES / "good" / "everything.toml"
    (rule_set,) = parse([(str(path), path.read_text())])
    first, second, third = rule_set.rules
    assert rule_set == RuleSet(
        name="everything",
        service="postfix",
        description="Every key once",
        origin=str(path),
        rules=(first, second, third),
    )
    assert first == Rule(
        id="all.files",
        why="a test needs it",
        origin=str(path),
        files=("/etc/resolv.conf", "/etc/with blank", "/etc/ünïcödé", "/etc/..hidden", "/etc/price$"),
        guard=Guard(matches=r"^\s*nameserver\s"),
        mode=0o644,
        owner="root",
        group="0",
        on_change=OnChange.RESTART,
        on_conflict=OnConflict.KEEP,
        severity=Severity.WARNING,
        when=(
            When(
                chrooted=("smtp", "lmtp"),
                version=">=3.6,<4",
                libc="glibc>=2.34",
                distribution=("debian", "opensuse-leap"),
                exists="/etc/resolv.conf",
                parameters=(ParameterCondition(names=("*_maps", "smtpd_tls_CApath"), matches="^$"),),
            ),
        ),
    )
    assert second == Rule(
        id="all.directories",
        why="a test needs it",
        origin=str(path),
        directories=("$1", "$1/below", "/etc/$1/x"),
        match=r"[0-9a-f]{8}\.r?[0-9]+",
        mirror=True,
        mode=0o600,
        when=(When(libc="musl", parameters=(ParameterCondition(names=("smtp_tls_CApath",), matches="^(/.+)$"),)),),
    )
    assert third == Rule(
        id="all.rest",
        why="a test needs it",
        origin=f"{path}, changed by {path}",
        nss=("hosts", "passwd"),
        libraries=("libgcc_s.so.1", "/opt/lib/libx.so"),
        devices=(
            Device(path="/dev/urandom", kind=FileType.CHARACTER_DEVICE, major=1, minor=9),
            Device(path="/dev/loop0", kind=FileType.BLOCK_DEVICE, major=7, minor=0),
        ),
        links=(Link(path="/var/run", target="../run"),),
        sockets=("/dev/log",),
        filtered=("/etc/passwd", "/etc/group"),
        when=(When(),),
        presence=Presence.IF_PRESENT,
        severity=Severity.INFO,
    )


def test_conditions_come_as_a_table_or_as_an_array_of_alternatives() -> None:
    path = CASES / "good" / "alternatives.toml"
    ((first, second),) = (rule_set.rules for rule_set in parse([(str(path), path.read_text())]))
    assert first == Rule(
        id="all.conditions",
        why="a test needs it",
        origin=str(path),
        files=("$1",),
        directories=("/etc/$1/x",),
        sockets=("$1/socket",),
        optional=True,
        advice="let it listen inside",
        when=(
            When(
                chrooted=("smtpd",),
                parameters=(
                    ParameterCondition(names=("a",), matches="(?:yes|no)"),
                    ParameterCondition(names=("b_*", "c"), matches="^(/.+)$"),
                ),
            ),
            When(
                parameters=(ParameterCondition(names=("d",), matches="x"),),
                table=TableCondition(
                    of=("*_maps",), types=("ldap", "mysql"), keys=("*_file",), matches="(?P<file>/.+)"
                ),
                file=FileCondition(paths=("/etc/x.conf", "/usr/lib/x.conf"), matches="^x"),
            ),
            When(file=FileCondition(paths=("/etc/x.conf",), matches="^socket: (/.+)")),
        ),
    )
    assert (second.when, second.optional) == ((When(),), False)


def test_a_group_that_catches_is_asked_of_each_alternative_only_where_a_path_wants_it() -> None:
    conditions = "when = [{ parameter = { names = ['x'], matches = '(/.+)' } }, { libc = 'musl' }]"
    (rule_set,) = parse([("a.toml", HEAD + rule("a", f"files = ['/etc/hosts']\n{conditions}"))])
    assert len(rule_set.rules[0].when) == 2


def test_an_override_gives_a_rule_advice_or_makes_it_optional() -> None:
    shipped = HEAD + rule("a", 'sockets = ["/run/x"]\nadvice = "old"') + rule("b")
    change = '[[override]]\nid = "a"\nadvice = "new"\n[[override]]\nid = "b"\noptional = true\n'
    (rule_set,) = parse([("/usr/a.toml", shipped)], [("/etc/local.toml", change)])
    assert [(one.advice, one.optional) for one in rule_set.rules] == [("new", False), (None, True)]


def test_the_last_override_of_a_key_counts() -> None:
    path = CASES / "good" / "override-twice.toml"
    ((changed,),) = (rule_set.rules for rule_set in parse([(path.name, path.read_bytes())]))
    assert changed.files == ("/etc/c",)
    assert changed.on_conflict is OnConflict.KEEP
    assert changed.when == (When(chrooted=("smtpd",)),)


def test_a_file_without_rules_is_no_rule_set() -> None:
    assert parse([("empty.toml", "")]) == ()
    assert [found.rules for found in parse([("head.toml", HEAD)])] == [()]


def test_a_local_file_masks_the_shipped_one_of_its_name() -> None:
    shipped = [("/usr/rules/a.toml", HEAD + rule("a")), ("/usr/rules/b.toml", HEAD + rule("b"))]
    local = [("/etc/rules.d/a.toml", HEAD + rule("other")), ("/etc/rules.d/c.toml", HEAD + rule("c"))]
    found = parse(shipped, local)
    assert [(rule_set.name, rule_set.origin, rule_set.rules[0].id) for rule_set in found] == [
        ("b", "/usr/rules/b.toml", "b"),
        ("a", "/etc/rules.d/a.toml", "other"),
        ("c", "/etc/rules.d/c.toml", "c"),
    ]


def test_an_empty_local_file_switches_a_shipped_one_off() -> None:
    assert parse([("/usr/rules/a.toml", "this is not TOML")], [("/etc/rules.d/a.toml", b"")]) == ()


def test_an_override_reaches_rules_of_other_files_and_tells_its_origin() -> None:
    change = '[[override]]\nid = "a"\non_conflict = "keep"\n'
    (rule_set,) = parse([("/usr/a.toml", HEAD + rule("a"))], [("/etc/local.toml", change)])
    assert rule_set.rules[0].on_conflict is OnConflict.KEEP
    assert rule_set.rules[0].files == ("/etc/hosts",)
    assert rule_set.rules[0].origin == "/usr/a.toml, changed by /etc/local.toml"


def test_an_override_cannot_reach_a_masked_rule() -> None:
    change = '[[override]]\nid = "a"\non_conflict = "keep"\n'
    assert problems([("/usr/a.toml", HEAD + rule("a"))], [("/etc/a.toml", ""), ("/etc/b.toml", change)]) == [
        "/etc/b.toml: override[0].id: is not a known rule"
    ]


def test_an_override_of_a_rule_in_an_unreadable_file_is_not_blamed() -> None:
    change = '[[override]]\nid = "a"\non_conflict = "keep"\n'
    found = problems([("a.toml", "x")], [("b.toml", change)])
    assert [problem.partition(":")[0] for problem in found] == ["a.toml"]


def test_the_mistakes_of_a_rule_are_not_told_again_for_its_overrides() -> None:
    texts = [("a.toml", HEAD + rule("a", 'match = "x"') + '[[override]]\nid = "a"\nseverity = "info"\n')]
    assert [problem.split(": ")[1] for problem in problems(texts)] == ["rule[0]", "rule[0].match"]


def test_ids_are_unique_over_all_files() -> None:
    assert problems([("/usr/a.toml", HEAD + rule("a"))], [("/etc/b.toml", HEAD + rule("b") + rule("a"))]) == [
        '/etc/b.toml: rule[1].id: "a" is used already in /usr/a.toml: rule[0]'
    ]


def test_the_mistakes_of_all_files_come_in_one_go() -> None:
    found = problems(
        [("a.toml", HEAD + rule("a", 'files = ["etc"]')), ("b.toml", "=")], [("c.toml", HEAD + rule("c", "x = 1"))]
    )
    assert [problem.partition(":")[0] for problem in found] == ["a.toml", "b.toml", "c.toml", "c.toml"]


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "1" * 5000, "a = " + "{ b = " * 3000])
def test_hostile_toml_is_an_error_like_any_other(text: str) -> None:
    (problem,) = problems([("a.toml", text)])
    assert problem.startswith("a.toml: is not TOML")


def test_messages_stay_on_one_line() -> None:
    text = HEAD + rule("a", 'presence = "x\\ny"\n"k\\n\\u001b" = 1')
    assert all("\n" not in problem and "\x1b" not in problem for problem in problems([("a.toml", text)]))


def test_a_path_may_have_a_line_break_and_odd_characters() -> None:
    (rule_set,) = parse([("a.toml", HEAD + rule("a", r'files = ["/etc/a\nb", "/etc/\u202e"]'))])
    assert rule_set.rules[0].files == ("/etc/a\nb", "/etc/\u202e")


def test_reading_rules_loads_nothing_that_a_clean_check_can_do_without() -> None:
    """Specifiers and suggestions are paid for by those who need them."""
    code = (
        "import os, sys; from chrootsync.rules.ruleset import parse; from chrootsync.shipped import directory;"
        "folder = directory('rules');"
        "parse([(name, open(os.path.join(folder, name)).read()) for name in os.listdir(folder)]);"
        "print(sorted({'packaging', 'difflib', 'json', 'pathlib', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


KEYS = st.sampled_from(
    [
        *("ruleset", "rule", "override", "instance", "id", "why", "files", "directories", "match", "mirror", "nss"),
        *("devices", "links", "sockets", "when", "parameter", "names", "matches", "libc", "version", "presence"),
        *("table", "file", "of", "types", "keys", "paths", "optional", "advice"),
        *("mode", "path", "type", "major", "minor", "target", "guard", "chroot", "rules", "reload", "unit"),
    ]
)
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.sampled_from(["/etc/hosts", "$1", "(/x)", "glibc", "a", ">=1", "character"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def to_toml(value: Any) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    return str(value).lower()


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_toml_is_taken_or_refused_with_config_error(document: dict[str, Any]) -> None:
    text = "\n".join(f"{key} = {to_toml(value)}" for key, value in document.items())
    accepted(text)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=3))
def test_any_rule_is_taken_or_refused_with_config_error(tables: list[dict[str, Any]]) -> None:
    text = "rule = " + to_toml([{"id": "a", "why": "w", **table} for table in tables])
    text += "\n" + HEAD
    found = accepted(text)
    assert found is None or [len(rule_set.rules) for rule_set in found] == [len(tables)]


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_are_taken_or_refused_with_config_error(text: bytes | str) -> None:
    accepted(text)


@given(st.text(alphabet="/.$1ab\0", max_size=8))
def test_an_accepted_path_is_absolute_and_plain(path: str) -> None:
    condition = "when = { parameter = { names = ['x'], matches = '(/.+)' } }"
    found = accepted(HEAD + rule("a", f"files = [{to_toml(path)}]\n{condition}"))
    if found is None:
        return
    whole = found[0].rules[0].files[0]
    if path.startswith("$1"):
        whole = whole.replace("$1", "/caught", 1)
    assert re.fullmatch(r"(?:/[^/\0]+)+", whole)
    assert not {".", ".."} & set(whole.split("/"))


def test_cases_have_an_expectation_each() -> None:
    assert {path.stem for path in BAD} == {path.stem for path in (CASES / "bad").glob("*.errors")}
    assert tomllib.loads((CASES / "good" / "everything.toml").read_text())
