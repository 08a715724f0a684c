"""What the Reader sees of a host and of a chroot, and what it refuses to open."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from chrootsync.model import (
    AbsentError,
    FileType,
    Kind,
    PathError,
    Problem,
    ReplacedError,
    Source,
    State,
    UnreadableError,
    UnsafeError,
)
from chrootsync.root import Root, files
from chrootsync.root.dress import ACCESS_ACL
from chrootsync.root.pool import Pool
from tests.unit.machine import (
    STRANGER,
    descriptors,
    descriptors_left,
    entered,
    needs_root,
    needs_user,
    promptly,
    set_acl,
)
from tests.unit.scenery import checked, drifts, fixed, grow, instance, rule


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {"/etc/hosts": b"host\n", "/jail/etc/hosts": b"jail\n"})
    return tmp_path


@pytest.fixture
def image(tree: Path) -> Iterator[Root]:
    with closing(Root(os.fspath(tree))) as root:
        yield root


@contextmanager
def source_at(root: Root, path: str) -> Iterator[Source]:
    with closing(root.source(path)) as found:
        yield found


def seen(tree: Path, path: str) -> State:
    with entered(tree) as chroot:
        state = chroot.look(path).state
    assert state is not None
    return state


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))


# --- States -------------------------------------------------------------------------------------------------------


def test_a_file_is_seen_with_all_that_inode_7_tells(tree: Path) -> None:
    path = tree / "jail/etc/hosts"
    path.chmod(0o4751)
    status = path.stat()
    assert seen(tree, "/etc/hosts") == State(
        type=FileType.FILE,
        mode=0o4751,
        uid=os.geteuid(),
        gid=status.st_gid,
        size=5,
        identity=(status.st_dev, status.st_ino, 5, status.st_mtime_ns, status.st_ctime_ns),
    )


def test_each_type_is_seen_and_listed(tree: Path) -> None:
    grow(tree, {"/jail/dev/dir": None, "/jail/dev/fifo": 0o600, "/jail/dev/file": b"", "/jail/dev/link": "file"})
    bind_socket(tree / "jail/dev/socket")
    expected = {
        "dir": FileType.DIRECTORY,
        "fifo": FileType.FIFO,
        "file": FileType.FILE,
        "link": FileType.LINK,
        "socket": FileType.SOCKET,
    }
    assert {name: seen(tree, f"/dev/{name}").type for name in expected} == expected
    with entered(tree) as chroot:
        assert chroot.names("/dev") == sorted(expected.items())
    assert seen(tree, "/dev/dir").size is None
    assert seen(tree, "/dev/link").target == "file"


@needs_root
def test_devices_are_seen_with_their_numbers(tree: Path) -> None:
    os.mknod(tree / "jail/null", 0o020_666, os.makedev(1, 3))
    os.mknod(tree / "jail/loop", 0o060_600, os.makedev(7, 9))
    null, loop = seen(tree, "/null"), seen(tree, "/loop")
    assert (null.type, null.device, null.size) == (FileType.CHARACTER_DEVICE, (1, 3), None)
    assert (loop.type, loop.device) == (FileType.BLOCK_DEVICE, (7, 9))
    with entered(tree) as chroot:
        listed = dict(chroot.names("/"))
    assert (listed["null"], listed["loop"]) == (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)


def test_what_is_not_there_has_no_state(tree: Path) -> None:
    with entered(tree) as chroot:
        for path in ("/etc/gone", "/gone/hosts", "/etc/hosts/x"):
            copy = chroot.look(path)
            assert (copy.path, copy.state) == (path, None)
            with pytest.raises(AbsentError) as caught:
                copy.open()
            assert str(caught.value) == f"{path}: does not exist"


# --- What is not opened -------------------------------------------------------------------------------------------


def test_a_socket_is_found_whoever_owns_the_way_there(tree: Path, image: Root) -> None:
    grow(tree, {"/jail/run/own": None, "/jail/file": b"", "/jail/var/run": "/run", "/run": None})
    bind_socket(tree / "jail/run/own/socket")
    bind_socket(tree / "run/outside")
    (tree / "jail/run/own").chmod(0o777)
    (tree / "jail/out").symlink_to("/run/outside")
    with closing(image.chroot("/jail")) as chroot:
        assert chroot.has_socket("/run/own/socket")
        assert chroot.has_socket("/var/run/own/socket")
        assert not chroot.has_socket("/out")  # inside the chroot there is no such thing
        assert not chroot.has_socket("/file")
        assert not chroot.has_socket("/run/own/other")
        with pytest.raises(UnsafeError):
            chroot.look("/run/own/socket")


@pytest.mark.parametrize("what", ["fifo", "socket", "directory", "link"])
def test_only_files_are_opened(tree: Path, image: Root, what: str) -> None:
    for place in ("etc/it", "jail/etc/it"):
        if what == "fifo":
            os.mkfifo(tree / place)
        elif what == "socket":
            bind_socket(tree / place)
        elif what == "directory":
            (tree / place).mkdir(mode=0o755)
        elif place.startswith("jail"):
            (tree / place).symlink_to("hosts")
    with promptly(), entered(tree) as chroot:
        copy = chroot.look("/etc/it")
        for ask in (copy.open, lambda: copy.contents(10)):
            with pytest.raises(UnreadableError) as caught:
                ask()
            assert str(caught.value) == f"/etc/it: is a {what}, not a file"
        assert image.sha256(copy) is None
        if what != "link":
            with source_at(image, "/etc/it") as source:
                for ask_source in (source.fileno, source.open, source.readers, lambda: source.contents(10)):
                    with pytest.raises(UnreadableError) as caught:
                        ask_source()
                    assert str(caught.value) == f"/etc/it: is a {what}, not a file"
                assert image.sha256(source) is None


@needs_root
def test_a_device_is_not_opened(tree: Path, image: Root) -> None:
    os.mknod(tree / "jail/etc/it", 0o020_666, os.makedev(1, 5))  # /dev/zero: reading it would never end
    os.mknod(tree / "etc/it", 0o020_666, os.makedev(1, 5))
    with promptly(), entered(tree) as chroot, source_at(image, "/etc/it") as source:
        for ask in (chroot.look("/etc/it").open, source.fileno):
            with pytest.raises(UnreadableError, match=r"^/etc/it: is a character-device, not a file$"):
                ask()


@pytest.mark.parametrize("what", ["fifo", "file", "link", "directory", "nothing"])
def test_a_file_that_was_replaced_since_it_was_looked_at_is_not_read(tree: Path, what: str) -> None:
    path = tree / "jail/etc/hosts"
    with promptly(), entered(tree) as chroot:
        copy = chroot.look("/etc/hosts")
        path.rename(tree / "jail/etc/hosts.old")
        if what == "fifo":
            os.mkfifo(path)
        elif what == "file":
            path.write_bytes(b"evil\n")
        elif what == "link":
            path.symlink_to("../../etc/hosts")
        elif what == "directory":
            path.mkdir()
        before = descriptors()
        with pytest.raises(PathError) as caught:
            copy.contents(100)
        assert descriptors() == before
    assert caught.value.reason == {
        "nothing": "does not exist",
        "link": "too many levels of symbolic links (one of them leads back to itself; mend it)",
    }.get(what, "was replaced while it was looked at")


LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """Another process holds a write lease: who opens the file plainly waits for it, fcntl(2)."""
    command = [sys.executable, "-c", LEASE, os.fspath(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != b"held\n":
                pytest.skip("no leases on this file system")
            yield
        finally:
            holder.kill()


def test_a_lease_never_blocks(tree: Path, image: Root) -> None:
    with lease(tree / "jail/etc/hosts"), promptly(), entered(tree) as chroot:
        with pytest.raises(UnreadableError) as caught:
            chroot.look("/etc/hosts").open()
        assert str(caught.value) == "/etc/hosts: resource temporarily unavailable"
    with lease(tree / "etc/hosts"), promptly(), source_at(image, "/etc/hosts") as source:
        with pytest.raises(UnreadableError) as caught:
            source.fileno()
        assert str(caught.value) == "/etc/hosts: resource temporarily unavailable"


def test_a_file_with_a_second_name_is_unsafe(tree: Path) -> None:
    os.link(tree / "etc/hosts", tree / "jail/etc/linked")
    with entered(tree) as chroot, pytest.raises(UnsafeError) as caught:
        chroot.look("/etc/linked")
    assert str(caught.value) == (
        "/etc/linked: this file has 2 links, so that its contents are elsewhere too; remove it, and check --fix makes "
        "a copy of its own"
    )


def test_a_source_may_have_many_names(tree: Path, image: Root) -> None:
    os.link(tree / "etc/hosts", tree / "etc/linked")
    assert image.read("/etc/linked") == b"host\n"


# --- Contents and their limits ------------------------------------------------------------------------------------


def test_contents_are_read_up_to_a_limit(tree: Path, image: Root) -> None:
    with entered(tree) as chroot, source_at(image, "/etc/hosts") as source:
        copy = chroot.look("/etc/hosts")
        assert copy.contents(5) == b"jail\n"
        assert source.contents(5) == b"host\n"
        assert image.read("/etc/hosts", limit=5) == b"host\n"
        for ask in (copy.contents, source.contents, lambda limit: image.read("/etc/hosts", limit=limit)):
            with pytest.raises(UnreadableError) as caught:
                ask(4)
            assert str(caught.value) == "/etc/hosts: is larger than 4 bytes"


def test_a_sparse_giant_is_not_read(tree: Path, image: Root) -> None:
    os.truncate(tree / "jail/etc/hosts", 1 << 40)
    with promptly(), entered(tree) as chroot:
        copy = chroot.look("/etc/hosts")
        assert image.sha256(copy) is None
        with pytest.raises(UnreadableError, match=r"^/etc/hosts: is larger than 1048576 bytes$"):
            copy.contents(1 << 20)


def test_a_failing_disk_is_said(tree: Path, image: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(UnreadableError) as caught:
        image.read("/etc/hosts")
    assert str(caught.value) == "/etc/hosts: input/output error"
    with source_at(image, "/etc/hosts") as source, entered(tree) as chroot:
        assert image.sha256(source) is None
        assert list(image.same(source, [chroot.look("/etc/hosts")])) == [
            Problem(kind=Kind.BAD_SOURCE, reason="reading the source failed: input/output error")
        ]


def test_checksums_of_both_sides(tree: Path, image: Root) -> None:
    with entered(tree) as chroot, source_at(image, "/etc/hosts") as source:
        assert image.sha256(source) == hashlib.sha256(b"host\n").hexdigest()
        assert image.sha256(chroot.look("/etc/hosts")) == hashlib.sha256(b"jail\n").hexdigest()
        assert image.sha256(chroot.look("/etc/gone")) is None
        copy = chroot.look("/etc/hosts")
        (tree / "jail/etc/hosts").unlink()
        assert image.sha256(copy) is None


def test_other_contents_stand_in_for_a_sources(tree: Path, image: Root) -> None:
    grow(tree, {"/jail/filtered": b"stand-in"})
    with entered(tree) as chroot, source_at(image, "/etc/hosts") as source:
        source.stand_in(b"stand-in")
        assert source.data == b"stand-in"
        assert image.sha256(source) == hashlib.sha256(b"stand-in").hexdigest()
        copies = [chroot.look(path) for path in ("/filtered", "/etc/hosts", "/gone")]
        absent = Problem(kind=Kind.UNREADABLE, reason="does not exist")
        assert list(image.same(source, copies)) == [True, False, absent]


def test_a_source_stays_what_it_was_when_it_was_opened(tree: Path, image: Root) -> None:
    """It is reopened by its inode, not by its name, which may stand for something else already."""
    with source_at(image, "/etc/hosts") as source:
        (tree / "etc/hosts").unlink()
        os.mkfifo(tree / "etc/hosts")
        with promptly():
            assert source.contents(100) == b"host\n"
        fd = source.open()
        assert fd != source.fileno()
        assert os.get_inheritable(fd) is False
        os.close(fd)


def test_every_descriptor_of_a_source_is_closed(image: Root) -> None:
    image.read("/etc/hosts")
    before = descriptors()
    with source_at(image, "/etc/hosts") as source:
        source.fileno()
        source.readers()
        image.sha256(source)
    assert descriptors() == before


def test_the_state_of_what_a_link_leads_to_leaves_no_descriptor(tree: Path, image: Root) -> None:
    (tree / "etc/link").symlink_to("hosts")
    image.state("/etc/hosts")
    before = descriptors()
    assert image.state("/etc/link") == image.state("/etc/hosts")
    assert image.state("/etc").type is FileType.DIRECTORY
    with pytest.raises(AbsentError):
        image.state("/etc/missing")
    assert descriptors() == before


@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/link", "/etc", "/etc/.", "/etc/fifo"])
def test_a_glance_sees_what_a_look_sees(tree: Path, image: Root, path: str) -> None:
    (tree / "etc/link").symlink_to("hosts")
    os.mkfifo(tree / "etc/fifo")
    with closing(image.glance(path)) as seen, closing(image.source(path)) as found:
        assert (seen.path, seen.state) == (found.path, found.state)


@pytest.mark.parametrize("path", ["/etc/missing", "/etc/hosts/below", "/etc/a\0b"])
def test_a_glance_at_nothing(image: Root, path: str) -> None:
    with pytest.raises(AbsentError):
        image.glance(path)


def test_a_glance_holds_nothing_where_only_root_can_change_the_directory(tree: Path, image: Root) -> None:
    image.read("/etc/hosts")
    before = descriptors()
    with closing(image.glance("/etc/hosts")) as source:
        assert descriptors() == before
        assert source.contents(1000) == (tree / "etc/hosts").read_bytes()
    assert descriptors() == before


def test_what_is_replaced_behind_a_glance_is_not_read(tree: Path, image: Root) -> None:
    before = descriptors()
    for replacement in ("file", "fifo", "link"):
        with closing(image.glance("/etc/hosts")) as source:
            other = tree / "etc/other"
            if replacement == "file":
                other.write_bytes(b"another")
            elif replacement == "fifo":
                os.mkfifo(other)
            else:
                other.symlink_to("services")
            other.rename(tree / "etc/hosts")
            with pytest.raises(ReplacedError):
                source.fileno()
        (tree / "etc/hosts").unlink()
        (tree / "etc/hosts").write_bytes(b"127.0.0.1 localhost\n")
    image.close()
    assert len(descriptors()) <= len(before)


def test_a_glance_into_a_directory_of_others_holds_what_it_saw(tree: Path, image: Root) -> None:
    (tree / "etc").chmod(0o777)
    with closing(image.glance("/etc/hosts")) as source:
        other = tree / "etc/other"
        other.write_bytes(b"another")
        other.rename(tree / "etc/hosts")
        assert source.contents(1000) != b"another"


def test_without_proc_a_source_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: Any, **_named: Any) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "open", missing)
    with pytest.raises(UnreadableError) as caught:
        files.reopen(3, "/etc/hosts", Pool())
    assert str(caught.value) == "/etc/hosts: cannot be opened, because /proc is not mounted"


# --- Rights -------------------------------------------------------------------------------------------------------


@needs_user
def test_what_may_not_be_read_is_said(tree: Path, image: Root) -> None:
    grow(tree, {"/jail/closed/x": b"", "/closed/x": b""})
    for path in ("etc/hosts", "jail/etc/hosts", "jail/closed", "closed"):
        (tree / path).chmod(0)
    with entered(tree) as chroot:
        asks: list[Callable[[], object]] = [
            lambda: image.read("/etc/hosts"),
            chroot.look("/etc/hosts").open,
            lambda: chroot.look("/closed/x"),
            lambda: chroot.names("/closed"),
            lambda: image.names("/closed"),
        ]
        for ask in asks:
            with pytest.raises(UnreadableError, match=r": permission denied$"):
                ask()
    for path in ("jail/closed", "closed"):
        (tree / path).chmod(0o755)


def acl_of(entries: list[tuple[int, int, int]]) -> bytes:
    """An access ACL as the kernel takes it, linux/posix_acl_xattr.h."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO_ID = 0xFFFF_FFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@pytest.mark.parametrize(
    ("group", "named", "mask", "other", "readers"),
    [
        (4, [], 7, 4, 0o644),
        (0, [(USER, 4)], 4, 0, 0o600),  # the mask grants the group nothing
        (4, [(USER, 6)], 6, 0, 0o640),
        (4, [(USER, 6)], 0, 4, 0o600),  # the mask takes from the named user what others have
        (4, [(USER, 0)], 4, 4, 0o600),  # the named user is shut out, and would come in as anybody
        (4, [(GROUP, 0)], 4, 4, 0o640),
        (4, [(GROUP, 4), (USER, 4)], 4, 4, 0o644),
    ],
)
def test_a_copy_is_for_nobody_whom_the_sources_acl_shuts_out(
    tree: Path, image: Root, group: int, named: list[tuple[int, int]], mask: int, other: int, readers: int
) -> None:
    people = [(tag, permissions, STRANGER) for tag, permissions in named]
    users = [one for one in people if one[0] == USER]
    groups = [one for one in people if one[0] == GROUP]
    acl = acl_of(
        [(USER_OBJ, 6, NO_ID), *users, (GROUP_OBJ, group, NO_ID), *groups, (MASK, mask, NO_ID), (OTHER, other, NO_ID)]
    )
    try:
        os.setxattr(tree / "etc/hosts", ACCESS_ACL, acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    with source_at(image, "/etc/hosts") as source:
        assert oct(source.readers()) == oct(readers)


def test_without_an_acl_the_mode_tells_who_reads(tree: Path, image: Root) -> None:
    for mode in (0o600, 0o640, 0o644, 0o755, 0o4711, 0o000):
        (tree / "etc/hosts").chmod(mode | 0o400)
        with source_at(image, "/etc/hosts") as source:
            assert source.readers() == mode | 0o400


def test_an_acl_by_setfacl_is_understood(tree: Path, image: Root) -> None:
    (tree / "etc/hosts").chmod(0o600)
    set_acl(tree / "etc/hosts", "-m", f"u:{STRANGER}:r")
    assert (tree / "etc/hosts").stat().st_mode & 0o777 == 0o640
    with source_at(image, "/etc/hosts") as source:
        assert source.readers() == 0o600


CAPABILITIES = struct.pack("<IIIII", 0x0200_0001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service as linux/capability.h lays it out."""


def extend(path: Path, attribute: str, value: bytes) -> None:
    try:
        os.setxattr(path, attribute, value)
    except OSError as error:
        pytest.skip(f"no {attribute} here: {error}")


def test_a_copy_with_an_acl_is_seen_to_have_one(tree: Path, image: Root) -> None:
    acl = acl_of(
        [(USER_OBJ, 6, NO_ID), (USER, 4, STRANGER), (GROUP_OBJ, 4, NO_ID), (MASK, 4, NO_ID), (OTHER, 0, NO_ID)]
    )
    assert seen(tree, "/etc/hosts").extended == ()
    for path in ("etc/hosts", "jail/etc/hosts"):
        extend(tree / path, ACCESS_ACL, acl)
    assert seen(tree, "/etc/hosts").extended == ("an ACL",)
    with source_at(image, "/etc/hosts") as source:
        assert source.state.extended == ()
    # One that says no more than the mode is none: the kernel keeps it as the mode.
    extend(
        tree / "jail/etc/hosts", ACCESS_ACL, acl_of([(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)])
    )
    assert seen(tree, "/etc/hosts").extended == ()


@needs_root
def test_a_copy_with_file_capabilities_is_seen_to_have_them(tree: Path) -> None:
    extend(tree / "jail/etc/hosts", "security.capability", CAPABILITIES)
    assert seen(tree, "/etc/hosts").extended == ("file capabilities",)
    set_acl(tree / "jail/etc/hosts", "-m", f"u:{STRANGER}:r")
    assert seen(tree, "/etc/hosts").extended == ("an ACL", "file capabilities")


def test_other_attributes_of_a_copy_do_not_matter(tree: Path) -> None:
    extend(tree / "jail/etc/hosts", "user.comment", b"mine")
    assert seen(tree, "/etc/hosts").extended == ()


def test_where_attributes_cannot_be_told_there_are_none(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = mock.Mock(side_effect=OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)))
    monkeypatch.setattr(os, "listxattr", refuse)
    assert seen(tree, "/etc/hosts").extended == ()


@needs_root
def test_a_copy_that_is_more_than_its_source_is_repaired(tree: Path) -> None:
    grow(tree, {"/etc/hosts": b"jail\n"})
    extend(tree / "jail/etc/hosts", "security.capability", CAPABILITIES)
    set_acl(tree / "jail/etc/hosts", "-m", f"u:{STRANGER}:r")
    rules, jails = [rule(files=("/etc/hosts",))], [instance(chroot="/jail")]
    (drift,) = drifts(fixed(tree, rules, jails))
    assert (drift.kind, drift.reason) == (Kind.METADATA, "has an ACL, has file capabilities")
    assert drifts(checked(tree, rules, jails)) == []
    assert os.listxattr(tree / "jail/etc/hosts") == []


# --- Configuration that only root could have written ----------------------------------------------------------------


@pytest.fixture
def live(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    """The tree taken for the root that this process lives in."""
    with closing(Root(os.fspath(tree))) as root:
        monkeypatch.setattr(root, "live", True)
        yield root


def test_a_trusted_file_is_read(tree: Path, live: Root) -> None:
    grow(tree, {"/etc/link": "hosts", "/tmp/deep/file": b"x"})
    (tree / "tmp").chmod(0o1777)  # a sticky directory lets nobody replace what is root's
    assert live.read_trusted("/etc/hosts") == b"host\n"
    assert live.read_trusted("/etc/link") == b"host\n"
    assert live.read_trusted("/tmp/deep/file") == b"x"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_configuration_file_that_others_can_write_is_refused(tree: Path, live: Root, mode: int) -> None:
    (tree / "etc/hosts").chmod(mode)
    with pytest.raises(UnsafeError) as caught:
        live.read_trusted("/etc/hosts")
    assert str(caught.value) == f"/etc/hosts: others can write to it (mode {mode:04o}); take that away (chmod go-w)"


def test_a_configuration_directory_that_others_can_write_is_refused(tree: Path, live: Root) -> None:
    (tree / "etc").chmod(0o777)
    with pytest.raises(UnsafeError) as caught:
        live.read_trusted("/etc/hosts")
    assert str(caught.value) == "/etc: others can write to this directory (mode 0777); take that away (chmod go-w)"


@needs_root
def test_a_configuration_file_of_somebody_else_is_refused(tree: Path, live: Root) -> None:
    os.chown(tree / "etc/hosts", STRANGER, 0)
    with pytest.raises(UnsafeError) as caught:
        live.read_trusted("/etc/hosts")
    expected = f"/etc/hosts: belongs to user {STRANGER}, who could change it; give it to root (chown root)"
    assert str(caught.value) == expected


@needs_root
def test_a_sticky_directory_of_somebody_else_is_refused(tree: Path, live: Root) -> None:
    (tree / "etc").chmod(0o1777)
    os.chown(tree / "etc", STRANGER, 0)
    with pytest.raises(UnsafeError, match=f"^/etc: this directory belongs to user {STRANGER}"):
        live.read_trusted("/etc/hosts")


def test_of_an_image_nothing_is_trusted_so_that_nothing_is_refused(tree: Path, image: Root) -> None:
    (tree / "etc/hosts").chmod(0o666)
    assert image.read_trusted("/etc/hosts") == b"host\n"


# --- Listings -----------------------------------------------------------------------------------------------------


def test_names_are_sorted_and_complete(tree: Path, image: Root) -> None:
    grow(tree, {f"/many/{number:04}": b"" for number in range(3000)})
    assert [name for name, _ in image.names("/many")] == [f"{number:04}" for number in range(3000)]


def test_a_listing_of_what_is_missing(tree: Path, image: Root) -> None:
    with entered(tree) as chroot:
        assert chroot.names("/gone") == []
        assert chroot.names("/etc/hosts") == []
    with pytest.raises(AbsentError, match=r"^/gone: does not exist$"):
        image.names("/gone")


def test_what_vanishes_during_a_listing_is_left_out(tree: Path, image: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(tree, {"/run/a": b"", "/run/fifo": 0o600})
    real = os.scandir

    @contextmanager
    def vanishing(fd: int) -> Iterator[list[os.DirEntry[str]]]:
        with real(fd) as entries:
            found: list[Any] = list(entries)
        (tree / "run/fifo").unlink()
        yield found

    monkeypatch.setattr(os, "scandir", vanishing)
    assert image.names("/run") == [("a", FileType.FILE)]


def test_when_descriptors_run_out_a_listing_fails(image: Root) -> None:
    image.names("/etc")
    with descriptors_left(0), pytest.raises(UnreadableError) as caught:
        image.names("/etc")
    assert str(caught.value) == "/etc: too many open files (raise the limit: ulimit -n, or LimitNOFILE= of the unit)"


def test_leases_are_what_they_are_thought_to_be(tree: Path) -> None:
    """The guard of the tests above: opening without O_NONBLOCK would really wait."""
    with lease(tree / "etc/hosts"), pytest.raises(BlockingIOError):
        os.open(tree / "etc/hosts", os.O_RDONLY | os.O_NONBLOCK)
