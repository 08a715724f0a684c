"""Prints reports: which format, how wide, in colour or not, and into which files."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace

from chrootsync import report as reports
from chrootsync.model import ChrootsyncError, ConfigError, Report
from chrootsync.report import Options
from chrootsync.report.verdict import findings, summary


def choose(name: str | None) -> str:
    """The format to print: the one asked for, else a table on a terminal that may have colour. Raises ConfigError."""
    if name is None:
        return "table" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else "plain"
    if name not in reports.FORMATS:
        raise ConfigError(f"--format {name}: there is no such format; there is: {', '.join(reports.FORMATS)}")
    return name


def targets(requests: list[str]) -> list[tuple[str, str]]:
    """The formats and files of --report FORMAT=FILE. Raises ConfigError."""
    found = []
    for request in requests:
        name, equals, path = request.partition("=")
        if not equals or not path:
            raise ConfigError(f"--report {request}: must be FORMAT=FILE, as in json=/tmp/report.json")
        if name not in reports.FORMATS:
            raise ConfigError(
                f"--report {request}: there is no format {name!r}; there is: {', '.join(reports.FORMATS)}"
            )
        found.append((name, path))
    return found


def show(report: Report, name: str, options: Options) -> None:
    """Print a report. What is in sync takes one line, for which no table need be loaded."""
    width = shutil.get_terminal_size().columns
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    options = replace(options, width=width, color=color)
    if name == "table" and not findings(report) and not options.verbose and not report.notes:
        quiet = all(one.reload.error is None and not one.reload.needed for one in report.instances)
        if quiet:
            sys.stdout.write(f"{summary(report)}\n")
            return
    sys.stdout.write(reports.render(name, report, options))


def save(report: Report, name: str, path: str, options: Options) -> None:
    """Write a report to a file, which is replaced as a whole. Raises ChrootsyncError."""
    text = reports.render(name, report, options)
    temporary = None
    try:
        directory = os.path.dirname(os.path.abspath(path))
        fd, temporary = tempfile.mkstemp(prefix=".chrootsync-", dir=directory)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            # mkstemp gives 0600; a report is no secret, and a node exporter or a CI job is another user.
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise ChrootsyncError(f"--report {name}={path}: cannot be written: {error.strerror}") from None
