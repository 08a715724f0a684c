"""The differences between originals and copies, for people."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import closing

from chrootsync.model import Chroot, Copy, Entry, Host, InstanceReport, PathError, Reader, Source

DIFF_LIMIT = 256 << 10  # bytes of a text whose differences somebody would want to read


def differences(host: Host, reports: Sequence[InstanceReport]) -> dict[tuple[str, str], str]:
    """Unified differences by (instance name, path), of small texts that everybody may read on both sides."""
    found: dict[tuple[str, str], str] = {}
    for report in reports:
        drifts = [finding.drift for finding in report.findings if _may_be_shown(finding.drift.entry)]
        if not drifts:
            continue
        with closing(host.root.chroot(report.instance.chroot)) as chroot:
            for drift in drifts:
                text = _difference(host.root, chroot, drift.entry)
                if text:
                    found[report.instance.name, drift.entry.path] = text
    return found


def _may_be_shown(entry: Entry) -> bool:
    """Whether both sides were found to be readable by everybody, and to differ."""
    want, have = entry.want, entry.have
    if want is None or have is None or entry.filtered:
        return False
    return want.sha256 is not None and have.sha256 is not None and want.sha256 != have.sha256


def _difference(root: Reader, chroot: Chroot, entry: Entry) -> str:
    source = root.source(entry.source or "")
    try:
        new = _text(source)
        old = _text(chroot.look(entry.path))
    except PathError:
        return ""
    finally:
        source.close()
    if new is None or old is None:
        return ""
    there, here = f"{entry.instance.chroot.rstrip('/')}{entry.path}", entry.source or ""
    return "\n".join(difflib.unified_diff(old, new, there, here, lineterm=""))


def _text(thing: Source | Copy) -> list[str] | None:
    """The lines of a small text; None for what is large or binary."""
    state = thing.state
    if state is None or (state.size or 0) > DIFF_LIMIT or not (state.mode or 0) & 0o004:
        return None
    data = thing.contents(DIFF_LIMIT)
    return None if b"\0" in data else data.decode("utf-8", "surrogateescape").splitlines()
