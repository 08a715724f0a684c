"""The Writer: the small steps that a repair is made of, each one atomic and each one with its way back.

Nothing is ever written or changed at its final name: a new inode is staged beside its target and swapped with it
(renameat2(2)), so that a daemon sees the whole old or the whole new thing. ``Staged`` and ``Made`` are the handles that
take a step back.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from chrootsync.model import Copy, FileType, RepairError, Source, State
from chrootsync.root import contents, kernel
from chrootsync.root.read import ACCESS_ACL, Root, WalkedChroot, state_of
from chrootsync.root.walk import Directory

LABEL = "security.selinux"
ATTEMPTS = 3  # readings of a source that changes while it is copied


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """A new inode beside its target: ``before`` is what it replaces (None: nothing), ``source`` what it was read from.

    ``inode`` is (device, inode) of what was staged: nothing else is ever removed.
    """

    path: str
    directory: Directory
    temporary: str
    name: str
    inode: tuple[int, int]
    before: State | None
    source: tuple[int, int, int, int, int] | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A directory that was made, or whose metadata was ``before``."""

    path: str
    parent: Directory
    name: str
    before: State | None


@contextmanager
def _telling(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a RepairError that says what was being done."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.EPERM:
            reason += " (is something here immutable or append-only? lsattr tells, chattr -ia mends)"
        raise RepairError(path, f"{doing} failed: {reason}") from None


class ChrootWriter:
    """Changes one chroot, through the same walk that the reader takes; paths are absolute from the chroot."""

    def __init__(self, chroot: WalkedChroot) -> None:
        """Take over the walk of ``chroot``."""
        self._chroot = chroot

    def close(self) -> None:
        """Close every descriptor of the walk."""
        self._chroot.close()

    def look(self, path: str) -> Copy:
        """What is at a path now. Raises UnsafeError, UnreadableError."""
        return self._chroot.look(path)

    # --- Directories ---

    def make_directory(self, path: str, want: State) -> Made:
        """Make a directory with the wanted metadata; its parent exists. Raises RepairError, PathError."""
        parent, name = self._parent(path)
        with _telling(path, "making the directory"):
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        made = Made(path=path, parent=parent, name=name, before=None)
        try:
            self._dress_directory(path, want)
        except RepairError:
            self.undo_directory(made)
            raise
        return made

    def change_directory(self, path: str, want: State, before: State) -> Made:
        """Give a directory the wanted metadata. Raises RepairError.

        A directory has one name only, so that its inode can be changed where it is: there is no host file behind it.
        """
        parent, name = self._parent(path)
        made = Made(path=path, parent=parent, name=name, before=before)
        try:
            self._dress_directory(path, want)
        except RepairError:
            self.undo_directory(made)
            raise
        return made

    def undo_directory(self, made: Made) -> None:
        """Remove a directory that was made, or give it back its metadata. Raises RepairError."""
        if made.before is not None:
            self._dress_directory(made.path, made.before)
            return
        with _telling(made.path, "removing the directory again"):
            os.rmdir(made.name, dir_fd=made.parent.fd)

    def _dress_directory(self, path: str, want: State) -> None:
        with _telling(path, "setting the directory's mode and owner"), self._open_directory(path) as fd:
            with suppress(OSError):
                os.removexattr(fd, ACCESS_ACL)
            _dress(fd, want)
            os.fsync(fd)

    @contextmanager
    def _open_directory(self, path: str) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        parent, name = self._parent(path)
        fd = os.open(name, flags, dir_fd=parent.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    # --- Staging ---

    def stage_file(self, path: str, source: Source, want: State, before: State | None) -> Staged:
        """Write a source's contents beside ``path``, dressed, read back and synced. Raises RepairError, PathError."""
        staged = self._stage(path, before, _new_file)
        try:
            with _telling(path, "writing the new copy"):
                seen, digest = self._fill(staged, source, want)
        except BaseException:
            self.discard(staged)
            raise
        return Staged(
            path=path,
            directory=staged.directory,
            temporary=staged.temporary,
            name=staged.name,
            inode=staged.inode,
            before=before,
            source=seen,
            sha256=digest,
        )

    def stage_link(self, path: str, target: str, before: State | None) -> Staged:
        """Make a symbolic link beside ``path``. Raises RepairError, PathError."""
        return self._stage(path, before, lambda name, fd: os.symlink(target, name, dir_fd=fd))

    def stage_directory(self, path: str, want: State, before: State | None) -> Staged:
        """Make an empty directory beside ``path``, where something else stands. Raises RepairError, PathError."""

        def make(name: str, fd: int) -> None:
            os.mkdir(name, 0o700, dir_fd=fd)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                _dress(made, want)
            finally:
                os.close(made)

        return self._stage(path, before, make)

    def stage_device(self, path: str, want: State, before: State | None) -> Staged:
        """Make a device node beside ``path``. Raises RepairError, PathError."""
        kind = stat.S_IFCHR if want.type is FileType.CHARACTER_DEVICE else stat.S_IFBLK
        major, minor = want.device or (0, 0)

        def make(name: str, fd: int) -> None:
            os.mknod(name, kind | 0o600, os.makedev(major, minor), dir_fd=fd)
            os.chown(name, _number(want.uid), _number(want.gid), dir_fd=fd, follow_symlinks=False)
            # fchmodat(2) follows links, but this name was made exclusively in a directory that only root can change.
            os.chmod(name, want.mode or 0o600, dir_fd=fd)

        return self._stage(path, before, make)

    def _stage(self, path: str, before: State | None, make: Callable[[str, int], None]) -> Staged:
        directory, name = self._parent(path)
        temporary = f".chrootsync-{secrets.token_hex(6)}"
        with _telling(path, "staging the new copy"):
            try:
                make(temporary, directory.fd)
                status = os.stat(temporary, dir_fd=directory.fd, follow_symlinks=False)
            except BaseException:
                _remove_if_made(temporary, directory.fd)
                raise
        return Staged(
            path=path,
            directory=directory,
            temporary=temporary,
            name=name,
            inode=(status.st_dev, status.st_ino),
            before=before,
        )

    def _fill(self, staged: Staged, source: Source, want: State) -> tuple[tuple[int, int, int, int, int], str]:
        fd = os.open(staged.temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.directory.fd)
        try:
            status, digest = _copy(source, fd, staged.path)
            with suppress(OSError):
                os.removexattr(fd, ACCESS_ACL)
            _dress(fd, want)
            _copy_label(staged, fd)
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
            if contents.sha256(fd) != digest:
                raise RepairError(staged.path, "what was written does not read back the same; the disk may be failing")
            os.fsync(fd)
            return contents.identity(status), digest
        finally:
            os.close(fd)

    # --- Swapping ---

    def put(self, staged: Staged) -> bool:
        """Swap a staged inode into place; false where that took more than one step.

        What comes out must be what was compared: otherwise somebody else changed it meanwhile, and it goes back. Raises
        RepairError, and then all is as before.
        """
        with _telling(staged.path, "putting the new copy into place"):
            if staged.before is None:
                return _put_new(staged)
            atomic = _exchange(staged)
        came_out = self._status(staged, staged.temporary)
        if came_out is None or not _is(came_out, staged.before):
            with _telling(staged.path, "putting the old copy back"):
                _exchange(staged)
            raise RepairError(staged.path, "it was changed after it was compared; run check --fix once more")
        return atomic

    def take_back(self, staged: Staged) -> None:
        """Undo ``put``: the target is what it was. Raises RepairError."""
        with _telling(staged.path, "putting the old copy back"):
            if staged.before is None:
                os.rename(staged.name, staged.temporary, src_dir_fd=staged.directory.fd, dst_dir_fd=staged.directory.fd)
            else:
                _exchange(staged)

    def discard(self, staged: Staged) -> None:
        """Remove a staged inode that was not put, and nothing else. Raises RepairError."""
        status = self._status(staged, staged.temporary)
        if status is not None and (status.st_dev, status.st_ino) == staged.inode:
            self._remove(staged, status)

    def finish(self, staged: Staged) -> None:
        """Remove what a swap took out. Raises RepairError."""
        if staged.before is None:
            return
        status = self._status(staged, staged.temporary)
        if status is not None and _is(status, staged.before):
            self._remove(staged, status)

    def sync(self, directory: Directory) -> None:
        """Make the names in a directory durable. Raises RepairError."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with _telling(directory.path, "syncing the directory"):
            fd = os.open(".", flags, dir_fd=directory.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _remove(self, staged: Staged, status: os.stat_result) -> None:
        with _telling(staged.path, f"removing {staged.temporary}"):
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(staged.temporary, dir_fd=staged.directory.fd)
            else:
                os.unlink(staged.temporary, dir_fd=staged.directory.fd)

    def _status(self, staged: Staged, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=staged.directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _parent(self, path: str) -> tuple[Directory, str]:
        head, name = os.path.split(path)
        return self._chroot.walker.directory(head), name


class Writer:
    """Gives access to the chroots of a root for changing them; only a repair gets one."""

    def __init__(self, root: Root) -> None:
        """Write where ``root`` reads."""
        self._root = root

    def chroot(self, path: str) -> ChrootWriter:
        """Walk to a chroot anew. Raises AbsentError, UnsafeError, UnreadableError."""
        return ChrootWriter(self._root.chroot(path))


def _remove_if_made(name: str, directory: int) -> None:
    """Remove what a failed staging may have left: the name is random, so that nobody else's can be meant."""
    for remove in (os.unlink, os.rmdir):
        with suppress(OSError):
            remove(name, dir_fd=directory)


def _new_file(name: str, directory: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=directory))


def _copy(source: Source, fd: int, path: str) -> tuple[os.stat_result, str]:
    """Write a source's contents, once more where they changed meanwhile; gives its status and checksum."""
    import hashlib

    for _ in range(ATTEMPTS):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        before = os.fstat(source.fileno())
        digest = hashlib.sha256()
        for chunk in [source.data] if source.data is not None else contents.chunks(source.fileno()):
            digest.update(chunk)
            _write(fd, chunk)
        after = os.fstat(source.fileno())
        if contents.identity(before) == contents.identity(after):
            return after, digest.hexdigest()
    raise RepairError(path, f"{source.path} keeps changing while it is read; run check --fix once it is quiet")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _dress(fd: int, want: State) -> None:
    """Give an open inode its owner and mode, in this order: chown(2) may clear mode bits."""
    os.fchown(fd, _number(want.uid), _number(want.gid))
    if want.mode is not None:
        os.fchmod(fd, want.mode)


def _number(number: int | None) -> int:
    return -1 if number is None else number


def _copy_label(staged: Staged, fd: int) -> None:
    """Carry over the SELinux label of what is replaced; where there is no SELinux there is none."""
    with suppress(OSError):
        old = os.open(staged.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.directory.fd)
        try:
            os.setxattr(fd, LABEL, os.getxattr(f"/proc/self/fd/{old}", LABEL))
        finally:
            os.close(old)


def _is(status: os.stat_result, state: State) -> bool:
    """Whether a status is of the inode that was seen, unchanged; a rename itself may change the ctime."""
    return (
        state.identity is not None
        and contents.identity(status)[:4] == state.identity[:4]
        and _same_metadata(state_of(status), state)
    )


def _same_metadata(one: State, other: State) -> bool:
    return (one.type, one.mode, one.uid, one.gid) == (other.type, other.mode, other.uid, other.gid)


def _put_new(staged: Staged) -> bool:
    """Give a staged inode its name, which must be free; false where the file system knows no NOREPLACE."""
    fd = staged.directory.fd
    try:
        kernel.rename(fd, staged.temporary, staged.name, kernel.NOREPLACE)
    except OSError as error:
        if error.errno not in kernel.UNSUPPORTED:
            raise
        os.link(staged.temporary, staged.name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        os.unlink(staged.temporary, dir_fd=fd)
        return False
    return True


def _exchange(staged: Staged) -> bool:
    """Swap the two names; false where the file system knows no EXCHANGE.

    Without it the old inode keeps a second name while the new one is renamed over it, so that the target is whole at
    every moment.
    """
    fd = staged.directory.fd
    try:
        kernel.rename(fd, staged.temporary, staged.name, kernel.EXCHANGE)
    except OSError as error:
        if error.errno not in kernel.UNSUPPORTED:
            raise
        old = f"{staged.temporary}-old"
        os.link(staged.name, old, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        os.rename(staged.temporary, staged.name, src_dir_fd=fd, dst_dir_fd=fd)
        os.rename(old, staged.temporary, src_dir_fd=fd, dst_dir_fd=fd)
        return False
    return True
