"""The manual page says what ``--help`` says, its readers find no fault with it, and make installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from chrootsync.cli import manual
from chrootsync.cli.application import application
from chrootsync.model import Code, Kind

CHECKOUT = Path(__file__).parents[2]
DAY = "2026-11-23"
PAGE = manual.page(DAY)
SECTIONS = [
    *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "KINDS OF DRIFT", "EXIT STATUS", "ENVIRONMENT"),
    *("FILES", "EXAMPLES", "SEE ALSO"),
]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def tool(name: str) -> str:
    """A reader of manual pages; scripts/setup-system-tests installs both."""
    path = shutil.which(name)
    if path is None and os.environ.get("CHROOTSYNC_REQUIRE_SYSTEM", "0") not in {"", "0"}:
        pytest.fail(f"CHROOTSYNC_REQUIRE_SYSTEM is set, but {name} is missing")
    if path is None:
        pytest.skip(f"needs {name} (scripts/setup-system-tests installs it)")
    return path


def fed(*command: str) -> str:
    """What a program prints that is given the page; that it finds fault shows in its exit status, or in words."""
    done = subprocess.run(command, input=PAGE, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def shown() -> str:
    """The page as groff shows it to a reader with 80 columns, without overstriking and colours."""
    text = fed(tool("groff"), "-man", "-ww", "-Tutf8", "-rLL=80n", "-P-c", "-P-b", "-P-u", "-P-o")
    return text.replace("\u2212", "-")  # the minus sign that stands for a hyphen


def commands() -> Iterator[tuple[str, Any]]:
    pending: list[tuple[str, Any]] = [("", typer.main.get_command(application()))]
    while pending:
        name, command = pending.pop(0)
        children = getattr(command, "commands", {})
        pending += [(f"{name} {child}".strip(), one) for child, one in children.items() if not one.hidden]
        if not children:
            yield name, command


def section(text: str, name: str) -> str:
    """A section of the page as it is shown, or of its commands one."""
    indent = " *" if name in dict(commands()) else ""
    found = re.search(rf"^{indent}{re.escape(name)}\n(.*?)(?=^ {{0,3}}\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return " ".join(found[1].split())


def test_its_sections_come_in_the_order_of_man_pages(shown: str) -> None:
    headings = re.findall(r"^([A-Z][A-Z ]+)$", shown, re.MULTILINE)
    assert headings == SECTIONS


def test_groff_finds_no_fault_with_it() -> None:
    assert fed(tool("groff"), "-man", "-ww", "-z") == ""


def test_mandoc_finds_no_fault_with_it() -> None:
    assert fed(tool("mandoc"), "-T", "lint", "-W", "all") == ""


def test_it_fits_a_terminal_of_80_columns(shown: str) -> None:
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_it_is_dated(shown: str) -> None:
    assert shown.splitlines()[-1].split()[-2:] == [DAY, "CHROOTSYNC(8)"]


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda one: one if isinstance(one, str) else "")
def test_it_has_each_command_with_its_options(name: str, command: Any, shown: str) -> None:
    assert f"chrootsync {name}" in section(shown, "SYNOPSIS")
    told = section(shown, name)
    prose = re.sub(r"\x08\n(?:  .*(?:\n|$))+", "", command.help)
    assert told.startswith(" ".join(prose.split()))
    for parameter in command.params:
        names = [parameter.metavar] if parameter.param_type_name == "argument" else parameter.opts
        assert all(f" {one}" in told for one in names), names
        assert " ".join((parameter.help or "").split()) in told


def test_examples_stand_together_with_what_they_do(shown: str) -> None:
    told = section(shown, "EXAMPLES")
    assert "chrootsync check out --diff what exactly, in the instance postfix-out?" in told
    # What is typed may leave a single blank before what it does.
    assert "chrootsync rollback 12 --force take back also what was changed since" in told
    assert len(re.findall(r"^\.TP$", PAGE[PAGE.index(".SH EXAMPLES") :], re.MULTILINE)) == sum(
        len(re.findall(r"^  \S", block, re.MULTILINE))
        for _, command in commands()
        for block in re.findall(r"\x08\n((?:  .*(?:\n|$))+)", command.help)
    )


def test_it_tells_each_exit_status_and_each_kind_of_drift(shown: str) -> None:
    known = {value for name, value in vars(Code).items() if name.isupper()} - {Code.INTERRUPTED}
    told = re.search(r"^EXIT STATUS\n(.*?)^ENVIRONMENT", shown, re.MULTILINE | re.DOTALL)
    assert told
    assert {int(status) for status in re.findall(r"^ {7}(\d+)\s+\S", told[1], re.MULTILINE)} == known
    kinds = re.search(r"^KINDS OF DRIFT\n(.*?)^EXIT STATUS", shown, re.MULTILINE | re.DOTALL)
    assert kinds
    assert re.findall(r"^ {7}([a-z-]+)", kinds[1], re.MULTILINE) == list(Kind)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a well-known --fix", r"a well-known \fB\-\-fix\fR"),
        ("see postconf(5) and /etc/a-b.conf.", r"see \fBpostconf\fR(5) and \fI/etc/a\-b.conf\fR."),
        (".TH is no request", r"\&.TH is no request"),
        ("'tis neither", r"\(aqtis neither"),
        (r"a\b ^C ~ `x` ä…", r"a\eb \(haC \(ti \(gax\(ga \[u00E4]\[u2026]"),
    ],
)
def test_text_is_shown_as_it_stands(text: str, source: str) -> None:
    assert manual._text(text) == source


def test_examples_without_a_word_on_what_they_do_are_a_mistake() -> None:
    class Command:
        help = "It works.\n\n\b\n  chrootsync work"

    with pytest.raises(ValueError, match=r"^the examples of work tell nothing behind what is typed$"):
        list(manual._examples("work", Command()))


# --- make -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make install`` puts beside its virtual environment; the program is that of this checkout."""
    place = tmp_path_factory.mktemp("destination")
    python = place / "usr/lib/chrootsync/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    make("install-shared", place)
    return place


