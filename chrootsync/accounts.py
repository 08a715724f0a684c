"""passwd(5) and group(5) texts: names for numbers, numbers for names, and copies without password fields."""

from __future__ import annotations

from collections.abc import Mapping

from chrootsync.model import PathError, Reader, Source

LIMIT = 64 << 20  # bytes: a million accounts, but no disk

DIGITS = 10
NOBODY = 0xFFFF_FFFF


def numbers(text: bytes) -> dict[str, int]:
    """User or group names with their numbers; malformed lines are passed over, of two alike the first counts."""
    found: dict[str, int] = {}
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3 and fields[0] and _is_number(fields[2]):
            found.setdefault(fields[0].decode("utf-8", "surrogateescape"), int(fields[2]))
    return found


def _is_number(field: bytes) -> bool:
    """Whether a field is a number that can own a file: 32 bits, and the largest means nobody (chown(2))."""
    return field.isdigit() and len(field) <= DIGITS and int(field) < NOBODY


def known(root: Reader, path: str) -> dict[str, int]:
    """The names that an account file of a root gives numbers to; none where it cannot be read."""
    try:
        return numbers(root.read(path, limit=LIMIT))
    except PathError:
        return {}


def hide_passwords(source: Source) -> None:
    """Let an account file stand without its password fields: what is compared is what is copied.

    Raises UnreadableError.
    """
    source.stand_in(without_passwords(source.contents(LIMIT)))


def names(by_name: Mapping[str, int]) -> dict[int, str]:
    """The numbers with their names; of two alike the first counts."""
    found: dict[int, str] = {}
    for name, number in by_name.items():
        found.setdefault(number, name)
    return found


def without_passwords(text: bytes) -> bytes:
    """The same text with ``x`` for every password field, so that no hash reaches a chroot."""
    return b"\n".join(_without_password(line) for line in text.split(b"\n"))


def _without_password(line: bytes) -> bytes:
    fields = line.split(b":")
    if len(fields) >= 2:
        fields[1] = b"x"
    return b":".join(fields)
