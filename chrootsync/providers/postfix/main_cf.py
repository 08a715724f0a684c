"""main.cf: its text as parameters, and parameters as values that are expanded when they are asked for."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterator, Mapping
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

_REFERENCE: Final = re.compile(r"\$([A-Za-z0-9_]+)")
_USED: Final = re.compile(r"\$[{(]?[ \t\n\v\f\r]*([A-Za-z0-9_]+)")


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

    __slots__ = ("_all", "_below", "_expanded", "_layers", "_referrers")

    def __init__(self, *layers: Mapping[str, str], below: Parameters | None = None) -> None:
        """``below`` are the parameters that the last of the layers come from."""
        self._layers = layers
        self._below = below
        self._expanded: dict[str, str] = {}
        self._all: dict[str, str] | None = None
        self._referrers: dict[str, list[str]] | None = None

    def overlaid(self, *layers: Mapping[str, str]) -> Parameters:
        """These parameters below other layers."""
        return Parameters(*layers, *self._layers, below=self)

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
                value = self._expand(name, value)
            self._expanded[name] = value
        return value

    def _expand(self, name: str, value: str) -> str:
        # Many defaults are another parameter's value and nothing else, which need not be parsed.
        reference = _REFERENCE.fullmatch(value)
        if reference is not None and reference[1] not in _RAW:
            known = self._expanded.get(reference[1], self.raw(reference[1]))
            if known is None or "$" not in known:
                return known or ""
        try:
            return expand(value, self.raw, name)
        except ExpansionError as error:
            raise ExpansionError(f"the value of {name} cannot be expanded: {error}") from None

    def __getitem__(self, name: str) -> str:
        raw = self.raw(name)
        if raw is None:
            raise KeyError(name)
        try:
            return self.expanded(name)
        except ExpansionError:
            return raw

    def __contains__(self, name: object) -> bool:
        return any(name in layer for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter({name: None for layer in self._layers for name in layer})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[str, str]:
        """All names with their values, expanded once; a daemon's own are few, the others are those of its instance."""
        if self._all is None:
            if self._below is None:
                # Most defaults are what they are.
                raw = {name: value for layer in reversed(self._layers) for name, value in layer.items()}
                self._all = {name: self[name] if "$" in raw[name] else raw[name] for name in self}
            else:
                self._all = dict(self._below.items())
                self._all.update((name, self[name]) for name in self._changed(self._below))
        return self._all.items()

    def _changed(self, below: Parameters) -> set[str]:
        """The names whose values are, or hang on, what lies above the parameters below."""
        changed: set[str] = set()
        pending = [*self._own()]
        while pending:
            name = pending.pop()
            if name not in changed:
                changed.add(name)
                pending += below.referring(name)
        return {name for name in changed if name in self}

    def _own(self) -> dict[str, None]:
        """The names in the layers above the parameters below."""
        layers = self._layers if self._below is None else self._above(self._below)
        return {name: None for layer in layers for name in layer}

    def _above(self, below: Parameters) -> tuple[Mapping[str, str], ...]:
        return self._layers[: len(self._layers) - len(below._layers)]

    def referring(self, name: str) -> list[str]:
        """The parameters in whose values a name occurs, or in what they were below."""
        if self._referrers is None:
            self._referrers = {}
            for own in self._own():
                for used in _USED.findall(self.raw(own) or ""):
                    self._referrers.setdefault(used, []).append(own)
        below = [] if self._below is None else self._below.referring(name)
        return [*self._referrers.get(name, ()), *below]
