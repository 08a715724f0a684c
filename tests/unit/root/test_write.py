"""The steps of a repair: what each does, what takes it back, and what an error leaves behind (nothing)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import FileType, PathError, RepairError, Source, State, UnsafeError, clause
from chrootsync.root import Root, kernel
from chrootsync.root.dress import ACCESS_ACL, DEFAULT_ACL
from chrootsync.root.steps import Staged
from chrootsync.root.write import ChrootWriter, Writer
from tests.unit.machine import (
    STRANGER,
    descriptors,
    descriptors_left,
    mount,
    needs_root,
    promptly,
    set_acl,
    with_private_mounts,
)
from tests.unit.scenery import grow, snapshot

CHANGED = "it was changed after it was compared; run check --fix once more"
IMMUTABLE = "operation not permitted (is something here immutable or append-only? lsattr tells, chattr -ia mends)"
READ_ONLY = (
    "read-only file system (is it mounted so, or a chroot that the units do not know yet? then run chrootsync install "
    "systemd)"
)
FILE = State(type=FileType.FILE, mode=0o644)
DIRECTORY = State(type=FileType.DIRECTORY, mode=0o755)


NO_DEVICES = (
    "making the device failed: operation not permitted (may the service that does it make none? then run chrootsync "
    "install systemd; is something here immutable? lsattr tells, chattr -ia mends)"
)


def told(number: int) -> str:
    """What is said of an error, with what may be done about it."""
    return READ_ONLY if number == errno.EROFS else clause(OSError(number, os.strerror(number)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host with one source, and a chroot with something of each type."""
    grow(
        tmp_path,
        {
            "/etc/hosts": b"new\n",
            "/jail/etc/hosts": b"old\n",
            "/jail/etc/link": "hosts",
            "/jail/etc/fifo": 0o600,
            "/jail/etc/empty": None,
            "/jail/etc/full/x": b"x",
        },
    )
    os.utime(tmp_path / "etc/hosts", ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    return tmp_path


@contextmanager
def writing(tree: Path) -> Iterator[ChrootWriter]:
    with closing(Root(os.fspath(tree))) as root, closing(Writer(root).chroot("/jail")) as writer:
        yield writer


@pytest.fixture
def writer(tree: Path) -> Iterator[ChrootWriter]:
    with writing(tree) as found:
        yield found


@pytest.fixture
def source(tree: Path) -> Iterator[Source]:
    with closing(Root(os.fspath(tree))) as root, closing(root.source("/etc/hosts")) as found:
        yield found


@pytest.fixture
def unchanged(tree: Path) -> Iterator[None]:
    """The tree is after the test what it was before."""
    before = snapshot(tree)
    yield
    assert snapshot(tree) == before


def old_kernel(monkeypatch: pytest.MonkeyPatch, number: int = errno.EINVAL) -> None:
    """Let renameat2 be unknown here."""

    def unsupported(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kernel, "rename", unsupported)


both_kernels = pytest.mark.parametrize("renameat2", [True, False], ids=["renameat2", "plain renames"])


def names(tree: Path, directory: str = "jail/etc") -> list[str]:
    return sorted(os.listdir(tree / directory))


NAMES = ["empty", "fifo", "full", "hosts", "link"]


def swapped(writer: ChrootWriter, staged: Staged) -> bool:
    atomic = writer.put(staged)
    writer.finish(staged)
    return atomic


# --- Staging ------------------------------------------------------------------------------------------------------


def test_a_staged_file_lies_beside_its_target_complete(tree: Path, writer: ChrootWriter, source: Source) -> None:
    before = writer.look("/etc/hosts").state
    staged = writer.stage_file("/etc/hosts", source, FILE, before)
    path = tree / "jail/etc" / staged.temporary
    status = path.lstat()
    assert staged.temporary.startswith(".chrootsync-")
    assert path.read_bytes() == b"new\n"
    assert (status.st_mode, status.st_mtime_ns, status.st_nlink) == (0o100_644, 1_600_000_000_123_456_789, 1)
    assert staged.inode == (status.st_dev, status.st_ino)
    assert staged.sha256 == hashlib.sha256(b"new\n").hexdigest()
    assert staged.source == source.state.identity
    assert staged.before == before
    assert (tree / "jail/etc/hosts").read_bytes() == b"old\n"
    writer.discard(staged)
    assert names(tree) == NAMES


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_staged_file_has_its_mode_whatever_the_umask(writer: ChrootWriter, source: Source, mode: int) -> None:
    umask = os.umask(0o077)
    try:
        assert swapped(writer, writer.stage_file("/etc/new", source, State(type=FileType.FILE, mode=mode), None))
    finally:
        os.umask(umask)
    state = writer.look("/etc/new").state
    assert state is not None
    assert state.mode == mode


@needs_root
def test_a_staged_file_has_its_owner(writer: ChrootWriter, source: Source) -> None:
    want = State(type=FileType.FILE, mode=0o640, uid=STRANGER, gid=STRANGER + 1)
    swapped(writer, writer.stage_file("/etc/new", source, want, None))
    state = writer.look("/etc/new").state
    assert state is not None
    assert (state.uid, state.gid, state.mode) == (STRANGER, STRANGER + 1, 0o640)


def test_contents_that_stand_in_are_what_is_written(tree: Path, writer: ChrootWriter, source: Source) -> None:
    source.stand_in(b"filtered\n")
    staged = writer.stage_file("/etc/new", source, FILE, None)
    assert swapped(writer, staged)
    assert (tree / "jail/etc/new").read_bytes() == b"filtered\n"
    assert staged.sha256 == hashlib.sha256(b"filtered\n").hexdigest()


def test_a_source_of_many_chunks_is_copied_whole(tree: Path, writer: ChrootWriter) -> None:
    data = os.urandom(1_000_003)
    grow(tree, {"/lib/big": data})
    with closing(Root(os.fspath(tree))) as root, closing(root.source("/lib/big")) as big:
        swapped(writer, writer.stage_file("/etc/new", big, FILE, None))
    assert (tree / "jail/etc/new").read_bytes() == data


def test_short_writes_are_continued(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:1])))
    swapped(writer, writer.stage_file("/etc/new", source, FILE, None))
    assert (tree / "jail/etc/new").read_bytes() == b"new\n"


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"\xff\x80"), "x" * 255, "-rf", " "])
def test_any_name_can_be_repaired(tree: Path, writer: ChrootWriter, source: Source, name: str) -> None:
    assert swapped(writer, writer.stage_file(f"/etc/{name}", source, FILE, None))
    assert swapped(writer, writer.stage_file(f"/etc/{name}", source, FILE, writer.look(f"/etc/{name}").state))
    assert names(tree) == sorted([*NAMES, name])


