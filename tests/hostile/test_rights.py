"""Modes, owners, ACLs and file capabilities: nobody gains by a copy, and nobody but root may change the way to it."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chrootsync.root.dress import ACCESS_ACL, DEFAULT_ACL
from tests.hostile.arena import ATTACKER, NEW, OLD, Arena, Tally, as_a_user
from tests.hostile.racing import BY_DESCRIPTOR, BY_NAME, before_each_call
from tests.unit.machine import needs_root, set_acl

CAPABILITY = "security.capability"
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, struct vfs_cap_data


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def set_capability(path: Path) -> None:
    """Give a file capabilities; where it can have none, the test is skipped."""
    try:
        os.setxattr(path, CAPABILITY, NET_RAW)
    except OSError as error:
        pytest.skip(f"no file capabilities here: {error}")


def attributes(path: Path) -> set[str]:
    return {name for name in os.listxattr(path) if name in (ACCESS_ACL, DEFAULT_ACL, CAPABILITY)}


# --- Directories that somebody else can change --------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o777, 0o775, 0o757, 0o1777, 0o2775, 0o3777, pytest.param(0o022, marks=needs_root)])
@pytest.mark.parametrize("where", ["/etc", "/usr", "/usr/share/app"])
def test_nothing_is_written_beneath_a_directory_that_others_can_write(arena: Arena, where: str, bits: int) -> None:
    below = {"/etc": "/etc/conf", "/usr": "/usr/share/app/conf"}.get(where, "/usr/share/app/conf")
    arena.host({below: NEW})
    arena.rule(files=[below])
    arena.plant({below: OLD})
    place = arena.jail / where[1:]
    place.chmod(bits)

    def mend() -> None:
        assert (arena.jail / below[1:]).read_bytes() == OLD
        place.chmod(bits & ~0o022)

    arena.trial(
        {where: "unsafe"}, says=rf"others can write to this directory \(mode {bits:04o}\).*chmod go-w", mend=mend
    )


@needs_root
@pytest.mark.parametrize("bits", [0o755, 0o700, 0o777, 0])
@pytest.mark.parametrize("where", ["/etc", "/usr"])
def test_nothing_is_written_beneath_a_directory_of_the_attackers(arena: Arena, where: str, bits: int) -> None:
    below = f"{where}/app/conf"
    arena.host({below: NEW})
    arena.rule(files=[below])
    arena.plant({below: OLD})
    arena.give_away(where)
    (arena.jail / where[1:]).chmod(bits)

    def mend() -> None:
        assert (arena.jail / below[1:]).read_bytes() == OLD
        arena.give_away(where, owner=0)
        (arena.jail / where[1:]).chmod(0o755)

    arena.trial({where: "unsafe"}, says=f"belongs to user {ATTACKER}; give it to root", mend=mend)


@needs_root
def test_a_group_that_may_not_write_harms_nobody(arena: Arena) -> None:
    arena.plant({"/etc/conf": OLD})
    os.chown(arena.jail / "etc", 0, ATTACKER)
    arena.trial({"/etc": "metadata", "/etc/conf": "differs"}, says=f"group {ATTACKER}, not 0")


@pytest.mark.parametrize("who", [f"u:{ATTACKER}:rwx", f"g:{ATTACKER}:rwx"])
def test_nothing_is_written_beneath_a_directory_that_an_acl_opens(arena: Arena, who: str) -> None:
    arena.plant({"/etc/conf": OLD})
    set_acl(arena.jail / "etc", "-m", who)
    assert mode(arena.jail / "etc") == 0o775  # the mask
    arena.trial({"/etc": "unsafe"}, says="chmod go-w", mend=lambda: (arena.jail / "etc").chmod(0o755))


@needs_root
@pytest.mark.parametrize("separate", [False, True], ids=["in-process", "as-a-process"])
def test_a_directory_of_the_attackers_further_up_bars_roots_own_ones_beneath(arena: Arena, *, separate: bool) -> None:
    arena.separate = separate
    arena.host({"/srv/www/app/conf": NEW})
    arena.rule(files=["/srv/www/app/conf"])
    arena.plant({"/srv/www/app/conf": OLD})
    arena.give_away("/srv")
    arena.trial({"/srv": "unsafe"}, says="give it to root", mend=lambda: arena.give_away("/srv", owner=0))


# --- Copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bits", [0o666, 0o777, 0o4755, 0o2755, 0o6777, 0o1644, 0o600, pytest.param(0, marks=needs_root)]
)
@pytest.mark.parametrize("contents", [NEW, OLD], ids=["current", "stale"])
def test_a_copy_with_a_wrong_mode_is_made_anew(arena: Arena, contents: bytes, bits: int) -> None:
    arena.plant({"/etc/conf": contents})
    copy = arena.jail / "etc/conf"
    copy.chmod(bits)
    held = os.open(copy, os.O_RDWR)
    try:
        arena.trial({"/etc/conf": "metadata" if contents == NEW else "differs"})
        os.write(held, b"from whoever had it open")
    finally:
        os.close(held)
    assert (copy.read_bytes(), mode(copy)) == (NEW, 0o644)


@needs_root
@pytest.mark.parametrize(("uid", "gid"), [(ATTACKER, ATTACKER), (ATTACKER, 0), (0, ATTACKER)])
@pytest.mark.parametrize("contents", [NEW, OLD], ids=["current", "stale"])
def test_a_copy_of_the_attackers_is_made_roots_by_another_inode(
    arena: Arena, contents: bytes, uid: int, gid: int
) -> None:
    arena.plant({"/etc/conf": contents})
    copy = arena.jail / "etc/conf"
    os.chown(copy, uid, gid)
    before = copy.stat().st_ino
    with copy.open("rb+") as held:
        arena.trial({"/etc/conf": "metadata" if contents == NEW else "differs"})
        held.write(b"evil")
    assert copy.stat().st_ino != before
    assert (copy.stat().st_uid, copy.stat().st_gid, copy.read_bytes()) == (0, 0, NEW)


@pytest.mark.parametrize("acl", [f"u:{ATTACKER}:rw", f"u:{ATTACKER}:r", f"g:{ATTACKER}:-"])
def test_a_copy_with_an_acl_is_made_anew_without(arena: Arena, acl: str) -> None:
    arena.plant({"/etc/conf": NEW})
    set_acl(arena.jail / "etc/conf", "-m", acl)
    arena.trial({"/etc/conf": "metadata"}, says="has an ACL" if acl.endswith(("r", "-")) else "ACL|mode")
    assert attributes(arena.jail / "etc/conf") == set()


@needs_root
def test_a_copy_with_file_capabilities_is_made_anew_without(arena: Arena) -> None:
    arena.plant({"/etc/conf": NEW})
    set_capability(arena.jail / "etc/conf")
    arena.trial({"/etc/conf": "metadata"}, says="has file capabilities")
    assert attributes(arena.jail / "etc/conf") == set()


@needs_root
def test_file_capabilities_are_seen_however_deep_a_copy_lies(arena: Arena) -> None:
    deep = "/etc" + f"/{'x' * 200}" * 20
    arena.rule(directories=["/etc/" + "x" * 200])
    for top in (arena.image, arena.jail):
        with inside(top, deep) as directory:
            fd = os.open("conf", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory)
            os.write(fd, NEW)
            os.fchmod(fd, 0o644)
            if top == arena.jail:
                os.setxattr(fd, CAPABILITY, NET_RAW)
            os.close(fd)
    arena.trial({f"{deep}/conf": "metadata"}, says="has file capabilities")


@contextmanager
def inside(top: Path, deep: str) -> Iterator[int]:
    """A directory whose path is longer than the kernel takes, made step by step."""
    fd = os.open(top, os.O_RDONLY)
    for name in deep.strip("/").split("/"):
        if name not in os.listdir(fd):
            os.mkdir(name, 0o755, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        yield fd
    finally:
        os.close(fd)


# --- Sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6755, 0o1755, 0o4777])
@pytest.mark.parametrize("rule", [{}, {"mode": "0755"}, {"mode": "0777"}], ids=["plain", "0755", "0777"])
def test_a_copy_is_never_set_id(arena: Arena, rule: dict[str, object], bits: int) -> None:
    arena.rule(files=["/etc/conf"], **rule)
    (arena.image / "etc/conf").chmod(bits)
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})
    assert mode(arena.jail / "etc/conf") == 0o755


@needs_root
def test_a_copy_has_no_file_capabilities(arena: Arena) -> None:
    set_capability(arena.image / "etc/conf")
    arena.plant({"/etc/conf": OLD})
    arena.trial({"/etc/conf": "differs"})
    assert attributes(arena.jail / "etc/conf") == set()


@pytest.mark.parametrize("rule", [{}, {"mode": "0644"}, {"mode": "0666"}], ids=["plain", "0644", "0666"])
@pytest.mark.parametrize("bits", [0o600, 0o400, 0o640, pytest.param(0, marks=needs_root)])
def test_a_copy_is_never_more_readable_than_its_source(arena: Arena, bits: int, rule: dict[str, object]) -> None:
    arena.rule(files=["/etc/conf"], **rule)
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").chmod(bits)
    arena.trial({"/etc/conf": "differs"})
    assert mode(arena.jail / "etc/conf") & 0o077 & ~bits == 0


@needs_root
@pytest.mark.parametrize("rule", [{"owner": "1234"}, {"group": "1234"}, {"owner": "1234", "group": "1234"}])
def test_a_rule_gives_nobody_what_the_source_keeps_from_him(arena: Arena, rule: dict[str, str]) -> None:
    arena.rule(files=["/etc/conf"], mode="0644", **rule)
    (arena.image / "etc/conf").chmod(0o600)
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})
    assert may_read(arena.jail / "etc/conf") == set()


@needs_root
@pytest.mark.parametrize(
    ("acl", "shut_out"),
    [
        (f"u:{ATTACKER}:-", {ATTACKER}),
        (f"g:{ATTACKER}:-", {ATTACKER}),
        ("g::-", {0}),
        ("u:77:-,u:1234:r", {77}),
        ("o::-,u:77:r", {ATTACKER}),
        ("m::-", set()),
    ],
)
@pytest.mark.parametrize("bits", [0o644, 0o664, 0o777])
def test_whom_the_sources_acl_shuts_out_stays_shut_out(arena: Arena, acl: str, shut_out: set[int], bits: int) -> None:
    (arena.image / "etc/conf").chmod(bits)
    set_acl(arena.image / "etc/conf", "-m", acl)
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})
    copy = arena.jail / "etc/conf"
    assert attributes(copy) == set()
    assert not may_read(copy) & shut_out - {0}
    assert "g::-" not in acl or not mode(copy) & 0o070


def may_read(path: Path) -> set[int]:
    """Which of some users, each in the group of his number only, may read a file that has no ACL."""
    status = path.stat()
    bits = {
        uid: status.st_mode >> (6 if uid == status.st_uid else 3 if uid == status.st_gid else 0) & 0o4
        for uid in (77, ATTACKER)
    }
    return {uid for uid, bit in bits.items() if bit}


# --- While it is being staged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o604, 0o400])
@pytest.mark.parametrize("acl", [f"d:u:{ATTACKER}:rwx", "d:o::rwx", f"d:g:{ATTACKER}:r,d:m::rwx"])
def test_a_default_acl_never_opens_what_is_staged(arena: Arena, acl: str, bits: int) -> None:
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").chmod(bits)
    set_acl(arena.jail / "etc", "-m", acl)
    (arena.jail / "etc/conf").chmod(0o600)
    open_to_others: list[str] = []

    def look() -> None:
        found = [(path, mode(path)) for path in (arena.jail / "etc").iterdir()]
        is_open = [(path, has) for path, has in found if has & 0o077 & ~bits or (has & 0o070 and attributes(path))]
        open_to_others.extend(f"{path.name} {has:04o}" for path, has in is_open)

    with before_each_call(look, BY_NAME + BY_DESCRIPTOR):
        arena.fix()
    assert open_to_others == []
    (arena.jail / "etc/conf").unlink()
    arena.trial({"/etc/conf": "missing"})
    assert attributes(arena.jail / "etc/conf") == set()
    assert mode(arena.jail / "etc/conf") & 0o077 & ~bits == 0


@pytest.mark.parametrize("what", ["directory", "link", "device"])
def test_a_default_acl_opens_nothing_that_is_made(arena: Arena, what: str) -> None:
    arena.plant({"/etc": None})
    set_acl(arena.jail / "etc", "-m", f"d:u:{ATTACKER}:rwx")
    if what == "directory":
        arena.host({"/etc/app/conf": NEW})
        arena.rule(files=["/etc/app/conf"])
        arena.trial({"/etc/app": "missing", "/etc/app/conf": "missing"})
        assert attributes(arena.jail / "etc/app") == set()
    elif what == "link":
        arena.rule(links=[{"path": "/etc/link", "target": "conf"}])
        arena.trial({"/etc/link": "missing"})
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can make devices")
        arena.rule(devices=[{"path": "/etc/null", "type": "character", "major": 1, "minor": 3}], mode="0600")
        arena.trial({"/etc/null": "missing"})
        assert attributes(arena.jail / "etc/null") == set()
        assert mode(arena.jail / "etc/null") == 0o600


# --- Without root's rights ----------------------------------------------------------------------------------------


@pytest.fixture
def public(tally: Tally, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    """An arena in a place that every user may see, with everything imported that a run of his will need."""
    with tempfile.TemporaryDirectory(dir="/tmp") as top, tempfile.TemporaryDirectory(dir="/tmp") as locks:
        os.chmod(top, 0o755)
        os.chown(locks, ATTACKER, ATTACKER)
        monkeypatch.setenv("XDG_RUNTIME_DIR", locks)
        arena = Arena(Path(top), tally)
        arena.plant({"/etc/conf": OLD})
        arena.check()
        arena.fix()
        yield arena


@needs_root
@pytest.mark.parametrize(
    ("where", "bits", "expected"),
    [
        ("jail/one/etc", 0o700, {"/etc": "metadata", "/etc/conf": "unreadable"}),
        ("jail/one/etc/conf", 0o600, {"/etc/conf": "unreadable"}),
        ("jail/one", 0o700, {"/etc": "unreadable"}),
        ("jail", 0o700, {"/": "bad-instance"}),
        ("etc/conf", 0o600, {"/etc/conf": "unreadable"}),
        ("etc", 0o700, {"/": "bad-instance", "/etc": "metadata", "/etc/conf": "unreadable"}),
    ],
)
def test_what_a_user_may_not_see_is_never_in_sync_and_never_changed(
    public: Arena, where: str, bits: int, expected: dict[str, str]
) -> None:
    public.tally.add("case")
    (public.image / where).chmod(bits)
    with public.untouched(inside=True), as_a_user():
        found, fixed = public.check(), public.fix()
    assert {path: kind for path, kind in found.kinds.items() if path != "/etc/calm"} == expected, found.messages
    assert found.code == 1
    assert fixed.code in (1, 3)
    assert re.search("permission denied|operation not permitted", fixed.messages)


@needs_root
def test_a_user_repairs_nothing_of_roots(public: Arena) -> None:
    public.tally.add("case")
    (public.image / "etc/conf").write_bytes(OLD)
    with public.untouched(inside=True), as_a_user():
        fixed = public.fix()
    assert fixed.code == 3
    assert "permission denied" in fixed.messages
