"""The Writer: the small steps that a repair is made of, each one atomic and each one with its way back.

Nothing is ever written or changed at its final name: a new inode is staged beside its target and swapped with it
(renameat2(2)), so that a daemon sees the whole old or the whole new thing. ``Staged`` and ``Made`` are the handles that
take a step back.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from chrootsync.model import Copy, FileType, RepairError, Source, State, clause
from chrootsync.root import contents, directories, leftovers
from chrootsync.root.directories import refuse_append_only
from chrootsync.root.dress import ACCESS_ACL, copy_label, dress, number, strip
from chrootsync.root.leftovers import Leftover
from chrootsync.root.pool import Directory, inode
from chrootsync.root.read import Root, WalkedChroot
from chrootsync.root.steps import CHANGED, LeftoverError, Made, Staged, is_compared, is_inode, is_seen, telling
from chrootsync.root.swap import exchange, put_new
from chrootsync.root.walk import NO_NAMES

ATTEMPTS = 3  # readings of a source that changes while it is copied
NO_DEVICES = (
    "making the device failed: operation not permitted (may the service that does it make none? then run chrootsync "
    "install systemd; is something here immutable? lsattr tells, chattr -ia mends)"
)


def temporary_name() -> str:
    """A name that nobody could have guessed, for what is staged."""
    return f".chrootsync-{os.urandom(6).hex()}"


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
        return directories.make(*self._parent(path), path, want)

    def change_directory(self, path: str, want: State, before: State) -> Made:
        """Give a directory the wanted metadata. Raises RepairError, PathError."""
        return directories.change(*self._parent(path), path, want, before)

    def undo_directory(self, made: Made) -> None:
        """Remove a directory that was made, or give it back its metadata; no other. Raises RepairError."""
        directories.undo(made)

    # --- Staging ---

    def stage_file(
        self,
        path: str,
        source: Source,
        want: State,
        before: State | None,
        *,
        temporary: str | None = None,
        began: Callable[[Staged], None] = lambda _staged: None,
        pause: Callable[[], None] = lambda: None,
    ) -> Staged:
        """Write a source's contents beside ``path``, dressed, read back and synced. Raises RepairError, PathError.

        ``began`` is told what to discard, should this fail and be unable to do it itself; ``pause`` is called between
        the chunks, and may raise.
        """
        staged = self._stage(path, before, temporary, _new_file)
        try:
            began(staged)
            with telling(path, "writing the new copy"):
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

    def stage_link(self, path: str, target: str, before: State | None, *, temporary: str | None = None) -> Staged:
        """Make a symbolic link beside ``path``. Raises RepairError, PathError."""
        return self._stage(path, before, temporary, lambda name, fd: os.symlink(target, name, dir_fd=fd))

    def stage_directory(self, path: str, want: State, before: State | None, *, temporary: str | None = None) -> Staged:
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

        return self._stage(path, before, temporary, make)

    def stage_device(self, path: str, want: State, before: State | None, *, temporary: str | None = None) -> Staged:
        """Make a device node beside ``path``. Raises RepairError, PathError."""
        kind = stat.S_IFCHR if want.type is FileType.CHARACTER_DEVICE else stat.S_IFBLK
        major, minor = want.device or (0, 0)

        def make(name: str, fd: int) -> None:
            try:
                os.mknod(name, kind | 0o600, os.makedev(major, minor), dir_fd=fd)
            except PermissionError:
                raise RepairError(path, NO_DEVICES) from None
            made = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                status = os.fstat(made)
                if status.st_nlink != 1 or status.st_rdev != os.makedev(major, minor):
                    raise RepairError(path, f"something else took the place of {name}")
                own = f"/proc/self/fd/{made}"  # the inode itself, whatever its name stands for by now
                os.chown(own, number(want.uid), number(want.gid))
                with suppress(OSError):
                    os.removexattr(own, ACCESS_ACL)
                os.chmod(own, want.mode or 0o600)
            finally:
                os.close(made)

        return self._stage(path, before, temporary, make)

    def stage_removal(self, path: str, before: State, *, temporary: str | None = None) -> Staged:
        """Get ready to take something away: nothing is put in its place. Raises RepairError, PathError."""
        directory, name = self._parent(path)
        with telling(path, "getting ready to remove it"):
            refuse_append_only(directory)
        return Staged(
            path=path,
            directory=directory,
            temporary=temporary or temporary_name(),
            name=name,
            inode=None,
            before=before,
        )

    def _stage(
        self, path: str, before: State | None, temporary: str | None, make: Callable[[str, int], None]
    ) -> Staged:
        directory, name = self._parent(path)
        temporary = temporary or temporary_name()
        with telling(path, "staging the new copy"):
            refuse_append_only(directory)
            try:
                make(temporary, directory.fd)
            except FileExistsError:
                raise  # somebody else's: making it is the one step that can find a name taken
            except BaseException as error:
                _remove_again(path, temporary, directory.fd, error)
                raise
            try:
                status = os.stat(temporary, dir_fd=directory.fd, follow_symlinks=False)
            except BaseException as error:
                _remove_again(path, temporary, directory.fd, error)
                raise
        return Staged(
            path=path,
            directory=directory,
            temporary=temporary,
            name=name,
            inode=inode(status),
            before=before,
        )

    def _fill(
        self, staged: Staged, source: Source, want: State, pause: Callable[[], None]
    ) -> tuple[tuple[int, int, int, int, int], str]:
        fd = os.open(staged.temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staged.directory.fd)
        try:
            own = os.fstat(fd)
            if not is_inode(own, staged.inode) or own.st_nlink != 1:
                raise RepairError(staged.path, f"something else took the place of {staged.temporary}")
            status, digest = _copy(source, fd, staged.path, pause)
            strip(fd)
            dress(fd, want)
            copy_label(staged.directory.fd, staged.name, fd)
            mtime = status.st_mtime_ns if want.mtime is None else want.mtime
            os.utime(fd, ns=(mtime, mtime))
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
        with telling(staged.path, "putting the new copy into place"):
            if staged.before is None:
                return put_new(staged.directory.fd, staged.temporary, staged.name)
            # The ctime tells even of a change whose traces were covered; once it was renamed, it tells no more.
            there = self._status(staged, staged.name)
            if there is None or not is_compared(there, staged.before):
                raise RepairError(staged.path, CHANGED)
            swap = exchange if staged.inode is not None else _take_out
            atomic = swap(staged.directory.fd, staged.temporary, staged.name)
        try:
            self._check_out(staged, staged.before)
        except BaseException:
            with telling(staged.path, "putting the old copy back"):
                back = exchange if staged.inode is not None else put_new
                back(staged.directory.fd, staged.temporary, staged.name)
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
        if staged.inode is None:
            self._give_back(staged)
            return
        with telling(staged.path, "putting the old copy back"):
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

    def _give_back(self, staged: Staged) -> None:
        """Give what was taken out its name again, if it was."""
        with telling(staged.path, "putting the old copy back"):
            beside = self._status(staged, staged.temporary)
            if beside is not None and staged.before is not None and is_seen(beside, staged.before):
                put_new(staged.directory.fd, staged.temporary, staged.name)

    def discard(self, staged: Staged) -> None:
        """Remove a staged inode that was not put, and nothing else. Raises RepairError."""
        status = self._status(staged, staged.temporary)
        if status is not None and staged.inode is not None and is_inode(status, staged.inode):
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
        directories.sync(directory)

    def clear(self, leftover: Leftover, keep: Callable[[Copy], str | None]) -> bool:
        """Remove what a step of a repair that was cut short left; whether it had been taken. Raises PathError."""
        return leftovers.clear(self._chroot, leftover, keep)

    def _remove(self, staged: Staged, status: os.stat_result) -> None:
        with telling(staged.path, f"removing {staged.temporary}"):
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(staged.temporary, dir_fd=staged.directory.fd)
            else:
                os.unlink(staged.temporary, dir_fd=staged.directory.fd)

    def _status(self, staged: Staged, name: str) -> os.stat_result | None:
        with telling(staged.path, f"looking at {name}"):
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
        return ChrootWriter(self._root.chroot_anew(path))


def _remove_again(path: str, temporary: str, directory: int, error: BaseException) -> None:
    """Remove what a failed staging may have left: the name is random, so that nobody else's can be meant.

    Raises LeftoverError where it stays.
    """
    try:
        status = os.stat(temporary, dir_fd=directory, follow_symlinks=False)
        remove = os.rmdir if stat.S_ISDIR(status.st_mode) else os.unlink
        remove(temporary, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as second:
        reason = f"staging the new copy failed: {_clause(error)}; removing {temporary} again failed too"
        raise LeftoverError(path, f"{reason}: {_clause(second)}") from None


def _clause(error: BaseException) -> str:
    return clause(error) if isinstance(error, OSError) else (str(error) or "interrupted").lower()


def _take_out(fd: int, temporary: str, name: str) -> bool:
    return put_new(fd, name, temporary)


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
        _refuse_without_room(fd, before.st_size)
        digest = hashlib.sha256()
        limit = before.st_size + 1  # what grows for ever is not read for ever
        for chunk in [source.data] if source.data is not None else contents.chunks(source.fileno(), limit):
            pause()
            digest.update(chunk)
            _write(fd, chunk)
        after = os.fstat(source.fileno())
        if contents.identity(before) == contents.identity(after):
            return after, digest.hexdigest()
    raise RepairError(path, f"{source.path} keeps changing while it is read; run check --fix once it is quiet")


def _refuse_without_room(fd: int, size: int) -> None:
    """Raise OSError where a file would fill the file system to the brim, before it does so for a moment."""
    room = os.fstatvfs(fd)
    if size > room.f_bfree * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
