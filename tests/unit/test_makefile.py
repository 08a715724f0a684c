"""``make install`` as it fails: units and hooks call what was installed before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call make where pip has no package index, as on a host without network."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "nothing")}
    command: Sequence[str] = ["make", f"PREFIX={folder}/usr", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("left", ["chrootsync", "chrootsync.old"], ids=["installed", "interrupted"])
def test_what_was_installed_before_comes_back_where_an_upgrade_fails(tmp_path: Path, left: str) -> None:
    """The second time it is where an upgrade that was interrupted has moved it to."""
    before = tmp_path / "usr/lib" / left / "bin/python"
    before.parent.mkdir(parents=True)
    before.write_text("the interpreter that hooks call\n")
    if left != "chrootsync":
        (tmp_path / "usr/lib/chrootsync").mkdir()

    done = make(tmp_path, "install")

    assert done.returncode != 0
    assert "what was installed before is as it was" in done.stderr
    assert (tmp_path / "usr/lib/chrootsync/bin/python").read_text() == "the interpreter that hooks call\n"
    assert os.listdir(tmp_path / "usr/lib") == ["chrootsync"]
