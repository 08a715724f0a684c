"""Small JSON files: what is dear to work out, kept with the identity of everything that it was worked out from.

All of it can be lost at any time: then it is found out anew. Files are replaced whole, never changed in place. Nobody
waits for the disk, which costs a repair milliseconds each time: after a power cut a file may be cut short, and then it
is no JSON, which is as good as none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress

from chrootsync.state.private import is_private

LIMIT = 64 << 20


class Store:
    """Small JSON files in one directory that only its owner can write; without a directory nothing is kept."""

    def __init__(self, directory: str | None) -> None:
        """Keep files in ``directory``, which is made when something is first kept."""
        self.directory = directory

    def get(self, name: str, fingerprint: str) -> object | None:
        """The value last put under ``name``, if it was put with the same fingerprint."""
        kept = self._load(f"cache-{_file_name(name)}.json")
        if isinstance(kept, dict) and kept.get("fingerprint") == fingerprint:
            value: object = kept.get("value")
            return value
        return None

    def put(self, name: str, fingerprint: str, value: object) -> None:
        """Keep a value that can be worked out anew; failing to do so is no error."""
        with suppress(OSError):
            self._save(f"cache-{_file_name(name)}.json", {"fingerprint": fingerprint, "value": value}, _leave_it)

    def put_on_disk(self, name: str, fingerprint: str, value: object) -> None:
        """Keep a value that would be missed after a power cut; failing to do so is no error."""
        with suppress(OSError):
            self._save(f"cache-{_file_name(name)}.json", {"fingerprint": fingerprint, "value": value}, os.fsync)

    def _load(self, name: str) -> object | None:
        if self.directory is None or not is_private(self.directory):
            return None
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return json.loads(file.read(LIMIT))  # type: ignore[no-any-return]  # JSON is whatever it is
        except (OSError, ValueError, RecursionError):
            return None

    def _save(self, name: str, value: object, sync: Callable[[int], None]) -> None:
        if self.directory is None:
            return
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        if not is_private(self.directory):
            raise PermissionError(None, "others can write there", self.directory)
        path = os.path.join(self.directory, name)
        temporary = f"{path}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                sync(fd)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _leave_it(_fd: int) -> None:
    """The kernel writes it when it sees fit."""


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9-]", "_", name.lower())
