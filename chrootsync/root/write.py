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

from chrootsync.model import Copy, FileType, RepairError, Source, State
from chrootsync.root import contents, kernel
from chrootsync.root.dress import ACCESS_ACL, access_acl, copy_label, dress, number, strip
from chrootsync.root.read import Root, WalkedChroot
from chrootsync.root.steps import Made, Staged, is_directory_of, is_inode, is_seen, refuse_another
from chrootsync.root.swap import exchange, put_new
from chrootsync.root.walk import NO_NAMES, Directory

DRESSING = "setting the directory's mode and owner"
CHANGED = "it was changed after it was compared; run check --fix once more"
ATTEMPTS = 3  # readings of a source that changes while it is copied


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
            _refuse_append_only(parent)
            os.mkdir(name, 0o700, dir_fd=parent.fd)
            try:
                status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            except BaseException:
                os.rmdir(name, dir_fd=parent.fd)
                raise
        made = Made(path=path, parent=parent, name=name, inode=(status.st_dev, status.st_ino), before=None)
        try:
            with _telling(path, DRESSING), self._open_directory(path) as fd:
                strip(fd)
                dress(fd, want)
                os.fsync(fd)
        except BaseException:
            self.undo_directory(made)
            raise
        return made

    def change_directory(self, path: str, want: State, before: State) -> Made:
        """Give a directory the wanted metadata. Raises RepairError.

        A directory has one name only, so that its inode can be changed where it is: there is no host file behind it.
        """
        parent, name = self._parent(path)
        with _telling(path, DRESSING), self._open_directory(path) as fd:
            status = os.fstat(fd)
            if not is_directory_of(status, before):
                raise RepairError(path, CHANGED)
            inode = (status.st_dev, status.st_ino)
            made = Made(path=path, parent=parent, name=name, inode=inode, before=before, acl=access_acl(fd))
            try:
                with suppress(OSError):
                    os.removexattr(fd, ACCESS_ACL)
                dress(fd, want)
                os.fsync(fd)
            except BaseException:
                _undress(fd, made)
                raise
        return made

    def undo_directory(self, made: Made) -> None:
        """Remove a directory that was made, or give it back its metadata; no other. Raises RepairError."""
        if made.before is not None:
            with _telling(made.path, DRESSING), self._open_directory(made.path) as fd:
                refuse_another(made, os.fstat(fd))
                _undress(fd, made)
            return
        with _telling(made.path, "removing the directory again"):
            try:
                status = os.stat(made.name, dir_fd=made.parent.fd, follow_symlinks=False)
            except FileNotFoundError:
                return
            refuse_another(made, status)
            os.rmdir(made.name, dir_fd=made.parent.fd)

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

    def stage_file(
        self,
        path: str,
        source: Source,
        want: State,
        before: State | None,
        *,
        began: Callable[[Staged], None] = lambda _staged: None,
        pause: Callable[[], None] = lambda: None,
    ) -> Staged:
        """Write a source's contents beside ``path``, dressed, read back and synced. Raises RepairError, PathError.

        ``began`` is told what to discard, should this fail and be unable to do it itself; ``pause`` is called between
        the chunks, and may raise.
        """
        staged = self._stage(path, before, _new_file)
        try:
            began(staged)
            with _telling(path, "writing the new copy"):
                seen, digest = self._fill(staged, source, want, pause)
        except BaseException:
            with suppress(RepairError):
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
                strip(made)
                dress(made, want)
                os.fsync(made)
            finally:
                os.close(made)

        return self._stage(path, before, make)

    def stage_device(self, path: str, want: State, before: State | None) -> Staged:
        """Make a device node beside ``path``. Raises RepairError, PathError."""
        kind = stat.S_IFCHR if want.type is FileType.CHARACTER_DEVICE else stat.S_IFBLK
        major, minor = want.device or (0, 0)

        def make(name: str, fd: int) -> None:
            os.mknod(name, kind | 0o600, os.makedev(major, minor), dir_fd=fd)
            os.chown(name, number(want.uid), number(want.gid), dir_fd=fd, follow_symlinks=False)
            with suppress(OSError):
                os.removexattr(f"/proc/self/fd/{fd}/{name}", ACCESS_ACL, follow_symlinks=False)
            # fchmodat(2) follows links, but this name was made exclusively in a directory that only root can change.
            os.chmod(name, want.mode or 0o600, dir_fd=fd)

        return self._stage(path, before, make)

    def _stage(self, path: str, before: State | None, make: Callable[[str, int], None]) -> Staged:
        directory, name = self._parent(path)
        temporary = f".chrootsync-{secrets.token_hex(6)}"
        with _telling(path, "staging the new copy"):
            _refuse_append_only(directory)
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

    def _fill(
        self, staged: Staged, source: Source, want: State, pause: Callable[[], None]
    ) -> tuple[tuple[int, int, int, int, int], str]:
        fd = os.open(staged.temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.directory.fd)
        try:
            status, digest = _copy(source, fd, staged.path, pause)
            strip(fd)
            dress(fd, want)
            copy_label(staged.directory.fd, staged.name, fd)
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
                return put_new(staged.directory.fd, staged.temporary, staged.name)
            # The ctime tells even of a change whose traces were covered; once it was renamed, it tells no more.
            there = self._status(staged, staged.name)
            if there is None or contents.identity(there) != staged.before.identity:
                raise RepairError(staged.path, CHANGED)
            atomic = exchange(staged.directory.fd, staged.temporary, staged.name)
        try:
            self._check_out(staged, staged.before)
        except BaseException:
            with _telling(staged.path, "putting the old copy back"):
                exchange(staged.directory.fd, staged.temporary, staged.name)
            raise
        return atomic

    def _check_out(self, staged: Staged, before: State) -> None:
        came_out = self._status(staged, staged.temporary)
        if came_out is None or not is_seen(came_out, before):
            raise RepairError(staged.path, CHANGED)

    def take_back(self, staged: Staged) -> None:
        """Undo ``put``, if it did anything: the target is what it was.

        Raises RepairError, also where the target is not what was put any more.
        """
        with _telling(staged.path, "putting the old copy back"):
            there, beside = self._status(staged, staged.name), self._status(staged, staged.temporary)
            if not is_inode(there, staged.inode):
                if is_inode(beside, staged.inode):
                    return  # it was not put, or has been taken back already
                kept = "" if staged.before is None else f"; what stood here before is kept as {staged.temporary}"
                raise RepairError(staged.path, f"it was changed after it was repaired, and is left alone{kept}")
            if staged.before is None and is_inode(beside, staged.inode):
                os.unlink(staged.name, dir_fd=staged.directory.fd)  # it has both names, halfway to being put by a link
            elif staged.before is None:
                os.rename(staged.name, staged.temporary, src_dir_fd=staged.directory.fd, dst_dir_fd=staged.directory.fd)
            else:
                exchange(staged.directory.fd, staged.temporary, staged.name)

    def discard(self, staged: Staged) -> None:
        """Remove a staged inode that was not put, and nothing else. Raises RepairError."""
        status = self._status(staged, staged.temporary)
        if status is not None and is_inode(status, staged.inode):
            self._remove(staged, status)

    def finish(self, staged: Staged) -> None:
        """Remove what a swap took out. Raises RepairError."""
        if staged.before is None:
            return
        status = self._status(staged, staged.temporary)
        if status is not None and is_seen(status, staged.before):
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
        with _telling(staged.path, f"looking at {name}"):
            try:
                return os.stat(name, dir_fd=staged.directory.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def _parent(self, path: str) -> tuple[Directory, str]:
        head, name = os.path.split(path)
        if name in NO_NAMES:
            raise RepairError(path, "does not end in a name that could be replaced")
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


def _refuse_append_only(directory: Directory) -> None:
    """What is staged in an append-only directory could be neither put nor removed again."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        if kernel.append_only(fd):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    finally:
        os.close(fd)


def _new_file(name: str, directory: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=directory))


def _copy(source: Source, fd: int, path: str, pause: Callable[[], None]) -> tuple[os.stat_result, str]:
    """Write a source's contents, once more where they changed meanwhile; gives its status and checksum."""
    import hashlib

    for _ in range(ATTEMPTS):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        before = os.fstat(source.fileno())
        digest = hashlib.sha256()
        for chunk in [source.data] if source.data is not None else contents.chunks(source.fileno()):
            pause()
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


def _undress(fd: int, made: Made) -> None:
    """Give a directory back its owner, its mode and its ACL."""
    if made.before is not None:
        dress(fd, made.before)
    if made.acl is not None:
        os.setxattr(fd, ACCESS_ACL, made.acl)
    os.fsync(fd)