def test_links_and_directories_are_staged(tree: Path, writer: ChrootWriter) -> None:
    swapped(writer, writer.stage_link("/etc/a", "../usr/share/zoneinfo/UTC", None))
    assert os.readlink(tree / "jail/etc/a") == "../usr/share/zoneinfo/UTC"
    swapped(writer, writer.stage_directory("/etc/b", State(type=FileType.DIRECTORY, mode=0o750), None))
    assert (tree / "jail/etc/b").stat().st_mode == 0o040_750


@needs_root
@pytest.mark.parametrize(("kind", "numbers"), [(FileType.CHARACTER_DEVICE, (1, 3)), (FileType.BLOCK_DEVICE, (7, 5))])
def test_devices_are_staged(writer: ChrootWriter, kind: FileType, numbers: tuple[int, int]) -> None:
    want = State(type=kind, mode=0o666, uid=0, gid=STRANGER, device=numbers)
    swapped(writer, writer.stage_device("/etc/node", want, None))
    state = writer.look("/etc/node").state
    assert state is not None
    assert (state.type, state.mode, state.uid, state.gid, state.device) == (kind, 0o666, 0, STRANGER, numbers)


@pytest.mark.usefixtures("unchanged")
def test_devices_that_may_not_be_made_are_told_with_the_way_out(
    writer: ChrootWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)  # what a unit without CAP_MKNOD would see
    want = State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 3))
    with pytest.raises(RepairError) as caught:
        writer.stage_device("/etc/node", want, None)
    assert str(caught.value) == f"/etc/node: {NO_DEVICES}"


@pytest.mark.parametrize("path", ["/", "/etc/", "/etc/..", "/etc/."])
@pytest.mark.usefixtures("unchanged")
def test_only_a_name_can_be_replaced(writer: ChrootWriter, path: str) -> None:
    with pytest.raises(RepairError) as caught:
        writer.stage_link(path, "x", None)
    assert str(caught.value) == f"{path}: does not end in a name that could be replaced"


# --- ACLs ---------------------------------------------------------------------------------------------------------


def acls(path: Path) -> list[str]:
    return [name for name in os.listxattr(path, follow_symlinks=False) if name in (ACCESS_ACL, DEFAULT_ACL)]


def test_a_default_acl_reaches_nothing_that_is_made(tree: Path, writer: ChrootWriter, source: Source) -> None:
    set_acl(tree / "jail/etc", "-d", "-m", f"u:{STRANGER}:rwx,o::rwx")
    (tree / "jail/etc").chmod(0o755)
    swapped(writer, writer.stage_file("/etc/new", source, State(type=FileType.FILE, mode=0o640), None))
    swapped(writer, writer.stage_directory("/etc/staged", DIRECTORY, None))
    writer.make_directory("/etc/made", DIRECTORY)
    modes = {name: (tree / "jail/etc" / name).stat().st_mode & 0o7777 for name in ("new", "staged", "made")}
    assert modes == {"new": 0o640, "staged": 0o755, "made": 0o755}
    assert [acls(tree / "jail/etc" / name) for name in modes] == [[], [], []]


@needs_root
def test_a_default_acl_reaches_no_device(tree: Path, writer: ChrootWriter) -> None:
    set_acl(tree / "jail/etc", "-d", "-m", f"u:{STRANGER}:rwx")
    want = State(type=FileType.CHARACTER_DEVICE, mode=0o660, uid=0, gid=0, device=(1, 3))
    swapped(writer, writer.stage_device("/etc/null", want, None))
    assert acls(tree / "jail/etc/null") == []


