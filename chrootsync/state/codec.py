"""Between the words of the model and what a row of the database can hold.

Paths are bytes there, because names need not be text. Other text is ASCII with JSON's escapes, so that any string
survives. What comes back is checked: a bit that a disk has turned must not get further than GarbledError.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

from chrootsync.model import FileType, Kind, Outcome, Reload, State, Status
from chrootsync.model.memory import Change

CHANGE_COLUMNS = "instance, chroot, path, source, rule, kind, package, before, after, status, reason, kept"
CHANGE_VALUES = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"

T = TypeVar("T", int, str, bool)
Word = TypeVar("Word", bound=StrEnum)


class GarbledError(Exception):
    """Something in the database makes no sense."""


# --- Text and numbers ---------------------------------------------------------------------------------------------


def path_out(path: str) -> bytes:
    """A path as the kernel gets it. What it cannot get, and so is nowhere, has some bytes too."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def path_in(value: object) -> str:
    """The path of a column. Raises GarbledError."""
    if not isinstance(value, bytes):
        raise GarbledError
    return os.fsdecode(value)


def text_out(text: str) -> str:
    """Any string as ASCII."""
    return json.dumps(text)[1:-1]


def text_in(value: object) -> str:
    """The string of a column. Raises GarbledError."""
    return _exactly(str, _loads(f'"{value}"') if isinstance(value, str) else None)


def number_in(value: object) -> float:
    """The number of a column. Raises GarbledError."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise GarbledError
    return float(value)


def integer_in(value: object) -> int:
    """The integer of a column. Raises GarbledError."""
    return _exactly(int, value)


def integers_out(values: Sequence[int]) -> str:
    """Integers of any size: inode numbers may be larger than what SQLite knows."""
    return json.dumps(list(values))


def integers_in(value: object) -> tuple[int, ...]:
    """The integers of a column. Raises GarbledError."""
    return tuple(_exactly(int, one) for one in _list(_loads(value)))


def pair_out(pair: tuple[int, int] | None) -> str | None:
    """A device and an inode number."""
    return None if pair is None else integers_out(pair)


def pair_in(value: object) -> tuple[int, int] | None:
    """The pair of a column. Raises GarbledError."""
    return None if value is None else _pair(_loads(value))


def _pair(value: object) -> tuple[int, int]:
    numbers = [_exactly(int, one) for one in _list(value)]
    if len(numbers) != 2:
        raise GarbledError
    return numbers[0], numbers[1]


def _loads(value: object) -> Any:
    if not isinstance(value, str):
        raise GarbledError
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise GarbledError from None


def _exactly(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise GarbledError
    return value


def _maybe(kind: type[T], value: object) -> T | None:
    return None if value is None else _exactly(kind, value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise GarbledError
    return value


def _fields(value: object) -> dict[str, Any]:
    fields = _loads(value)
    if not isinstance(fields, dict):
        raise GarbledError
    return fields


def _word(words: type[Word], value: object) -> Word:
    try:
        return words(_exactly(str, value))
    except ValueError:
        raise GarbledError from None


# --- States, outcomes, reloads ------------------------------------------------------------------------------------


def state_out(state: State | None) -> str | None:
    """A state without its identity, of which only the mtime means something later."""
    if state is None:
        return None
    fields: dict[str, object] = {
        "type": state.type,
        "mode": state.mode,
        "uid": state.uid,
        "gid": state.gid,
        "size": state.size,
        "sha256": state.sha256,
        "target": None if state.target is None else path_out(state.target).decode("utf-8", "surrogateescape"),
        "device": state.device,
        "extended": state.extended,
        "mtime": None if state.identity is None else state.identity[3],
    }
    return json.dumps({name: value for name, value in fields.items() if value not in (None, ())})


def state_in(value: object) -> State | None:
    """The state of a column. Raises GarbledError.

    Where the mtime is known, it is in the identity, all else of which is 0: it is that of no file.
    """
    if value is None:
        return None
    fields = _fields(value)
    size, mtime = _maybe(int, fields.get("size")), _maybe(int, fields.get("mtime"))
    target, device = _maybe(str, fields.get("target")), fields.get("device")
    return State(
        type=_word(FileType, fields.get("type")),
        mode=_maybe(int, fields.get("mode")),
        uid=_maybe(int, fields.get("uid")),
        gid=_maybe(int, fields.get("gid")),
        size=size,
        sha256=_maybe(str, fields.get("sha256")),
        target=None if target is None else os.fsdecode(_bytes(target)),
        device=None if device is None else _pair(device),
        identity=None if mtime is None else (0, 0, size or 0, mtime, 0),
        extended=tuple(_exactly(str, one) for one in _list(fields.get("extended", []))),
    )


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise GarbledError from None


def reload_out(reload: Reload) -> str:
    """What a reload was."""
    fields = {
        "needed": reload.needed,
        "done": reload.done,
        "pending": reload.pending,
        "command": reload.command,
        "error": reload.error,
        "output": reload.output,
    }
    return json.dumps(fields)


def reload_in(value: object) -> Reload:
    """The reload of a column. Raises GarbledError."""
    fields = _fields(value)
    return Reload(
        needed=_exactly(bool, fields.get("needed")),
        done=_exactly(bool, fields.get("done")),
        pending=_exactly(bool, fields.get("pending")),
        command=tuple(_exactly(str, one) for one in _list(fields.get("command"))),
        error=_maybe(str, fields.get("error")),
        output=_exactly(str, fields.get("output")),
    )


def placer_out(instance: str, rule: str, since: float) -> str:
    """Who put something there: the instance that it was for, the rule, and when."""
    return json.dumps([instance, rule, since])


def placer_in(value: object) -> tuple[str, str, float]:
    """The instance, the rule and the time of a column. Raises GarbledError."""
    fields = _list(_loads(value))
    if len(fields) != 3:
        raise GarbledError
    return _exactly(str, fields[0]), _exactly(str, fields[1]), number_in(fields[2])


# --- Changes ------------------------------------------------------------------------------------------------------


def change_out(change: Change) -> tuple[object, ...]:
    """A change as CHANGE_COLUMNS; ``kept`` is the checksum that its contents are kept under."""
    return (
        text_out(change.instance),
        path_out(change.chroot),
        path_out(change.path),
        None if change.source is None else path_out(change.source),
        text_out(change.rule),
        change.kind.value,
        None if change.package is None else text_out(change.package),
        state_out(change.before),
        state_out(change.after),
        change.outcome.status.value,
        text_out(change.outcome.reason),
        _kept(change),
    )


def _kept(change: Change) -> str | None:
    """Kept contents can be found by their checksum alone."""
    if not change.kept or change.before is None or change.before.sha256 is None:
        return None
    return text_out(change.before.sha256)


def change_in(row: Sequence[object]) -> Change:
    """The change of CHANGE_COLUMNS. Raises GarbledError."""
    instance, chroot, path, source, rule, kind, package, before, after, status, reason, kept = row
    return Change(
        instance=text_in(instance),
        chroot=path_in(chroot),
        path=path_in(path),
        source=None if source is None else path_in(source),
        rule=text_in(rule),
        kind=_word(Kind, kind),
        package=None if package is None else text_in(package),
        before=state_in(before),
        after=state_in(after),
        outcome=Outcome(status=_word(Status, status), reason=text_in(reason)),
        kept=kept is not None,
    )
