"""main.cf: its text as parameters, and parameters as values that are expanded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from chrootsync.model import ChrootsyncError
from chrootsync.providers.postfix.expansion import ExpansionError, expand

# isspace(3) in the C locale, which all of Postfix uses.
SPACE: Final = " \t\n\v\f\r"

# Their ``$name`` is for the daemon that uses them, at the time when it delivers: postconf(1) shows them as they are.
_RAW: Final = frozenset(
    (
        "command_execution_directory",
        "default_rbl_reply",
        "forward_path",
        "luser_relay",
        "mailbox_command",
        "postscreen_expansion_filter",
        "postscreen_reject_footer",
        "smtpd_expansion_filter",
        "smtpd_reject_footer",
    )
)


class FileError(ChrootsyncError):
    """A file that Postfix would refuse: ``line`` is where, counted from 1, ``reason`` a clause."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of main.cf or master.cf with their continuation lines, each with the number of its first line.

    A line that starts with white space continues the one before, across comments and empty lines, as readllines(3) of
    Postfix has it; one that has nothing to continue is ignored.
    """
    first = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        start = line.lstrip(SPACE)
        if not start or start[0] == "#":
            continue
        if line[0] in SPACE:
            if parts:
                parts.append(line)
            continue
        if parts:
            yield first, "".join(parts)
        first = number
        parts = [line]
    if parts:
        yield first, "".join(parts)


def split_name_value(text: str) -> tuple[str, str] | None:
    """Split ``name = value``; None where there is no name or no ``=`` right after it."""
    name, equals, value = text.partition("=")
    name = name.strip(SPACE)
    if not equals or not name or any(space in name for space in SPACE):
        return None
    return name, value.strip(SPACE)


def parse(text: str) -> dict[str, str]:
    """The parameters that main.cf sets, unexpanded; a later line wins.

    Raises FileError.
    """
    parameters = {}
    for number, line in logical_lines(text):
        # Postfix is written in C: a NUL ends the line.
        pair = split_name_value(line.partition("\0")[0])
        if pair is None:
            raise FileError(number, f'"{line[:40]}" is not of the form name = value')
        parameters[pair[0]] = pair[1]
    return parameters


class Parameters(Mapping[str, str]):
    """Parameters as a daemon sees them: layers of unexpanded values, the first that has a name wins.

    A value is expanded when it is first asked for. One that Postfix could not expand is given as it is written, so that
    a parameter that nothing uses disturbs nobody; :meth:`expanded` tells.
    """

    __slots__ = ("_expanded", "_layers", "_names")

    def __init__(self, *layers: Mapping[str, str]) -> None:
        self._layers = layers
        self._expanded: dict[str, str] = {}
        self._names: dict[str, None] | None = None

    def overlaid(self, *layers: Mapping[str, str]) -> Parameters:
        """These parameters below other layers."""
        return Parameters(*layers, *self._layers)

    def raw(self, name: str) -> str | None:
        """The value as it is written; None where nothing sets the parameter and it has no default."""
        for layer in self._layers:
            value = layer.get(name)
            if value is not None:
                return value
        return None

    def expanded(self, name: str, default: str = "") -> str:
        """The value, expanded; ``default`` where nothing sets the parameter.

        Raises ExpansionError.
        """
        value = self._expanded.get(name)
        if value is None:
            value = self.raw(name)
            if value is None:
                return default
            if "$" in value and name not in _RAW:
                try:
                    value = expand(value, self.raw, name)
                except ExpansionError as error:
                    raise ExpansionError(f"the value of {name} cannot be expanded: {error}") from None
            self._expanded[name] = value
        return value

    def __getitem__(self, name: str) -> str:
        if name not in self:
            raise KeyError(name)
        try:
            return self.expanded(name)
        except ExpansionError:
            return self.raw(name) or ""

    def __contains__(self, name: object) -> bool:
        return any(name in layer for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        if self._names is None:
            self._names = {name: None for layer in self._layers for name in layer}
        return iter(self._names)

    def __len__(self) -> int:
        return sum(1 for _ in self)
