"""Tells systemd how the service is, by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """A service's line to its manager; without one nothing is said."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Speak to ``NOTIFY_SOCKET``; ping as often as ``WATCHDOG_USEC`` asks for, if that is meant for us."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "")
        self.ping_every = int(usec) / 2e6 if mine and usec.isdigit() and int(usec) else None
        """Seconds between two pings: half of what the manager waits, as sd_watchdog_enabled(3) recommends."""

    def say(self, **fields: str | int) -> None:
        """Send assignments such as ``READY=1``; where the manager does not listen, that is no error."""
        if not self._address.startswith(("/", "@")):
            return
        address = os.fsencode(self._address)
        text = "\n".join(f"{name}={str(value).translate(_ONE_LINE)}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.settimeout(0)
            name = b"\0" + address[1:] if address.startswith(b"@") else address  # unix(7), abstract
            line.sendto(text.encode("utf-8", "backslashreplace"), name)


_ONE_LINE = str.maketrans("\n\r\0", "   ")
