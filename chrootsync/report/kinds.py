"""What each kind of drift means, for reports that explain themselves to somebody who never heard of chrootsync."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from chrootsync.model import Kind, Severity


class Meaning(NamedTuple):
    """What a kind means, what to do about it, and its severity unless a rule says otherwise."""

    text: str
    advice: str
    severity: Severity = Severity.ERROR


_FIX = "chrootsync check --fix repairs it."
_REASON = "The reason says what to mend."

MEANINGS: Final[Mapping[Kind, Meaning]] = MappingProxyType(
    {
        Kind.MISSING: Meaning("The chroot lacks something that a daemon needs.", _FIX),
        Kind.OUTDATED: Meaning("The copy is what the host's file once was.", _FIX),
        Kind.MODIFIED: Meaning(
            "The copy is neither the host's file nor anything that chrootsync wrote.",
            f"{_FIX} To keep a copy of your own, set on_conflict = keep for its rule.",
        ),
        Kind.DIFFERS: Meaning("The copy differs from the host's file, and nothing tells who changed.", _FIX),
        Kind.METADATA: Meaning("Mode, owner, group or label of a copy are not as wanted.", _FIX),
        Kind.TYPE: Meaning(
            "Something of another type stands where a copy should.",
            f"{_FIX} A directory that is not empty is left to you.",
        ),
        Kind.ORPHAN: Meaning(
            "Something is in the chroot that no rule needs any more.",
            "chrootsync check --fix takes it away, and keeps it for a rollback.",
            Severity.WARNING,
        ),
        Kind.BAD_SOURCE: Meaning("The host's file is missing, unreadable or fails its guard.", "Mend the host's file."),
        Kind.BAD_INSTANCE: Meaning("An instance cannot be served.", _REASON),
        Kind.UNREADABLE: Meaning("Something could not be seen with these rights.", "Run chrootsync as root."),
        Kind.UNRESOLVED: Meaning(
            "A library that a module needs is not on the host.",
            "Install its package, or take the module out of /etc/nsswitch.conf.",
        ),
        Kind.UNREACHABLE: Meaning(
            "A socket that a daemon would need is not there inside the chroot.", _REASON, Severity.WARNING
        ),
        Kind.UNSAFE: Meaning("The way there, or the thing itself, could be used against root.", _REASON),
        Kind.CONTESTED: Meaning(
            "Something else keeps changing the copy.",
            "Find out what it is; then chrootsync check --fix --force repairs it.",
            Severity.WARNING,
        ),
        Kind.HELD: Meaning(
            "A repair was rolled back here.", "chrootsync check --fix --force releases it.", Severity.WARNING
        ),
        Kind.STALE_PROCESS: Meaning(
            "A chrooted process still uses what was replaced.",
            "chrootsync check --fix reloads its instance.",
            Severity.WARNING,
        ),
    }
)
