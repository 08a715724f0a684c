"""The sentences in a program's text, and in its tests': what it can say, and what they hold it to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HOLE = "\0"
"""Stands for what is filled in."""
WORDY = re.compile(r"[A-Za-z]{2,}['\"]?[,;:]? \(?[a-z]+")
"""What at least two words make: by itself one is a name, not something that is said."""
LETTERS = re.compile(r"[A-Za-z]{2}")
SQL = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|PRAGMA|ATTACH|BEGIN|COMMIT|ROLLBACK)\b")
STYLE = re.compile(r"(bold|dim) \w+")
"""What rich takes for a style."""
ELSEWHERE = {
    "Option": "test_readme.py holds --help to the README",
    "Argument": "test_readme.py holds --help to the README",
    "Typer": "test_readme.py holds --help to the README",
    "Key": "what a key is for is in the JSON Schema and the reference that is made from it",
    "compile": "a regular expression says nothing",
    "say": "progress, which is gone as soon as there is something to report",
}
"""Calls whose texts are no messages, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A text of the program with holes."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text.replace(HOLE, '{}')}"


class Proof:
    """Texts that belong together: those of a test function, of what a test module holds besides, of a golden file."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    @cached_property
    def _whole(self) -> str:
        return "\n".join(self._texts)

    @cached_property
    def _lines(self) -> list[str]:
        return self._whole.split("\n")

    def holds_to(self, text: str) -> bool:
        """Whether all that is written in a line of the program stands here, in one line or piece by piece.

        Piece by piece, since a test may write what it expects as f"{place}: {reason}".
        """
        pieces = [piece for piece in text.split(HOLE) if piece]
        said = [piece.strip(" :;,()") for piece in pieces if LETTERS.search(piece)]
        if not all(piece in self._whole for piece in said):
            return False
        longest = max(pieces, key=len)
        if any(_in_order(line, pieces) for line in self._lines if longest in line):
            return True
        return HOLE in text and any(WORDY.search(piece) for piece in said)


def _in_order(line: str, pieces: list[str]) -> bool:
    place = 0
    for piece in pieces:
        place = line.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def said(path: Path) -> Iterator[Said]:
    """The sentences of a module, one for each line of a text."""
    for line, text in _texts(ast.parse(path.read_text("utf-8")), ELSEWHERE):
        if not (SQL.match(text.strip()) or STYLE.fullmatch(text) or _are_names(text) or _is_of_a_file(text)):
            yield from (
                Said(path=path, line=line, text=part)
                for part in text.replace("{}", HOLE).split("\n")
                if WORDY.search(part)
            )


def _is_of_a_file(text: str) -> bool:
    """Whether a text is a program, or what is written to a file and begins with a comment."""
    if text.startswith("# "):
        return True
    try:
        return "\n" in text and bool(ast.parse(text).body)
    except (SyntaxError, ValueError):
        return False


def _are_names(text: str) -> bool:
    """Whether a text is parameters in a row, and shell patterns for them."""
    words = text.split()
    return sum("_" in word for word in words) > len(words) / 2


def proofs(path: Path) -> Iterator[Proof]:
    """What a test module expects, function by function, each with what stands beside them.

    An error of the system that a test lets happen is not what it expects.
    """
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    shared = ast.Module(body=[node for node in tree.body if node not in functions], type_ignores=[])
    for parts in ([function, shared] for function in functions) if functions else [[shared]]:
        texts = [text for part in parts for _, text in _texts(part, {"OSError"})]
        # Expressions of pytest.raises(match=...) have their points and brackets escaped.
        yield Proof([*texts, *(re.sub(r"\\(.)", r"\1", text) for text in texts if "\\" in text)])


def _texts(tree: ast.AST, unless: dict[str, str] | set[str]) -> Iterator[tuple[int, str]]:
    """The texts in a tree with their lines, but docstrings and what calls of certain names are given."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Call) and _name(node.func) in unless:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(_filled(value) for value in node.values)
            pending += [value.value for value in node.values if isinstance(value, ast.FormattedValue)]
        elif _is_format(node):
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Attribute)
            assert isinstance(node.func.value, ast.Constant)
            yield node.lineno, re.sub(r"\{\w*\}", HOLE, str(node.func.value.value))
            pending += node.args
        else:
            pending += ast.iter_child_nodes(node)


def _is_format(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
        and isinstance(node.func.value, ast.Constant)
    )


def _name(function: ast.expr) -> str | None:
    return getattr(function, "attr", getattr(function, "id", None))


def _filled(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else HOLE
