"""The system calls that Python lacks: renameat2(2), through the C library or by number."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

NOREPLACE = 1
EXCHANGE = 2

# System call numbers of renameat2 for a C library without the wrapper (musl before 1.2.6).
NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347, "armv7l": 382, "i686": 353}

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


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
