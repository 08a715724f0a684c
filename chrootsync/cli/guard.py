"""One handler at the top: expected errors, bugs and ^C end differently."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec

from chrootsync.cli import streams
from chrootsync.cli.streams import Ended
from chrootsync.model import ChrootsyncError, Code, ConfigError

P = ParamSpec("P")
NAGIOS = "nagios"
"""The format that has an exit status of its own: to a monitoring system every error is UNKNOWN."""


def guarded(verb: Callable[P, None]) -> Callable[P, int]:
    """Let a verb end with an exit status of the contract, which is returned, whatever it raises."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        style = kwargs.get("format")
        try:
            verb(*args, **kwargs)
        except Ended as end:
            return end.status
        except ChrootsyncError as error:
            messages = error.problems if isinstance(error, ConfigError) else (str(error),)
            return _tell(messages, error.code, style)
        except KeyboardInterrupt:
            return _tell(("interrupted; nothing is left half-done",), Code.INTERRUPTED, style)
        except Exception:  # noqa: BLE001 -- whatever else comes here is a bug
            return _tell((f"this is a bug in chrootsync; {_trace()}, please report it",), Code.BUG, style)
        return Code.OK

    return run


def tell_usage(error: Exception, arguments: Sequence[str]) -> int:
    """Tell what is wrong with the command line; without a verb the help has been printed already. The exit status."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if not message or not arguments or type(error).__name__ == "NoArgsIsHelpError":
        return Code.USAGE
    path = getattr(getattr(error, "ctx", None), "command_path", "chrootsync")
    joined = {f"{option}={value}" for option, value in itertools.pairwise(arguments)} | {*arguments}
    style = next((name for name in ("json", NAGIOS) if f"--format={name}" in joined), None)
    sentence = message[:1].lower() + message[1:].rstrip(".")
    return _tell((f"{sentence}; see {path} --help",), Code.USAGE, style)


def _tell(messages: tuple[str, ...], code: int, style: object) -> int:
    """Tell what went wrong, also in the format that was asked for where it has words for that; the exit status."""
    if style == "json":
        from chrootsync.report.json import error_json

        _write(error_json(messages, code))
    elif style == NAGIOS:
        from chrootsync.report import nagios

        _write(nagios.error(messages))
        code = nagios.State.UNKNOWN
    # Whoever stops a unit, or switches the machine off, interrupts what runs: that is no error.
    streams.tell(messages, level=streams.NOTICE if code == Code.INTERRUPTED else streams.ERROR)
    return code


def _write(text: str) -> None:
    with contextlib.suppress(streams.OutputError, Ended):  # the sentence says enough, and the code stays
        streams.write(text)


def _trace() -> str:
    """Write the trace of the exception that is being handled to a file, under systemd to the journal; tell where."""
    import tempfile
    import traceback

    if "INVOCATION_ID" in os.environ:
        streams.tell(traceback.format_exc().splitlines())
        return "the full trace is above"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="chrootsync-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            traceback.print_exc(file=file)
            return f"the full trace is in {file.name}"
    except OSError:
        with contextlib.suppress(OSError):
            traceback.print_exc()
        return "the full trace is above"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a repair as ^C does: what was begun is taken back.

    What is ignored, as SIGHUP is by nohup(1), stays so.
    """

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
