"""Full and read-only disks: what has no room there is told and not touched, and what has room is repaired."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.machine import mount

from .conftest import Drifted
from .counting import tried
from .disks import make, mounted, needs_disks, with_own_mounts
from .place import Place, copy, empty, renew, torn
from .test_errors import misbehaved, misreported, read_report
from .warm import Warm

pytestmark = needs_disks

NO_SPACE, READ_ONLY = (os.strerror(number).lower() for number in (errno.ENOSPC, errno.EROFS))

Crowded = Callable[[Drifted, ExitStack], None]
"""Leaves a drifted place no room; what is to be ended afterwards goes on the stack."""


def move(place: Path, disk: Callable[[], object]) -> None:
    """Mount a disk over a directory, and bring what was in it there."""
    aside = place.with_name(f"{place.name}-aside")
    place.rename(aside)
    place.mkdir()
    disk()
    empty(place)
    copy(f"{aside}/.", place)
    shutil.rmtree(aside)


def on_disk(place: Path, base: Path, size: int, stack: ExitStack) -> None:
    """Move a directory to an ext4 disk of so many KiB."""
    image = base / f"{place.name}.img"
    make(image, size, "-m", "0")
    move(place, lambda: stack.enter_context(mounted(image, place, "loop")))


def on_tmpfs(place: Path, options: str) -> None:
    """Move a directory to a file system in memory."""
    mode = place.stat().st_mode & 0o777
    move(place, lambda: mount("-t", "tmpfs", "-o", f"mode={mode:o},{options}", "none", place))


def fill(place: Path) -> None:
    """Leave no room on the disk that a directory is on."""
    with (place / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def remounted(place: Path, how: str) -> None:
    """Mount what is mounted there in another way."""
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def repaired_in_a_crowd(
    scene: Drifted, base: Path, crowd: Crowded, code: int, reason: str, broken: set[str]
) -> list[str]:
    """What is wrong with a repair where there is no room, and with the one after there is."""
    with Warm(base / "warm") as warm, ExitStack() as stack:
        place = Place(base / "place", warm)
        place.base.mkdir()
        here = replace(scene, place=place)
        renew(place.base, scene.template)
        crowd(here, stack)
        before = place.inodes()
        ended = place.fix("--format", "json")
        wrong = [f"torn: {one}" for one in torn(scene.old, scene.new, place.picture())] + misbehaved(ended)
        if ended.code != code or reason not in ended.output:
            wrong.append(f"ended {ended.code} without {reason!r}: {ended.output[-2000:]}{ended.errors}")
        report = read_report(ended)
        if report is None:
            return [*wrong, f"no report: {ended.output} {ended.errors}"]
        wrong += misreported(here, report, ended, before)
        told = {instance["name"] for instance in report["instances"] if instance["status"] == "failed"}
        if told != broken:
            wrong.append(f"failed are {told}")
        wrong += [f"left over: {one}" for one in place.temporaries()]
        return wrong


def chroot_too_small(scene: Drifted, stack: ExitStack) -> None:
    place = scene.place
    shutil.rmtree(place.root / "jail/two/var", ignore_errors=True)
    on_disk(place.root / "jail/two", place.base, 200, stack)


def chroot_without_inodes(scene: Drifted, _stack: ExitStack) -> None:
    on_tmpfs(scene.place.root / "jail/two", "size=2m,nr_inodes=12")


def chroot_read_only(scene: Drifted, stack: ExitStack) -> None:
    on_disk(scene.place.root / "jail/two", scene.place.base, 2048, stack)
    remounted(scene.place.root / "jail/two", "ro")


def state_full(scene: Drifted, _stack: ExitStack) -> None:
    on_tmpfs(scene.place.state, "size=512k,nr_inodes=64")
    fill(scene.place.state)


def state_without_inodes(scene: Drifted, _stack: ExitStack) -> None:
    on_tmpfs(scene.place.state, "size=4m,nr_inodes=2")


def state_read_only(scene: Drifted, _stack: ExitStack) -> None:
    on_tmpfs(scene.place.state, "size=4m")
    remounted(scene.place.state, "ro")


def both_read_only(scene: Drifted, stack: ExitStack) -> None:
    chroot_read_only(scene, stack)
    state_read_only(scene, stack)


@pytest.mark.parametrize(
    ("crowd", "code", "reason", "broken"),
    [
        (chroot_too_small, 3, NO_SPACE, {"two"}),
        (chroot_without_inodes, 3, NO_SPACE, {"two"}),
        (chroot_read_only, 3, READ_ONLY, {"two"}),
        (state_full, 0, "", set()),
        (state_read_only, 0, "", set()),
        (both_read_only, 3, READ_ONLY, {"two"}),
    ],
)
def test_without_room_an_instance_stays_as_it_was_and_the_others_are_repaired(
    scene: Drifted, tmp_path: Path, crowd: Crowded, code: int, reason: str, broken: set[str]
) -> None:
    tmp_path.chmod(0o755)
    wrong = with_own_mounts(tmp_path, lambda: repaired_in_a_crowd(scene, tmp_path, crowd, code, reason, broken))
    tried("full", bad=bool(wrong))
    assert not wrong, "\n".join(wrong)


def test_a_report_that_has_no_room_is_told_and_the_repair_is_whole(scene: Drifted, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    wrong = with_own_mounts(tmp_path, lambda: reported_to_a_full_disk(scene, tmp_path))
    tried("full", bad=bool(wrong))
    assert not wrong, "\n".join(wrong)


def reported_to_a_full_disk(scene: Drifted, base: Path) -> list[str]:
    """What is wrong with a repair whose report has no room."""
    with Warm(base / "warm") as warm:
        place = Place(base / "place", warm)
        place.base.mkdir()
        renew(place.base, scene.template)
        reports = base / "reports"
        reports.mkdir()
        on_tmpfs(reports, "size=4k")
        fill(reports)
        ended = place.fix("--report", f"json={reports}/report.json")
        wrong = misbehaved(ended)
        if place.picture() != scene.new:
            wrong.append("not all is repaired")
        if NO_SPACE not in ended.errors or os.listdir(reports) != ["ballast"]:
            wrong.append(f"ended {ended.code}: {ended.errors} {os.listdir(reports)}")
        return wrong
