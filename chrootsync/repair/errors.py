"""What a repair raises beyond the errors of the model."""

from __future__ import annotations

from chrootsync.model import RepairError


class SourceChangedError(RepairError):
    """A source is not what was compared any more: compare again."""


class LeftBehindError(RepairError):
    """An interrupted repair could not be taken back whole."""
