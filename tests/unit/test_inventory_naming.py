"""Whether a rule names a path, or could."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.inventory.naming import Naming, Wanted, first_group, naming
from chrootsync.model import Device, FileCondition, FileType, Link, ParameterCondition, Rule, TableCondition, When
from tests.unit.scenery import rule
from tests.unit.test_shipped import rule_sets


def wanted(path: str, **fields: object) -> Wanted:
    return Wanted(name=path.rpartition("/")[2], path=path, **fields)  # type: ignore[arg-type]  # fields of any type


def setting(matches: str, **fields: object) -> Rule:
    return rule(when=(When(parameters=(ParameterCondition(names=("x",), matches=matches),)),), **fields)


NULL = Device(path="/dev/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3)


@pytest.mark.parametrize(
    ("named", "path", "expected"),
    [
        (rule(files=("/etc/hosts",)), "/etc/hosts", Naming.EXACTLY),
        (rule(files=("/etc/hosts",)), "/etc/hosts.allow", None),
        (rule(filtered=("/etc/passwd",)), "/etc/passwd", Naming.EXACTLY),
        (rule(sockets=("/dev/log",)), "/dev/log", Naming.EXACTLY),
        (rule(devices=(NULL,)), "/dev/null", Naming.EXACTLY),
        (rule(links=(Link(path="/lib", target="usr/lib"),)), "/lib", Naming.EXACTLY),
        (rule(libraries=("libgcc_s.so.1",)), "/usr/lib/libgcc_s.so.1", Naming.EXACTLY),
        (rule(libraries=("libgcc_s.so.1",)), "/usr/lib/libgcc_s.so.2", None),
        (rule(directories=("/etc/bind",)), "/etc/bind", Naming.EXACTLY),
        (rule(directories=("/etc/bind",)), "/etc/bind/zones/a", Naming.EXACTLY),
        (rule(directories=("/etc/bind",)), "/etc/binder", None),
        (rule(directories=("/",)), "/etc/hosts", Naming.EXACTLY),
        (rule(directories=("/certs",), match=r".*\.0"), "/certs/a.0", Naming.EXACTLY),
        (rule(directories=("/certs",), match=r".*\.0"), "/certs/a.pem", Naming.MISFIT),
        (rule(directories=("/certs",), match=r".*\.0"), "/certs/below/a.0", None),
        (setting(r"unix:(passwd|group)\.byname", filtered=("/etc/$1",)), "/etc/passwd", Naming.EXACTLY),
        (setting(r"unix:(passwd|group)\.byname", filtered=("/etc/$1",)), "/etc/shadow", None),
        (setting(r"unix:(passwd|group)\.byname", filtered=("/etc/$1",)), "/etc/", None),
        (setting(r"^(/.*[^/])", files=("$1",)), "/any/file", Naming.LOOSELY),
        (setting(r"^(/.*[^/])", directories=("$1",), match=r"\d+\.0"), "/certs/12.0", Naming.EXACTLY),
        (setting(r"^(/.*[^/])", directories=("$1",), match=r"\d+\.0"), "/certs/a.pem", None),
        (setting(r"^(/.*[^/])", directories=("$1",)), "/certs/a.pem", Naming.LOOSELY),
        (setting(r"^yes$", files=("$1",)), "/any/file", None),
    ],
)
def test_a_rule_names_a_path(named: Rule, path: str, expected: Naming | None) -> None:
    assert naming(named, wanted(path)) is expected


def test_any_directory_could_be_named_by_a_setting() -> None:
    certificates = setting(r"^(/.*[^/])", directories=("$1",), match=r"\d+\.0")
    assert naming(certificates, wanted("/etc/ssl/certs", directory=True)) is Naming.EXACTLY
    assert naming(certificates, wanted("/etc/ssl/certs")) is None


def test_a_bare_name_is_that_of_a_place_or_of_a_library() -> None:
    bare = Wanted(name="hosts")
    assert naming(rule(files=("/etc/hosts",)), bare) is Naming.EXACTLY
    assert naming(rule(libraries=("/lib/hosts",)), bare) is Naming.EXACTLY
    assert naming(rule(directories=("/etc",)), bare) is None
    assert naming(setting("^(/.*)$", files=("$1",)), bare) is None


def test_a_rule_names_a_path_by_another_spelling_of_it() -> None:
    merged = wanted("/usr/lib/x", spell=lambda path: path.replace("/lib/", "/usr/lib/", 1))
    assert naming(rule(files=("/lib/x",)), merged) is Naming.EXACTLY


def test_tables_and_lines_of_files_catch_paths_too() -> None:
    table = TableCondition(of=("*",), types=("ldap",), keys=("tls_ca",), matches="^(/ca/.*)$")
    line = FileCondition(paths=("/etc/x",), matches="^(/from/a/.*)$")
    for when, path in ((When(table=table), "/ca/a.pem"), (When(file=line), "/from/a/file")):
        assert naming(rule(files=("$1",), when=(when,)), wanted(path)) is Naming.LOOSELY
        assert naming(rule(files=("$1",), when=(when,)), wanted("/other")) is None


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        ("^yes$", None),
        ("(a|b)c", "a|b"),
        (r"(?<![\w:])unix:(passwd|group)\.byname", "passwd|group"),
        (r"(?:^|[\s,{])(?:unix|local):(/[^\s,}]*[^\s,}/])", r"/[^\s,}]*[^\s,}/]"),
        (r"\((a)", "a"),
        (r"[()]([)]|x)", "[)]|x"),
        (r"[]()](a)", "a"),
        (r"[^]()](a)", "a"),
        ("((a)b)", "(a)b"),
        ("(?P<name>a)", "a"),
        (r"(?i)(a)", "a"),
        (r"(x)((?P=name))", "x"),
        (r"(a\2)(b)", None),
    ],
)
def test_the_text_of_the_first_group(pattern: str, group: str | None) -> None:
    assert first_group(pattern) == group


@given(st.text(alphabet="ab()[]^\\?:|*.P<>=", max_size=12))
def test_the_text_of_a_group_is_an_expression_whatever_it_stands_in(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (re.error, FutureWarning):
        return
    found = first_group(pattern)
    assert found is None or re.compile(found) is not None
    assert found is None or groups


def test_every_shipped_rule_with_a_value_has_a_group_to_catch_it() -> None:
    found = 0
    for rule_set in rule_sets():
        for one in rule_set.rules:
            if "$1" in "".join((*one.files, *one.filtered, *one.directories, *one.sockets)):
                patterns = [each.matches for when in one.when for each in when.parameters]
                patterns += [each.matches for when in one.when for each in (when.table, when.file) if each is not None]
                assert any(first_group(pattern) is not None for pattern in patterns), one.id
                found += 1
    assert found
