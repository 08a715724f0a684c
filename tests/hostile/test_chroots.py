"""Chroots, images, configuration and rules that somebody else could change, or that are not what they seem."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, Arena, differing, snapshot
from tests.unit.machine import needs_root

UNFIT: dict[str, tuple[int, int]] = {
    "attackers": (0o755, ATTACKER),
    "attackers-and-closed": (0o700, ATTACKER),
    "group-writable": (0o775, 0),
    "world-writable": (0o777, 0),
    "world-writable-and-sticky": (0o1777, 0),
    "set-group-id-and-writable": (0o2775, 0),
}


def unfit(arena: Arena, where: str, how: str) -> Callable[[], None]:
    """Make a directory one that somebody else can change; gives what mends it."""
    place = arena.top / where
    bits, owner = UNFIT[how]
    os.chown(place, owner, owner)
    place.chmod(bits)

    def mend() -> None:
        os.chown(place, 0, 0)
        place.chmod(0o755)

    return mend


# --- The way to the chroot ----------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("how", UNFIT)
@pytest.mark.parametrize("where", ["image/jail/one", "image/jail"])
def test_a_chroot_that_somebody_else_can_change_is_refused(arena: Arena, where: str, how: str) -> None:
    arena.plant({"/etc/conf": OLD})
    mend = unfit(arena, where, how)
    if where == "image/jail":
        del arena.chroots["two"]
    arena.trial({"/": "bad-instance"}, says="give it to root|chmod go-w", mend=mend)
    assert (arena.jail / "etc/conf").read_bytes() == NEW


@needs_root
@pytest.mark.parametrize("how", UNFIT)
def test_an_image_that_somebody_else_can_change_is_refused(arena: Arena, how: str) -> None:
    del arena.chroots["two"]
    arena.trial({"/": "bad-instance"}, says="give it to root|chmod go-w", mend=unfit(arena, "image", how))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (None, "does not exist"),
        (b"a file", "is not a directory"),
        ("/nowhere", "does not exist"),
        ("one", "too many levels"),
        (0o666, "is not a directory"),
    ],
)
def test_a_chroot_that_is_no_directory_is_refused(arena: Arena, what: str | bytes | int | None, reason: str) -> None:
    arena.jail.rmdir()
    if what is not None:
        arena.host({"/jail/one": what})

    def mend() -> None:
        arena.jail.unlink(missing_ok=True)
        arena.plant({"/etc": None})

    arena.trial({"/": "bad-instance"}, says=reason, mend=mend)


# --- What a chroot must not overlap with --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chroot", "keys"),
    [
        ("/etc", {"files": ["/etc/conf"]}),
        ("/usr", {"files": ["/usr/share/app/conf"]}),
        ("/usr/share", {"directories": ["/usr/share/app"]}),
        ("/usr/share/app", {"directories": ["/usr/share/app"]}),
        ("/srv/jail", {"directories": ["/srv"]}),
        ("/link", {"files": ["/usr/share/app/conf"]}),
    ],
)
def test_a_chroot_among_the_sources_is_refused(arena: Arena, chroot: str, keys: dict[str, list[str]]) -> None:
    arena.host({"/usr/share/app/conf": NEW, "/srv/jail": None, "/srv/conf": NEW, "/link": "usr"})
    arena.rule(**keys)
    arena.chroots["one"] = chroot

    def mend() -> None:
        arena.chroots["one"] = "/jail/one"

    arena.trial(
        {"/": "bad-instance"},
        says="the chroot .* is refused: .* is to be copied, (lies in it|has it inside)",
        mend=mend,
    )


@pytest.mark.parametrize("chroot", ["/self", "/jail/self"])
def test_the_root_is_no_chroot_by_whatever_name(arena: Arena, chroot: str) -> None:
    arena.host({"/self": ".", "/jail/self": "/"})
    arena.chroots["one"] = chroot

    def mend() -> None:
        arena.chroots["one"] = "/jail/one"

    arena.trial({"/": "bad-instance"}, says="is the root itself", mend=mend)


@pytest.mark.parametrize("chroot", ["/", "/jail/..", "/srv/../jail/one", "jail/one", "", "/jail/one\n"])
def test_a_chroot_that_is_not_named_plainly_is_refused(arena: Arena, chroot: str) -> None:
    arena.tally.add("case")
    arena.chroots["one"] = chroot
    with arena.untouched(inside=True):
        found, fixed = arena.check(), arena.fix()
    assert (found.code, fixed.code) in ((2, 2), (1, 1))
    assert "instance" in found.messages or "does not exist" in found.messages


@pytest.mark.parametrize("where", ["state", "state/deep", ".", ".."])
def test_a_chroot_at_the_state_is_refused(arena: Arena, where: str) -> None:
    """The state is in the chroot, is the chroot, or has it inside."""
    arena.tally.add("case")
    state = arena.jail / where
    if where.startswith("state"):
        (arena.jail / where).mkdir(parents=True, mode=0o700)
    words = ("--format", "json", "--state", os.path.normpath(state))
    with arena.untouched(inside=True):
        found = arena.said(arena.run("check", *words))
    before = snapshot(arena.top)
    fixed = arena.said(arena.run("check", "--fix", *words))
    changed = differing(before, snapshot(arena.top))
    assert {os.path.basename(path) for path, (was, _) in changed.items() if was is None} <= {"state.db"}
    assert found.kinds == fixed.kinds == {"/": "bad-instance"}
    assert "is refused: it overlaps with" in found.messages
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


def test_a_chroot_within_a_chroot_is_served_like_any_other(arena: Arena) -> None:
    arena.plant({"/var/inner/etc": None})
    arena.chroots["inner"] = "/jail/one/var/inner"
    arena.tally.add("case")
    with arena.untouched():
        assert arena.fix().code == 0
    assert arena.check().kinds == {}
    assert (arena.jail / "var/inner/etc/conf").read_bytes() == NEW


@needs_root
def test_a_chroot_within_a_directory_of_the_attackers_in_a_chroot_is_refused(arena: Arena) -> None:
    arena.plant({"/etc/conf": NEW, "/var/inner/etc": None})
    arena.give_away("/var")
    arena.chroots["inner"] = "/jail/one/var/inner"
    arena.trial({"/": "bad-instance"}, says="give it to root", mend=lambda: arena.give_away("/var", owner=0))


# --- What an image brings along -----------------------------------------------------------------------------------


def test_nothing_of_an_image_is_run_and_its_configuration_is_not_read(arena: Arena) -> None:
    proof = arena.top / "proof"
    evil = (
        '[[instance]]\nname = "evil"\nchroot = "/outside"\nrules = ["evil"]\n'
        f'reload = ["/bin/touch", "{proof}"]\nrunning = ["/bin/touch", "{proof}"]\n'
    )
    arena.host(
        {
            "/etc/chrootsync/chrootsync.toml": evil.encode(),
            "/etc/chrootsync/rules.d/evil.toml": b'[ruleset]\nservice = "test"\ndescription = ""\n'
            b'[[rule]]\nid = "evil"\nwhy = ""\nfiles = ["/etc/conf"]\n',
            "/usr/sbin/postconf": f"#!/bin/sh\ntouch {proof}\n".encode(),
        }
    )
    (arena.image / "usr/sbin/postconf").chmod(0o755)
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})
    assert not proof.exists()


def test_commands_of_instances_are_not_run_for_an_image(arena: Arena) -> None:
    proof = arena.top / "proof"
    arena.extra = (
        f'[[instance]]\nname = "three"\nchroot = "/jail/three"\nrules = ["calm"]\nunit = "evil.service"\n'
        f'reload = ["/bin/touch", "{proof}"]\nrunning = ["/bin/touch", "{proof}"]\n'
    )
    arena.host({"/jail/three": None})
    arena.changes(arena.image / "jail/three")
    arena.tally.add("case")
    with arena.untouched():
        assert arena.said(arena.fix()).code == 0
    assert not proof.exists()


# --- Configuration and rules --------------------------------------------------------------------------------------

SPOILED: dict[str, tuple[str, int, int]] = {
    "attackers-configuration": ("chrootsync.toml", 0o644, ATTACKER),
    "group-writable-configuration": ("chrootsync.toml", 0o664, 0),
    "world-writable-configuration": ("chrootsync.toml", 0o646, 0),
    "attackers-rules": ("rules/test.toml", 0o644, ATTACKER),
    "group-writable-rules": ("rules/test.toml", 0o664, 0),
    "attackers-directory-of-rules": ("rules", 0o755, ATTACKER),
    "writable-directory-of-rules": ("rules", 0o777, 0),
    "attackers-place": ("", 0o755, ATTACKER),
}


@needs_root
@pytest.mark.parametrize("how", SPOILED)
def test_configuration_that_somebody_else_could_have_written_is_refused(arena: Arena, how: str) -> None:
    arena.tally.add("case")
    arena.check()
    where, bits, owner = SPOILED[how]
    place = arena.top / where
    before = os.stat(place)
    os.chown(place, owner, owner)
    place.chmod(bits)
    with arena.untouched(inside=True):
        found, fixed = arena.check(), arena.fix()
    assert (found.code, fixed.code) == (2, 2)
    assert "give it to root" in found.messages or "chmod go-w" in found.messages
    os.chown(place, 0, 0)
    place.chmod(before.st_mode & 0o7777)
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


@needs_root
@pytest.mark.parametrize("where", ["chrootsync.toml", "rules/test.toml", "rules"])
def test_configuration_behind_a_link_of_the_attackers_is_refused(arena: Arena, where: str) -> None:
    arena.tally.add("case")
    arena.check()
    place = arena.top / where
    shutil.move(place, arena.top / "moved")
    place.symlink_to(arena.top / "moved")
    os.chown(place, ATTACKER, ATTACKER, follow_symlinks=False)
    with arena.untouched(inside=True):
        found, fixed = arena.check(), arena.fix()
    assert (found.code, fixed.code) == (2, 2)
    assert "give it to root (chown -h root)" in found.messages
    os.chown(place, 0, 0, follow_symlinks=False)
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


@needs_root
@pytest.mark.parametrize("what", ["attackers", "world-writable", "link", "file"])
def test_state_that_somebody_else_could_have_written_is_not_believed(arena: Arena, what: str) -> None:
    arena.tally.add("case")
    state = arena.top / "state"
    if what == "link":
        state.symlink_to(arena.beyond)
    elif what == "file":
        state.write_bytes(b"")
    else:
        state.mkdir(mode=0o700)
        state.chmod(0o700 if what == "attackers" else 0o777)
        os.chown(state, ATTACKER if what == "attackers" else 0, 0)
    with arena.untouched(inside=True):
        found = arena.fix("--state", str(state))
    assert found.code == 2
    assert "--state" in found.messages


# --- Reports ------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("what", ["a-link-to-a-secret", "a-hard-link-to-a-secret", "a-fifo", "a-file-of-the-attackers"])
def test_a_report_is_written_beside_what_an_attacker_has_put_there(arena: Arena, what: str) -> None:
    arena.tally.add("case")
    place = arena.jail / "report.json"
    if what == "a-link-to-a-secret":
        place.symlink_to(arena.beyond / "shadow")
    elif what == "a-hard-link-to-a-secret":
        place.hardlink_to(arena.beyond / "shadow")
        arena.changes(arena.beyond / "shadow")
    elif what == "a-fifo":
        os.mkfifo(place)
    else:
        place.write_bytes(b"mine")
    if what != "a-hard-link-to-a-secret":
        arena.give_away("/report.json")
    with arena.untouched():
        found = arena.run("check", "--format", "json", "--report", f"json={place}")
    assert found.code in (1, 2, 3)
    assert found.code != 2 or "remove it, or name another file" in found.messages
    assert (arena.beyond / "shadow").read_bytes() == (arena.outside / "shadow").read_bytes()
    assert (arena.beyond / "shadow").stat().st_mode & 0o777 == 0o600
