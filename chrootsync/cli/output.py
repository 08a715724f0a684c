"""Prints reports: which format, how wide, in colour or not, and into which files."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection
from contextlib import suppress

from chrootsync import report as reports
from chrootsync.cli import streams
from chrootsync.cli.guard import NAGIOS
from chrootsync.cli.setup import absolute
from chrootsync.model import ChrootsyncError, ConfigError, Report, clause
from chrootsync.model.frozen import frozen, replace
from chrootsync.report import Options
from chrootsync.report.verdict import findings, summary

LINKS = 40  # as many as the kernel follows, path_resolution(7)


def choose(name: str | None, formats: Collection[str] = ("table", "plain", "json")) -> str:
    """The format to print: the one asked for, else a table on a terminal that may have colour. Raises ConfigError."""
    if name is None:
        return "table" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else "plain"
    if name not in formats:
        raise ConfigError(f"--format {name}: there is no such format; there is: {', '.join(formats)}")
    return name


def ending(name: str, report: Report, status: int, *, strict: bool) -> int:
    """How a run ends that prints this format: with its own ``status``, unless the format has states instead."""
    if name != NAGIOS:
        return status
    from chrootsync.report import nagios

    return nagios.state(report, strict=strict)


def to_log() -> bool:
    """Whether what an automatic run says goes to a log, or to some program, and not to a person who looks on."""
    return not sys.stdout.isatty()


@frozen
class Target:
    """A file of --report FORMAT=FILE: ``path`` is the place to write; ``stream``: written as it is, never replaced."""

    request: str
    format: str
    path: str
    stream: bool


def targets(requests: list[str]) -> list[Target]:
    """The files of --report FORMAT=FILE, so far as they can be known to be good. Raises ConfigError."""
    found: list[Target] = []
    for request in requests:
        name, equals, path = request.partition("=")
        if not equals or not path:
            raise ConfigError(f"--report {request}: must be FORMAT=FILE, as in json=/tmp/report.json")
        if name not in reports.FORMATS:
            raise ConfigError(
                f"--report {request}: there is no format {name!r}; there is: {', '.join(reports.FORMATS)}"
            )
        target = _target(request, name, path)
        if any(other.path == target.path for other in found):
            raise ConfigError(f"--report {request}: another report goes to this file already")
        found.append(target)
    return found


def _target(request: str, name: str, path: str) -> Target:
    """What is at a path decides how it is written."""
    option = f"--report {request}"
    absolute("--report", path)  # refuses a path that is relative to nothing
    place = _without_links(option, path)
    try:
        if os.path.dirname(place) == _own_descriptors():
            return Target(request=request, format=name, path=place, stream=True)
        status = os.stat(place, follow_symlinks=False)
    except FileNotFoundError:
        if path.endswith("/"):
            raise ConfigError(f"{option}: is a directory; name a file in it") from None
        return Target(request=request, format=name, path=place, stream=False)
    except OSError as error:
        raise ConfigError(f"{option}: cannot be written: {clause(error)}") from None
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise ConfigError(f"{option}: is a directory; name a file in it")
    if kind in (stat.S_IFBLK, stat.S_IFSOCK):
        raise ConfigError(f"{option}: is a {'socket' if kind == stat.S_IFSOCK else 'block device'}; name a file")
    if kind == stat.S_IFIFO:
        _refuse_foreign(option, "FIFO", status)
    return Target(request=request, format=name, path=place, stream=kind != stat.S_IFREG)


def _without_links(option: str, path: str) -> str:
    """The path with its directory resolved and links at its end followed; nothing need be there.

    Raises ConfigError, also for a link of somebody else's, who could aim root's report at any file.
    """
    for _ in range(LINKS):
        directory, name = os.path.split(os.path.abspath(path))
        directory = os.path.realpath(directory)
        if not os.path.isdir(directory):
            raise ConfigError(f"{option}: there is no directory {directory}")
        path = os.path.join(directory, name)
        if directory == _own_descriptors() or not os.path.islink(path):
            return path
        _refuse_foreign(option, "link", os.stat(path, follow_symlinks=False))
        path = os.path.join(directory, os.readlink(path))
    raise ConfigError(f"{option}: too many links")


def _refuse_foreign(option: str, what: str, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{option}: is a {what} that belongs to user {status.st_uid}; remove it, or name another file"
        )


def _own_descriptors() -> str:
    """Where /dev/stdout, /dev/fd/3 and a shell's >(command) lead to: links that only the kernel can follow."""
    return f"/proc/{os.getpid()}/fd"


def show(report: Report, name: str, options: Options, status: int) -> None:
    """Print a report. What is in sync takes one line, for which no table need be loaded.

    Raises OutputError, and Ended as streams.write() does: the run ends with its own ``status``.
    """
    import shutil

    width = shutil.get_terminal_size().columns
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    options = replace(options, width=width, color=color)
    if name == "table" and not findings(report) and not options.verbose and not report.notes:
        quiet = all(
            one.reload.error is None and not one.reload.needed and one.probe is None for one in report.instances
        )
        if quiet:
            streams.write(f"{summary(report)}\n", status)
            return
    streams.write(reports.render(name, report, options), status)


def log(report: Report, trigger: str, status: int) -> None:
    """Print the lines of the log that an automatic run comes to. Raises what show() raises."""
    from chrootsync.report import journal

    streams.write(journal.render(journal.lines(report, trigger), levels=streams.to_journal(sys.stdout)), status)


def save(report: Report, target: Target, options: Options) -> None:
    """Write a report to a file, which is replaced as a whole unless it is a stream. Raises ChrootsyncError."""
    text = reports.render(target.format, report, options)
    try:
        if target.stream:
            _feed(target.path, text)
        else:
            _replace(target.path, text)
    except OSError as error:
        raise ChrootsyncError(f"--report {target.request}: cannot be written: {clause(error)}") from None


def _feed(path: str, text: str) -> None:
    """Write to a device, a FIFO or a descriptor of our own."""
    directory, name = os.path.split(path)
    own = directory == _own_descriptors()
    fd = os.dup(int(name)) if own else os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _replace(path: str, text: str) -> None:
    import tempfile

    fd, temporary = tempfile.mkstemp(prefix=".chrootsync-", dir=os.path.dirname(path))
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            # mkstemp gives 0600; a report is no secret, and a node exporter or a CI job is another user.
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
