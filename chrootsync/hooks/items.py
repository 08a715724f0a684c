"""What a target consists of: files and links, and what has to be known of the host to write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

NAMES = (
    "systemd",
    "postfix",
    "apt",
    "dpkg",
    "dnf",
    "rpm",
    "zypper",
    "pacman",
    "apk",
    "resolvconf",
    "networkmanager",
    "dhclient",
    "ifupdown",
    "ca-certificates",
)
"""The targets, for help texts: the table itself is loaded by those who install only."""


class Mode(Enum):
    """What notices that something changed, under systemd; the daily timer is with each."""

    WATCH = "watch"
    PATH = "path"
    TIMER = "timer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A file with its ``text``, or a link with its ``target``; ``comment`` is how a line of the text is a comment."""

    path: str
    text: str = ""
    target: str | None = None
    mode: int = 0o644
    comment: str = "#"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of the host: ``interpreter`` is the absolute path of the Python that has chrootsync.

    ``chroots`` are those of all instances, ``places`` the directories in which something may change that they hold
    copies of; ``devices`` tells whether any of the instances needs device nodes. ``postfix`` maps the units that
    start Postfix to their texts, ``drop_ins`` are the paths of ours for such units, of now and earlier.
    """

    interpreter: str
    mode: Mode = Mode.WATCH
    chroots: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    devices: bool = False
    postfix: Mapping[str, str] = field(default_factory=dict)
    drop_ins: tuple[str, ...] = ()
