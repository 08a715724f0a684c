"""Where a path leads inside a root and inside its chroots, and where it is refused."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import AbsentError, FileType, Kind, PathError, Rule, UnreadableError, UnsafeError
from chrootsync.root import Root, read
from chrootsync.root.policy import anything
from chrootsync.root.pool import Directory, Pool
from chrootsync.root.walk import LOOK, MAX_LINKS, Walker
from tests.unit.machine import (
    STRANGER,
    descriptors,
    descriptors_left,
    entered,
    mount,
    needs_root,
    promptly,
    set_acl,
    with_private_mounts,
)
from tests.unit.scenery import Tree, checked, drifts, grow, instance, rule

MOUNTED = "something is mounted here; unmount it, or make it an instance of its own"


def contents(root: Path, path: str) -> bytes | None:
    """What a file of the chroot holds; None where nothing is there."""
    with entered(root) as chroot:
        copy = chroot.look(path)
        return None if copy.state is None else copy.contents(100)


def refusal(root: Path, path: str, chroot: str = "/jail") -> str:
    with pytest.raises(UnsafeError) as caught, entered(root, chroot) as found:
        found.look(path)
    return str(caught.value)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host with a chroot, and a second one beside it; every file says where it is."""
    where = ("/etc/hosts", "/etc/shadow", "/jail/etc/hosts", "/jail/usr/lib/libc.so", "/other/etc/hosts")
    grow(tmp_path, {path: path.encode() for path in where})
    return tmp_path


# --- Links inside a chroot: as for a process that lives there, path_resolution(7) ----------------------------------


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({"/jail/lib": "usr/lib"}, "/lib/libc.so", "/jail/usr/lib/libc.so"),
        ({"/jail/lib": "/usr/lib"}, "/lib/libc.so", "/jail/usr/lib/libc.so"),
        ({"/jail/lib": "usr//./lib/"}, "/lib/libc.so", "/jail/usr/lib/libc.so"),
        ({"/jail/me": "/"}, "/me/etc/hosts", "/jail/etc/hosts"),
        ({"/jail/me": "."}, "/me/me/etc/hosts", "/jail/etc/hosts"),
        ({"/jail/up": ".."}, "/up/etc/hosts", "/jail/etc/hosts"),
        ({"/jail/up": "../../../../../.."}, "/up/etc/hosts", "/jail/etc/hosts"),
        ({"/jail/usr/up": "../../../etc"}, "/usr/up/hosts", "/jail/etc/hosts"),
        ({"/jail/a": "/b/c", "/jail/b": "usr", "/jail/usr/c": "../etc"}, "/a/hosts", "/jail/etc/hosts"),
        ({"/jail/usr/here": "lib/.."}, "/usr/here/../etc/hosts", "/jail/etc/hosts"),
        ({}, "/../../../etc/hosts", "/jail/etc/hosts"),
        ({}, "//etc/.//hosts", "/jail/etc/hosts"),
    ],
)
def test_a_link_on_the_way_is_followed_with_the_chroot_as_its_root(
    tree: Path, links: Tree, path: str, found: str
) -> None:
    grow(tree, links)
    assert contents(tree, path) == found.encode()


@pytest.mark.parametrize(
    "target",
    ["/other/etc", "../other/etc", "../../etc/../other/etc", "/nowhere", "/proc/self/root/etc", "/etc/shadow"],
)
def test_a_link_out_of_the_chroot_leads_to_what_is_missing_inside(tree: Path, target: str) -> None:
    grow(tree, {"/jail/out": target})
    assert contents(tree, "/out/hosts") is None
    with entered(tree) as chroot:
        assert chroot.canonical("/out") is None
        assert chroot.names("/out") == []


@pytest.mark.parametrize("target", ["/etc/shadow", "../etc/shadow", "/jail/etc/hosts", "hosts", "/", "gone"])
def test_a_link_at_the_end_is_seen_and_not_followed(tree: Path, target: str) -> None:
    grow(tree, {"/jail/etc/link": target})
    with entered(tree) as chroot:
        copy = chroot.look("/etc/link")
        assert copy.state is not None
        assert (copy.state.type, copy.state.target) == (FileType.LINK, target)
        with pytest.raises(UnreadableError, match=r"^/etc/link: is a link, not a file$"):
            copy.open()