def make(target: str, place: Path) -> None:
    subprocess.run(
        ["make", "--no-print-directory", target, f"DESTDIR={place}", "PREFIX=/usr"],
        cwd=CHECKOUT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1795392000"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_make_installs_the_page(destination: Path) -> None:
    assert (destination / "usr/share/man/man8/chrootsync.8").read_text() == PAGE


def test_bash_completes_commands_and_options(destination: Path, tmp_path: Path) -> None:
    completions = destination / "usr/share/bash-completion/completions/chrootsync"
    program = tmp_path / "chrootsync"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m chrootsync\n")
    program.chmod(0o755)
    script = """
        . "$1"
        COMP_WORDS=(chrootsync inst) COMP_CWORD=1; _chrootsync_completion chrootsync; echo "${COMPREPLY[*]}"
        COMP_WORDS=(chrootsync check --fo) COMP_CWORD=2; _chrootsync_completion chrootsync; echo "${COMPREPLY[*]}"
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(completions)],
        env={**ENVIRONMENT, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == ["instances install", "--force --format", ""]


def test_zsh_and_fish_get_theirs(destination: Path) -> None:
    zsh = (destination / "usr/share/zsh/site-functions/_chrootsync").read_text().splitlines()
    assert (zsh[0], zsh[-1]) == ("#compdef chrootsync", '_chrootsync_completion "$@"')
    fish = (destination / "usr/share/fish/vendor_completions.d/chrootsync.fish").read_text()
    assert fish.startswith("complete --command chrootsync ")


def test_what_make_installs_everybody_may_read_and_make_uninstall_removes(destination: Path, tmp_path: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in (destination / "usr/share").rglob("*") if path.is_file()} == {0o644}
    place = shutil.copytree(destination, tmp_path / "copy")  # others read what is there
    assert len(files(place)) > 1
    make("uninstall", place)
    assert files(place) == set()
