"""A power cut at any moment of a repair: what the disk holds then is old or new, and the next repair ends it."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from .conftest import Drifted
from .counting import tried
from .disks import flush, make, mounted, needs_disks, with_own_mounts
from .place import Place, copy, renew, torn
from .remembered import lies, lost
from .test_kills import mended
from .tracing import needs_strace, stops
from .warm import Warm

pytestmark = [needs_strace, needs_disks]

SIZE = 12 << 10  # KiB
MOMENTS, LYING_MOMENTS = 10, 4


@pytest.mark.parametrize("cut", [("root", "state"), ("root",), ("state",)], ids="-".join)
def test_a_power_cut_at_any_moment_leaves_each_path_old_or_new_and_the_next_repair_ends_it(
    scene: Drifted, tmp_path: Path, long: bool, cut: tuple[str, ...]
) -> None:
    tmp_path.chmod(0o755)
    power = Power(scene, tmp_path, cut)
    found = with_own_mounts(tmp_path, lambda: power.cuts(None if long else MOMENTS))
    for one in found:
        tried("cut", bad=bool(one))
    wrong = [one for one in found if one]
    assert not wrong, "\n".join(wrong)
    assert len(found) >= MOMENTS


def test_where_a_disk_only_says_that_it_has_written_these_tests_see_it(scene: Drifted, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    power = Power(scene, tmp_path, ("root",), lying=True)
    assert any("torn" in one for one in with_own_mounts(tmp_path, lambda: power.cuts(LYING_MOMENTS)))


def bystand(at: Path) -> None:
    """Write and sync what is nobody's concern."""
    with (at / "bystander").open("wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


class Power:
    """A place whose root and state directory are disks of their own; ``cut`` names those that lose what is not synced.

    The others have written everything at each moment, as a disk may. At every other moment somebody else's fsync(2) has
    brought all names to the disk, but not what is in the files: so are empty files made.
    """

    def __init__(self, scene: Drifted, base: Path, cut: tuple[str, ...], *, lying: bool = False) -> None:
        """The same drift as in ``scene``, at another place; ``lying``: fsync(2) does nothing."""
        self.scene, self.base, self.cut = scene, base, cut
        self.options = ["-e", "inject=fsync,fdatasync:retval=0"] if lying else []
        self.moments: list[Path] = []

    def cuts(self, count: int | None) -> list[str]:
        """Repair while images are taken, then see what each of them holds: what is wrong with it, mostly nothing."""
        with Warm(self.base / "warm") as warm:
            place = Place(self.base / "place", warm)
            place.base.mkdir()
            for name in ("config", "rules"):
                copy(str(self.scene.template / name), place.base / name)
            self.lay_out(place)
            total = self.repair(place, set())
            every = 1 if count is None else max(1, total // count)
            self.lay_out(place)
            self.repair(place, set(range(every // 2, total, every)))
            scene = replace(self.scene, place=place)
            return [self.look(scene, moment) for moment in self.moments]

    def lay_out(self, place: Place) -> None:
        """Put what has drifted on new disks."""
        for name in ("root", "state"):
            make(self.base / f"{name}.img", SIZE)
        with mounted(self.base / "root.img", place.root), mounted(self.base / "state.img", place.state):
            renew(place.base, self.scene.template)

    def repair(self, place: Place, moments: set[int]) -> int:
        """Repair, and copy the disks at these moments and at the end; gives how many moments there were."""
        number = -1
        with mounted(self.base / "root.img", place.root), mounted(self.base / "state.img", place.state):
            arguments = ["check", "--fix", *place.arguments]
            names = {call.name for call in self.scene.changes()} - {
                "openat",
                *(("fsync", "fdatasync") if self.options else ()),
            }
            for number, call in enumerate(stops(place.warm, place.log, arguments, names, self.options)):
                if number in moments:
                    self.take(place, f"{number:04} after {call}")
            if moments:
                self.take(place, "at the end")
        return number + 1

    def take(self, place: Place, what: str) -> None:
        """Copy what is on the disks at this moment."""
        moment = self.base / f"moment-{len(self.moments)}"
        moment.mkdir()
        (moment / "what").write_text(what, encoding="utf-8")
        for name in ("root", "state"):
            if name not in self.cut:
                flush(getattr(place, name))
            elif len(self.moments) % 2:
                bystand(getattr(place, name))
            shutil.copyfile(self.base / f"{name}.img", moment / f"{name}.img")
        self.moments.append(moment)

    def look(self, scene: Drifted, moment: Path) -> str:
        """What is wrong with what the disks held at a moment, and with the repairs that follow."""
        place = scene.place
        what = (moment / "what").read_text(encoding="utf-8")
        # Loop devices are numbered in the order of mounting: a disk may come back under the number that it had, or not.
        disks = [(moment / "root.img", place.root), (moment / "state.img", place.state)]
        if self.renumbered(moment):
            disks.reverse()
            what += ", disks renumbered"
        with ExitStack() as stack:
            for image, at in disks:
                stack.enter_context(mounted(image, at))
            old = scene.new if "at the end" in what else scene.old
            wrong = [f"torn: {one}" for one in torn(old, scene.new, place.picture())]
            wrong += mended(scene) + lies(place, scene.old, scene.new) + lost(place, scene.old, scene.new)
        shutil.rmtree(moment)
        return f"{what}: {'; '.join(wrong)}" if wrong else ""

    def renumbered(self, moment: Path) -> bool:
        """Whether the disks come back under other numbers after that moment: after every other one."""
        return int(moment.name.removeprefix("moment-")) % 4 in (1, 2)
