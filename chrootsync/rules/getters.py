"""Small typed getters for TOML: each knows how one kind of value is read and the JSON Schema that says the same.

A getter gives the value, or None after it has reported what is wrong at its place, so that one run collects all
mistakes of all files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "a table",
}
_LISTABLE = 24  # more names than this do not help who reads them in a message
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]*"


class Place(NamedTuple):
    """Where a value stands: a file and a key path (``rule[3].files[0]``), and where its mistakes are collected."""

    origin: str
    path: str
    problems: list[str]

    def key(self, name: str) -> Place:
        """The place of a key of the table that stands here."""
        return Place(self.origin, f"{self.path}.{name}" if self.path else name, self.problems)

    def item(self, index: int) -> Place:
        """The place of an item of the array that stands here."""
        return Place(self.origin, f"{self.path}[{index}]", self.problems)

    def report(self, what: str) -> None:
        """Collect a mistake: a clause of which the key path is the subject."""
        self.problems.append(f"{self.origin}: {self.path}: {what}" if self.path else f"{self.origin}: {what}")

    def mistyped(self, expected: str, value: object) -> None:
        """Collect that the value is of another type than ``expected`` (``an array``)."""
        self.report(f"must be {expected}, not {_TYPES.get(type(value), 'a date or time')}")


# Every start of chrootsync builds these classes and their objects, which costs named tuples a third of the time.


class Getter(NamedTuple, Generic[T]):
    """One kind of value."""

    read: Callable[[Place, object], T | None]
    schema: Mapping[str, Any]


class Key(NamedTuple):
    """One key of a table: the getter of its value, and what the JSON Schema and the reference of rules say of it.

    ``default`` is what counts where it is absent, ``example`` a value, both as TOML has them.
    """

    getter: Getter[Any]
    means: str
    required: bool = False
    default: Any = None
    example: Any = None


Keys = Mapping[str, Key]


def load(origin: str, text: str | bytes, problems: list[str]) -> tuple[Place, dict[str, Any]] | None:
    """Parse a TOML file; what it is not is reported, with line and column where they are known."""
    place = Place(origin, "", problems)
    try:
        return place, tomllib.loads(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError as error:
        place.report(f"is not UTF-8: byte {error.start} cannot be decoded")
    except RecursionError:
        place.report("is not TOML: nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and int() for numbers of more than 4300 digits
        place.report(_sentence(str(error)))
    return None


def _sentence(message: str) -> str:
    """What tomllib says (``Invalid value (at line 2, column 5)``), with the place in front."""
    found = re.fullmatch(r"(.*) \(at (.*)\)", message, re.DOTALL)
    what, where = found.groups() if found else (message, "")
    return f"is not TOML{where and f' at {where}'}: {what[:1].lower()}{what[1:]}"


def table_at(place: Place, value: object, keys: Keys, *, partial: bool = False) -> dict[str, Any] | None:
    """The values of a table that are right, by key; None where it is no table.

    Unknown, missing and wrong keys are reported; with ``partial`` no key is missed.
    """
    if not isinstance(value, dict):
        place.mistyped("a table", value)
        return None
    values = {}
    for name, item in value.items():
        if name not in keys:
            unknown_key(place, name, keys)
        elif (got := keys[name].getter.read(place.key(name), item)) is not None:
            values[name] = got
    for name, key in keys.items():
        if key.required and not partial and name not in value:
            place.key(name).report("is missing")
    return values


def tables_at(place: Place, document: Mapping[str, Any], name: str) -> list[tuple[Place, Any]]:
    """The tables of an array of tables (``[[rule]]``), each with its place; none where the key is absent."""
    value = document.get(name, [])
    if isinstance(value, list):
        return [(place.key(name).item(index), item) for index, item in enumerate(value)]
    place.key(name).report(f"must be an array of tables: write [[{name}]]")
    return []


def unknown_key(place: Place, name: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
    """Report a key that the table at ``place`` does not have."""
    place.key(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)).report(unknown(name, "key", known))


def unknown(name: str, what: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """The clause for a name that is not known, with the name that was probably meant, or all that are known."""
    from difflib import get_close_matches  # 5 ms that a file without mistakes does not pay

    close = get_close_matches(name, list(known), n=1)
    if close:
        return f'is not a known {what}; did you mean "{close[0]}"?'
    return f"is not a known {what}" + (f"; known are {', '.join(known)}" if 0 < len(known) <= _LISTABLE else "")


def text(pattern: str = "", what: str = "") -> Getter[str]:
    """A string that is not empty; with ``pattern`` one that wholly matches it, which ``what`` puts in words."""

    def read(place: Place, value: object) -> str | None:
        if not isinstance(value, str):
            place.mistyped("a string", value)
        elif not value.strip():
            place.report("must not be empty")
        elif pattern and not re.fullmatch(pattern, value):
            place.report(f"must be {what}")
        else:
            return value
        return None

    return Getter(read, {"type": "string", "pattern": f"^(?:{pattern})$" if pattern else r"\S"})


def titled(title: str, getter: Getter[T]) -> Getter[T]:
    """A getter whose values have a name of their own in the JSON Schema."""
    return getter._replace(schema={"title": title, **getter.schema})


def list_of(getter: Getter[T]) -> Getter[tuple[T, ...]]:
    """An array of at least one value."""

    def read(place: Place, value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list):
            place.mistyped("an array", value)
            return None
        if not value:
            place.report("must not be empty")
            return None
        items = [getter.read(place.item(index), item) for index, item in enumerate(value)]
        right = tuple(item for item in items if item is not None)
        return right if len(right) == len(items) else None

    return Getter(read, {"type": "array", "minItems": 1, "items": getter.schema})


def one_or_more(getter: Getter[T]) -> Getter[tuple[T, ...]]:
    """An array of at least one value, or one value by itself."""
    several = list_of(getter)

    def read(place: Place, value: object) -> tuple[T, ...] | None:
        if isinstance(value, list):
            return several.read(place, value)
        item = getter.read(place, value)
        return None if item is None else (item,)

    return Getter(read, {"anyOf": [getter.schema, several.schema]})


def table_of(keys: Keys, build: Callable[..., T]) -> Getter[T]:
    """A table of ``keys``, made into an object by ``build`` where all of it is right."""

    def read(place: Place, value: object) -> T | None:
        before = len(place.problems)
        values = table_at(place, value, keys)
        return None if values is None or len(place.problems) > before else build(**values)

    return Getter(read, object_schema(keys))


def object_schema(keys: Keys, *, partial: bool = False) -> dict[str, Any]:
    """The JSON Schema of a table."""
    properties = {name: {**key.getter.schema, **_annotations(key)} for name, key in keys.items()}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required := [name for name, key in keys.items() if key.required and not partial]:
        schema["required"] = required
    return schema


def _annotations(key: Key) -> dict[str, Any]:
    """What JSON Schema has for people: it accepts and refuses nothing."""
    told: dict[str, Any] = {"description": key.means}
    if key.default is not None:
        told["default"] = key.default
    if key.example is not None:
        told["examples"] = [key.example]
    return told


Choice = TypeVar("Choice", bound=StrEnum)


def choice(kinds: type[Choice]) -> Getter[Choice]:
    """One of the values of an enumeration."""
    values = [kind.value for kind in kinds]
    expected = f"{', '.join(map(quoted, values[:-1]))} or {quoted(values[-1])}"

    def read(place: Place, value: object) -> Choice | None:
        if not isinstance(value, str):
            place.mistyped("a string", value)
        elif value in values:
            return kinds(value)
        else:
            place.report(f"must be {expected}, not {quoted(value)}")
        return None

    return Getter(read, {"enum": values})


def quoted(value: str) -> str:
    """A string as TOML would write it, near enough for a message: on one line."""
    return f'"{repr(value)[1:-1]}"'


def number(least: int, most: int) -> Getter[float]:
    """A number between two bounds."""

    def read(place: Place, value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            place.mistyped("a number", value)
        elif not least <= value <= most:
            place.report(f"must be between {least} and {most}")
        else:
            return float(value)
        return None

    return Getter(read, {"type": "number", "minimum": least, "maximum": most})


def integer(least: int, most: int) -> Getter[int]:
    """An integer between two bounds."""

    def read(place: Place, value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            place.mistyped("an integer", value)
        elif not least <= value <= most:
            place.report(f"must be between {least} and {most}")
        else:
            return value
        return None

    return Getter(read, {"type": "integer", "minimum": least, "maximum": most})


def _read_flag(place: Place, value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    place.mistyped("a boolean", value)
    return None


def path_problem(path: str) -> str | None:
    """Why a string is no absolute path in its plainest spelling; None where it is one."""
    if not path:
        return "must not be empty"
    if "\0" in path:
        return "must not contain a NUL character"
    if not path.startswith("/"):
        return "must be absolute"
    names = path.split("/")[1:]
    if names == [""]:
        return "must not be the root itself"
    if ".." in names:
        return 'must not contain ".."'
    if "." in names or "" in names:
        return 'must be plain: no "//", no "/./", no slash at the end'
    return None


def path_getter(*, catches: bool) -> Getter[str]:
    """An absolute path that cannot escape; with ``catches``, ``$1`` stands for what a parameter's value gave."""

    def read(place: Place, value: object) -> str | None:
        if not isinstance(value, str):
            place.mistyped("a string", value)
            return None
        # What $1 stands for is absolute: a pattern that catches something else is the rule's own mistake.
        plain = f"/{value}" if catches and value.startswith("$1") else value
        problem = path_problem(plain)
        if problem is None and re.search(r"\$\d", plain.replace("$1", "") if catches else plain):
            problem = "may contain $1, no other group" if catches else "cannot contain $1"
        if problem is None:
            return value
        place.report(problem)
        return None

    plain = r"(?!.*/\.{0,2}(?:/|$))(?!.*\u0000)"
    start = r"(?:/|\$1)(?!.*\$[02-9])" if catches else r"/(?!.*\$[0-9])"
    return Getter(read, {"type": "string", "title": "absolute path", "pattern": f"^{plain}{start}"})


def _read_expression(place: Place, value: object) -> str | None:
    import warnings

    expression = TEXT.read(place, value)
    if expression is None:
        return None
    try:
        with warnings.catch_warnings():
            # A FutureWarning says that a later Python will read the expression in another way.
            warnings.simplefilter("error")
            re.compile(expression)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        place.report(f"is not a regular expression: {error}")
        return None
    return expression


TEXT = text()
NAME = titled("name", text(_NAME, "a name of letters, digits and . _ @ -"))
FLAG: Getter[bool] = Getter(_read_flag, {"type": "boolean"})
PATH = path_getter(catches=False)
CATCHING_PATH = path_getter(catches=True)
EXPRESSION: Getter[str] = Getter(_read_expression, {**TEXT.schema, "title": "regular expression", "format": "regex"})