@pytest.mark.parametrize("path", ["/", "/..", "/etc/..", "/.", "/../../.", "//", "/etc/../.."])
def test_dots_end_at_the_chroot_itself(tree: Path, path: str) -> None:
    with entered(tree) as chroot:
        state = chroot.look(path).state
    status = (tree / "jail").stat()
    assert state is not None
    assert state.type is FileType.DIRECTORY
    assert state.identity is not None
    assert state.identity[:2] == (status.st_dev, status.st_ino)


def test_the_same_place_has_one_spelling(tree: Path) -> None:
    grow(tree, {"/jail/lib": "usr/lib", "/jail/usr/lib64": "/lib"})
    with entered(tree) as chroot:
        assert {chroot.canonical(path) for path in ("/lib", "/usr/lib", "/usr/lib64", "/etc/../lib/.")} == {"/usr/lib"}
        assert chroot.canonical("/usr/none") is None
        assert chroot.canonical("/etc/hosts") is None
        assert chroot.canonical("/") == "/"


def test_links_that_lead_in_a_circle_are_given_up(tree: Path) -> None:
    grow(tree, {"/jail/a": "b", "/jail/b": "/a", "/jail/self": "self/self"})
    with entered(tree) as chroot:
        for path in ("/a/x", "/self/x"):
            with pytest.raises(UnreadableError, match=r"^" + path[:-2] + ": too many levels of symbolic links "):
                chroot.look(path)


@pytest.mark.parametrize(("count", "fine"), [(MAX_LINKS, True), (MAX_LINKS + 1, False)])
def test_as_many_links_are_followed_as_the_kernel_follows(tree: Path, count: int, fine: bool) -> None:
    grow(tree, {f"/jail/etc/{number}": str(number - 1) for number in range(2, count + 1)})
    grow(tree, {"/jail/etc/1": "hosts", "/jail/etc/d1": "."})
    grow(tree, {f"/jail/etc/d{number}": f"d{number - 1}" for number in range(2, count + 1)})
    by_kernel = True
    try:
        (tree / f"jail/etc/{count}").read_bytes()
    except OSError:
        by_kernel = False
    assert by_kernel is fine
    for root, path in ((tree / "jail", f"/etc/{count}"), (tree / "jail", f"/etc/d{count}/hosts")):
        with closing(Root(os.fspath(root))) as image:
            if fine:
                assert image.read(path) == b"/jail/etc/hosts"
            else:
                with pytest.raises(UnreadableError, match="too many levels of symbolic links"):
                    image.read(path)


# --- Links on the host side stay in the image ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({"/etc/link": "hosts"}, "/etc/link", "/etc/hosts"),
        ({"/etc/link": "/etc/hosts"}, "/etc/link", "/etc/hosts"),
        ({"/etc/link": "../../../../../../etc/hosts"}, "/etc/link", "/etc/hosts"),
        ({"/etc/link": "one", "/etc/one": "../run/two", "/run/two": "/etc/./hosts"}, "/etc/link", "/etc/hosts"),
        ({"/run/dir": "/etc"}, "/run/dir/hosts", "/etc/hosts"),
        ({"/etc/link": "/jail/.."}, "/etc/link/etc/hosts", "/etc/hosts"),
    ],
)
def test_host_links_are_followed_inside_the_image(tree: Path, links: Tree, path: str, found: str) -> None:
    grow(tree, links)
    with closing(Root(os.fspath(tree))) as image:
        assert image.read(path) == found.encode()
        assert image.resolve(path) == found


@pytest.mark.parametrize(
    ("target", "found"), [("/etc/.", "/etc"), ("/etc/", "/etc"), ("/", "/"), ("..", "/"), (".", "/run")]
)
def test_a_host_link_to_a_directory_is_spelled_without_dots(tree: Path, target: str, found: str) -> None:
    grow(tree, {"/run/link": target})
    with closing(Root(os.fspath(tree))) as image:
        assert image.resolve("/run/link") == found


