"""What Python lacks of the kernel: renameat2(2), through the C library or by number, and the flags of chattr(1)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
from functools import cache

NOREPLACE = 1
EXCHANGE = 2

# System call numbers of renameat2 for a C library without the wrapper (musl before 1.2.6).
NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347, "armv7l": 382, "i686": 353}

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


# FS_IOC_GETFLAGS of ioctl_iflags(2), whose number holds the size of a long, and in some places another direction.
GETFLAGS = 0x40006601 if os.uname().machine.startswith(("ppc", "mips", "sparc")) else 0x80006601
APPEND_ONLY = 0x20


def append_only(fd: int) -> bool:
    """Whether names can be added to an open directory, but never renamed or removed (chattr +a)."""
    flags = bytearray(ctypes.sizeof(ctypes.c_long))
    try:
        fcntl.ioctl(fd, GETFLAGS | len(flags) << 16, flags)
    except OSError:
        return False  # the file system knows no flags
    return bool(int.from_bytes(flags[:4], sys.byteorder) & APPEND_ONLY)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def rename(directory: int, old: str, new: str, flags: int) -> None:
    """Rename within one directory with NOREPLACE or EXCHANGE. Raises OSError, UNSUPPORTED where unknown."""
    libc = _libc()
    arguments = (
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(old)),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(new)),
        ctypes.c_uint(flags),
    )
    if hasattr(libc, "renameat2"):
        result = libc.renameat2(*arguments)
    elif (number := NUMBERS.get(os.uname().machine)) is not None:
        result = libc.syscall(ctypes.c_long(number), *arguments)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), new)
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), new)
