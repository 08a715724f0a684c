"""A root that notes what is asked of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from chrootsync.model import AbsentError
from chrootsync.root.noting import NotingRoot


def test_everything_that_is_asked_for_is_noted_found_or_not(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("a", "b", "c", "d"):
        (tmp_path / "etc" / name).write_text(name)
    with closing(NotingRoot(str(tmp_path))) as root:
        root.source("/etc/a").close()
        assert root.read("/etc/b") == b"b"
        assert root.read_trusted("/etc/c") == b"c"
        assert root.resolve("/etc/d") == "/etc/d"
        assert len(root.names("/etc")) == 4
        for asked in (root.source, root.read, root.read_trusted, root.resolve):
            with pytest.raises(AbsentError):
                asked(f"/etc/{asked.__name__}")
        with pytest.raises(AbsentError):
            root.names("/missing")
        missing = {f"/etc/{name}" for name in ("source", "read", "read_trusted", "resolve")}
        assert root.looked == {"/etc/a", "/etc/b", "/etc/c", "/etc/d"} | missing
        assert root.listed == {"/etc", "/missing"}
        assert root.texts == {"/etc/c": b"c"}
