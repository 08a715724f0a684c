"""Rules x instances -> entries, on real trees."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from chrootsync import inventory, libraries
from chrootsync.model import (
    Device,
    Entry,
    Evidence,
    FileCondition,
    FileType,
    Guard,
    Kind,
    Library,
    LibrarySet,
    Link,
    ModuleSocket,
    ParameterCondition,
    Presence,
    Remedy,
    Rule,
    Severity,
    Source,
    TableCondition,
    Unresolved,
    UnsafeError,
    When,
)
from chrootsync.pipeline import check
from tests.unit.scenery import Tree, checked, daemon, drifts, grow, instance, kinds, rule, snapshot, task
from tests.unit.test_conditions import Tables
from tests.unit.tree_reader import TreeReader

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files away")
needs_user = pytest.mark.skipif(ROOT, reason="root can read everything")


def entries(root: Path, *rules: Rule, **fields: object) -> list[Entry]:
    with task(root, rules, [instance(**fields)]) as (work, _):  # type: ignore[arg-type]  # fields of any type
        return list(inventory.entries(work.host, work.instances, work.rule_sets))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {"/etc/services": b"smtp 25/tcp\n", "/etc/hosts": b"127.0.0.1 localhost\n", "/jail/one": None})
    return tmp_path


def test_an_empty_chroot_lacks_each_file_and_the_directories_above(tree: Path) -> None:
    found = checked(tree, [rule(files=("/etc/services", "/etc/hosts"))])
    assert kinds(found) == {"/etc": "missing", "/etc/services": "missing", "/etc/hosts": "missing"}
    assert found[0].entries == 3


def test_a_copy_that_is_the_same_is_in_sync(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/services": b"smtp 25/tcp\n"})
    found = checked(tree, [rule(files=("/etc/services",))])
    assert kinds(found) == {}
    assert found[0].entries == 2


def test_checking_changes_nothing(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/services": b"stale\n"})
    before = snapshot(tree)
    checked(tree, [rule(files=("/etc/services", "/etc/hosts"))])
    assert snapshot(tree) == before


def test_checksums_of_both_sides_come_with_whatever_drifted(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/services": b"smtp 26/tcp\n", "/jail/one/etc/hosts": b"other"})
    for drift in drifts(checked(tree, [rule(files=("/etc/services", "/etc/hosts"))])):
        want, have = drift.entry.want, drift.entry.have
        assert want is not None
        assert have is not None
        path = drift.entry.path
        assert want.sha256 == hashlib.sha256((tree / path[1:]).read_bytes()).hexdigest()
        assert have.sha256 == hashlib.sha256((tree / f"jail/one{path}").read_bytes()).hexdigest()


def test_no_checksum_of_what_not_everybody_may_read(tree: Path) -> None:
    grow(tree, {"/etc/secret": b"secret", "/jail/one/etc/secret": b"other", "/jail/one/etc/services": b"x"})
    (tree / "etc/secret").chmod(0o600)
    (tree / "jail/one/etc/services").chmod(0o600)
    by_path = {
        one.entry.path: one.entry for one in drifts(checked(tree, [rule(files=("/etc/secret", "/etc/services"))]))
    }
    secret, services = by_path["/etc/secret"], by_path["/etc/services"]
    assert secret.want is not None
    assert secret.have is not None
    assert services.have is not None
    assert (secret.want.sha256, secret.have.sha256, services.have.sha256) == (None, None, None)


def test_links_on_the_host_are_followed_inside_the_root(tree: Path) -> None:
    grow(tree, {"/run/stub.conf": b"nameserver 192.0.2.1\n", "/etc/resolv.conf": "/run/stub.conf"})
    (drift,) = [one for one in drifts(checked(tree, [rule(files=("/etc/resolv.conf",))])) if one.entry.source]
    assert drift.entry.want is not None
    assert drift.entry.want.size == len(b"nameserver 192.0.2.1\n")
    assert drift.entry.source == "/etc/resolv.conf"


@pytest.mark.parametrize(
    ("resolver", "reason"),
    [
        (b"# empty as can be\n", r"the source has no line that matches ^\s*nameserver\s; the copy is kept"),
        (b"", "the source is empty; the copy is kept"),
    ],
)
def test_a_source_that_fails_its_guard_is_bad(tree: Path, resolver: bytes, reason: str) -> None:
    grow(tree, {"/etc/resolv.conf": resolver, "/jail/one/etc/resolv.conf": b"nameserver 192.0.2.1\n"})
    guarded = rule(files=("/etc/resolv.conf",), guard=Guard(matches=r"^\s*nameserver\s"))
    (drift,) = drifts(checked(tree, [guarded]))
    assert (drift.kind, drift.reason) == (Kind.BAD_SOURCE, reason)


def test_a_missing_source_is_bad(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/gone": b"kept"})
    (drift,) = drifts(checked(tree, [rule(files=("/etc/gone",))]))
    assert (drift.kind, drift.reason) == (Kind.BAD_SOURCE, "the source does not exist")


@pytest.mark.parametrize("source", ["/etc/pipe", "/etc/folder"])
def test_a_source_that_is_no_file_is_bad_and_never_blocks(tree: Path, source: str) -> None:
    grow(tree, {"/etc/pipe": 0o644, "/etc/folder": None, "/jail/one/etc": None})
    (drift,) = drifts(checked(tree, [rule(files=(source,))]))
    assert drift.kind is Kind.BAD_SOURCE
    assert drift.reason in ("the source is a fifo, not a file", "the source is a directory, not a file")


def test_what_stands_where_a_file_should_has_its_kind(tree: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        grow(tree, {f"/etc/{name}": b"x"})
    jail: Tree = {"/a": "/etc/passwd", "/b": 0o644, "/c": None, "/d/full": b"", "/e": b"x"}
    grow(tree, {f"/jail/one/etc{path}": what for path, what in jail.items()})
    os.link(tree / "jail/one/etc/e", tree / "jail/elsewhere")
    found = checked(tree, [rule(files=tuple(f"/etc/{name}" for name in "abcde"))])
    assert kinds(found) == {
        "/etc/a": "type",
        "/etc/b": "type",
        "/etc/c": "type",
        "/etc/d": "type",
        "/etc/e": "unsafe",
    }
    remedies = {one.entry.path: str(one.remedy) for one in drifts(found)}
    assert remedies == {
        "/etc/a": "replace",
        "/etc/b": "replace",
        "/etc/c": "replace",
        "/etc/d": "none",
        "/etc/e": "none",
    }


def test_a_link_to_a_good_copy_beside_it_is_in_sync(tree: Path) -> None:
    grow(tree, {"/etc/certs/0a775a30.0": b"ca", "/jail/one/etc/certs/root.pem": b"ca"})
    grow(tree, {"/jail/one/etc/certs/0a775a30.0": "root.pem"})
    certificates = [rule(directories=("/etc/certs",))]
    assert kinds(checked(tree, certificates)) == {}
    (tree / "etc/certs/0a775a30.0").write_bytes(b"newer")
    (drift,) = drifts(checked(tree, certificates))
    assert (drift.kind, drift.reason) == (Kind.TYPE, "a link stands where a file should")


@pytest.mark.parametrize("target", ["../certs/root.pem", "/etc/certs/root.pem", ".", "gone.pem", "pipe"])
def test_any_other_link_is_not(tree: Path, target: str) -> None:
    grow(tree, {"/etc/certs/0a775a30.0": b"ca", "/jail/one/etc/certs/root.pem": b"ca"})
    grow(tree, {"/jail/one/etc/certs/pipe": 0o644, "/jail/one/etc/certs/0a775a30.0": target})
    assert kinds(checked(tree, [rule(directories=("/etc/certs",))])) == {"/etc/certs/0a775a30.0": "type"}


def test_two_spellings_of_one_place_are_one_entry(tree: Path) -> None:
    grow(tree, {"/usr/lib/x.so": b"x", "/lib": "usr/lib", "/jail/one/usr/lib": None, "/jail/one/lib": "usr/lib"})
    found = entries(tree, rule(files=("/lib/x.so", "/usr/lib/x.so")))
    assert [entry.path for entry in found if entry.source] == ["/usr/lib/x.so"]


def test_devices_links_and_sockets(tree: Path) -> None:
    urandom = Device(path="/dev/urandom", kind=FileType.CHARACTER_DEVICE, major=1, minor=9)
    nodes = rule(
        devices=(urandom,), links=(Link(path="/lib64", target="lib"),), sockets=("/run/mux",), on_change="nothing"
    )
    found = checked(tree, [nodes])
    assert kinds(found) == {
        "/dev": "missing",
        "/dev/urandom": "missing",
        "/lib64": "missing",
        "/run/mux": "unreachable",
    }


def test_a_directory_of_files_with_those_below(tree: Path) -> None:
    grow(tree, {"/etc/bind/named.conf": b"x", "/etc/bind/zones/local": b"y", "/etc/bind/keys": "/etc/hosts"})
    found = entries(tree, rule(directories=("/etc/bind",)))
    assert [entry.path for entry in found if entry.source] == [
        "/etc/bind/keys",
        "/etc/bind/named.conf",
        "/etc/bind/zones/local",
    ]


def test_only_the_names_that_match(tree: Path) -> None:
    certs: Tree = {"/0a775a30.0": "ca.pem", "/0a775a30.0x": b"", "/ca.pem": b"", "/java/0a775a31.0": b""}
    grow(tree, {f"/etc/ssl/certs{path}": what for path, what in certs.items()})
    found = entries(tree, rule(directories=("/etc/ssl/certs",), match=r"[0-9a-f]{8}\.r?[0-9]+"))
    assert [entry.path for entry in found if entry.source] == ["/etc/ssl/certs/0a775a30.0"]


def test_what_a_mirrored_directory_holds_beyond_the_hosts_is_an_orphan(tree: Path) -> None:
    grow(tree, {"/etc/ssl/certs/0a775a30.0": b"ca", "/jail/one/etc/ssl/certs/0a775a30.0": b"ca"})
    grow(tree, {"/jail/one/etc/ssl/certs/deadbeef.0": b"distrusted", "/jail/one/etc/ssl/certs/README": b"own"})
    mirror = rule(directories=("/etc/ssl/certs",), match=r"[0-9a-f]{8}\.r?[0-9]+", mirror=True)
    (drift,) = drifts(checked(tree, [mirror]))
    assert (drift.entry.path, drift.kind, drift.severity) == (
        "/etc/ssl/certs/deadbeef.0",
        Kind.ORPHAN,
        Severity.WARNING,
    )
    assert (drift.reason, drift.remedy) == ("the host has no such file any more", Remedy.REMOVE)


def test_links_that_lead_to_no_file_are_no_files_of_a_directory(tree: Path) -> None:
    links: Tree = {"/dangling": "/nowhere", "/file": "/etc/hosts", "/loop": "loop", "/pipe": "/pipe"}
    grow(tree, {f"/etc/ssl/certs{path}": target for path, target in links.items()})
    grow(tree, {"/pipe": 0o644})
    found = entries(tree, rule(directories=("/etc/ssl/certs",)))
    assert {entry.path: entry.problem.kind if entry.problem else None for entry in found if entry.source} == {
        "/etc/ssl/certs/file": None,
        "/etc/ssl/certs/loop": Kind.UNREADABLE,
    }


def test_links_to_directories_are_followed_once(tree: Path) -> None:
    grow(tree, {"/srv/zones/local": b"zone", "/etc/bind/zones": "/srv/zones", "/etc/bind/again": "../bind"})
    found = entries(tree, rule(directories=("/etc/bind",)))
    assert [entry.path for entry in found if entry.source] == ["/etc/bind/zones/local"]


def test_a_tree_may_be_deeper_than_python_can_count(tree: Path) -> None:
    folder = "/etc" + "/d" * 1500
    try:
        grow_deep(tree, folder)
        grow_deep(tree, f"/jail/one{folder}")
        with task(tree, [PRESENT, rule(directories=("/etc/d",))]) as (work, _):
            assert drifts(check(work)) == []
    finally:
        # Python's own shutil.rmtree, by which pytest tidies up, cannot.
        subprocess.run(["rm", "-rf", tree / "etc", tree / "jail"], check=True)


def grow_deep(root: Path, path: str) -> None:
    """Make a directory whose path is longer than the system takes in one piece."""
    fd = os.open(root, os.O_RDONLY)
    for name in path.strip("/").split("/"):
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_certificate_whose_link_dangles_on_the_host_is_an_orphan(tree: Path) -> None:
    grow(tree, {"/etc/certs/0a775a30.0": "/usr/share/gone.pem", "/jail/one/etc/certs/0a775a30.0": b"ca"})
    mirror = rule(directories=("/etc/certs",), match=r"[0-9a-f]{8}\.0", mirror=True)
    assert kinds(checked(tree, [mirror])) == {"/etc/certs/0a775a30.0": "orphan"}


def test_a_filtered_copy_has_no_password_fields(tree: Path) -> None:
    grow(
        tree, {"/etc/passwd": b"root:HASH:0:0::/root:/bin/sh\n", "/jail/one/etc/passwd": b"root:x:0:0::/root:/bin/sh\n"}
    )
    assert kinds(checked(tree, [rule(filtered=("/etc/passwd",))])) == {}
    (tree / "jail/one/etc/passwd").write_bytes(b"root:HASH:0:0::/root:/bin/sh\n")
    assert kinds(checked(tree, [rule(filtered=("/etc/passwd",))])) == {"/etc/passwd": "differs"}


# --- Conditions ---------------------------------------------------------------------------------------------------


def test_a_rule_holds_only_where_one_of_its_programs_runs_chrooted(tree: Path) -> None:
    needs = rule(files=("/etc/hosts",), when=(When(chrooted=("smtpd",)),))
    open_ = entries(tree, needs, daemons=(daemon("smtpd", chrooted=False), daemon("smtp")))
    closed = entries(tree, needs, daemons=(daemon("smtpd"),))
    assert [entry.path for entry in open_] == []
    assert [(entry.path, entry.because) for entry in closed if entry.source] == [("/etc/hosts", "smtpd run chrooted")]


def test_a_parameter_gives_the_paths(tree: Path) -> None:
    grow(tree, {"/etc/ssl/a/x": b"", "/etc/ssl/b/y": b""})
    condition = ParameterCondition(names=("*_tls_CApath",), matches="^(/.+)$")
    needs = rule(directories=("$1",), when=(When(chrooted=("smtp", "lmtp"), parameters=(condition,)),))
    daemons = (
        daemon("smtp", smtp_tls_CApath="/etc/ssl/a", relayhost="/etc/ssl/b"),
        daemon("smtp", smtp_tls_CApath="/etc/ssl/a"),
        daemon("lmtp", lmtp_tls_CApath="/etc/ssl/b"),
        daemon("smtpd", smtpd_tls_CApath="/etc/ssl/c"),
    )
    found = [entry for entry in entries(tree, needs, daemons=daemons) if entry.source]
    assert [(entry.path, entry.because) for entry in found] == [
        ("/etc/ssl/a/x", "smtp_tls_CApath = /etc/ssl/a (smtp/unix)"),
        ("/etc/ssl/b/y", "lmtp_tls_CApath = /etc/ssl/b (lmtp/unix)"),
    ]


def test_a_parameter_with_dots_is_told(tree: Path) -> None:
    condition = ParameterCondition(names=("smtp_tls_CApath",), matches="^(.+)$")
    needs = rule(directories=("$1",), when=(When(chrooted=("smtp",), parameters=(condition,)),))
    (entry,) = entries(tree, needs, daemons=(daemon("smtp", smtp_tls_CApath="/etc/postfix/../ssl"),))
    assert entry.problem is not None
    assert entry.problem.kind is Kind.BAD_SOURCE
    assert entry.problem.reason == "cannot be followed into the chroot; write it without .."


@pytest.mark.parametrize("value", ["etc/ssl", "/jail/one/etc/ssl"])
def test_a_parameter_that_names_no_host_directory_asks_for_nothing(tree: Path, value: str) -> None:
    grow(tree, {"/jail/one/etc/ssl/x": b""})
    condition = ParameterCondition(names=("smtp_tls_CApath",), matches="^(.+)$")
    needs = rule(files=("$1/x",), when=(When(chrooted=("smtp",), parameters=(condition,)),))
    assert entries(tree, needs, daemons=(daemon("smtp", smtp_tls_CApath=value),)) == []


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        (When(exists="/etc/hosts"), True),
        (When(exists="/etc/gai.conf"), False),
        (When(distribution=("debian",)), True),
        (When(distribution=("fedora",)), False),
        (When(version=">=3.6"), True),
        (When(version="<3.6"), False),
        (When(libc="glibc"), False),
        (When(libc="musl"), False),
    ],
)
def test_conditions_on_the_host_and_the_service(tree: Path, when: When, holds: bool) -> None:
    grow(tree, {"/etc/os-release": b'NAME="Ubuntu"\nID=ubuntu\nID_LIKE="debian"\n'})
    found = entries(tree, rule(files=("/etc/hosts",), when=(when,)), version="3.7.11")
    assert bool(found) is holds


def test_an_entry_tells_what_led_to_it(tree: Path) -> None:
    condition = ParameterCondition(names=("smtp_tls_CApath",), matches="^(/.+)$")
    needs = rule(files=("$1/x",), when=(When(parameters=(condition,)),))
    daemons = (daemon("smtp", smtp_tls_CApath="/etc/ssl"), daemon("lmtp", smtp_tls_CApath="/etc/ssl"))
    (entry,) = [one for one in entries(tree, needs, daemons=daemons) if one.source]
    assert entry.evidence == Evidence(daemons=("smtp/unix", "lmtp/unix"), setting="smtp_tls_CApath", value="/etc/ssl")


def test_two_alternatives_that_catch_the_same_make_one_entry(tree: Path) -> None:
    conditions = [ParameterCondition(names=(name,), matches="^(/.+)$") for name in ("a", "b", "c")]
    needs = rule(files=("$1",), when=tuple(When(parameters=(one,)) for one in conditions))
    daemons = (daemon("smtp", a="/etc/hosts", b="/etc/services", c="/etc/hosts"),)
    found = [(entry.path, entry.because) for entry in entries(tree, needs, daemons=daemons) if entry.source]
    assert found == [("/etc/hosts", "a = /etc/hosts (smtp/unix)"), ("/etc/services", "b = /etc/services (smtp/unix)")]


def test_a_table_that_is_not_trusted_is_told_and_what_else_is_needed_stays(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/services": b"stale\n"})
    table = TableCondition(of=("*_maps",), types=("ldap",), keys=("*_file",), matches="(/.+)")
    rules = [rule(id="test.table", files=("$1",), when=(When(table=table),)), rule(files=("/etc/services",))]
    unsafe = Tables(x=UnsafeError("/etc/x.cf", "others can write to it (mode 0666); take that away (chmod go-w)"))
    smtpd = replace(daemon("smtpd", x_maps="ldap:/etc/x.cf"), tables=unsafe)
    by_path = {one.entry.path: one for one in drifts(checked(tree, rules, [instance(daemons=(smtpd,))]))}
    assert {path: one.kind for path, one in by_path.items()} == {
        "/etc/x.cf": Kind.UNREADABLE,
        "/etc/services": Kind.DIFFERS,
    }
    assert by_path["/etc/x.cf"].reason == (
        "whether the rule holds cannot be told: /etc/x.cf: others can write to it (mode 0666); "
        "take that away (chmod go-w)"
    )


def test_a_file_condition_that_cannot_be_decided_is_told(tree: Path) -> None:
    grow(tree, {"/etc/pipe": 0o644})
    needs = rule(files=("/etc/hosts",), when=(When(file=FileCondition(paths=("/etc/pipe",), matches="x")),))
    (drift,) = drifts(checked(tree, [needs]))
    assert (drift.entry.path, drift.kind) == ("/etc/pipe", Kind.UNREADABLE)
    assert drift.reason == "whether the rule holds cannot be told: /etc/pipe: is a fifo, not a file on the host"


def test_what_several_rules_ask_for_in_vain_is_told_once(tree: Path) -> None:
    grow(tree, {"/etc/pipe": 0o644})
    when = (When(file=FileCondition(paths=("/etc/pipe",), matches="x")),)
    rules = [rule(id=f"test.{name}", files=(f"/etc/{name}",), when=when) for name in "abc"]
    (drift,) = drifts(checked(tree, rules))
    reason = "whether this and 2 other rules hold cannot be told: /etc/pipe: is a fifo, not a file on the host"
    assert (drift.entry.rule.id, drift.reason) == ("test.a", reason)


@pytest.mark.parametrize("presence", Presence)
def test_what_to_do_about_a_missing_socket_is_the_rules_advice(tree: Path, presence: Presence) -> None:
    grow(tree, {"/jail/one/run/mux": b"no socket"})
    advised = rule(sockets=("/run/mux",), advice="name it by a relative path", presence=presence)
    (drift,) = drifts(checked(tree, [advised]))
    assert drift.kind is Kind.UNREACHABLE
    assert drift.reason == "a file stands where a socket should; name it by a relative path"


def test_modules_bring_their_libraries_and_the_sockets_that_they_talk_to(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tree, {"/lib/libnss_x.so.2": b"x", "/lib/libcap.so.2": b"cap"})
    module = ("libnss_x.so.2", "nsswitch.conf hosts")
    needed = LibrarySet(
        libraries=(
            Library(path="/lib/libnss_x.so.2", source="/lib/libnss_x.so.2", chain=module),
            Library(path="/lib/libcap.so.2", source="/lib/libcap.so.2", chain=("libcap.so.2", *module)),
        ),
        unresolved=(Unresolved(name="libgone.so.1", because="libnss_x.so.2 ← nsswitch.conf hosts"),),
        sockets=(
            ModuleSocket(path="/run/a", chain=module, falls_through=True, advice="take x out"),
            ModuleSocket(path="/run/b", chain=module, falls_through=False, advice="use files"),
        ),
    )
    monkeypatch.setattr(libraries, "needs_nss", lambda *_: needed)
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(nss=("hosts",))]))}
    assert {path: (str(one.kind), str(one.severity)) for path, one in by_path.items()} == {
        "/lib": ("missing", "error"),
        "/lib/libnss_x.so.2": ("missing", "error"),
        "/lib/libcap.so.2": ("missing", "error"),
        "/libgone.so.1": ("unresolved", "error"),
        "/run/a": ("unreachable", "info"),
        "/run/b": ("unreachable", "warning"),
    }
    library, socket = by_path["/lib/libcap.so.2"], by_path["/run/b"]
    assert library.entry.because == "libcap.so.2 ← libnss_x.so.2 ← nsswitch.conf hosts"
    assert library.entry.evidence.chain == ("libcap.so.2", *module)
    assert (socket.entry.because, socket.entry.evidence.chain) == ("libnss_x.so.2 ← nsswitch.conf hosts", module)
    assert socket.reason == "no socket is there; use files"
    reason = "the loader finds no libgone.so.1 on the host, which is needed by libnss_x.so.2 ← nsswitch.conf hosts"
    assert by_path["/libgone.so.1"].reason == reason


def test_an_optional_source_that_a_loop_hides_is_told(tree: Path) -> None:
    grow(tree, {"/etc/loop": "loop"})
    (drift,) = [one for one in drifts(checked(tree, [rule(files=("/etc/loop/x",), optional=True)])) if one.entry.source]
    assert drift.kind is Kind.UNREADABLE
    reason = "too many levels of symbolic links (one of them leads back to itself; mend it)"
    assert drift.reason == f"the source cannot be seen: /etc/loop: {reason}"


def test_a_directory_that_the_host_lacks_is_told(tree: Path) -> None:
    (drift,) = [one for one in drifts(checked(tree, [rule(directories=("/etc/none",))])) if one.entry.rule.files == ()]
    assert (drift.kind, drift.reason) == (Kind.BAD_SOURCE, "the directory does not exist on the host")


def test_an_owner_whom_nobody_knows_is_told(tree: Path) -> None:
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(files=("/etc/hosts",), owner="nobody-here")]))}
    reason = "its rule wants it to belong to nobody-here, who is not known here"
    assert (by_path["/etc/hosts"].kind, by_path["/etc/hosts"].reason) == (Kind.METADATA, reason)


def test_a_directory_that_is_not_empty_is_told(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts/mine": b"x"})
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(files=("/etc/hosts",))]))}
    reason = "a directory that is not empty stands where a file should; move it away"
    assert (by_path["/etc/hosts"].kind, by_path["/etc/hosts"].reason) == (Kind.TYPE, reason)


def test_libraries_that_cannot_be_told_are_told(tree: Path) -> None:
    grow(tree, {"/etc/nsswitch.conf": 0o644})
    (drift,) = [one for one in drifts(checked(tree, [rule(nss=("hosts",))])) if one.kind is Kind.UNREADABLE]
    reason = "what is needed cannot be told: /etc/nsswitch.conf: is a fifo, not a file on the host"
    assert drift.reason == reason


# --- If present ---------------------------------------------------------------------------------------------------

PRESENT = rule(id="test.present", directories=("/etc", "/usr"), presence=Presence.IF_PRESENT)


def test_what_is_there_already_is_kept_fresh_and_nothing_is_added(tree: Path) -> None:
    grow(tree, {"/etc/localtime": b"TZ", "/jail/one/etc/hosts": b"stale", "/jail/one/etc/own": b"", "/usr/x": b""})
    assert kinds(checked(tree, [PRESENT])) == {"/etc/hosts": "differs"}


def test_every_kind_of_thing_is_kept_fresh(tree: Path) -> None:
    grow(tree, {"/etc/passwd": b"root:HASH:0:0::/:/bin/sh\n", "/jail/one/etc/passwd": b"root:HASH:0:0::/:/bin/sh\n"})
    grow(tree, {"/jail/one/dev/random": b"not a device", "/jail/one/lib64": "elsewhere"})
    random = Device(path="/dev/random", kind=FileType.CHARACTER_DEVICE, major=1, minor=8)
    zero = Device(path="/dev/zero", kind=FileType.CHARACTER_DEVICE, major=1, minor=5)
    fresh = rule(
        presence=Presence.IF_PRESENT,
        devices=(random, zero),
        links=(Link(path="/lib64", target="lib"), Link(path="/lib", target="usr/lib")),
        filtered=("/etc/passwd", "/etc/group"),
    )
    assert kinds(checked(tree, [fresh])) == {
        "/dev/random": "type",
        "/etc/passwd": "differs",
        "/lib64": "differs",
    }


def test_a_copy_of_what_the_host_has_no_more_is_told(tree: Path) -> None:
    optional = rule(files=("/etc/gai.conf",), optional=True)
    assert kinds(checked(tree, [optional])) == {}
    grow(tree, {"/jail/one/etc/gai.conf": b"stale for ever"})
    (drift,) = drifts(checked(tree, [optional]))
    assert (drift.kind, drift.reason) == (Kind.BAD_SOURCE, "the source does not exist")


def test_what_the_host_may_lack_is_needed_where_it_has_it(tree: Path) -> None:
    grow(tree, {"/etc/group": b"root:x:0:\n", "/etc/ca/a": b"x"})
    optional = rule(
        files=("/etc/hosts", "/etc/gai.conf"),
        filtered=("/etc/passwd", "/etc/group"),
        directories=("/etc/ca", "/etc/crl"),
        optional=True,
    )
    found = kinds(checked(tree, [optional]))
    assert found.keys() == {"/etc", "/etc/hosts", "/etc/group", "/etc/ca", "/etc/ca/a"}
    assert set(found.values()) == {"missing"}
    assert "/etc/crl" in kinds(checked(tree, [replace(optional, optional=False)]))


def test_a_mirrored_directory_that_the_host_has_no_more_leaves_orphans(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/ca/0a1b2c3d.0": b"stale", "/jail/one/etc/ca/own": b""})
    mirror = rule(directories=("/etc/ca",), match=r"[0-9a-f]{8}\.0", mirror=True, optional=True)
    assert kinds(checked(tree, [mirror])) == {"/etc/ca/0a1b2c3d.0": "orphan"}


def test_what_another_rule_names_is_that_rules(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts": b"stale"})
    (drift,) = drifts(checked(tree, [PRESENT, rule(files=("/etc/hosts",))]))
    assert drift.entry.rule.id == "test.rule"


def test_what_not_everybody_may_read_is_not_refreshed(tree: Path) -> None:
    grow(tree, {"/etc/shadow": b"hash", "/jail/one/etc/shadow": b"stale"})
    (tree / "etc/shadow").chmod(0o640)
    assert kinds(checked(tree, [PRESENT])) == {}


@needs_root
def test_what_is_not_roots_is_not_refreshed(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts": b"a daemon's own"})
    os.chown(tree / "jail/one/etc/hosts", 1234, 1234)
    assert kinds(checked(tree, [PRESENT])) == {}


def test_without_a_chrooted_service_only_what_is_there_counts_and_as_a_warning(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts": b"stale"})
    (drift,) = drifts(checked(tree, [PRESENT, rule(files=("/etc/services",))], [instance(chrooted=False)]))
    assert (drift.entry.path, drift.severity) == ("/etc/hosts", Severity.WARNING)


# --- Instances that cannot be served ------------------------------------------------------------------------------


def test_a_broken_instance_does_not_hide_the_others(tree: Path) -> None:
    grow(tree, {"/jail/two": None})
    broken = [
        instance("bad", problem="/etc/postfix-bad/main.cf: line 3: nonsense"),
        instance("gone"),
        instance("two"),
    ]
    found = checked(tree, [rule(files=("/etc/hosts",))], broken)
    assert [kinds([report]) for report in found] == [
        {"/": "bad-instance"},
        {"/": "bad-instance"},
        {"/etc": "missing", "/etc/hosts": "missing"},
    ]
    assert drifts(found)[0].reason == "/etc/postfix-bad/main.cf: line 3: nonsense"
    assert drifts(found)[1].reason == "the chroot cannot be used: /jail/gone: does not exist"
    assert [report.entries for report in found] == [0, 0, 2]


@pytest.mark.parametrize("chroot", ["/", "/jail/self", "/jail/../jail/self/jail/self"])
def test_the_root_is_no_chroot(tree: Path, chroot: str) -> None:
    grow(tree, {"/jail/self": "/"})
    (drift,) = drifts(checked(tree, [rule(files=("/etc/hosts",))], [instance(chroot=chroot)]))
    assert drift.kind is Kind.BAD_INSTANCE
    assert drift.reason.endswith("is the root itself; a chroot must be a directory of its own")


def test_a_chroot_that_holds_a_source_is_refused(tree: Path) -> None:
    (drift,) = drifts(checked(tree, [rule(files=("/etc/hosts",))], [instance(chroot="/etc")]))
    assert drift.kind is Kind.BAD_INSTANCE
    assert drift.reason == "the chroot /etc is refused: /etc/hosts, which is to be copied, lies in it"


def test_a_chroot_beneath_what_is_copied_into_it_is_refused(tree: Path) -> None:
    grow(tree, {"/srv/jail": None, "/srv/file": b"x"})
    (drift,) = drifts(checked(tree, [rule(directories=("/srv",))], [instance(chroot="/srv/jail")]))
    assert drift.kind is Kind.BAD_INSTANCE
    assert drift.reason == "the chroot /srv/jail is refused: /srv, which is to be copied, has it inside"


def test_a_source_that_a_link_leads_into_the_chroot_is_unsafe(tree: Path) -> None:
    grow(tree, {"/jail/one/conf": b"original", "/etc/conf": "/jail/one/conf"})
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(files=("/etc/conf",))]))}
    assert by_path["/etc/conf"].kind is Kind.UNSAFE
    reason = "the source /jail/one/conf lies inside the chroot itself, so that a copy would overwrite it"
    assert by_path["/etc/conf"].reason == f"{reason}; put the original outside"


def test_a_directory_that_a_link_leads_into_the_chroot_is_never_changed(tree: Path) -> None:
    """The classic guide to a chrooted BIND moves /etc/bind there and leaves a link."""
    grow(tree, {"/jail/one/etc/bind/named.conf": b"original", "/etc/bind": "/jail/one/etc/bind"})
    (tree / "jail/one/etc/bind").chmod(0o700)
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(directories=("/etc/bind",))]))}
    assert {path: one.kind for path, one in by_path.items()} == {
        "/etc/bind": Kind.UNSAFE,
        "/etc/bind/named.conf": Kind.UNSAFE,
    }


@needs_root
def test_a_directory_is_the_groups_that_the_host_and_the_rule_give_it_to(tree: Path) -> None:
    grow(tree, {"/etc/group": b"bind:x:77:\nadm:x:4:\n", "/etc/bind/a": b"", "/etc/log/b": b"", "/etc/c": b""})
    for name, group in (("bind", 77), ("log", 4)):
        os.chown(tree / f"etc/{name}", 0, group)
        (tree / f"etc/{name}").chmod(0o2750)
    found = entries(tree, rule(files=("/etc/bind/a", "/etc/log/b", "/etc/c"), group="bind"))
    wanted = {entry.path: entry.want for entry in found if not entry.source}
    assert {path: (want.gid, want.mode) for path, want in wanted.items() if want is not None} == {
        "/etc": (0, 0o755),
        "/etc/bind": (77, 0o750),
        "/etc/log": (0, 0o750),
    }


@needs_root
def test_who_was_shut_out_by_the_sources_group_stays_shut_out(tree: Path) -> None:
    os.chown(tree / "etc/hosts", 0, 1234)
    (tree / "etc/hosts").chmod(0o604)
    (entry,) = [one for one in entries(tree, rule(files=("/etc/hosts",))) if one.source]
    assert entry.want is not None
    assert entry.want.mode == 0o600


def test_a_chroot_beside_the_state_is_refused(tree: Path) -> None:
    with task(tree, [rule(files=("/etc/hosts",))]) as (work, _):
        found = list(inventory.entries(work.host, work.instances, work.rule_sets, keep_out=["/jail/one/state"]))
    (problem,) = [entry.problem for entry in found]
    assert problem is not None
    assert problem.kind is Kind.BAD_INSTANCE
    assert problem.reason == "the chroot /jail/one is refused: it overlaps with /jail/one/state"
    why = "an instance is served only where its configuration can be read and its chroot is safe to walk"
    assert found[0].rule.why == why


def test_a_directory_that_others_can_write_is_unsafe(tree: Path) -> None:
    grow(tree, {"/jail/one/etc": None})
    (tree / "jail/one/etc").chmod(0o775)
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(files=("/etc/hosts", "/etc/services"))]))}
    assert by_path["/etc"].kind is Kind.UNSAFE
    reason = "others can write to this directory (mode 0775); take that away (chmod go-w)"
    assert by_path["/etc"].reason == reason
    assert list(by_path) == ["/etc"], "one cause is told once"


@needs_root
def test_a_directory_of_somebody_else_is_unsafe(tree: Path) -> None:
    grow(tree, {"/jail/one/etc": None})
    os.chown(tree / "jail/one/etc", 1234, 1234)
    by_path = {one.entry.path: one for one in drifts(checked(tree, [rule(files=("/etc/hosts",))]))}
    assert by_path["/etc"].reason == ("this directory belongs to user 1234; give it to root (chown -h root)")


def test_one_chroot_has_one_instance(tree: Path) -> None:
    shared = [instance("a", chroot="/jail/one"), instance("b", chroot="/jail/../jail/one")]
    found = checked(tree, [rule(files=("/etc/hosts",))], shared)
    assert [drift.kind for drift in drifts(found[1:])] == [Kind.BAD_INSTANCE]
    reason = "the chroot /jail/one is that of a already; let one instance have all its rule sets"
    assert drifts(found[1:])[0].reason == reason


@needs_user
@pytest.mark.parametrize(
    ("hidden", "when"),
    [
        ("etc/os-release", When(distribution=("debian",))),
        ("etc/private", When(exists="/etc/private/file")),
        ("lib", When(libc="glibc")),
    ],
)
def test_a_condition_that_cannot_be_seen_is_told(tree: Path, hidden: str, when: When) -> None:
    grow(tree, {"/etc/os-release": b"ID=debian\n", "/etc/private/file": b"", "/lib/libc.so.6": b""})
    (tree / hidden).chmod(0)
    (drift,) = drifts(checked(tree, [rule(files=("/etc/hosts",), when=(when,))]))
    (tree / hidden).chmod(0o755)
    assert drift.kind is Kind.UNREADABLE
    assert drift.reason.startswith("whether the rule holds cannot be told: /")
    assert drift.reason.endswith(": permission denied on the host")


@needs_user
def test_an_optional_source_that_cannot_be_seen_is_told(tree: Path) -> None:
    grow(tree, {"/etc/app/file": b"x", "/jail/one/etc/app/file": b"stale"})
    (tree / "etc/app").chmod(0)
    (drift,) = drifts(checked(tree, [PRESENT]))
    (tree / "etc/app").chmod(0o755)
    assert (drift.entry.path, drift.kind) == ("/etc/app/file", Kind.UNREADABLE)


@needs_user
def test_what_cannot_be_seen_is_never_in_sync(tree: Path) -> None:
    grow(tree, {"/jail/one/etc/hosts": b"127.0.0.1 localhost\n"})
    (tree / "jail/one/etc/hosts").chmod(0)
    (drift,) = drifts(checked(tree, [rule(files=("/etc/hosts",), mode=0)]))
    assert drift.kind is Kind.UNREADABLE


def test_names_with_newlines_and_bytes_that_are_no_text(tree: Path) -> None:
    name = os.fsdecode(b"a\nb\xff")
    grow(tree, {f"/etc/odd/{name}": b"x", f"/jail/one/etc/odd/{name}": b"y"})
    assert kinds(checked(tree, [rule(directories=("/etc/odd",))])) == {f"/etc/odd/{name}": "differs"}


def test_each_source_is_read_once_however_many_instances_share_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"i{number}" for number in range(20)]
    for name in names:
        grow(tree, {f"/jail/{name}/etc/hosts": b"127.0.0.1 localhost\n"})
    reads: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        reads.append(os.fstat(fd).st_ino)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    found = checked(tree, [rule(files=("/etc/hosts",))], [instance(name) for name in names])
    assert drifts(found) == []
    assert reads.count((tree / "etc/hosts").stat().st_ino) == 1


# --- Sources that are replaced meanwhile ----------------------------------------------------------------------------


class Replacing(TreeReader):
    """Has a source replaced behind each glance, some times."""

    def __init__(self, path: Path, times: int) -> None:
        super().__init__(path)
        self.times = times

    def glance(self, path: str) -> Source:
        found = super().glance(path)
        if self.times and path == "/etc/services":
            self.times -= 1
            other = Path(self.path, "etc/other")
            other.write_bytes(b"smtp 25/tcp\n")
            other.rename(Path(self.path, "etc/services"))
        return found


@pytest.mark.parametrize("times", [1, 2, 9])
@pytest.mark.parametrize("guard", [None, Guard(matches="smtp")])
def test_a_source_that_is_replaced_between_two_looks_is_looked_at_anew(
    tree: Path, times: int, guard: Guard | None
) -> None:
    grow(tree, {"/jail/one/etc/services": b"smtp 25/tcp\n"})
    with (
        task(tree, [rule(files=("/etc/services",), guard=guard)], [instance()]) as (work, _),
        closing(Replacing(tree, times)) as root,
    ):
        found = check(replace(work, host=replace(work.host, root=root)))
    assert kinds(found) == {}
