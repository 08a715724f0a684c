"""The manual page chrootsync(8), in the macros of man(7), from the same commands and options as ``--help``.

``python -m chrootsync.cli.manual`` prints it. What ``--help`` has no place for stands here: files, the environment, and
where to read on. Docstrings are click's: paragraphs, and behind ``\\b`` blocks that are kept as they are: examples.
"""

from __future__ import annotations

import os
import re
import textwrap
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import typer.main

from chrootsync import __version__
from chrootsync.cli import streams
from chrootsync.cli.application import ENDINGS, application
from chrootsync.cli.setup import CONFIG, LOCAL_RULES, STATE
from chrootsync.report.kinds import MEANINGS

NAME: Final = "chrootsync \\- keep chroots in sync with their host"

DESCRIPTION: Final = """
An instance is one service with a chroot of its own: each instance of Postfix, found through multi_instance_directories,
and what the configuration file lists. Rules say which files, libraries, devices, links and sockets its chroot must
hold, when, and why. A difference between that and what is there is drift, and has a kind.

A repair replaces whole files, for each instance all of them or none, and reloads the instances that run and were
changed. What it replaced is kept, and can be put back.
"""

FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        CONFIG: "Configuration: instances that are not found by themselves, and limits. It may be missing.",
        f"{LOCAL_RULES}/*.toml": "Rules of this host. A file that is named as a shipped one takes its place.",
        STATE: "What is remembered: the history of repairs, what they replaced, and caches. Nothing that is needed is "
        "lost with it.",
        "/run/chrootsync": "The lock of a repair; for other users than root it is in $XDG_RUNTIME_DIR/chrootsync, or "
        "in /tmp/chrootsync-UID.",
        "/etc/postfix/main.cf": "Where Postfix' instances are found from: its multi_instance_directories.",
    }
)

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NO_COLOR": "Where it is set, reports are plain text without colours, on a terminal too.",
        "XDG_RUNTIME_DIR": "Where the lock of a repair is for other users than root.",
    }
)

ELSEWHERE: Final = """
chroot(2), nsswitch.conf(5), os-release(5), postconf(1), postfix(1), postmulti(1), resolv.conf(5), services(5),
systemctl(1)

The rules reference, what to do about each kind of drift, formats for monitoring and CI systems, and the security model
come with the source, in its directory docs.
"""

ENDING: Final = """
Of several that apply it is the first of 70, 2, 5, 3, 4, 1, 0. ^C gives 130. The format nagios has an exit status of its
own: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
"""

