"""Links in every position, of every owner, to wherever an attacker might want root to go."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, SECRET, Arena
from tests.unit.machine import needs_root

TO_FILES: dict[str, Callable[[Arena], str]] = {
    "a-secret-of-the-image": lambda _: "/outside/shadow",
    "a-secret-beyond-the-image": lambda arena: str(arena.beyond / "shadow"),
    "a-secret-by-dots": lambda _: "../../../outside/shadow",
    "a-secret-by-too-many-dots": lambda arena: "../" * 50 + str(arena.beyond / "shadow")[1:],
    "a-secret-through-proc": lambda arena: f"/proc/self/root{arena.beyond}/shadow",
    "the-source": lambda _: "../../../etc/conf",
    "another-chroot": lambda _: "../../two/etc/calm",
    "nothing": lambda _: "/nowhere",
    "itself": lambda _: "conf",
    "a-directory": lambda _: "/",
}
TO_DIRECTORIES: dict[str, Callable[[Arena, str], str]] = {
    "secrets-of-the-image": lambda _arena, _up: "/outside",
    "secrets-beyond-the-image": lambda arena, _up: str(arena.beyond),
    "secrets-by-dots": lambda _arena, up: f"{up}../../outside",
    "secrets-by-too-many-dots": lambda arena, up: up * 50 + f"../../..{arena.beyond}",
    "secrets-through-proc": lambda arena, _up: f"/proc/self/root{arena.beyond}",
    "the-sources": lambda _arena, up: f"{up}../../srv",
    "another-chroot": lambda _arena, up: f"{up}../two/etc",
    "nothing": lambda _arena, _up: "/nowhere",
    "a-device": lambda _arena, _up: "/dev/null",
}
OWNERS = [pytest.param(0, id="roots"), pytest.param(ATTACKER, id="attackers")]
GIVE_IT_TO_ROOT = r"give it to root \(chown -h root\)"


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("where", TO_FILES)
def test_a_link_in_place_of_the_copy_is_replaced_and_never_followed(arena: Arena, where: str, owner: int) -> None:
    arena.plant({"/etc/conf": TO_FILES[where](arena)})
    arena.give_away("/etc/conf", owner=owner)
    arena.trial({"/etc/conf": "type"}, says="a link stands where a file should")
    assert (arena.jail / "etc/conf").read_bytes() == NEW


@needs_root
@pytest.mark.parametrize("position", ["/etc", "/usr", "/usr/share/app"])
@pytest.mark.parametrize("where", TO_DIRECTORIES)
def test_a_link_of_the_attackers_on_the_way_is_passed_only_once_it_is_roots(
    arena: Arena, where: str, position: str
) -> None:
    below = f"{position}/{'share/app/conf' if position == '/usr' else 'conf'}"
    arena.host({below: NEW})
    arena.rule(files=[below])
    arena.plant({position: TO_DIRECTORIES[where](arena, "../" * (position.count("/") - 1))})
    arena.give_away(position)
    arena.trial(
        {position: "unsafe"},
        says=GIVE_IT_TO_ROOT,
        mend=lambda: os.chown(f"{arena.jail}{position}", 0, 0, follow_symlinks=False),
    )
    assert (arena.jail / below[1:]).read_bytes() == NEW


@needs_root
@pytest.mark.parametrize("position", ["/etc", "/usr", "/usr/share/app"])
@pytest.mark.parametrize("where", TO_DIRECTORIES)
def test_a_link_of_roots_on_the_way_never_leads_out(arena: Arena, where: str, position: str) -> None:
    below = f"{position}/{'share/app/conf' if position == '/usr' else 'conf'}"
    arena.host({below: NEW})
    arena.rule(files=[below])
    arena.plant({position: TO_DIRECTORIES[where](arena, "../" * (position.count("/") - 1))})
    fixed = arena.trial({**dict.fromkeys(parents(position, below), "missing"), position: "type", below: "missing"})
    assert fixed.code == 0
    assert (arena.jail / below[1:]).read_bytes() == NEW


def parents(position: str, below: str) -> list[str]:
    """The directories between a link and what was to be beneath it."""
    between = os.path.dirname(below).removeprefix(position).strip("/").split("/")
    return [f"{position}/{'/'.join(between[:depth])}" for depth in range(1, len(between) + 1) if between[0]]


@pytest.mark.parametrize(
    "links",
    [{"/etc": "etc"}, {"/etc": "a", "/a": "b", "/b": "/etc"}, {"/etc": "../../etc"}],
    ids=["one", "three", "by-dots"],
)
def test_a_loop_on_the_way_ends(arena: Arena, links: dict[str, str]) -> None:
    arena.plant(links)
    arena.trial(
        {"/etc": "unreadable"}, says="too many levels of symbolic links", mend=lambda: os.unlink(arena.jail / "etc")
    )


@pytest.mark.parametrize("count", [40, 41, 1000])
def test_as_many_links_are_followed_as_the_kernel_would(arena: Arena, count: int) -> None:
    chain = {f"/link{number}": f"link{number + 1}" for number in range(1, count)}
    arena.plant({"/etc": "link1", **chain, f"/link{count}": None})
    if count == 40:
        arena.trial({f"/link{count}/conf": "missing"})
        return
    arena.trial(
        {"/etc": "unreadable"}, says="too many levels of symbolic links", mend=lambda: os.unlink(arena.jail / "etc")
    )


def test_links_of_roots_work_are_fine(arena: Arena) -> None:
    arena.host({"/usr/lib/libx.so": NEW, "/usr/lib/liby.so": NEW, "/lib": "usr/lib"})
    arena.rule(files=["/lib/libx.so", "/usr/lib/libx.so", "/lib/liby.so"])
    arena.plant({"/usr/lib/libx.so": OLD, "/lib": "usr/lib"})
    arena.trial({"/usr/lib/libx.so": "differs", "/usr/lib/liby.so": "missing"})
    assert os.readlink(arena.jail / "lib") == "usr/lib"


@needs_root
@pytest.mark.parametrize("where", ["usr/lib", "/usr/lib", "/outside", "../../outside"])
def test_a_merged_usr_of_the_attackers_is_not(arena: Arena, where: str) -> None:
    arena.host({"/lib/libx.so": NEW})
    arena.rule(files=["/lib/libx.so"])
    arena.plant({"/usr/lib/libx.so": OLD, "/lib": where})
    arena.give_away("/lib")
    arena.trial(
        {"/lib": "unsafe"}, says=GIVE_IT_TO_ROOT, mend=lambda: os.chown(arena.jail / "lib", 0, 0, follow_symlinks=False)
    )


@needs_root
def test_a_link_into_a_directory_of_the_attackers_ends_there(arena: Arena) -> None:
    arena.plant({"/etc": "home/there", "/home/there": None})
    arena.give_away("/home/there")
    arena.trial({"/home/there": "unsafe"}, says=GIVE_IT_TO_ROOT, mend=lambda: os.chown(arena.jail / "home/there", 0, 0))
    assert (arena.jail / "home/there/conf").read_bytes() == NEW


@needs_root
def test_a_directory_of_the_attackers_with_links_in_it_is_not_looked_into(arena: Arena) -> None:
    arena.plant({"/etc/conf": "/outside/shadow", "/etc/app": "../../../outside"})
    arena.give_away("/etc", "/etc/conf", "/etc/app")
    arena.rule(files=["/etc/conf"], presence="required")
    arena.trial({"/etc": "unsafe"}, says=GIVE_IT_TO_ROOT, mend=lambda: os.chown(arena.jail / "etc", 0, 0))


# --- Links beside -------------------------------------------------------------------------------------------------


def test_a_link_of_roots_beside_a_stale_copy_is_replaced(arena: Arena) -> None:
    arena.plant({"/etc/real": OLD, "/etc/conf": "real"})
    arena.trial({"/etc/conf": "type"})
    assert (arena.jail / "etc/real").read_bytes() == OLD


@needs_root
def test_a_link_of_the_attackers_beside_a_good_copy_is_replaced(arena: Arena) -> None:
    arena.plant({"/etc/real": NEW, "/etc/conf": "real"})
    arena.give_away("/etc/conf")
    arena.trial({"/etc/conf": "type"})
    assert not (arena.jail / "etc/conf").is_symlink()


def test_what_a_link_leads_to_beside_it_is_not_told(arena: Arena) -> None:
    arena.plant({"/etc/real": SECRET, "/etc/conf": "real"})
    (arena.jail / "etc/real").chmod(0o600)
    arena.trial({"/etc/conf": "type"})


# --- The chroot itself --------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("where", ["one", "/outside", "../outside", "/etc", "/"])
def test_a_chroot_that_is_a_link_of_the_attackers_is_refused(arena: Arena, where: str) -> None:
    arena.host({"/jail/link": where})
    os.chown(arena.image / "jail/link", ATTACKER, ATTACKER, follow_symlinks=False)
    arena.chroots["one"] = "/jail/link"

    def mend() -> None:
        os.unlink(arena.image / "jail/link")
        os.symlink("one", arena.image / "jail/link")

    arena.trial({"/": "bad-instance"}, says=GIVE_IT_TO_ROOT, mend=mend)
    assert (arena.jail / "etc/conf").read_bytes() == NEW


@needs_root
def test_a_link_of_the_attackers_on_the_way_to_the_chroot_is_refused(arena: Arena) -> None:
    arena.host({"/srv": "jail"})
    os.chown(arena.image / "srv", ATTACKER, ATTACKER, follow_symlinks=False)
    arena.chroots["one"] = "/srv/one"
    arena.trial(
        {"/": "bad-instance"},
        says=GIVE_IT_TO_ROOT,
        mend=lambda: os.chown(arena.image / "srv", 0, 0, follow_symlinks=False),
    )


@pytest.mark.parametrize("where", ["one", "/jail/one", "../../jail/one"])
def test_a_chroot_that_is_a_link_of_roots_is_what_it_leads_to(arena: Arena, where: str) -> None:
    arena.host({"/jail/link": where})
    arena.chroots["one"] = "/jail/link"
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})


@pytest.mark.parametrize(("where", "reason"), [("two", "is that of two already"), ("/", "is the root itself")])
def test_a_link_of_roots_does_not_make_a_chroot_of_what_is_none(arena: Arena, where: str, reason: str) -> None:
    arena.host({"/jail/link": where})
    arena.chroots = {"two": "/jail/two", "one": "/jail/link"}

    def mend() -> None:
        arena.chroots["one"] = "/jail/one"

    arena.trial({"/": "bad-instance"}, says=reason, mend=mend)


# --- Hard links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["outside/shadow", "etc/conf", "jail/one/other"])
def test_a_second_name_of_a_file_is_never_touched_and_never_read(arena: Arena, where: str) -> None:
    arena.plant({"/etc": None, "/other": OLD})
    os.link(arena.image / where, arena.jail / "etc/conf")
    arena.trial(
        {"/etc/conf": "unsafe"},
        says="this file has 2 links.*; remove it, and check --fix makes a copy of its own",
        mend=lambda: os.unlink(arena.jail / "etc/conf"),
    )


def test_a_second_name_of_another_chroots_copy_is_told_in_both(arena: Arena) -> None:
    arena.plant({"/etc": None})
    os.link(arena.image / "jail/two/etc/calm", arena.jail / "etc/conf")
    arena.trial(
        {"/etc/conf": "unsafe", "/etc/calm": "unsafe"},
        says="remove it",
        mend=lambda: os.unlink(arena.jail / "etc/conf"),
    )


def test_a_second_name_with_a_wrong_mode_is_left_alone(arena: Arena) -> None:
    arena.plant({"/etc": None})
    (arena.image / "etc/hard").write_bytes(NEW)
    (arena.image / "etc/hard").chmod(0o600)
    os.link(arena.image / "etc/hard", arena.jail / "etc/conf")
    arena.trial({"/etc/conf": "unsafe"}, says="remove it", mend=lambda: os.unlink(arena.jail / "etc/conf"))
    assert (arena.image / "etc/hard").stat().st_mode & 0o777 == 0o600


def test_a_second_name_of_a_link_is_replaced(arena: Arena) -> None:
    arena.host({"/outside/link": "shadow"})
    arena.changes(arena.outside / "link")  # it has one name less
    arena.plant({"/etc": None})
    os.link(arena.outside / "link", arena.jail / "etc/conf", follow_symlinks=False)
    arena.trial({"/etc/conf": "type"})
    assert os.readlink(arena.outside / "link") == "shadow"
