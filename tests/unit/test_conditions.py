"""Which rules hold, why, and why not: every condition, together and as alternatives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from chrootsync.inventory import Failing, Holding, Undecided, verdicts
from chrootsync.inventory.conditions import fits
from chrootsync.inventory.facts import Facts
from chrootsync.model import (
    Daemon,
    DoubtfulError,
    Evidence,
    FileCondition,
    Host,
    Link,
    ParameterCondition,
    TableCondition,
    UnreadableError,
    UnsafeError,
    When,
)
from tests.unit.scenery import daemon, grow, instance, rule, rule_set
from tests.unit.tree_reader import MemoryCache, TreeReader

YES = "(?i)^yes$"


class Tables(Mapping[str, Mapping[str, str]]):
    """Lookup tables as a provider has them: read when they are asked for, some of which cannot be."""

    def __init__(self, **tables: dict[str, str] | Exception) -> None:
        self._tables = {f"ldap:/etc/{name}.cf": what for name, what in tables.items()}
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Mapping[str, str]:
        self.read.append(name)
        found = self._tables[name]
        if isinstance(found, Exception):
            raise found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {"/etc/os-release": b'NAME="Ubuntu"\nID=ubuntu\nID_LIKE="debian"\n', "/lib/libc.so.6": b"no ELF"})
    return tmp_path


def verdict(
    root: Path,
    *when: When,
    daemons: tuple[Daemon, ...] = (),
    version: str | None = None,
    hidden: str = "",
    **fields: object,
) -> list[Holding | Failing | Undecided]:
    """How a rule holds for an instance with these daemons."""
    reader = TreeReader(root, unreadable=("/etc/secret.conf", hidden))
    host = Host(root=reader, run=None, cache=MemoryCache())
    one = rule(**{"files": ("/etc/hosts",), "when": when, **fields})
    (found,) = verdicts(host, [instance(daemons=daemons, version=version)], [rule_set(one)])
    return found


def values(found: list[Holding | Failing | Undecided]) -> list[str | None]:
    """What ``$1`` stands for, each time that a rule holds."""
    assert all(isinstance(one, Holding) for one in found)
    return [one.value for one in found if isinstance(one, Holding)]


def reason(found: list[Holding | Failing | Undecided]) -> str:
    """Why a rule does not hold."""
    (failing,) = found
    assert isinstance(failing, Failing)
    return failing.reason


def held(found: list[Holding | Failing | Undecided]) -> Holding:
    """How a rule holds that does once."""
    (one,) = found
    assert isinstance(one, Holding)
    return one


def undecided(found: list[Holding | Failing | Undecided]) -> list[str]:
    """What could not be seen."""
    return [str(one.error) for one in found if isinstance(one, Undecided)]


def parameter(name: str, matches: str) -> When:
    return When(parameters=(ParameterCondition(names=(name,), matches=matches),))


def tables(matches: str = "^(/.+)", *, keys: tuple[str, ...] = ("ca_file",)) -> TableCondition:
    return TableCondition(of=("*_maps",), types=("ldap", "mysql"), keys=keys, matches=matches)


def using(found: Tables, *programs: str, **parameters: str) -> tuple[Daemon, ...]:
    """Daemons that share parameters and tables."""
    return tuple(replace(daemon(name), tables=found, parameters=parameters) for name in programs or ("smtpd",))


# --- One condition ------------------------------------------------------------------------------------------------


def test_a_rule_without_conditions_always_holds(tree: Path) -> None:
    for when in ((), (When(),)):
        one = held(verdict(tree, *when))
        assert (one.because, one.value, one.evidence) == ("always", None, Evidence())


def test_of_chrooted_programs_all_are_the_evidence(tree: Path) -> None:
    daemons = (daemon("smtp"), daemon("smtpd"), daemon("lmtp", chrooted=False), daemon("qmgr"))
    one = held(verdict(tree, When(chrooted=("smtpd", "smtp", "lmtp")), daemons=daemons))
    assert one.because == "smtp, smtpd run chrooted"
    assert one.evidence == Evidence(daemons=("smtp/unix", "smtpd/unix"))
    assert (
        reason(verdict(tree, When(chrooted=("lmtp", "dnsblog")), daemons=daemons)) == "no lmtp or dnsblog runs chrooted"
    )


@pytest.mark.parametrize(
    ("when", "why"),
    [
        (When(distribution=("ubuntu",)), None),
        (When(distribution=("rhel", "debian")), None),
        (When(distribution=("rhel", "suse")), "the distribution is debian, ubuntu, not rhel or suse"),
        (When(exists="/etc/os-release"), None),
        (When(exists="/etc/x"), "/etc/x does not exist on the host"),
        (When(version=">=3.6"), None),
        (When(version=">=3.6,<3.7"), "the version is 3.7.11, not >=3.6,<3.7"),
        (When(libc="glibc"), "the C library is unknown, not glibc"),
    ],
)
def test_conditions_on_the_host_and_on_versions(tree: Path, when: When, why: str | None) -> None:
    found = verdict(tree, when, version="3.7.11")
    assert held(found).because == "always" if why is None else reason(found) == why


def test_an_unknown_distribution_is_none(tmp_path: Path) -> None:
    assert reason(verdict(tmp_path, When(distribution=("debian",)))) == "the distribution is unknown, not debian"


@pytest.mark.parametrize(
    ("version", "holds"),
    [("3.5.25", True), ("3.6.0", False), ("3.6-20260101", False), ("3.5-20200101", True), (None, True), ("snap", True)],
)
def test_a_version_that_is_not_known_is_within_any_specifier(tree: Path, version: str | None, holds: bool) -> None:
    found = verdict(tree, When(version="<3.6"), version=version)
    assert isinstance(found[0], Holding) is holds
    assert fits(version, "<3.6") is holds


@pytest.mark.parametrize(
    ("libc", "holds"), [("musl", True), ("musl>=1.2", True), ("musl<1.0", True), ("glibc", False), ("glibc<99", False)]
)
def test_a_libc_of_unknown_version_is_within_any_specifier(tmp_path: Path, libc: str, holds: bool) -> None:
    grow(tmp_path, {"/lib/ld-musl-x86_64.so.1": b"no ELF"})
    assert isinstance(verdict(tmp_path, When(libc=libc))[0], Holding) is holds


@pytest.mark.parametrize(
    ("libc", "why"),
    [
        ("glibc", None),
        ("glibc>=2.34", None),
        ("glibc<2.34", "the C library is glibc 2.36, not glibc<2.34"),
        ("musl", "the C library is glibc 2.36, not musl"),
    ],
)
def test_the_libc_and_its_version(tree: Path, monkeypatch: pytest.MonkeyPatch, libc: str, why: str | None) -> None:
    from chrootsync import libraries
    from chrootsync.model import Libc

    monkeypatch.setattr(libraries, "libc", lambda *_: Libc(name="glibc", version="2.36"))
    found = verdict(tree, When(libc=libc))
    assert held(found).because == "always" if why is None else reason(found) == why


def test_nothing_is_asked_of_daemons_that_do_not_run_chrooted(tree: Path) -> None:
    for when in (parameter("x", "y"), When(table=tables())):
        assert (
            reason(verdict(tree, when, daemons=(daemon("smtp", chrooted=False, x="y"),))) == "no service runs chrooted"
        )


# --- Parameters ---------------------------------------------------------------------------------------------------


def test_a_parameter_is_evidence_with_all_daemons_that_have_it(tree: Path) -> None:
    shared = daemon("smtp", smtp_tls_CApath="/etc/ssl/certs")
    daemons = (
        shared,
        replace(shared, name="relay/unix"),
        daemon("smtpd", smtp_tls_CApath="/srv/ca"),
        replace(daemon("lmtp"), parameters={"smtp_tls_CApath": "/etc/ssl/certs"}),
    )
    first, second = verdict(tree, parameter("smtp_tls_CApath", "^(/.+)"), daemons=daemons, files=("$1",))
    assert isinstance(first, Holding)
    assert first.because == "smtp_tls_CApath = /etc/ssl/certs (smtp/unix)"
    assert first.evidence == Evidence(
        daemons=("smtp/unix", "relay/unix", "lmtp/unix"), setting="smtp_tls_CApath", value="/etc/ssl/certs"
    )
    assert isinstance(second, Holding)
    assert (second.value, second.evidence.daemons) == ("/srv/ca", ("smtpd/unix",))


def test_long_and_empty_values_make_short_clauses(tree: Path) -> None:
    for value, because in (("", "a is empty (smtp/unix)"), ("x" * 61, f"a = {'x' * 57}... (smtp/unix)")):
        one = held(verdict(tree, parameter("a", "^x*$"), daemons=(daemon("smtp", a=value),)))
        assert (one.because, one.evidence.value) == (because, value)


def test_a_rule_whose_paths_take_nothing_holds_once_whatever_is_caught(tree: Path) -> None:
    daemons = (daemon("smtp", a="x y"), daemon("lmtp", a="z"))
    one = held(verdict(tree, parameter("a", "([xyz])"), daemons=daemons))
    assert (one.value, one.evidence.daemons) == (None, ("smtp/unix", "lmtp/unix"))
    link = Link(path="/run/$1", target="x")
    assert values(verdict(tree, parameter("a", "([xyz])"), daemons=daemons, links=(link,))) == ["x", "y", "z"]


def test_a_group_that_takes_no_part_catches_nothing(tree: Path) -> None:
    when = parameter("a", "^(?:unix:(/.+)|inet:.*)$")
    assert values(verdict(tree, when, daemons=(daemon("smtp", a="unix:/x"),), files=("$1",))) == ["/x"]
    found = verdict(tree, when, daemons=(daemon("smtp", a="inet:x"),), files=("/run$1",))
    assert reason(found) == "a is inet:x"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("a",), "a is not set"),
        (("b", "c", "a"), "b is no, c is not set, a is not set"),
        (("a", "b", "c", "d"), "no parameter a or b or c or d matches ^/"),
        (("b*",), "no parameter b* matches ^/"),
        (("*",), "no parameter matches ^/"),
    ],
)
def test_why_no_parameter_is_right_is_told(tree: Path, names: tuple[str, ...], why: str) -> None:
    when = When(parameters=(ParameterCondition(names=names, matches="^/"),))
    assert reason(verdict(tree, when, daemons=(daemon("smtp", b="no", c=""),))) == why


def test_reasons_of_several_daemons_are_told_each_once(tree: Path) -> None:
    daemons = (daemon("smtp", a="x"), daemon("lmtp", a="x"), daemon("smtpd", a="y"))
    assert reason(verdict(tree, parameter("a", "^/"), daemons=daemons)) == "a is x; a is y"


@pytest.mark.parametrize("matches", [r"\A(/.*)\Z", r"(?<!\s)/(.*)", r"^(/[^\n]*)(?!\n)$", r"(?s)\A(?!.*proxy:)(/.*)"])
def test_an_expression_sees_one_value_at_a_time(tree: Path, matches: str) -> None:
    """Whatever stands in the values of other parameters."""
    found = daemon("smtp", a="\n", b_x="/etc/x", c="proxy:\n", d="", b_y="proxy:")
    when = parameter("b_*", matches)
    assert held(verdict(tree, when, daemons=(found,))).evidence.setting == "b_x"


def test_what_one_instance_has_is_not_taken_for_another(tree: Path) -> None:
    host = Host(root=TreeReader(tree), run=None, cache=MemoryCache())
    instances = [instance("one", daemons=(daemon("smtp", a="/x"),)), instance("two", daemons=(daemon("smtp", a="/y"),))]
    needs = rule(files=("$1",), when=(parameter("*", "^(/.)$"),))
    found = list(verdicts(host, instances, [rule_set(needs)]))
    assert [values(one) for one in found] == [["/x"], ["/y"]]


def test_several_parameters_have_to_be_those_of_one_daemon(tree: Path) -> None:
    both = When(
        parameters=(
            ParameterCondition(names=("sasl",), matches=YES),
            ParameterCondition(names=("path",), matches="^(/.+)$"),
        )
    )
    apart = (daemon("smtpd", sasl="yes", path=""), daemon("smtpd", sasl="no", path="/a"))
    assert reason(verdict(tree, both, daemons=apart, files=("$1",))) == "path is not set; sasl is no"
    together = (*apart, replace(daemon("smtpd", sasl="YES", path="/b"), name="submission/inet"))
    one = held(verdict(tree, both, daemons=together, files=("$1",)))
    assert (one.value, one.evidence) == ("/b", Evidence(daemons=("submission/inet",), setting="path", value="/b"))


def test_without_a_group_the_first_condition_is_the_evidence(tree: Path) -> None:
    names = ("a", "b")
    both = When(parameters=tuple(ParameterCondition(names=(name,), matches="x") for name in names))
    assert held(verdict(tree, both, daemons=(daemon("smtpd", a="1x", b="2x"),))).evidence.value == "1x"


# --- Lookup tables ------------------------------------------------------------------------------------------------


def test_tables_are_looked_into_that_parameters_name_without_proxy(tree: Path) -> None:
    found = Tables(a={"ca_file": "/a"}, b={"ca_file": "/b"}, c={"ca_file": "/c"}, d={"ca_file": "/d"})
    daemons = using(
        found,
        virtual_maps="hash:/x, proxy:ldap:/etc/b.cf ldap:/etc/a.cf",
        pipe_maps="pipemap:{ldap:/etc/d.cf,ldap:/etc/gone.cf}",
        other="ldap:/etc/c.cf",
    )
    first, second = verdict(tree, When(table=tables()), daemons=daemons, files=("$1",))
    assert isinstance(first, Holding)
    assert first.because == "ca_file in ldap:/etc/a.cf = /a (smtpd/unix)"
    assert first.evidence == Evidence(daemons=("smtpd/unix",), setting="ca_file in ldap:/etc/a.cf", value="/a")
    assert values([second]) == ["/d"]
    assert "ldap:/etc/b.cf" not in found.read


def test_several_rules_look_into_the_same_tables(tree: Path) -> None:
    host = Host(root=TreeReader(tree), run=None, cache=MemoryCache())
    daemons = using(Tables(a={"ca_file": "/a", "key_file": "/b"}), x_maps="ldap:/etc/a.cf")
    rules = [rule(files=("$1",), when=(When(table=tables(keys=(key,))),)) for key in ("ca_file", "key_file", "x")]
    (found,) = verdicts(host, [instance(daemons=daemons)], [rule_set(*rules)])
    assert values(found[:2]) == ["/a", "/b"]
    assert reason(found[2:]) == "ldap:/etc/a.cf set no x that matches ^(/.+)"


def test_why_no_table_is_right_is_told(tree: Path) -> None:
    found = Tables(a={"ca_dir": "/a"}, b={"ca_file": "relative"})
    when = When(table=tables(keys=("ca_file", "tls_*")))
    for value in ("proxy:ldap:/etc/a.cf hash:/y", "ldap:/etc/gone.cf", ""):
        why = "no chrooted daemon opens a ldap or mysql table itself"
        assert reason(verdict(tree, when, daemons=using(found, x_maps=value))) == why
    some = using(found, x_maps="ldap:/etc/a.cf", y_maps="ldap:/etc/b.cf")
    why = "ldap:/etc/a.cf, ldap:/etc/b.cf set no ca_file or tls_* that matches ^(/.+)"
    assert reason(verdict(tree, when, daemons=some)) == why


def test_only_tables_of_chrooted_programs_count(tree: Path) -> None:
    found = Tables(a={"ca_file": "/a"})
    daemons = using(found, "smtpd", "cleanup", x_maps="ldap:/etc/a.cf")
    one = held(verdict(tree, When(chrooted=("cleanup",), table=tables()), daemons=daemons))
    assert one.evidence.daemons == ("cleanup/unix",)
    assert reason(verdict(tree, When(chrooted=("smtp",), table=tables()), daemons=daemons)) == "no smtp runs chrooted"


def test_a_table_is_not_read_where_a_parameter_tells_already(tree: Path) -> None:
    found = Tables(a={"ca_file": "/a"})
    when = When(parameters=parameter("sasl", YES).parameters, table=tables("^/"))
    assert reason(verdict(tree, when, daemons=using(found, sasl="no", x_maps="ldap:/etc/a.cf"))) == "sasl is no"
    assert found.read == []
    assert held(verdict(tree, when, daemons=using(found, sasl="yes", x_maps="ldap:/etc/a.cf"))).evidence.value == "yes"


def test_a_table_that_cannot_be_read_does_not_hide_the_others(tree: Path) -> None:
    found = Tables(a=UnreadableError("/etc/a.cf", "permission denied"), b={"ca_file": "/b"})
    daemons = using(found, x_maps="ldap:/etc/a.cf ldap:/etc/b.cf")
    first, second = verdict(tree, When(table=tables()), daemons=daemons, files=("$1",))
    assert isinstance(first, Holding)
    assert first.value == "/b"
    assert undecided([second]) == ["/etc/a.cf: permission denied"]
    # Where it does not matter which of them, one is enough.
    assert held(verdict(tree, When(table=tables("^/")), daemons=daemons)).evidence.value == "/b"


def test_what_others_could_have_written_counts_only_where_it_asks_for_something(tree: Path) -> None:
    doubted = DoubtfulError(UnsafeError("/etc/a.cf", "others can write to it"), {"ca_file": "/a", "other": "x"})
    daemons = using(Tables(a=doubted, b={"ca_file": "/b"}), x_maps="ldap:/etc/a.cf ldap:/etc/b.cf")
    first, second = verdict(tree, When(table=tables()), daemons=daemons, files=("$1",))
    assert values([first]) == ["/b"]
    assert undecided([second]) == ["/etc/a.cf: others can write to it"]
    daemons = using(Tables(a=doubted), x_maps="ldap:/etc/a.cf")
    why = "ldap:/etc/a.cf set no ca_file that matches ^(/x)"
    assert reason(verdict(tree, When(table=tables("^(/x)")), daemons=daemons, files=("$1",))) == why


# --- Files of the host --------------------------------------------------------------------------------------------


def test_a_line_of_a_host_file_is_found(tree: Path) -> None:
    grow(
        tree, {"/etc/sasl/smtpd.conf": b"# pwcheck_method: x\n  pwcheck_method: saslauthd\nsaslauthd_path: /run/mux\n"}
    )
    paths = ("/etc/gone.conf", "/etc/sasl/smtpd.conf")
    when = When(chrooted=("smtpd",), file=FileCondition(paths=paths, matches=r"^saslauthd_path:\s*(/\S+)"))
    one = held(verdict(tree, when, daemons=(daemon("smtpd"),), sockets=("$1",)))
    assert one.value == "/run/mux"
    assert one.because == "/etc/sasl/smtpd.conf: saslauthd_path: /run/mux (smtpd/unix)"
    evidence = Evidence(daemons=("smtpd/unix",), setting="/etc/sasl/smtpd.conf", value="saslauthd_path: /run/mux")
    assert one.evidence == evidence
    indented = When(file=FileCondition(paths=paths, matches=r"^\s*pwcheck_method:\s*saslauthd$"))
    assert held(verdict(tree, indented)).evidence == Evidence(
        setting="/etc/sasl/smtpd.conf", value="pwcheck_method: saslauthd"
    )


def test_an_expression_sees_one_line_at_a_time(tree: Path) -> None:
    grow(tree, {"/etc/x.conf": b"a\nb\n"})
    condition = FileCondition(paths=("/etc/x.conf", "/etc/y.conf"), matches=r"a\s+b")
    assert reason(verdict(tree, When(file=condition))) == r"no line of /etc/x.conf or /etc/y.conf matches a\s+b"


def test_a_file_of_blank_lines_takes_no_time(tree: Path) -> None:
    grow(tree, {"/etc/x.conf": b"\n" * (1 << 20)})
    assert reason(verdict(tree, When(file=FileCondition(paths=("/etc/x.conf",), matches=r"^\s*x"))))


def test_bytes_that_are_no_text_are_no_hindrance(tree: Path) -> None:
    grow(tree, {"/etc/x.conf": b"\0\xff\xfe\nsocket: /run/\xff\n\x80"})
    condition = FileCondition(paths=("/etc/x.conf",), matches="^socket: (/.+)")
    assert values(verdict(tree, When(file=condition), sockets=("$1",))) == [os.fsdecode(b"/run/\xff")]


def test_files_that_cannot_be_read_are_told(tree: Path) -> None:
    grow(tree, {"/etc/secret.conf": b"x\n", "/etc/pipe": 0o644, "/etc/folder": None, "/etc/loop": "loop"})
    grow(tree, {"/etc/huge": b"x" * ((1 << 20) + 1), "/etc/good": b"y\n"})
    told = {
        "/etc/secret.conf": "/etc/secret.conf: permission denied",
        "/etc/pipe": "/etc/pipe: is a fifo, not a file",
        "/etc/folder": "/etc/folder: is a directory, not a file",
        "/etc/huge": "/etc/huge: is larger than 1048576 bytes",
    }
    for path, error in told.items():
        when = When(file=FileCondition(paths=(path, "/etc/good"), matches="x"))
        assert undecided(verdict(tree, when)) == [error]
    (loop,) = undecided(verdict(tree, When(file=FileCondition(paths=("/etc/loop",), matches="x"))))
    assert loop.startswith("/etc/loop: ")
    # What another file says is enough, where nothing of it is put into a path.
    pipe = FileCondition(paths=("/etc/pipe", "/etc/good"), matches="y")
    assert held(verdict(tree, When(file=pipe))).evidence.setting == "/etc/good"


def test_a_host_file_is_read_once_for_all_rules_and_instances(tree: Path) -> None:
    grow(tree, {"/etc/x.conf": b"a\n"})
    reader = TreeReader(tree, unreadable=("/etc/secret.conf",))
    host = Host(root=reader, run=None, cache=MemoryCache())
    paths = ("/etc/x.conf", "/etc/gone.conf", "/etc/secret.conf")
    rules = [
        rule(id=f"r{number}", files=("/etc/hosts",), when=(When(file=FileCondition(paths=paths, matches=matches)),))
        for number, matches in enumerate("abc")
    ]
    assert len(list(verdicts(host, [instance("one"), instance("two")], [rule_set(*rules)]))) == 2
    assert sorted(reader.reads) == sorted(paths)


# --- Alternatives -------------------------------------------------------------------------------------------------

A = parameter("a", "^(/.+)$")
B = parameter("b", "^(/.+)$")
SECRET = When(file=FileCondition(paths=("/etc/secret.conf",), matches="(/x)"))


@pytest.mark.parametrize(
    ("set_to", "caught"),
    [
        ({"a": "/x"}, ["/x"]),
        ({"b": "/x"}, ["/x"]),
        ({"a": "/x", "b": "/y"}, ["/x", "/y"]),
        ({"a": "/x", "b": "/x"}, ["/x"]),
    ],
)
def test_a_rule_holds_by_any_of_its_alternatives(tree: Path, set_to: dict[str, str], caught: list[str]) -> None:
    found = verdict(tree, A, B, daemons=(replace(daemon("smtp"), parameters=set_to),), files=("$1",))
    assert values(found) == caught


def test_one_need_by_two_alternatives_is_that_of_all_their_daemons(tree: Path) -> None:
    daemons = (daemon("smtp", a="/x"), daemon("lmtp", b="/x"))
    one = held(verdict(tree, A, B, daemons=daemons, files=("$1",)))
    assert one.evidence == Evidence(daemons=("smtp/unix", "lmtp/unix"), setting="a", value="/x")


def test_why_no_alternative_holds_is_told_of_each(tree: Path) -> None:
    found = verdict(tree, When(chrooted=("lmtp",)), A, When(exists="/x"), A, daemons=(daemon("smtp", a="x"),))
    assert reason(found) == "no lmtp runs chrooted; a is x; /x does not exist on the host"


def test_what_cannot_be_seen_is_told_unless_the_rule_holds_anyway(tree: Path) -> None:
    smtp = (daemon("smtp", a="/x"),)
    told = ["/etc/secret.conf: permission denied"]
    assert undecided(verdict(tree, SECRET, When(exists="/gone"))) == told
    assert undecided(verdict(tree, SECRET, SECRET)) == told, "once"
    held(verdict(tree, SECRET, A, daemons=smtp))
    held(verdict(tree, SECRET, When()))
    first, second = verdict(tree, SECRET, A, daemons=smtp, files=("$1",))
    assert values([first]) == ["/x"]
    assert undecided([second]) == told, "it may ask for more"


def test_conditions_on_the_host_that_cannot_be_seen_are_told(tmp_path: Path) -> None:
    grow(tmp_path, {"/usr/lib/os-release": b"ID=debian\n", "/etc/loop": "loop"})
    hidden, loop = (
        "/usr/lib/os-release",
        "/etc/loop: too many levels of symbolic links (one of them leads back to itself; mend it)",
    )
    debian = verdict(tmp_path, When(distribution=("debian",)), hidden=hidden)
    assert undecided(debian) == [f"{hidden}: permission denied"]
    assert undecided(verdict(tmp_path, When(exists="/etc/loop/x"))) == [loop]
    both = verdict(tmp_path, When(exists="/etc/loop/x", distribution=("debian",)), hidden=hidden)
    assert undecided(both) == [f"{hidden}: permission denied", loop]


def test_what_cannot_be_seen_does_not_matter_where_something_else_fails(tree: Path) -> None:
    secret = SECRET.file
    smtp = (daemon("smtp", a="no"),)
    for when in (
        When(file=secret, exists="/gone"),
        When(file=secret, distribution=("rhel",)),
        When(file=secret, parameters=parameter("a", YES).parameters),
    ):
        assert undecided(verdict(tree, when, daemons=smtp)) == []
    unsafe = Tables(a=UnsafeError("/etc/a.cf", "others can write to it (mode 0666); take that away (chmod go-w)"))
    both = When(table=tables(), file=FileCondition(paths=("/etc/os-release",), matches="nothing like it"))
    assert reason(verdict(tree, both, daemons=using(unsafe, x_maps="ldap:/etc/a.cf"))).startswith("no line of")


def test_one_daemon_whose_tables_cannot_be_seen_does_not_hide_another(tree: Path) -> None:
    hidden = using(Tables(a=UnreadableError("/etc/a.cf", "permission denied")), "smtp", x_maps="ldap:/etc/a.cf")
    seen = using(Tables(b={"ca_file": "/b"}), "lmtp", x_maps="ldap:/etc/b.cf")
    found = verdict(tree, When(table=tables()), daemons=(*hidden, *seen), files=("$1",))
    assert values(found[:1]) == ["/b"]
    assert undecided(found[1:]) == ["/etc/a.cf: permission denied"]


# --- Facts --------------------------------------------------------------------------------------------------------


def test_a_clean_check_imports_no_version_parser() -> None:
    code = (
        "import sys; from chrootsync.inventory.conditions import fits; assert fits(None, '>=1');"
        "print('packaging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_nothing_is_looked_up_before_somebody_asks(tree: Path) -> None:
    reader = TreeReader(tree)
    facts = Facts(Host(root=reader, run=None, cache=MemoryCache()))
    assert reader.reads == []
    assert facts.distributions == {"ubuntu", "debian"}
    assert facts.distributions
    assert reader.reads == ["/etc/os-release"]


def test_what_cannot_be_looked_up_is_tried_once(tree: Path) -> None:
    reader = TreeReader(tree, unreadable=("/etc/secret.conf",))
    facts = Facts(Host(root=reader, run=None, cache=MemoryCache()))
    for _ in range(2):
        with pytest.raises(UnreadableError, match="permission denied"):
            facts.lines("/etc/secret.conf")
    assert reader.reads == ["/etc/secret.conf"]