def test_host_links_in_a_circle_are_given_up(tree: Path) -> None:
    grow(tree, {"/etc/a": "b", "/etc/b": "a"})
    with closing(Root(os.fspath(tree))) as image, pytest.raises(UnreadableError) as caught:
        image.read("/etc/a")
    assert str(caught.value) == "/etc/a: too many levels of symbolic links (one of them leads back to itself; mend it)"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/etc/gone", "/etc/gone: does not exist"),
        ("/none/x", "/none: does not exist"),
        ("/etc/hosts/x", "/etc/hosts: is not a directory"),
        ("/etc/dangling", "/gone: does not exist"),
        ("/etc/a\0b", "/etc/a\0b: cannot be the name of a file"),
        ("/etc/\ud800", "/etc/\ud800: cannot be the name of a file"),
    ],
)
def test_what_is_not_there_is_absent(tree: Path, path: str, message: str) -> None:
    grow(tree, {"/etc/dangling": "/gone"})
    with closing(Root(os.fspath(tree))) as image, pytest.raises(AbsentError) as caught:
        image.read(path)
    assert str(caught.value) == message


# --- Who laid the way ---------------------------------------------------------------------------------------------


@needs_root
def test_a_link_of_somebody_else_is_refused(tree: Path) -> None:
    grow(tree, {"/jail/lib": "usr/lib"})
    os.lchown(tree / "jail/lib", STRANGER, 0)
    expected = f"/lib: this link belongs to user {STRANGER}; give it to root (chown -h root)"
    assert refusal(tree, "/lib/libc.so") == expected
    with entered(tree) as chroot:
        for ask in (chroot.canonical, chroot.names):
            with pytest.raises(UnsafeError, match="belongs to user"):
                ask("/lib")
        state = chroot.look("/lib").state  # it may be seen, and replaced
    assert state is not None
    assert (state.uid, state.target) == (STRANGER, "usr/lib")


@needs_root
def test_a_directory_of_somebody_else_is_refused_with_all_beneath(tree: Path) -> None:
    os.chown(tree / "jail/usr", STRANGER, 0)
    expected = f"/usr: this directory belongs to user {STRANGER}; give it to root (chown -h root)"
    assert refusal(tree, "/usr/lib/libc.so") == expected
    grow(tree, {"/jail/lib": "usr/lib"})
    assert refusal(tree, "/lib/libc.so") == expected
    assert contents(tree, "/etc/hosts") == b"/jail/etc/hosts"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o2775, 0o722])
def test_a_directory_that_others_can_write_is_refused(tree: Path, mode: int) -> None:
    (tree / "jail/usr").chmod(mode)
    expected = f"/usr: others can write to this directory (mode {mode:04o}); take that away (chmod go-w)"
    assert refusal(tree, "/usr/lib/libc.so") == expected


def test_a_directory_that_an_acl_lets_others_write_is_refused(tree: Path) -> None:
    set_acl(tree / "jail/usr", "-m", f"u:{STRANGER}:rwx")
    expected = "/usr: others can write to this directory (mode 0775); take that away (chmod go-w)"
    assert refusal(tree, "/usr/lib/libc.so") == expected


@pytest.mark.parametrize("loose", ["", "jail", "srv/deep"])
def test_the_way_to_the_chroot_is_held_to_the_same(tree: Path, loose: str) -> None:
    grow(tree, {"/srv/deep/jail": None})
    (tree / loose).chmod(0o777)
    message = f"/{loose}: others can write to this directory (mode 0777); take that away (chmod go-w)"
    assert refusal(tree, "/x", "/srv/deep/jail" if "srv" in loose else "/jail") == message


@needs_root
def test_a_link_to_the_chroot_must_be_roots(tree: Path) -> None:
    grow(tree, {"/srv": "jail"})
    with entered(tree, "/srv") as chroot:
        assert chroot.path == "/jail"
    os.lchown(tree / "srv", STRANGER, 0)
    expected = f"/srv: this link belongs to user {STRANGER}; give it to root (chown -h root)"
    assert refusal(tree, "/x", "/srv") == expected


# --- Chroots that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "//", "/.", "/..", "/etc/..", "/me", "/far"])
def test_the_root_is_no_chroot(tree: Path, path: str) -> None:
    grow(tree, {"/me": "/", "/far": "etc/../.."})
    with closing(Root(os.fspath(tree))) as image, pytest.raises(UnsafeError) as caught:
        image.chroot(path)
    assert str(caught.value) == f"{path}: is the root itself; a chroot must be a directory of its own"


