"""What is remembered of reloads, from JSON that may be anything."""

from __future__ import annotations

import json
from contextlib import suppress

from chrootsync.model import Record

LIMIT = 1 << 20
MOST_FAILURES = 20


def sane_records(value: object) -> dict[str, Record]:
    """Records by instance; what makes no sense is forgotten."""
    found: dict[str, Record] = {}
    for name, fields in value.items() if isinstance(value, dict) else ():
        with suppress(TypeError, ValueError, OverflowError):
            record = Record(**fields)
            found[name] = Record(
                last=float(record.last),
                pending=bool(record.pending),
                since=float(record.since),
                restart=bool(record.restart),
                failures=max(0, min(int(record.failures), MOST_FAILURES)),
            )
    return found


def legacy_records(path: str) -> dict[str, Record]:
    """What versions without a database remembered of reloads, in a file of JSON."""
    try:
        with open(path, "rb") as file:
            return sane_records(json.loads(file.read(LIMIT)))
    except (OSError, ValueError, RecursionError):
        return {}
