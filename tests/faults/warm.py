"""A Python that has loaded chrootsync once and forks for every run, so that a run takes hundredths of a second.

What runs is the command line as ever, ``chrootsync.cli.main``, in a process of its own; only the imports are over.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PROJECT = Path(__file__).parents[2]
CRASHED = 99
SETTINGS = {
    "PYTHONPATH": str(PROJECT),
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "COLUMNS": "200",
    "NO_COLOR": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run ended: ``code`` is its exit status, or the negative number of the signal that killed it."""

    code: int
    output: str
    errors: str
    trace: tuple[str, ...] = field(default=(), repr=False)

    @property
    def killed(self) -> bool:
        """Whether the run did not come to its end."""
        return self.code == -signal.SIGKILL

    def report(self) -> dict[str, Any]:
        """The report of a run with ``--format json``."""
        found = json.loads(self.output)
        assert isinstance(found, dict)
        return found


class Warm:
    """Runs chrootsync in forks of one process; ``place`` is a directory for what the runs print.

    ``root`` is what the process has for its root, which Python must be found in under its usual paths.
    """

    def __init__(self, place: Path, root: Path | None = None) -> None:
        """Start the process."""
        self._place = place
        self._inside = place if root is None else Path("/") / place.relative_to(root)
        self._begun = 0
        place.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV_", "COVERAGE"))}
        self._server = subprocess.Popen(
            [*([] if root is None else ["chroot", os.fspath(root)]), sys.executable, "-m", "tests.faults.warm"],
            env={**environment, **SETTINGS, "XDG_RUNTIME_DIR": str(self._inside)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """For use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        if self._begun:
            with suppress(ProcessLookupError):
                os.kill(self._begun, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()

    def load(self, *arguments: str) -> None:
        """Run once in the process itself: what is imported late is in all later runs from the start."""
        self._order(arguments, fork=False, stopped=False)
        self._answer()

    def run(self, *arguments: str) -> Ended:
        """Run to the end."""
        self._order(arguments, fork=True, stopped=False)
        self._answer()
        return self.wait()

    def begin(self, *arguments: str) -> int:
        """Start a run that is stopped before its first step, for a tracer to attach to; its process number."""
        self._order(arguments, fork=True, stopped=True)
        self._begun = self._answer()
        return self._begun

    def wait(self) -> Ended:
        """How the run ended that was begun last."""
        code, self._begun = self._answer(), 0
        return Ended(code=code, output=self._said("output"), errors=self._said("errors"))

    def _order(self, arguments: tuple[str, ...], *, fork: bool, stopped: bool) -> None:
        assert self._server.stdin is not None
        order = {"arguments": arguments, "place": str(self._inside), "fork": fork, "stopped": stopped}
        self._server.stdin.write(f"{json.dumps(order)}\n")
        self._server.stdin.flush()

    def _answer(self) -> int:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the process that runs chrootsync has ended"
        return int(line)

    def _said(self, what: str) -> str:
        return (self._place / what).read_text(encoding="utf-8", errors="backslashreplace")


# --- The process ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Take orders, one a line; answer each with the number of its process, and then with how that ended."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    for line in sys.stdin:
        order = json.loads(line)
        if not order["fork"]:
            print(_main(order), file=answers, flush=True)
            continue
        child = os.fork()
        if child == 0:
            os.dup2(nowhere, 0)
            os._exit(_main(order))
        if order["stopped"]:
            os.waitpid(child, os.WUNTRACED)
        print(child, file=answers, flush=True)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _main(order: dict[str, Any]) -> int:
    from chrootsync.cli import main

    for fd, what in ((1, "output"), (2, "errors")):
        to = os.open(f"{order['place']}/{what}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(to, fd)
        os.close(to)
    sys.argv = ["chrootsync", *order["arguments"]]
    if order["stopped"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 -- whoever asked is told
        traceback.print_exc()
    return CRASHED


if __name__ == "__main__":
    serve()
