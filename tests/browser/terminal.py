"""What a command shows on a terminal of its own, as a page for a browser."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Terminal</title><style>
body {{ margin: 0; padding: 20px 24px; display: inline-block; color: {foreground}; background: {background}; }}
pre {{ margin: 0; font: 14px/1.35 "DejaVu Sans Mono", monospace; }}
</style></head><body><pre>{code}</pre></body></html>
"""


def shown(command: Sequence[str], *, columns: int) -> tuple[int, str]:
    """The exit status of a command, and what it wrote to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "TZ": "UTC"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        said = bytearray()
        with suppress(OSError):  # EIO: nobody has the other end open any more
            while chunk := os.read(ours, 1 << 16):
                said += chunk
    os.close(ours)
    return process.returncode, said.decode("utf-8").replace("\r\n", "\n")


def page(prompt: str, said: str, file: Path, *, columns: int) -> Path:
    """A page that shows a command and what it said, in its colours."""
    console = Console(width=columns, record=True, file=io.StringIO(), force_terminal=True, _environ={})
    console.print(Text.assemble(("# ", "dim"), (prompt, "bold")), soft_wrap=True)
    console.print(Text.from_ansi(said), soft_wrap=True)
    file.write_text(console.export_html(theme=MONOKAI, code_format=PAGE, inline_styles=True), encoding="utf-8")
    return file
