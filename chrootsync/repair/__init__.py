"""Carries out remedies: for each instance all of them, or none; the only stage that writes into a chroot."""

from chrootsync.repair.errors import LeftBehindError, SourceChangedError
from chrootsync.repair.recovery import Recovered, recover
from chrootsync.repair.signals import Undisturbed
from chrootsync.repair.staying import Origin
from chrootsync.repair.transaction import repair

__all__ = ["LeftBehindError", "Origin", "Recovered", "SourceChangedError", "Undisturbed", "recover", "repair"]
