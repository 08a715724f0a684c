"""The last rules and configuration that were sound, for the watcher's passes while those that are there are not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from chrootsync.model.frozen import frozen
from chrootsync.state.private import is_private

DIRECTORY = "last-good"
CONFIG = "chrootsync.toml"
RULES = "rules.d"


@frozen
class LastGood:
    """Where they are: a file and a directory."""

    config: str
    rules: str


def find(state: str) -> LastGood | None:
    """What was kept; None where nothing was. Who reads it asks whether only root can have written it."""
    place = os.path.join(state, DIRECTORY)
    good = LastGood(config=os.path.join(place, CONFIG), rules=os.path.join(place, RULES))
    return good if os.path.isfile(good.config) and os.path.isdir(good.rules) else None


def keep(state: str, config: str, rules: str, texts: Mapping[str, bytes]) -> None:
    """Keep what a run has just used: of all ``texts`` by path, the configuration and the files of the rules' directory.

    Where that fails, as on a full disk, an older one stays, or none.
    """
    wanted = {os.path.basename(path): text for path, text in texts.items() if os.path.dirname(path) == rules}
    with suppress(OSError):
        place = os.path.join(state, DIRECTORY)
        directory = os.path.join(place, RULES)
        for path in (state, place, directory):
            if not os.path.lexists(path):
                os.makedirs(path, mode=0o700)
            if not is_private(path):
                return
        for name in set(os.listdir(directory)) - wanted.keys():
            os.unlink(os.path.join(directory, name))
        for name, text in wanted.items():
            _put(os.path.join(directory, name), text)
        # Last, for it says that all is there; without one the defaults were used, which an empty file stands for.
        _put(os.path.join(place, CONFIG), texts.get(config, b""))


def _put(path: str, text: bytes) -> None:
    """Replace a file as a whole, unless it holds that already."""
    with suppress(OSError), open(path, "rb") as file:
        if file.read() == text:
            return
    temporary = os.path.join(os.path.dirname(os.path.dirname(path)), f".{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
