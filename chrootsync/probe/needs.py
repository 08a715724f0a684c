"""What a chroot needs so that lookups work inside it, seen from the entries that a check compares."""

from __future__ import annotations

import posixpath
import re

from chrootsync.model import Entry, FileType, Presence, Severity
from chrootsync.model.frozen import field, frozen

_HASHED = re.compile(r"[0-9a-f]{8}\.r?[0-9]+")
_LOOKED_UP = frozenset({"/etc/hosts", "/etc/resolv.conf", "/etc/services", "/etc/localtime", "/etc/passwd"})
_ALSO = {"/usr/etc/services": "/etc/services"}


@frozen
class Socket:
    """A socket that is needed inside; ``matters`` is false where daemons get along without it."""

    path: str
    matters: bool
    advice: str | None


@frozen
class Need:
    """What lookups one chroot is there for.

    ``files`` are those of libc that it must hold, by their paths on the host. ``certificates`` are directories of
    hashed names inside, each with the host's.
    """

    files: set[str] = field(default_factory=set)
    sockets: dict[str, Socket] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)


@frozen
class Needs:
    """The needs of all instances, by their names."""

    by_instance: dict[str, Need] = field(default_factory=dict)

    def of(self, name: str) -> Need:
        """What the chroot of an instance is needed for; nothing where no entry told of it."""
        return self.by_instance.get(name, Need())

    def see(self, entry: Entry) -> None:
        """Notice an entry. What is only kept fresh is needed by nobody."""
        if entry.rule.presence is not Presence.REQUIRED or entry.surplus:
            return
        need = self.by_instance.setdefault(entry.instance.name, Need())
        path = _ALSO.get(entry.path, entry.path)
        if path in _LOOKED_UP:
            need.files.add(path)
        elif entry.want is not None and entry.want.type is FileType.SOCKET:
            severity = entry.severity or entry.rule.severity or Severity.WARNING
            matters = severity is not Severity.INFO
            need.sockets[entry.path] = Socket(path=entry.path, matters=matters, advice=entry.advice)
        elif entry.source is not None and entry.rule.directories and _is_hashed(entry.source):
            need.certificates[posixpath.dirname(entry.path)] = posixpath.dirname(entry.source)


def _is_hashed(path: str) -> bool:
    return _HASHED.fullmatch(posixpath.basename(path)) is not None
