"""master.cf: its text as services, as master(5) and ``postconf -M`` read it."""

from __future__ import annotations

import re
from typing import Final

from chrootsync.model.frozen import frozen
from chrootsync.providers.postfix.main_cf import SPACE, FileError, logical_lines, split_name_value

_BLANK: Final = " \t\r\n"
_FIELDS: Final = 8
_TYPES: Final = ("inet", "unix", "unix-dgram", "fifo", "pass")
_WAKEUP: Final = re.compile(r"(?:-|[0-9]*)\??")
_MAXPROC: Final = re.compile(r"-|[0-9]*")
_PLAIN_FIELDS: Final = re.compile(r"[^ \t\r\n{]+")


@frozen
class Service:
    """One service: the eight columns as they are written, and the arguments in their normal form.

    ``arguments`` has ``-o``, ``name=value`` as two items and no braces around items. ``overrides`` are the parameters
    that ``-o`` sets, unexpanded; a later one wins.
    """

    name: str
    type: str
    private: str
    unprivileged: str
    chroot: str
    wakeup: str
    maxproc: str
    command: str
    arguments: tuple[str, ...]
    overrides: dict[str, str]


def parse(text: str) -> list[Service]:
    """All services in the order of the file.

    Raises FileError.
    """
    return [_service(number, line.partition("\0")[0]) for number, line in logical_lines(text)]


def _service(number: int, line: str) -> Service:
    fields = _split(line)
    if len(fields) < _FIELDS:
        raise FileError(number, f"a service has {_FIELDS} fields, not {len(fields)}")
    _check(number, fields)
    name, kind, private, unprivileged, chroot, wakeup, maxproc, command, *rest = fields
    arguments, overrides = _arguments(number, rest)
    return Service(
        name=name,
        type=kind,
        private=private,
        unprivileged=unprivileged,
        chroot=chroot,
        wakeup=wakeup,
        maxproc=maxproc,
        command=command,
        arguments=tuple(arguments),
        overrides=overrides,
    )


def _split(line: str) -> list[str]:
    """Split at white space that is not inside braces."""
    if "{" not in line:
        return _PLAIN_FIELDS.findall(line)
    fields = []
    level = 0
    field = ""
    for part in re.split(r"([{}]|[ \t\r\n]+)", line):
        if part == "{":
            level += 1
        elif part == "}":
            level = max(level - 1, 0)
        elif level == 0 and part[:1] in _BLANK:
            if field and part:
                fields.append(field)
                field = ""
            continue
        field += part
    if field:
        fields.append(field)
    return fields


def _check(number: int, fields: list[str]) -> None:
    """Refuse what the master would refuse in the columns."""
    if fields[1] not in _TYPES:
        raise FileError(number, f'the type "{fields[1]}" is none of {", ".join(_TYPES)}')
    for column, value in zip(("private", "unprivileged", "chroot"), fields[2:5], strict=True):
        if value not in ("y", "n", "-"):
            raise FileError(number, f'the {column} field "{value}" is none of y, n, -')
    if not _WAKEUP.fullmatch(fields[5]):
        raise FileError(number, f'the wakeup field "{fields[5]}" is no number of seconds')
    if not _MAXPROC.fullmatch(fields[6]):
        raise FileError(number, f'the maxproc field "{fields[6]}" is no number')


def _arguments(number: int, fields: list[str]) -> tuple[list[str], dict[str, str]]:
    """Bring daemon arguments into their normal form, and collect what ``-o`` sets."""
    arguments: list[str] = []
    overrides: dict[str, str] = {}
    pending = fields[::-1]
    while pending and pending[-1].startswith("-") and pending[-1] != "--":
        option = pending.pop()
        flags, found, value = option[1:].partition("o")
        if flags:
            arguments.append(f"-{flags}")
        if not found:
            if not flags:
                arguments.append(option)
            continue
        if not value and not pending:
            raise FileError(number, '"-o" is followed by nothing')
        setting = value or pending.pop()
        if setting.startswith("{"):
            setting = _unbraced(number, setting)
        pair = split_name_value(setting)
        if pair is None:
            raise FileError(number, f'"-o {setting[:40]}" is not of the form -o name=value')
        arguments += ("-o", "=".join(pair))
        overrides[pair[0]] = pair[1]
    for field in reversed(pending):
        arguments.append(_unbraced(number, field) if field.startswith("{") else field)
    return arguments, overrides


def _unbraced(number: int, field: str) -> str:
    """The text inside ``{ ... }`` without the white space around it."""
    level = 0
    for position, character in enumerate(field):
        level += (character == "{") - (character == "}")
        if level == 0:
            if position + 1 < len(field):
                raise FileError(number, f'there is text after the closing brace of "{field[:40]}"')
            return field[1:-1].strip(SPACE)
    raise FileError(number, f'"{field[:40]}" lacks a closing brace')
