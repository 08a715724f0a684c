"""Small disks in files, which can be copied while they are in use: so much a power cut would leave of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.machine import mount, with_private_mounts

needs_disks = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="only root can mount disks, and mkfs.ext4 makes them"
)

# Nothing reaches the disk by itself: no commit for five minutes, no allocation because of a rename.
LAZY = "loop,commit=300,noauto_da_alloc"


def make(image: Path, size: int, *options: str) -> None:
    """Make a disk with an ext4 file system of so many KiB."""
    with image.open("wb") as file:
        file.truncate(size << 10)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", *options, image], check=True, capture_output=True)


@contextmanager
def mounted(image: Path, at: Path, options: str = LAZY) -> Iterator[None]:
    """A disk that is in use."""
    at.mkdir(exist_ok=True)
    mount("-o", options, image, at)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def flush(at: Path) -> None:
    """Let the disk that is mounted there have all that was written."""
    subprocess.run(["sync", "-f", at], check=True)


def with_own_mounts(place: Path, work: Callable[[], list[str]]) -> list[str]:
    """What some work finds that is done where nobody else sees the mounts."""
    answer = place / "found.json"

    def note() -> None:
        answer.write_text(json.dumps(work()), encoding="utf-8")

    with_private_mounts(note)
    found = json.loads(answer.read_text(encoding="utf-8"))
    assert isinstance(found, list)
    return found
