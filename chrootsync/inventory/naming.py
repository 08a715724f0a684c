"""Whether a rule names a path, or could: for whoever asks why a chroot does not hold it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from posixpath import basename, dirname

from chrootsync.model import Rule
from chrootsync.model.frozen import frozen, replace

VALUE = "$1"


class Naming(Enum):
    """How a rule names a path: ``LOOSELY`` as it does any path that a setting has, ``MISFIT`` all but by its name."""

    EXACTLY = "exactly"
    LOOSELY = "loosely"
    MISFIT = "misfit"


@frozen
class Wanted:
    """What is looked for: a ``path``, or a bare ``name`` (path None); ``directory`` tells whether it is known as one.

    ``spell`` gives any path the spelling that it has inside the chroot.
    """

    name: str
    path: str | None = None
    directory: bool = False
    spell: Callable[[str], str] = str

    def is_at(self, path: str) -> bool:
        """Whether a path is the one that is looked for, or has its name."""
        if self.path is None:
            return basename(path) == self.name
        return path == self.path or self.spell(path) == self.path


def naming(rule: Rule, wanted: Wanted) -> Naming | None:
    """How a rule names what is looked for, whether it holds or not; None where it does not.

    Modules of ``nss`` are not looked into: they depend on the host.
    """
    nodes = (*(one.path for one in rule.devices), *(one.path for one in rule.links))
    places = (*rule.files, *rule.filtered, *rule.sockets, *nodes)
    found = {
        *(_by_place(text, rule, wanted) for text in places),
        *(_by_directory(text, rule, wanted) for text in rule.directories),
        *(Naming.EXACTLY for text in rule.libraries if basename(text) == wanted.name),
    }
    return next((kind for kind in Naming if kind in found), None)


def with_value(rule: Rule, value: str) -> Rule:
    """A rule as it is for one value that its conditions caught."""

    def put(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(text.replace(VALUE, value) for text in texts)

    return replace(
        rule,
        files=put(rule.files),
        filtered=put(rule.filtered),
        directories=put(rule.directories),
        sockets=put(rule.sockets),
        links=tuple(replace(link, path=link.path.replace(VALUE, value)) for link in rule.links),
    )


def _by_place(text: str, rule: Rule, wanted: Wanted) -> Naming | None:
    if VALUE not in text:
        return Naming.EXACTLY if wanted.is_at(text) else None
    if wanted.path is None or not _could_be(text, rule, wanted.path):
        return None
    return Naming.LOOSELY if text == VALUE else Naming.EXACTLY


def _by_directory(text: str, rule: Rule, wanted: Wanted) -> Naming | None:
    """A directory that is named, a file in it that has to have a certain name, or any file below it."""
    if wanted.path is None:
        return None
    fitting = rule.match is None or re.fullmatch(rule.match, wanted.name) is not None
    if VALUE in text:
        if _could_be(text, rule, wanted.path) and wanted.directory:
            return Naming.EXACTLY
        if not _could_be(text, rule, dirname(wanted.path)) or not fitting:
            return None
        return Naming.LOOSELY if rule.match is None else Naming.EXACTLY
    if wanted.is_at(text):
        return Naming.EXACTLY
    if not wanted.path.startswith(f"{wanted.spell(text).rstrip('/')}/"):
        return None
    if rule.match is None:
        return Naming.EXACTLY
    inside = dirname(wanted.path) == wanted.spell(text)
    return (Naming.EXACTLY if fitting else Naming.MISFIT) if inside else None


def _could_be(text: str, rule: Rule, path: str) -> bool:
    """Whether a text with ``$1`` in it could come to a path by what the rule's expressions catch."""
    before, _, behind = text.partition(VALUE)
    if not (path.startswith(before) and path.endswith(behind) and len(path) > len(before) + len(behind)):
        return False
    value = path[len(before) : len(path) - len(behind)]
    groups = [group for pattern in _patterns(rule) if (group := first_group(pattern)) is not None]
    return any(re.fullmatch(group, value) is not None for group in groups)


def _patterns(rule: Rule) -> Iterable[str]:
    for when in rule.when:
        yield from (one.matches for one in when.parameters)
        yield from (one.matches for one in (when.table, when.file) if one is not None)


def first_group(pattern: str) -> str | None:
    """The text of a regular expression's first capturing group; None where it has none that stands alone."""
    opened: list[int] = []
    first = None
    for at, sign in _signs(pattern):
        if sign == "(":
            opened.append(at)
            named = pattern.startswith("(?P<", at)
            if first is None and (named or not pattern.startswith("(?", at)):
                first = at
        elif sign == ")" and opened.pop() == first and first is not None:
            group = pattern[first + 1 : at]
            return _compiling(group.partition(">")[2] if group.startswith("?P<") else group)
    return None


def _compiling(group: str) -> str | None:
    try:
        re.compile(group)
    except re.error:  # it refers to another group
        return None
    return group


def _signs(pattern: str) -> Iterable[tuple[int, str]]:
    """The characters of an expression that stand for themselves neither by a backslash nor in a set."""
    for match in re.finditer(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL):
        yield match.start(), match[0]