def test_an_acl_of_a_directory_goes_and_comes_back(tree: Path, writer: ChrootWriter) -> None:
    path = tree / "jail/etc/empty"
    set_acl(path, "-m", f"u:{STRANGER}:rx,g::-")
    acl, mode = os.getxattr(path, ACCESS_ACL), path.stat().st_mode
    before = writer.look("/etc/empty").state
    assert before is not None
    made = writer.change_directory("/etc/empty", State(type=FileType.DIRECTORY, mode=0o711), before)
    assert (acls(path), path.stat().st_mode) == ([], 0o040_711)
    writer.undo_directory(made)
    assert (os.getxattr(path, ACCESS_ACL), path.stat().st_mode) == (acl, mode)


# --- Putting, finishing, taking back ------------------------------------------------------------------------------


@both_kernels
def test_a_new_link_is_put(tree: Path, writer: ChrootWriter, monkeypatch: pytest.MonkeyPatch, renameat2: bool) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    assert swapped(writer, writer.stage_link("/etc/new", "/etc/shadow", None)) is renameat2
    assert os.readlink(tree / "jail/etc/new") == "/etc/shadow"
    assert names(tree) == sorted([*NAMES, "new"])


@pytest.mark.parametrize("what", ["file", "directory"])
@pytest.mark.parametrize("taken", [True, False])
def test_what_can_have_no_second_name_is_put_by_a_rename(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, what: str, taken: bool
) -> None:
    """A directory, or anything on a file system without hard links."""

    def no_links(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    old_kernel(monkeypatch)
    staged = stage(writer, "/etc/new", source, what)
    if taken:
        grow(tree, {"/jail/etc/new": None})
    before = snapshot(tree)
    monkeypatch.setattr(os, "link", no_links)
    if taken:
        with pytest.raises(RepairError, match="file exists"):
            writer.put(staged)
    else:
        assert writer.put(staged) is False
        assert names(tree) == sorted([*NAMES, "new"])
        writer.take_back(staged)
    assert snapshot(tree) == before


@both_kernels
def test_a_new_file_is_put(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, renameat2: bool
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    assert swapped(writer, writer.stage_file("/etc/new", source, FILE, None)) is renameat2
    assert (tree / "jail/etc/new").read_bytes() == b"new\n"
    assert (tree / "jail/etc/new").stat().st_nlink == 1
    assert names(tree) == sorted([*NAMES, "new"])


@both_kernels
@pytest.mark.parametrize("what", ["hosts", "link", "fifo", "empty"])
@pytest.mark.parametrize("new", ["file", "link", "directory"])
def test_whatever_is_there_is_swapped(
    tree: Path,
    writer: ChrootWriter,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    renameat2: bool,
    what: str,
    new: str,
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    before = snapshot(tree)
    staged = stage(writer, f"/etc/{what}", source, new)
    assert writer.put(staged) is renameat2
    state = writer.look(f"/etc/{what}").state
    assert state is not None
    assert state.type == new
    writer.take_back(staged)
    writer.discard(staged)
    assert snapshot(tree) == before
    staged = stage(writer, f"/etc/{what}", source, new)
    assert swapped(writer, staged) is renameat2
    assert names(tree) == NAMES


def stage(writer: ChrootWriter, path: str, source: Source, new: str) -> Staged:
    before = writer.look(path).state
    if new == "file":
        return writer.stage_file(path, source, FILE, before)
    if new == "link":
        return writer.stage_link(path, "somewhere", before)
    return writer.stage_directory(path, DIRECTORY, before)


@both_kernels
@pytest.mark.usefixtures("unchanged")
def test_a_new_file_is_taken_back(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, renameat2: bool
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    staged = writer.stage_file("/etc/new", source, FILE, None)
    writer.put(staged)
    writer.take_back(staged)
    writer.discard(staged)


def test_who_has_the_old_copy_open_keeps_it(tree: Path, writer: ChrootWriter, source: Source) -> None:
    with (tree / "jail/etc/hosts").open("rb") as held:
        swapped(writer, writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state))
        assert held.read() == b"old\n"


def test_a_second_name_of_what_is_replaced_is_never_touched(tree: Path, writer: ChrootWriter, source: Source) -> None:
    before = writer.look("/etc/hosts").state
    staged = writer.stage_file("/etc/hosts", source, FILE, before)
    os.link(tree / "jail/etc/hosts", tree / "victim")
    with pytest.raises(RepairError):
        writer.put(staged)
    writer.discard(staged)
    assert (tree / "victim").read_bytes() == b"old\n"
    with pytest.raises(UnsafeError, match="this file has 2 links"):
        writer.look("/etc/hosts")


def covertly(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"OLD\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_another(path: Path) -> None:
    path.with_suffix(".x").write_bytes(b"old\n")
    path.with_suffix(".x").replace(path)


def by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/shadow")


def by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "contents": lambda path: path.write_bytes(b"OLD\n"),
    "contents, traces covered": covertly,
    "mode": lambda path: path.chmod(0o600),
    "time": lambda path: os.utime(path, ns=(1, 1)),
    "another file": by_another,
    "a link": by_a_link,
    "a directory": by_a_directory,
    "gone": lambda path: path.unlink(),
}


@both_kernels
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_after_it_was_compared_is_left_alone(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, renameat2: bool, change: str
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    CHANGES[change](tree / "jail/etc/hosts")
    before = snapshot(tree)
    with pytest.raises(RepairError) as caught:
        writer.put(staged)
    assert str(caught.value) == f"/etc/hosts: {CHANGED}"
    assert snapshot(tree) == before
    writer.discard(staged)
    assert [name for name in names(tree) if name.startswith(".")] == []


@both_kernels
@pytest.mark.parametrize("change", [change for change in CHANGES if change not in ("gone", "contents, traces covered")])
def test_what_is_changed_in_the_very_moment_is_put_back(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, renameat2: bool, change: str
) -> None:
    """Between the last look and the exchange: what comes out is looked at once more."""
    real = kernel.rename
    raced: list[dict[str, object]] = []

    def race(*arguments: Any) -> None:
        if not raced:
            CHANGES[change](tree / "jail/etc/hosts")
            raced.append(snapshot(tree))
        if not renameat2:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        real(*arguments)

    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    monkeypatch.setattr(kernel, "rename", race)
    with pytest.raises(RepairError) as caught:
        writer.put(staged)
    assert str(caught.value) == f"/etc/hosts: {CHANGED}"
    assert [snapshot(tree)] == raced
    writer.discard(staged)
    assert [name for name in names(tree) if name.startswith(".")] == []


def test_what_comes_out_and_cannot_be_looked_at_goes_back(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tree)
    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    real = os.stat

    def failing(path: Any, **options: Any) -> os.stat_result:
        if path == staged.temporary:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing)
        with pytest.raises(RepairError) as caught:
            writer.put(staged)
    assert str(caught.value) == f"/etc/hosts: looking at {staged.temporary} failed: input/output error"
    writer.discard(staged)
    assert snapshot(tree) == before


@both_kernels
@pytest.mark.parametrize("what", [b"mine", "hosts", None, 0o600])
def test_what_appeared_where_nothing_was_is_left_alone(
    tree: Path,
    writer: ChrootWriter,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    renameat2: bool,
    what: bytes | str | int | None,
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    staged = writer.stage_file("/etc/new", source, FILE, None)
    grow(tree, {"/jail/etc/new": what})
    before = snapshot(tree)
    with pytest.raises(RepairError) as caught:
        writer.put(staged)
    assert str(caught.value) == "/etc/new: putting the new copy into place failed: file exists"
    assert snapshot(tree) == before
    writer.discard(staged)
    assert names(tree) == sorted([*NAMES, "new"])


@pytest.mark.parametrize("new", [True, False])
def test_what_was_changed_after_the_repair_is_not_taken_away(
    tree: Path, writer: ChrootWriter, source: Source, new: bool
) -> None:
    path = "/etc/new" if new else "/etc/hosts"
    staged = writer.stage_file(path, source, FILE, None if new else writer.look(path).state)
    writer.put(staged)
    (tree / "elsewhere").write_bytes(b"somebody else's")
    (tree / "elsewhere").rename(tree / f"jail{path}")
    with pytest.raises(RepairError) as caught:
        writer.take_back(staged)
    kept = "" if new else f"; what stood here before is kept as {staged.temporary}"
    assert str(caught.value) == f"{path}: it was changed after it was repaired, and is left alone{kept}"
    writer.discard(staged)
    assert (tree / f"jail{path}").read_bytes() == b"somebody else's"
    if not new:
        assert (tree / "jail/etc" / staged.temporary).read_bytes() == b"old\n"


@pytest.mark.parametrize("new", ["file", "directory", "link"])
@pytest.mark.parametrize("path", ["/etc/hosts", "/etc/new"])
@pytest.mark.usefixtures("unchanged")
def test_what_was_not_put_or_is_taken_back_already_can_be_taken_back_all_the_same(
    writer: ChrootWriter, source: Source, path: str, new: str
) -> None:
    staged = stage(writer, path, source, new)
    writer.take_back(staged)
    writer.put(staged)
    for _ in range(2):
        writer.take_back(staged)
    for _ in range(2):
        writer.discard(staged)


@pytest.mark.usefixtures("unchanged")
def test_what_was_put_halfway_by_a_link_is_taken_back(tree: Path, writer: ChrootWriter, source: Source) -> None:
    staged = writer.stage_file("/etc/new", source, FILE, None)
    os.link(tree / f"jail/etc/{staged.temporary}", tree / "jail/etc/new")
    writer.take_back(staged)
    writer.discard(staged)


def test_only_what_was_staged_is_discarded(tree: Path, writer: ChrootWriter, source: Source) -> None:
    staged = writer.stage_file("/etc/new", source, FILE, None)
    other = tree / "jail/etc" / staged.temporary
    other.unlink()
    writer.discard(staged)  # gone already
    (tree / "kept").write_bytes(b"keeps the number of the inode in use")
    other.write_bytes(b"not staged")
    if (other.stat().st_dev, other.stat().st_ino) != staged.inode:
        writer.discard(staged)
        assert other.read_bytes() == b"not staged"


def test_only_what_was_swapped_out_is_removed(tree: Path, writer: ChrootWriter, source: Source) -> None:
    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    writer.put(staged)
    (tree / "jail/etc" / staged.temporary).write_bytes(b"changed meanwhile")
    writer.finish(staged)
    assert (tree / "jail/etc" / staged.temporary).read_bytes() == b"changed meanwhile"


def test_a_directory_that_is_filled_in_the_very_moment_is_put_back(
    tree: Path, writer: ChrootWriter, source: Source
) -> None:
    staged = writer.stage_file("/etc/empty", source, FILE, writer.look("/etc/empty").state)
    grow(tree, {"/jail/etc/empty/precious": b"x"})
    with pytest.raises(RepairError, match=CHANGED):
        writer.put(staged)
    writer.discard(staged)
    assert (tree / "jail/etc/empty/precious").read_bytes() == b"x"


# --- Directories --------------------------------------------------------------------------------------------------


def test_a_directory_is_made_and_removed_again(tree: Path, writer: ChrootWriter, source: Source) -> None:
    before = snapshot(tree)
    outer = writer.make_directory("/srv", State(type=FileType.DIRECTORY, mode=0o711))
    inner = writer.make_directory("/srv/deep", DIRECTORY)
    staged = writer.stage_file("/srv/deep/file", source, FILE, None)
    writer.put(staged)
    assert (tree / "jail/srv").stat().st_mode == 0o040_711
    assert (tree / "jail/srv/deep/file").read_bytes() == b"new\n"
    writer.take_back(staged)
    writer.discard(staged)
    writer.undo_directory(inner)
    writer.undo_directory(outer)
    assert snapshot(tree) == before


def test_a_directorys_mode_is_changed_and_changed_back(tree: Path, writer: ChrootWriter) -> None:
    before = snapshot(tree)
    state = writer.look("/etc/full").state
    assert state is not None
    grow(tree, {"/jail/etc/full/y": b""})  # what is in it does not matter
    made = writer.change_directory("/etc/full", State(type=FileType.DIRECTORY, mode=0o700), state)
    assert (tree / "jail/etc/full").stat().st_mode == 0o040_700
    writer.undo_directory(made)
    (tree / "jail/etc/full/y").unlink()
    assert snapshot(tree) == before


@pytest.mark.parametrize("new", [True, False])
def test_only_the_very_directory_is_taken_back(tree: Path, writer: ChrootWriter, new: bool) -> None:
    path = "/srv" if new else "/etc/empty"
    want = State(type=FileType.DIRECTORY, mode=0o711)
    state = writer.look("/etc/empty").state
    assert state is not None
    made = writer.make_directory(path, want) if new else writer.change_directory(path, want, state)
    (tree / f"jail{path}").rename(tree / "away")
    grow(tree, {f"/jail{path}": None})
    before = snapshot(tree)
    with pytest.raises(RepairError) as caught:
        writer.undo_directory(made)
    assert str(caught.value) == f"{path}: something else stands here now, and is left alone"
    assert snapshot(tree) == before
    (tree / f"jail{path}").rmdir()
    (tree / "away").rename(tree / f"jail{path}")
    for _ in range(2 if new else 1):
        writer.undo_directory(made)
    assert (tree / f"jail{path}").exists() is not new


@pytest.mark.usefixtures("unchanged")
def test_a_directory_that_cannot_be_looked_at_is_removed_again(
    writer: ChrootWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.look("/etc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", once(OSError(errno.EIO, "Input/output error"), os.stat))
        with pytest.raises(RepairError) as caught:
            writer.make_directory("/etc/made", DIRECTORY)
    assert str(caught.value) == "/etc/made: making the directory failed: input/output error"


@pytest.mark.usefixtures("unchanged")
def test_an_interrupt_between_two_chunks_leaves_nothing(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    handles: list[Staged] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", once(OSError(errno.EIO, "Input/output error"), os.unlink))
        with pytest.raises(KeyboardInterrupt):
            writer.stage_file("/etc/hosts", source, FILE, None, began=handles.append, pause=interrupted)
    (staged,) = handles
    writer.discard(staged)


@needs_root
def test_a_directorys_owner_is_changed_and_changed_back(tree: Path, writer: ChrootWriter) -> None:
    path = tree / "jail/etc/empty"
    os.chown(path, STRANGER, STRANGER)
    path.chmod(0o2755)
    state = writer.look("/etc/empty").state
    assert state is not None
    made = writer.change_directory("/etc/empty", State(type=FileType.DIRECTORY, mode=0o755, uid=0, gid=0), state)
    assert (path.stat().st_uid, path.stat().st_mode) == (0, 0o040_755)
    writer.undo_directory(made)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode) == (STRANGER, STRANGER, 0o042_755)


@pytest.mark.parametrize("what", ["mode", "another", "link", "file"])
def test_a_directory_that_was_changed_after_it_was_compared_is_left_alone(
    tree: Path, writer: ChrootWriter, what: str
) -> None:
    path, state = tree / "jail/etc/empty", writer.look("/etc/empty").state
    assert state is not None
    if what == "mode":
        path.chmod(0o700)
    else:
        path.rename(tree / "jail/etc/away")
        grow(tree, {"/jail/etc/empty": {"another": None, "link": "full", "file": b""}[what]})
    before = snapshot(tree)
    with pytest.raises(RepairError) as caught:
        writer.change_directory("/etc/empty", State(type=FileType.DIRECTORY, mode=0o711), state)
    if what in ("mode", "another"):
        assert str(caught.value) == f"/etc/empty: {CHANGED}"
    else:
        assert str(caught.value) == "/etc/empty: setting the directory's mode and owner failed: not a directory"
    assert snapshot(tree) == before


@pytest.mark.usefixtures("unchanged")
def test_a_directory_is_not_made_where_something_is(writer: ChrootWriter) -> None:
    with pytest.raises(RepairError) as caught:
        writer.make_directory("/etc/hosts", DIRECTORY)
    assert str(caught.value) == "/etc/hosts: making the directory failed: file exists"


@pytest.mark.parametrize("failing", ["fchown", "fchmod", "fsync"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.usefixtures("unchanged")
def test_a_directory_whose_dressing_fails_is_taken_back(
    writer: ChrootWriter, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    state = writer.look("/etc/empty").state
    assert state is not None
    want = State(type=FileType.DIRECTORY, mode=0o711)
    acts: list[Callable[[], object]] = [
        lambda: writer.make_directory("/made", want),
        lambda: writer.change_directory("/etc/empty", want, state),
    ]
    for act in acts:
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, once(error, getattr(os, failing)))
            with pytest.raises((RepairError, KeyboardInterrupt)) as caught:
                act()
        if isinstance(caught.value, RepairError):
            assert caught.value.reason == "setting the directory's mode and owner failed: input/output error"


def once(error: BaseException, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function that fails the first time."""
    raised: list[bool] = []

    def function(*arguments: Any, **options: Any) -> Any:
        if not raised:
            raised.append(True)
            raise error
        return real(*arguments, **options)

    return function


# --- Errors leave nothing behind ----------------------------------------------------------------------------------

STEPS = ["open", "write", "fchown", "fchmod", "utime", "fsync", "ftruncate", "pread", "stat"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EMFILE])
@pytest.mark.usefixtures("unchanged")
def test_an_error_in_any_step_of_staging_leaves_nothing(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    source.fileno()
    before = writer.look("/etc/hosts").state
    opened = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, once(OSError(number, os.strerror(number)), getattr(os, step)))
        with pytest.raises(RepairError) as caught:
            writer.stage_file("/etc/hosts", source, FILE, before)
    assert caught.value.path == "/etc/hosts"
    doing = "staging the new copy" if step in ("open", "stat") else "writing the new copy"
    assert caught.value.reason == f"{doing} failed: {told(number)}"
    assert descriptors() == opened


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("unchanged")
def test_an_interrupt_in_any_step_of_staging_leaves_nothing(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, step, once(KeyboardInterrupt(), getattr(os, step)))
        with pytest.raises(KeyboardInterrupt):
            writer.stage_file("/etc/hosts", source, FILE, None)


@pytest.mark.parametrize(("left", "enough"), [(0, False), (1, True)])
@pytest.mark.parametrize("new", ["file", "directory", "link"])
@pytest.mark.usefixtures("unchanged")
def test_running_out_of_descriptors_leaves_nothing(
    writer: ChrootWriter, source: Source, left: int, enough: bool, new: str
) -> None:
    source.fileno()
    writer.look("/etc/hosts")
    with descriptors_left(left):
        if enough:
            staged = stage(writer, "/etc/hosts", source, new)
            writer.put(staged)
            writer.take_back(staged)
            writer.discard(staged)
        else:
            with pytest.raises(RepairError) as caught:
                stage(writer, "/etc/hosts", source, new)
            assert str(caught.value) == f"/etc/hosts: staging the new copy failed: {told(errno.EMFILE)}"


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
@pytest.mark.parametrize("what", ["hosts", "empty"])
@pytest.mark.usefixtures("unchanged")
def test_an_error_in_any_plain_rename_leaves_all_as_it_was(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, failing: int, what: str
) -> None:
    old_kernel(monkeypatch, errno.ENOSYS)
    staged = writer.stage_file(f"/etc/{what}", source, FILE, writer.look(f"/etc/{what}").state)
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == failing:
                raise OSError(errno.EIO, "Input/output error")
            return real(*arguments, **options)

        return function

    with monkeypatch.context() as patch:
        for name in ("link", "rename"):
            patch.setattr(os, name, counted(getattr(os, name)))
        if failing == 4:  # there are three steps
            assert writer.put(staged) is False
        else:
            with pytest.raises(RepairError) as caught:
                writer.put(staged)
            expected = f"/etc/{what}: putting the new copy into place failed: input/output error"
            assert str(caught.value) == expected
    if failing == 4:
        writer.take_back(staged)
    writer.discard(staged)


@pytest.mark.parametrize("failing", ["link", "unlink"])
@pytest.mark.usefixtures("unchanged")
def test_an_error_in_putting_a_new_file_plainly_leaves_all_as_it_was(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    old_kernel(monkeypatch, errno.EOPNOTSUPP)
    staged = writer.stage_file("/etc/new", source, FILE, None)
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, once(OSError(errno.EIO, "Input/output error"), getattr(os, failing)))
        with pytest.raises(
            RepairError, match=r"^/etc/new: putting the new copy into place failed: input/output error$"
        ):
            writer.put(staged)
    writer.discard(staged)


@pytest.mark.usefixtures("unchanged")
def test_what_does_not_read_back_the_same_is_not_put(
    writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("chrootsync.root.contents.sha256", lambda _fd: "0" * 64)
        with pytest.raises(RepairError) as caught:
            writer.stage_file("/etc/hosts", source, FILE, None)
    assert caught.value.reason == "what was written does not read back the same; the disk may be failing"


@pytest.mark.parametrize(("changes", "fine"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_source_that_changes_while_it_is_copied_is_copied_again(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch, changes: int, fine: bool
) -> None:
    real, left = os.write, [b"x" * size for size in range(1, changes + 1)]  # shorter each time, so read no further

    def changing(fd: int, data: Any) -> int:
        count = real(fd, data)
        if left:
            (tree / "etc/hosts").write_bytes(left.pop())
        return count

    source.fileno()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", changing)
        if fine:
            swapped(writer, writer.stage_file("/etc/new", source, FILE, None))
            assert (tree / "jail/etc/new").read_bytes() == (tree / "etc/hosts").read_bytes()
        else:
            with pytest.raises(RepairError) as caught:
                writer.stage_file("/etc/new", source, FILE, None)
            expected = "/etc/new: /etc/hosts keeps changing while it is read; run check --fix once it is quiet"
            assert str(caught.value) == expected
            assert names(tree) == NAMES


@pytest.mark.usefixtures("unchanged")
def test_a_source_that_is_no_file_is_not_staged(tree: Path, writer: ChrootWriter) -> None:
    with promptly(), closing(Root(os.fspath(tree))) as root, closing(root.source("/jail/etc/fifo")) as fifo:
        with pytest.raises(PathError) as caught:
            writer.stage_file("/etc/hosts", fifo, FILE, writer.look("/etc/hosts").state)
        assert str(caught.value) == "/jail/etc/fifo: is a fifo, not a file"


@pytest.mark.usefixtures("unchanged")
def test_nothing_is_staged_beneath_what_is_refused(tree: Path, source: Source) -> None:
    (tree / "jail/etc").chmod(0o777)
    with writing(tree) as writer:
        acts: list[Callable[[], object]] = [
            lambda: writer.stage_file("/etc/hosts", source, FILE, None),
            lambda: writer.stage_link("/etc/hosts", "x", None),
            lambda: writer.make_directory("/etc/made", DIRECTORY),
        ]
        for act in acts:
            with pytest.raises(UnsafeError, match="others can write to this directory"):
                act()
    (tree / "jail/etc").chmod(0o755)


def test_a_directory_is_synced_or_says_why_not(
    tree: Path, writer: ChrootWriter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    writer.sync(staged.directory)
    assert synced == [(tree / "jail/etc").stat().st_ino]
    monkeypatch.setattr(os, "fsync", once(OSError(errno.EIO, "Input/output error"), os.fsync))
    with pytest.raises(RepairError) as caught:
        writer.sync(staged.directory)
    assert str(caught.value) == "/etc: syncing the directory failed: input/output error"


# --- Real file systems --------------------------------------------------------------------------------------------


@pytest.fixture
def chattr(tree: Path) -> Iterator[Callable[[str, str], None]]:
    changed: list[Path] = []

    def change(flag: str, name: str) -> None:
        if shutil.which("chattr") is None:
            pytest.skip("needs chattr(1), from e2fsprogs")
        done = subprocess.run(["chattr", f"+{flag}", tree / name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no such flags here: {done.stderr.strip()}")
        changed.append(tree / name)

    yield change
    for path in changed:
        subprocess.run(["chattr", "-ia", path], check=True)


@needs_root
@pytest.mark.parametrize("flag", ["i", "a"])
@both_kernels
@pytest.mark.usefixtures("unchanged")
def test_an_immutable_target_stays(
    writer: ChrootWriter,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
    chattr: Callable[[str, str], None],
    flag: str,
    renameat2: bool,
) -> None:
    if not renameat2:
        old_kernel(monkeypatch)
    chattr(flag, "jail/etc/hosts")
    staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
    with pytest.raises(RepairError) as caught:
        writer.put(staged)
    assert str(caught.value) == f"/etc/hosts: putting the new copy into place failed: {IMMUTABLE}"
    writer.discard(staged)


@needs_root
@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.usefixtures("unchanged")
def test_an_immutable_or_append_only_directory_gets_nothing(
    writer: ChrootWriter, source: Source, chattr: Callable[[str, str], None], flag: str
) -> None:
    """What is made in an append-only directory could not even be removed again."""
    chattr(flag, "jail/etc")
    acts: list[Callable[[], object]] = [
        lambda: writer.stage_file("/etc/new", source, FILE, None),
        lambda: writer.stage_link("/etc/new", "x", None),
        lambda: writer.stage_directory("/etc/new", DIRECTORY, None),
    ]
    for act in acts:
        with pytest.raises(RepairError) as caught:
            act()
        assert str(caught.value) == f"/etc/new: staging the new copy failed: {IMMUTABLE}"
    with pytest.raises(RepairError) as caught:
        writer.make_directory("/etc/new", DIRECTORY)
    assert str(caught.value) == f"/etc/new: making the directory failed: {IMMUTABLE}"


@needs_root
@pytest.mark.parametrize(
    ("options", "number"),
    [("size=64k", errno.ENOSPC), ("nr_inodes=4", errno.ENOSPC), ("ro", errno.EROFS)],
)
def test_a_full_or_read_only_file_system_is_left_as_it_was(tree: Path, options: str, number: int) -> None:
    def check() -> None:
        jail = tree / "jail"
        mount("-t", "tmpfs", "-o", "mode=755" + ("" if options == "ro" else f",{options}"), "none", jail)
        grow(tree, {"/jail/etc/hosts": b"old\n", "/jail/etc/x": b"", "/lib/big": bytes(1 << 20)})
        if options == "ro":
            mount("-o", "remount,ro", jail)
        before = snapshot(jail)
        with closing(Root(os.fspath(tree))) as root, closing(root.source("/lib/big")) as big, writing(tree) as writer:
            with pytest.raises(RepairError) as caught:
                writer.stage_file("/etc/hosts", big, FILE, writer.look("/etc/hosts").state)
            assert caught.value.reason.endswith(f" failed: {told(number)}")
            if options != "size=64k":
                with pytest.raises(RepairError) as caught:
                    writer.make_directory("/made", DIRECTORY)
                assert str(caught.value) == f"/made: making the directory failed: {told(number)}"
        assert snapshot(jail) == before

    with_private_mounts(check)


@needs_root
def test_an_overlay_is_repaired(tree: Path) -> None:
    """Where containers live: a copy of a lower layer keeps its identity while it is swapped."""

    def check() -> None:
        grow(tree, {"/layers": None})
        mount("-t", "tmpfs", "-o", "mode=755", "none", tree / "layers")
        grow(tree, {"/layers/upper": None, "/layers/work": None})
        layers = f"lowerdir={tree}/jail,upperdir={tree}/layers/upper,workdir={tree}/layers/work"
        mount("-t", "overlay", "-o", layers, "none", tree / "jail")
        with closing(Root(os.fspath(tree))) as root, closing(root.source("/etc/hosts")) as source:
            with writing(tree) as writer:
                staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
                writer.put(staged)
                writer.take_back(staged)
                assert (tree / "jail/etc/hosts").read_bytes() == b"old\n"
                writer.discard(staged)
            with writing(tree) as writer:
                swapped(writer, writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state))
        assert (tree / "jail/etc/hosts").read_bytes() == b"new\n"
        assert names(tree) == NAMES

    with_private_mounts(check)


@needs_root
def test_a_mount_on_the_target_is_never_swapped(tree: Path) -> None:
    def check() -> None:
        with (
            closing(Root(os.fspath(tree))) as root,
            closing(root.source("/etc/hosts")) as source,
            writing(tree) as writer,
        ):
            staged = writer.stage_file("/etc/hosts", source, FILE, writer.look("/etc/hosts").state)
            mount("--bind", tree / "etc/hosts", tree / "jail/etc/hosts")
            with pytest.raises(RepairError) as caught:
                writer.put(staged)
            assert str(caught.value) == f"/etc/hosts: {CHANGED}"
            writer.discard(staged)
        assert (tree / "etc/hosts").read_bytes() == b"new\n"
        assert names(tree) == NAMES

    with_private_mounts(check)


# --- Whatever is staged and taken back ----------------------------------------------------------------------------

PATHS = st.sampled_from(["/etc/hosts", "/etc/link", "/etc/fifo", "/etc/empty", "/etc/new", "/usr", "/odd\n\udcff"])
WORK = st.lists(
    st.tuples(PATHS, st.sampled_from(["file", "link", "directory"]), st.sampled_from(["discard", "put"])), max_size=6
)


@given(work=WORK, modes=st.lists(st.sampled_from([0o600, 0o644, 0o755]), min_size=6, max_size=6), plain=st.booleans())
def test_what_is_staged_put_and_taken_back_leaves_the_tree_as_it_was(
    work: list[tuple[str, str, str]], modes: list[int], plain: bool
) -> None:
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        grow(
            top,
            {
                "/source": b"new contents",
                "/jail/etc/hosts": b"old",
                "/jail/etc/link": "../../../etc",
                "/jail/etc/fifo": 0o640,
                "/jail/etc/empty": None,
            },
        )
        os.chmod(f"{top}/jail/etc/hosts", modes[0])
        if plain:
            old_kernel(patch)
        before = snapshot(top)
        undo: list[Callable[[], None]] = []
        with closing(Root(top)) as root, closing(root.source("/source")) as source, writing(Path(top)) as writer:
            try:
                for (path, kind, fate), mode in zip(work, modes, strict=False):
                    staged = stage_with(writer, path, source, kind, mode)
                    undo.append(lambda staged=staged: writer.discard(staged))  # type: ignore[misc]  # a default binds it
                    if fate == "put":
                        writer.put(staged)
                        undo.append(lambda staged=staged: writer.take_back(staged))  # type: ignore[misc]  # as above
            finally:
                for step in reversed(undo):
                    step()
        assert snapshot(top) == before


def stage_with(writer: ChrootWriter, path: str, source: Source, kind: str, mode: int) -> Staged:
    before = writer.look(path).state
    if kind == "file":
        return writer.stage_file(path, source, State(type=FileType.FILE, mode=mode), before)
    if kind == "link":
        return writer.stage_link(path, "anything", before)
    return writer.stage_directory(path, State(type=FileType.DIRECTORY, mode=mode), before)
