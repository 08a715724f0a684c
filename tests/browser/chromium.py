"""A headless Chromium, spoken to by the DevTools protocol over a pair of pipes: no port, no driver, no library.

https://chromedevtools.github.io/devtools-protocol/ names the methods. Each message is a JSON object with a NUL behind
it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60  # seconds for an answer, on cores that others use, too

# It asks nobody on the network and leaves nothing outside its folder. The pipes are the file descriptors 3 and 4.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--disable-quic", "--no-proxy-server", "--mute-audio"),
    *("--force-color-profile=srgb", "--font-render-hinting=none", "--remote-debugging-pipe"),
)


def program() -> str | None:
    """The browser of this machine; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name)) is not None), None)


class Chromium:
    """A browser with one page, as a context manager; ``log`` holds all events that arrived for the page."""

    def __init__(self, folder: Path) -> None:
        """Start it with everything that it writes below ``folder``."""
        self.log: list[dict[str, Any]] = []
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        found = program()
        assert found is not None, "no browser is installed"
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", shell, "chromium", found, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        with (folder.parent / f"{folder.name}.log").open("wb") as said:
            self._process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and all of its helpers."""
        for fd in (self._out, self._in):
            with suppress(OSError):
                os.close(fd)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)  # it ends with its pipes
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()

    # --- The protocol -----------------------------------------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> Any:
        """The answer to one method."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        number = self._number
        answer = self._until(lambda told: told.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that is ``wanted``; events on the way are kept."""
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._next(deadline)
            if "id" not in message:
                self.log.append(message)
            if wanted(message):
                return message

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        return told

    # --- What tests do ----------------------------------------------------------------------------------------------

    def open(self, page: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Load a file as on a screen so wide (CSS pixels), and wait until it is there."""
        self.screen(width=width, height=height, dark=dark)
        self.log.clear()
        self.call("Page.navigate", url=page.as_uri())
        if not any(event["method"] == "Page.loadEventFired" for event in self.log):
            self._until(lambda event: event.get("method") == "Page.loadEventFired")

    def screen(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Show the page on another screen; a narrow one is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def media(self, name: str) -> None:
        """Show the page as for a medium: ``print``, or the empty string for the screen."""
        self.call("Emulation.setEmulatedMedia", media=name)

    def ask(self, expression: str) -> Any:
        """What a JavaScript expression comes to on the page; the page itself may run none."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, wanted: object) -> bool:
        """Whether an expression comes to what is wanted, sooner or later: layout and navigation take their time."""
        deadline = time.monotonic() + PATIENCE
        while self.ask(expression) != wanted:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def click(self, selector: str) -> None:
        """Click on the middle of the first element that matches."""
        place = self.ask(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'center'});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, file: Path, *, whole: bool = True) -> Path:
        """The whole page as PNG, or what the screen shows of it."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def printed(self, file: Path) -> Path:
        """The page as PDF, on A4."""
        made = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        file.write_bytes(base64.b64decode(made["data"]))
        return file