def test_a_chroot_that_is_missing_or_a_file_is_absent(tree: Path) -> None:
    with closing(Root(os.fspath(tree))) as image:
        with pytest.raises(AbsentError, match=r"^/gone: does not exist$"):
            image.chroot("/gone")
        with pytest.raises(AbsentError, match=r"^/etc/hosts: is not a directory$"):
            image.chroot("/etc/hosts")


def test_a_root_that_is_missing_or_a_file_is_absent(tree: Path) -> None:
    for name in ("gone", "etc/hosts"):
        with pytest.raises(AbsentError, match="does not exist"):
            Root(os.fspath(tree / name))


def test_only_the_directory_of_this_process_is_live(tree: Path) -> None:
    with closing(Root("/")) as live, closing(Root(os.fspath(tree))) as image:
        assert live.live
        assert not image.live
        assert live.owners == {0, os.geteuid()}


# --- Mounts -------------------------------------------------------------------------------------------------------


def test_what_is_mounted_below_a_chroot_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = ("/", "/proc", f"{tree}/jail", f"{tree}/jail/usr", f"{tree}/jail/etc/hosts", f"{tree}/jailed/etc")
    monkeypatch.setattr(read, "mount_points", lambda: points)
    assert refusal(tree, "/usr/lib/libc.so") == f"/usr: {MOUNTED}"
    expected = "/etc/hosts: something is mounted here; unmount it, a copy cannot replace a mount"
    assert refusal(tree, "/etc/hosts") == expected
    with entered(tree) as chroot:
        assert chroot.names("/etc") == [("hosts", FileType.FILE)]


@needs_root
def test_real_mounts_below_a_chroot_are_refused(tree: Path) -> None:
    grow(tree, {"/jail/tmpfs": None, "/jail/bind/x": b"", "/jail/file": b"", "/jail/link": "bind"})

    def check() -> None:
        mount("-t", "tmpfs", "-o", "mode=755", "none", tree / "jail/tmpfs")
        mount("--bind", tree / "etc", tree / "jail/bind")
        mount("--bind", tree / "etc/hosts", tree / "jail/file")
        assert refusal(tree, "/tmpfs/x") == f"/tmpfs: {MOUNTED}"
        assert refusal(tree, "/bind/hosts") == f"/bind: {MOUNTED}"
        assert refusal(tree, "/link/hosts") == f"/bind: {MOUNTED}"
        expected = "something is mounted here; unmount it, a copy cannot replace a mount"
        assert refusal(tree, "/file") == f"/file: {expected}"
        assert refusal(tree, "/bind") == f"/bind: {expected}"

    with_private_mounts(check)


@needs_root
def test_a_chroot_may_be_a_mount_itself(tree: Path) -> None:
    def check() -> None:
        mount("-t", "tmpfs", "-o", "mode=755", "none", tree / "jail")
        grow(tree, {"/jail/etc/hosts": b"mounted"})
        assert contents(tree, "/etc/hosts") == b"mounted"

    with_private_mounts(check)


@needs_root
def test_a_chroot_that_is_the_root_by_a_bind_mount_is_none(tree: Path) -> None:
    def check() -> None:
        for source in (tree, Path("/")):  # the image, and what this process lives in
            mount("--bind", source, tree / "other")
            with closing(Root(os.fspath(tree))) as image, pytest.raises(UnsafeError) as caught:
                image.chroot("/other")
            assert str(caught.value) == "/other: is the root itself; a chroot must be a directory of its own"

    with_private_mounts(check)


@needs_root
def test_links_in_an_overlay_are_no_mounts(tree: Path) -> None:
    """In an overlay of several file systems the device of a link is not that of its directory."""

    def check() -> None:
        mount("-t", "tmpfs", "-o", "mode=755", "none", tree / "other")
        grow(tree / "other", {"/upper": None, "/work": None})
        grow(tree, {"/jail/lib": "usr/lib"})
        layers = f"lowerdir={tree}/jail,upperdir={tree}/other/upper,workdir={tree}/other/work,xino=off"
        mount("-t", "overlay", "-o", layers, "none", tree / "jail")
        assert contents(tree, "/lib/libc.so") == b"/jail/usr/lib/libc.so"

    with_private_mounts(check)