# Words in running text: an option, a page of the manual, a path.
_MARKED = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)|(?<!\w)([a-z][\w.-]*)(\(\d\))|(?<![\w.])((?:/[\w.@*-]+)+(?<!\.))")
_SPECIAL: Final = MappingProxyType({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


def page(day: str) -> str:
    """The source of the page; ``day`` is the date in its foot, as in 2026-11-23."""
    command: Any = typer.main.get_command(application())
    sections = {
        "NAME": [NAME],
        "SYNOPSIS": _synopsis(command),
        "DESCRIPTION": [*_prose(command.help), ".PP", *_prose(DESCRIPTION)],
        "OPTIONS": _options(command),
        "COMMANDS": [line for name, verb in _verbs(command) for line in _verb(name, verb)],
        "KINDS OF DRIFT": _listed({kind: f"{one.text} {one.advice}" for kind, one in MEANINGS.items()}),
        "EXIT STATUS": [
            *_listed({str(code): f"{what[:1].upper()}{what[1:]}." for code, what in ENDINGS.items()}),
            ".PP",
            *_prose(ENDING),
        ],
        "ENVIRONMENT": _listed(ENVIRONMENT),
        "FILES": _listed(FILES, font="I"),
        "EXAMPLES": [line for name, verb in _verbs(command) for line in _examples(name, verb)],
        "SEE ALSO": _prose(ELSEWHERE),
    }
    # Neither hyphens nor blocks: what is typed shall be found by searching, and copied as it stands.
    head = [f'.TH CHROOTSYNC 8 "{day}" "chrootsync {__version__}" "System Administration"', ".nh", ".ad l"]
    return "\n".join([*head, *(line for name, lines in sections.items() for line in (f".SH {name}", *lines)), ""])


def _verbs(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The commands that people call, in the order of ``--help``, each as it is typed behind ``chrootsync``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, f"{before}{name} ")
        elif not command.hidden:
            yield f"{before}{name}", command


def _synopsis(command: Any) -> Iterator[str]:
    for index, (name, verb) in enumerate(_verbs(command)):
        if index:
            yield ".br"
        arguments = [_metavar(one) for one in verb.params if one.param_type_name == "argument"]
        options = [r"[\fIOPTION\fR]..."] if any(one.param_type_name == "option" for one in verb.params) else []
        yield " ".join(
            [rf"\fBchrootsync {_escape(name)}\fR", *options, *(rf"\fI{_escape(one)}\fR" for one in arguments)]
        )


def _options(command: Any) -> Iterator[str]:
    yield from _prose("Each command has options of its own, which stand behind it; these stand alone.")
    yield from _item(r"\fB\-h\fR, \fB\-\-help\fR", "Show the help; behind a command, that of the command.")
    for option in command.params:
        yield from _item(_term(option), option.help)


def _verb(name: str, command: Any) -> Iterator[str]:
    yield f".SS {_escape(name)}"
    yield from _prose(command.help)
    for parameter in command.params:
        told = parameter.help or ""
        if _is_worth_telling(parameter):
            told += f" The default is {getattr(parameter.default, 'value', parameter.default)}."
        yield from _item(_term(parameter), told)


def _is_worth_telling(parameter: Any) -> bool:
    """Whether an option has a default that its users should know."""
    return parameter.param_type_name == "option" and parameter.default is not None and not _is_flag(parameter)


def _is_flag(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False) or getattr(option, "count", False))


def _metavar(parameter: Any) -> str:
    choices = getattr(parameter.type, "choices", None)
    return parameter.metavar or ("|".join(choices) if choices else parameter.type.name.upper())


def _term(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return rf"\fI{_escape(_metavar(parameter))}\fR"
    names = ", ".join(rf"\fB{_escape(name)}\fR" for name in sorted(parameter.opts, key=len))
    return names if _is_flag(parameter) else rf"{names} \fI{_escape(_metavar(parameter))}\fR"


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of a docstring without its examples."""
    for index, block in enumerate(one for one in text.strip("\n").split("\n\n") if not one.startswith("\b")):
        if index:
            yield ".PP"
        yield _text(" ".join(block.split()))


def _examples(name: str, command: Any) -> Iterator[str]:
    """The examples of a docstring: what is typed, and behind it, from one column on, what that does."""
    for block in (command.help or "").split("\n\n"):
        lines = block.removeprefix("\b\n").splitlines() if block.startswith("\b\n") else []
        columns = [found.end() for line in lines if (found := re.search(r"\S {2,}(?=\S)", line))]
        if lines and not columns:
            raise ValueError(f"the examples of {name} tell nothing behind what is typed")
        for line in lines:
            yield from _item(rf"\fB{_escape(line[: columns[0]].strip())}\fR", line[columns[0] :])


def _listed(items: Mapping[str, str], font: str = "B") -> list[str]:
    return [line for term, told in items.items() for line in _item(rf"\f{font}{_escape(term)}\fR", told)]


def _item(term: str, told: str) -> Iterator[str]:
    yield from (".TP", term, _text(told))


def _text(text: str) -> str:
    """Running text, with options and pages of the manual in bold, and paths in italics."""

    def mark(found: re.Match[str]) -> str:
        option, manual, number, path = found.groups()
        return rf"\fI{_escape(path)}\fR" if path else rf"\fB{_escape(option or manual)}\fR{number or ''}"

    parts, end = [], 0
    for found in _MARKED.finditer(text):
        parts += [_escape(text[end : found.start()], "-"), mark(found)]
        end = found.end()
    lines = textwrap.wrap(
        "".join([*parts, _escape(text[end:], "-")]), 80, break_long_words=False, break_on_hyphens=False
    )
    # A line that begins with a dot would be a request; so would one with an apostrophe, which is escaped already.
    return "\n".join(rf"\&{line}" if line.startswith(".") else line for line in lines)


def _escape(text: str, plain: str = "") -> str:
    """Text as roff takes it literally; characters of ``plain`` stay, as hyphens do between words."""
    return "".join(
        character if character in plain or (character.isascii() and character not in _SPECIAL)
        else _SPECIAL.get(character, rf"\[u{ord(character):04X}]")
        for character in text
    )  # fmt: skip


def main() -> None:
    """Print the page, dated today, or as SOURCE_DATE_EPOCH says (reproducible-builds.org)."""
    now = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    streams.write(page(time.strftime("%Y-%m-%d", time.gmtime(now))))


if __name__ == "__main__":
    main()
