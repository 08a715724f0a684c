"""Expands ``$name`` in Postfix parameter values as mac_expand(3) and mac_parse(3) of Postfix do.

What is understood: ``$name``, ``${name}``, ``$(name)``, ``${name?text}``, ``${name:text}``, ``${name?{text}:{text}}``,
``${{text} == {text} ? {text} : {text}}`` with the operators of postconf(5), their ``level`` forms, and ``$$``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from chrootsync.model import ChrootsyncError

Lookup = Callable[[str], "str | None"]

# Postfix gives up at the same depth.
_MAX_DEPTH: Final = 100
# Characters that one expansion may look at: values that double themselves would otherwise take for ever.
_MAX_WORK: Final = 1_000_000
_LONG_MAX: Final = (1 << 63) - 1
_SPACE: Final = " \t\r\n"

_BRACES: Final = re.compile(r"[{}]")
_PARENTHESES: Final = re.compile(r"[()]")
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_NAME_TEST: Final = re.compile(r"([A-Za-z0-9_]*)[ \t\r\n]*(?:([?:])|\Z)")
_OPERATOR: Final = re.compile(r"([<>!=?+\-*/~&|%]*)([A-Za-z0-9]*)")
_DIGITS: Final = re.compile(r"[0-9]+")
_LEVEL_PART: Final = re.compile(r"[ \t\r\n\v\f]*\+?([0-9]{1,18})")

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">=": operator.ge,
    ">": operator.gt,
}


class ExpansionError(ChrootsyncError):
    """A value that Postfix cannot expand either: a loop, or wrong syntax."""


def expand(text: str, lookup: Lookup, name: str = "") -> str:
    """Expand a value; ``lookup`` gives the unexpanded value of a parameter, ``name`` is the parameter of ``text``.

    Raises ExpansionError.
    """
    return _Expansion(lookup).expand(text, (name,) if name else (), 0)


def compatibility_level(text: str) -> tuple[int, int, int]:
    """A compatibility level as comparable numbers: ``3.6`` is (3, 6, 0), and less than ``3.10``.

    Raises ExpansionError.
    """
    parts = [_LEVEL_PART.fullmatch(part) for part in text.split(".", 3)]
    numbers = [int(part[1]) for part in parts if part]
    if len(numbers) != len(parts) or len(parts) > 3 or any(number > 1023 for number in numbers[1:]):
        raise ExpansionError(f'the compatibility level "{text}" is not of the form 3.6')
    major, minor, patch = (*numbers, 0, 0)[:3]
    return major, minor, patch


class _Expansion:
    """One expansion with its remaining allowance of work."""

    __slots__ = ("_lookup", "_work")

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._work = _MAX_WORK

    def expand(self, text: str, active: tuple[str, ...], depth: int) -> str:
        """Expand ``text``, which the parameters ``active`` led to."""
        self._work -= 1 + len(text)
        if self._work < 0:
            raise ExpansionError("it expands to more than a million characters")
        if depth > _MAX_DEPTH:
            raise ExpansionError(f"it is nested more than {_MAX_DEPTH} levels deep")
        dollar = text.find("$")
        if dollar < 0:
            return text
        result = []
        start = 0
        while dollar >= 0:
            result.append(text[start:dollar])
            body, start = _reference(text, dollar)
            result.append("$" if body is None else self._macro(body, active, depth + 1))
            dollar = text.find("$", start)
        result.append(text[start:])
        return "".join(result)

    def _macro(self, body: str, active: tuple[str, ...], depth: int) -> str:
        """What stands for the text between the braces of ``${...}``."""
        body = body.lstrip(_SPACE)
        if body.startswith("{"):
            value: str | None
            value, rest = self._relation(body, active, depth)
            name = ""
        else:
            match = _NAME_TEST.match(body)
            if match is None:
                raise ExpansionError(f'"{body[:40]}" is no parameter name')
            name = match[1]
            value = self._lookup(name)
            rest = body[match.end(1) :].lstrip(_SPACE)
        if rest:
            return self._choose(rest, bool(value), active, depth)
        if not value or not name:
            return value or ""
        if name in active:
            chain = " → ".join((*active[active.index(name) :], name))
            raise ExpansionError(f"it refers to itself ({chain})")
        return self.expand(value, (*active, name), depth)

    def _choose(self, rest: str, truth: bool, active: tuple[str, ...], depth: int) -> str:  # noqa: FBT001 - internal
        """The text of ``?{yes}:{no}``, ``?yes`` or ``:no`` that holds; the other one is not looked at."""
        result = ""
        if rest[0] == "?":
            text, rest = _operand(rest[1:])
            if truth:
                result = self.expand(text, active, depth)
            if not rest:
                return result
        if rest[0] != ":":
            raise ExpansionError(f'"?" or ":" is expected before "{rest[:40]}"')
        text, rest = _operand(rest[1:])
        if not truth:
            result = self.expand(text, active, depth)
        if rest:
            raise ExpansionError(f'unexpected "{rest[:40]}"')
        return result

    def _relation(self, body: str, active: tuple[str, ...], depth: int) -> tuple[str, str]:
        """``true`` or nothing for ``{a} == {b}``, and what follows."""
        left, rest = _braced(body)
        match = _OPERATOR.match(rest)
        symbol, suffix = match.groups() if match else ("", "")
        compare = _OPERATORS.get(symbol)
        if compare is None or suffix not in ("", "level"):
            raise ExpansionError(f'a comparison such as "==" is expected before "{rest[:40]}"')
        rest = rest[len(symbol) + len(suffix) :].lstrip(_SPACE)
        if not rest.startswith("{"):
            raise ExpansionError(f'"{{" is expected before "{rest[:40]}"')
        right, rest = _braced(rest)
        operands = self.expand(left, active, depth), self.expand(right, active, depth)
        a, b = (_level if suffix else _plain)(*operands)
        return "true" if compare(a, b) else "", rest


def _reference(text: str, dollar: int) -> tuple[str | None, int]:
    """What the ``$`` at ``dollar`` refers to (None: it is ``$$``), and where the text goes on."""
    follows = text[dollar + 1 : dollar + 2]
    if follows == "$":
        return None, dollar + 2
    if follows and follows in "{(":
        end = _closing(text, dollar + 1)
        if end < 0:
            raise ExpansionError(f'"{text[dollar : dollar + 40]}" lacks its closing brace')
        body = text[dollar + 2 : end]
        end += 1
    else:
        match = _NAME.match(text, dollar + 1)
        body = match[0] if match else ""
        end = dollar + 1 + len(body)
    if not body:
        raise ExpansionError(f'"{text[dollar : dollar + 40]}" has a "$" without a parameter name (a plain "$" is "$$")')
    return body, end


def _closing(text: str, start: int) -> int:
    """Where the brace or parenthesis at ``start`` is closed; -1: nowhere. Only its own kind is counted."""
    opening = text[start]
    level = 0
    for match in (_BRACES if opening == "{" else _PARENTHESES).finditer(text, start):
        level += 1 if match[0] == opening else -1
        if level == 0:
            return match.start()
    return -1


def _braced(text: str) -> tuple[str, str]:
    """What is inside the braces that ``text`` begins with, and what follows them and white space."""
    end = _closing(text, 0)
    if end < 0:
        raise ExpansionError(f'"{text[:40]}" lacks a closing brace')
    return text[1:end], text[end + 1 :].lstrip(_SPACE)


def _operand(text: str) -> tuple[str, str]:
    """The text after ``?`` or ``:``, in braces or up to the end, and what follows."""
    stripped = text.lstrip(_SPACE)
    return _braced(stripped) if stripped.startswith("{") else (text, "")


def _plain(left: str, right: str) -> tuple[object, object]:
    """Numbers where both operands are, else bytes as strcmp(3) compares them."""
    if _DIGITS.fullmatch(left) and _DIGITS.fullmatch(right):
        # int() refuses very long text, and Postfix what does not fit a long.
        numbers = [int(text) if len(text) <= 40 else _LONG_MAX + 1 for text in (left, right)]
        if max(numbers) > _LONG_MAX:
            raise ExpansionError("a number is too large")
        return numbers[0], numbers[1]
    return left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape")


def _level(left: str, right: str) -> tuple[object, object]:
    return compatibility_level(left), compatibility_level(right)