@needs_root
def test_mount_points_of_any_name_are_known(tree: Path) -> None:
    odd = tree / "jail" / os.fsdecode(b"a b\tc\nd\\e\rf\\040\x85\xff")
    odd.mkdir()

    def check() -> None:
        mount("-t", "tmpfs", "none", odd)
        assert os.fspath(odd) in read.mount_points()
        assert refusal(tree, f"/{odd.name}/x") == f"/{odd.name}: {MOUNTED}"

    with_private_mounts(check)


def test_without_proc_no_mount_points_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_arguments: Any, **_options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", gone)
    assert read.mount_points() == ()


# --- Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["new\nline", os.fsdecode(b"\xff\xfe\x80"), "\x1b[31m", "\u202e", "x" * 255, " ", "..."]
)
def test_any_name_that_the_kernel_takes_is_walked(tree: Path, name: str) -> None:
    grow(tree, {f"/jail/{name}/{name}": b"odd", "/jail/link": name})
    assert contents(tree, f"/{name}/{name}") == b"odd"
    assert contents(tree, f"/link/{name}") == b"odd"
    with entered(tree) as chroot:
        assert chroot.canonical("/link") == f"/{name}"
        assert chroot.names("/link") == [(name, FileType.FILE)]


@pytest.mark.parametrize("path", ["/etc/a\0b", "/a\0b/c", "/etc/\ud800", "/\ud800/c"])
def test_what_can_be_no_name_is_not_there(tree: Path, path: str) -> None:
    assert contents(tree, path) is None


def test_a_name_that_is_too_long_is_said_to_be(tree: Path) -> None:
    for path in ("/" + "x" * 256, "/" + "x" * 256 + "/y"):
        with entered(tree) as chroot, pytest.raises(UnreadableError, match=r": file name too long$"):
            chroot.look(path)


def test_a_directory_too_deep_for_a_path_is_walked(tree: Path) -> None:
    name = "d" * 200
    here = os.open(tree / "jail", LOOK)
    for _ in range(30):  # 6000 bytes; a path ends at 4096
        os.mkdir(name, 0o755, dir_fd=here)
        inner = os.open(name, LOOK, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
    os.close(here)
    assert contents(tree, f"/{name}" * 30 + "/end") == b""


# --- Descriptors --------------------------------------------------------------------------------------------------


def test_every_descriptor_is_closed(tree: Path) -> None:
    grow(tree, {"/jail/lib": "usr/lib", "/jail/a": "a", "/jail/loose/x": b""})
    (tree / "jail/loose").chmod(0o777)
    before = descriptors()
    with entered(tree) as chroot:
        for path in ("/lib/libc.so", "/a/x", "/loose/x", "/etc/hosts/x", "/gone/x", "/x\0/y"):
            try:
                chroot.look(path)
                chroot.names(path)
            except PathError:
                continue
    with closing(Root(os.fspath(tree))) as image:
        for path in ("/", "/loose", "/gone", "/etc/hosts"):
            with pytest.raises(PathError):
                image.chroot(path)
        for path in ("/etc/hosts", "/etc", "/gone"):
            try:
                image.source(path).close()
            except PathError:
                continue
    assert descriptors() == before


def test_a_place_is_walked_once(tree: Path) -> None:
    with entered(tree) as chroot:
        chroot.look("/usr/lib/libc.so")
        with mock.patch("os.open", side_effect=AssertionError("opened again")):
            assert chroot.look("/usr/lib/libc.so").state is not None
            assert chroot.look("/usr/lib/gone").state is None


def test_when_descriptors_run_out_that_is_said(tree: Path) -> None:
    with closing(Root(os.fspath(tree))) as image, entered(tree) as chroot:
        closed = chroot.look("/usr/lib/libc.so")
        opened = image.source("/etc/hosts")
        opened.fileno()
        with closing(opened), descriptors_left(0), mock.patch.object(Pool, "make_room", return_value=False):
            asks: list[tuple[Callable[[], object], str]] = [
                (lambda: Root(os.fspath(tree)), f"{tree}"),
                (lambda: image.chroot("/jail"), "/jail"),
                (lambda: image.source("/"), "/"),
                (lambda: image.source("/etc/hosts"), "/etc/hosts"),
                (lambda: image.names("/etc"), "/etc"),
                (opened.open, "/etc/hosts"),
                (closed.open, "/usr/lib/libc.so"),
                (lambda: chroot.names("/usr/lib"), "/usr/lib"),
            ]
            for ask, path in asks:
                with pytest.raises(UnreadableError) as caught:
                    ask()
                assert (
                    str(caught.value)
                    == f"{path}: too many open files (raise the limit: ulimit -n, or LimitNOFILE= of the unit)"
                )


def test_directories_are_closed_when_descriptors_run_out(tree: Path) -> None:
    with entered(tree) as chroot:
        chroot.look("/etc/hosts")
        with descriptors_left(0):
            assert chroot.look("/usr/lib/libc.so").state is not None
            assert chroot.look("/etc/hosts").state is not None


def test_an_inode_that_has_no_status_is_unreadable(tree: Path) -> None:
    before = descriptors()
    stale = OSError(errno.ESTALE, "Stale file handle")
    with entered(tree) as chroot:
        copy, there = chroot.look("/etc/hosts"), descriptors()
        with mock.patch("os.fstat", side_effect=stale):
            for ask in (lambda: chroot.look("/usr/x"), lambda: chroot.look("/"), copy.open, lambda: Root("/")):
                with pytest.raises(UnreadableError, match=r": stale file handle$"):
                    ask()
        assert descriptors() == there
    assert descriptors() == before


# --- Directories that are closed meanwhile ------------------------------------------------------------------------


def many(tree: Path, count: int) -> list[str]:
    """Directories of the chroot that hold a file each."""
    paths = [f"/deep/{number}/er/file" for number in range(count)]
    grow(tree, {f"/jail{path}": path.encode() for path in paths})
    return paths


@contextmanager
def small(tree: Path, most: int = 4) -> Iterator[read.WalkedChroot]:
    """A chroot of which only so many directories stay open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sysconf", lambda _name: 2 * most)
        with entered(tree) as chroot:
            yield chroot


def test_only_so_many_directories_stay_open(tree: Path) -> None:
    paths = many(tree, 30)
    before = descriptors()
    with small(tree, 6) as chroot:
        copies = [chroot.look(path) for path in paths]
        assert len(descriptors() - before) == 6
        for path, copy in zip(paths, copies, strict=True):
            assert copy.contents(100) == path.encode()
            assert chroot.names(os.path.dirname(path)) == [("file", FileType.FILE)]
        assert len(descriptors() - before) == 6
    assert descriptors() == before


def test_what_was_used_last_is_closed_last(tree: Path) -> None:
    paths = many(tree, 10)
    with small(tree) as chroot:
        for path in paths:
            chroot.look(path)
            with mock.patch("os.open", side_effect=AssertionError("opened again")):
                assert chroot.look(path).state is not None


def test_the_way_back_begins_at_the_nearest_directory_that_is_open(tree: Path) -> None:
    paths = many(tree, 2)
    with small(tree) as chroot:
        copies = [chroot.look(path) for path in paths]
        opened: list[str] = []
        real = os.open

        def watched(name: str, *arguments: Any, **options: Any) -> int:
            opened.append(name)
            return real(name, *arguments, **options)

        with mock.patch("os.open", watched):
            os.close(copies[1].open())
            assert opened == ["file"]
            opened.clear()
            os.close(copies[0].open())
            assert opened == ["0", "er", "file"]


@pytest.mark.parametrize("what", ["loose", "link", "other", "file", "gone"])
def test_a_directory_is_looked_at_anew_when_it_is_opened_again(tree: Path, what: str) -> None:
    paths = many(tree, 8)
    place = tree / "jail/deep/0"
    with small(tree) as chroot:
        copy = chroot.look(paths[0])
        for path in paths[1:]:
            chroot.look(path)
        if what == "loose":
            place.chmod(0o777)
        else:
            place.rename(tree / "elsewhere")
        if what == "link":
            place.symlink_to("../../elsewhere")
        elif what == "other":
            grow(tree, {f"/jail{paths[0]}": b"evil"})
        elif what == "file":
            place.write_bytes(b"")
        there = len(descriptors())
        for ask in (copy.open, lambda: chroot.look(paths[0])):
            if what == "gone" and ask is not copy.open:
                continue
            with pytest.raises(UnsafeError if what == "loose" else PathError) as caught:
                ask()
            assert caught.value.path == "/deep/0"
            assert caught.value.reason == {
                "loose": "others can write to this directory (mode 0777); take that away (chmod go-w)",
                "gone": "does not exist",
            }.get(what, "was replaced while it was looked at")
        assert len(descriptors()) <= there


def test_a_chroot_that_was_replaced_is_not_entered_again(tree: Path) -> None:
    paths = many(tree, 8)
    with small(tree) as chroot:
        for path in paths:
            chroot.look(path)
        (tree / "jail").rename(tree / "elsewhere")
        grow(tree, {"/jail/etc/hosts": b"evil"})
        with pytest.raises(UnreadableError, match=r"^/jail: was replaced while it was looked at$"):
            chroot.look("/etc/hosts")


def test_what_a_transaction_uses_stays_open(tree: Path) -> None:
    paths = many(tree, 20)
    with small(tree, 10) as chroot:
        held = [chroot.walker.directory(os.path.dirname(path)) for path in paths[:8]]
        for path in paths:
            chroot.look(path)
        for path, directory in zip(paths, held, strict=False):
            assert os.listdir(f"/proc/self/fd/{directory.fd}") == ["file"], path
            assert chroot.walker.directory(os.path.dirname(path)) is directory


def test_no_more_is_held_than_leaves_room_to_take_it_back(tree: Path) -> None:
    paths = many(tree, 20)
    before = descriptors()
    with small(tree, 10) as chroot:
        for path in paths[:14]:
            chroot.walker.directory(os.path.dirname(path))
        with pytest.raises(UnreadableError, match=r"^/deep/14/er: too many open files "):
            chroot.walker.directory("/deep/14/er")
        assert len(descriptors() - before) <= 20
    assert descriptors() == before


def test_after_its_end_a_walk_opens_nothing(tree: Path) -> None:
    before = descriptors()
    with entered(tree) as chroot:
        copy = chroot.look("/etc/hosts")
    with pytest.raises(UnreadableError, match=r"^/: the walk has ended$"):
        copy.open()
    assert descriptors() == before


def test_a_few_descriptors_find_what_many_find(tree: Path) -> None:
    """300 directories in one chroot, and 60 chroots, with all of their drift, by a process that may open little."""
    files = {f"/deep/{number}/file": f"{number}".encode() for number in range(300)}
    grow(tree, files)
    names = [f"i{number}" for number in range(60)]
    for name in names:
        grow(tree, {f"/jail/{name}{path}": data for path, data in list(files.items())[:6]})
    grow(tree, {f"/jail/i0{path}": data for path, data in files.items() if not path.endswith("7/file")})
    (tree / "jail/i7/deep/3/file").write_bytes(b"y")
    (tree / "jail/i50/deep/2/file").chmod(0o600)
    (tree / "jail/i51/deep/2").chmod(0o777)
    instances = [instance(name) for name in names]
    deep = [rule(files=tuple(files))]
    few = [rule(files=tuple(files)[:6])]

    def drift(rules: list[Rule], count: int) -> list[tuple[str, str, Kind, str]]:
        found = drifts(checked(tree, rules, instances[:count]))
        return [(one.entry.instance.name, one.entry.path, one.kind, one.reason) for one in found]

    expected = drift(deep, 1), drift(few, 60)
    assert len(expected[0]) == 2 * 30
    assert {one[2] for one in expected[1]} == {Kind.DIFFERS, Kind.METADATA, Kind.UNSAFE}
    before = descriptors()
    for left in (230, 40, 16):
        with descriptors_left(left):
            assert (drift(deep, 1), drift(few, 60)) == expected
    assert descriptors() == before


# --- Whatever a tree holds ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c\n", "\udcff", "etc", "."])
STEPS = st.sampled_from(["a", "b", "c\n", "\udcff", "etc", ".", "..", "", "secret"])
TEXTS = st.lists(STEPS, min_size=1, max_size=5).map("/".join).filter(bool)
PATHS = st.lists(STEPS, max_size=5).map(lambda steps: "/" + "/".join(steps))
KINDS = st.one_of(
    st.just("directory"), st.just("file"), st.just("fifo"), st.just("loose"), st.tuples(st.just("link"), TEXTS)
)
TREES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4), KINDS), max_size=12)


def sow(top: str, things: Sequence[tuple[list[str], Any]]) -> set[tuple[int, int]]:
    """Make what can be made of a random list, without following links; the inodes of what is there."""
    for steps, kind in things:
        place = top
        for step in steps[:-1]:
            place = f"{place}/{step}"
            if not os.path.lexists(place):
                os.mkdir(place, 0o755)
            if os.path.islink(place) or not os.path.isdir(place):
                break
        else:
            place = f"{place}/{steps[-1]}"
            if not os.path.lexists(place):
                make(place, kind)
    status = os.lstat(top)
    inodes = {(status.st_dev, status.st_ino)}
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            status = os.lstat(f"{folder}/{name}")
            inodes.add((status.st_dev, status.st_ino))
    return inodes


def make(place: str, kind: Any) -> None:
    if kind == "directory":
        os.mkdir(place, 0o755)
    elif kind == "loose":
        os.mkdir(place)
        os.chmod(place, 0o777)
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "file":
        with open(place, "wb") as file:
            file.write(b"inside")
    else:
        os.symlink(kind[1], place)


@given(things=TREES, paths=st.lists(PATHS, min_size=1, max_size=6))
def test_any_tree_is_survived_and_never_left(things: list[tuple[list[str], Any]], paths: list[str]) -> None:
    """Only errors of the model, and nothing outside the chroot is ever opened on the way through it."""
    with tempfile.TemporaryDirectory() as top:
        grow(top, {"/secret": b"outside", "/etc/secret": b"outside", "/a/secret": b"outside", "/jail": None})
        inside = sow(f"{top}/jail", things)
        opened: list[int] = []
        real = os.open

        def watched(*arguments: Any, **options: Any) -> int:
            fd = real(*arguments, **options)
            opened.append(fd)
            status = os.fstat(fd)
            assert (status.st_dev, status.st_ino) in inside
            return fd

        with promptly(), entered(top) as chroot, mock.patch("os.open", watched):
            for path in paths:
                survive(chroot, path)
                chroot.walker.pool.make_room()  # any directory may be closed between two walks


def survive(chroot: read.WalkedChroot, path: str) -> None:
    for ask in (chroot.names, chroot.canonical):
        try:
            ask(path)
        except PathError:
            continue
    try:
        copy = chroot.look(path)
        if copy.state is not None and copy.state.type is FileType.FILE:
            assert copy.contents(100) == b"inside"
        elif copy.state is not None:
            with pytest.raises(UnreadableError):
                copy.open()
    except PathError:
        pass


def over(top: str | os.PathLike[str], most: int | None = None) -> Walker:
    """A walker that asks nobody who owns what, and that keeps ``most`` directories open."""
    fd = os.open(top, LOOK)
    return Walker(Directory(fd, "/", os.fstat(fd)), anything, Pool(most))


@given(things=TREES, path=PATHS)
def test_a_walk_ends_where_the_kernel_ends_it(things: list[tuple[list[str], Any]], path: str) -> None:
    """The reference is openat2(2) with RESOLVE_IN_ROOT, which is as a chroot but asks nobody who owns what."""
    with tempfile.TemporaryDirectory() as top:
        sow(top, things)
        with closing(over(top)) as walker:
            expected = kernel_resolution(top, path)
            try:
                found = walker.directory(path)
            except PathError:
                assert expected is None
                return
            status = os.fstat(found.fd)
        assert (status.st_dev, status.st_ino) == expected
        assert os.path.realpath(top + found.path) == os.path.realpath(top) + found.path.rstrip("/")


OPENAT2 = 437
RESOLVE_IN_ROOT = 0x10


def kernel_resolution(top: str, path: str) -> tuple[int, int] | None:
    """The inode of the directory that the kernel finds below ``top``; None where it finds none."""
    how = struct.pack("QQQ", LOOK & ~os.O_NOFOLLOW | os.O_DIRECTORY, 0, RESOLVE_IN_ROOT)
    base = os.open(top, LOOK)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    try:
        fd = syscall(ctypes.c_long(OPENAT2), base, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if fd < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
            pytest.skip("no openat2 here")
    finally:
        os.close(base)
    if fd < 0:
        return None
    status = os.fstat(fd)
    os.close(fd)
    return status.st_dev, status.st_ino
