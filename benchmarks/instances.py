"""Three Postfix instances: a clean check, and the repair of one library, beside what Debian and jailkit have.

In the container they are real ones, set up as Debian sets them up; elsewhere the same is an image, and what needs a
host of its own is left out.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import peers
from benchmarks.files import copies, write, write_list
from benchmarks.mail import CHROOTS, fill
from benchmarks.measure import Command, interleaved, note
from benchmarks.measurement import Measurement
from benchmarks.setup import Setup, remember

NAMES = ("-", "postfix-in", "postfix-out")  # as Debian's script wants them
DIRECTORIES = ("/etc", "/lib", "/usr")  # that chroots have of the host
SCRIPT = "configure-instance.sh, three times"
JK_DRY = "jk_update -d, three times"
JK = "jk_update, three times"
FIX = "check --fix"
DEBIAN = f"for name in {' '.join(NAMES)}; do /usr/lib/postfix/configure-instance.sh $name; done"
CONFIGURE = """
for name in postfix postfix-in postfix-out; do postconf -c /etc/$name -e "smtp_tls_CApath=$1"; done
postmulti -p reload 2>/dev/null
"""
OVERRIDE = "/etc/chrootsync/rules.d/benchmark.toml"
NO_RELOAD = '[[override]]\nid = "postfix.libgcc"\non_change = "nothing"\n'


def measure(setup: Setup) -> Iterator[Measurement]:
    """Clean checks with and without a CApath, and repairs; what must have been left alone for a while comes first."""
    if not setup.live:
        for name in ("3x40", "3x180"):
            yield _image(setup, name)
        return
    _configure("/etc/ssl/certs")
    fill("", CHROOTS.values())
    remember(setup)
    yield _trusting(setup, "3x180", time.time())
    _configure("")
    for chroot in CHROOTS.values():
        shutil.rmtree(f"{chroot}/etc/ssl", ignore_errors=True)
    remember(setup)
    yield _trusting(setup, "3x40", 0)
    yield _clean(setup, "3x40")
    yield _repair(setup)
    _configure("/etc/ssl/certs")
    yield _clean(setup, "3x180")


def _image(setup: Setup, name: str) -> Measurement:
    with setup.data(name) as data:
        commands = [setup.reading(*data.options()), setup.bare(), *peers.floors(setup.floor, data.pairs)]
        commands += peers.rsync(data)
        samples = interleaved(commands, setup.rounds(15, 9))
        facts = {"copies": data.copies, "bytes": data.size}
    return Measurement(name=f"image {name}", samples=samples, facts=facts)


def _trusting(setup: Setup, name: str, since: float) -> Measurement:
    """All bytes read beside stat alone."""
    note(f"{name}: with and without reading")
    commands = [setup.reading(), setup.trusting(since)]
    return Measurement(name=f"trusted {name}", samples=interleaved(commands, setup.rounds(21, 11)))


def _clean(setup: Setup, name: str) -> Measurement:
    """A clean check of the container itself."""
    note(f"{name}: three instances in sync")
    remember(setup)
    facts, pairs = _listed(setup)
    slow = setup.rounds(5, 2)
    chroots = tuple(CHROOTS.values())
    commands = [
        setup.reading(),
        setup.bare(),
        Command(name=SCRIPT, steps=(("/bin/sh", "-c", DEBIAN),)),
        Command(name=JK_DRY, steps=peers.jk_update(chroots, DIRECTORIES, "-d")),
        *peers.floors(setup.floor, pairs),
        Command(name="postfix check", steps=(("/usr/sbin/postfix", "check"),), rounds=slow),
        *peers.generic(pairs, rounds=slow),
    ]
    samples = interleaved(commands, setup.rounds(15, 5))
    remember(setup)
    aide = list(peers.aide(setup.place, chroots, rounds=slow))  # last: Debian's script makes files that it would tell
    return Measurement(name=name, samples={**samples, **interleaved(aide, slow)}, facts=facts)


def _listed(setup: Setup) -> tuple[dict[str, int], str]:
    """How much there is to compare, and a list of the pairs."""
    pairs = [
        (path, chroot + path)
        for chroot in CHROOTS.values()
        for directory in DIRECTORIES
        for path in (directory + name for name in copies(chroot + directory))
        if os.path.isfile(path) and os.path.isfile(chroot + path)
    ]
    names = write_list(f"{setup.place}/pairs", [path for pair in pairs for path in pair])
    return {"copies": len(pairs), "bytes": sum(os.path.getsize(copy) for _, copy in pairs)}, names


def _repair(setup: Setup) -> Measurement:
    """A package brings a new libgcc_s.so.1, which all three chroots have; reloads are not part of the comparison."""
    note("3x40: repairs of a library")
    library = os.path.realpath("/lib/x86_64-linux-gnu/libgcc_s.so.1")
    original = Path(library).read_bytes()
    versions = itertools.count()

    def install(text: bytes) -> None:
        write(f"{library}.new", text)
        os.rename(f"{library}.new", library)
        os.sync()

    def upgrade() -> None:
        remember(setup)
        install(original + b"version %d" % next(versions))  # what follows its sections, no loader looks at

    write(OVERRIDE, NO_RELOAD.encode())
    chroots = tuple(CHROOTS.values())
    commands = [
        Command(name=FIX, steps=(setup.check("--fix"),), before=upgrade),
        Command(name=SCRIPT, steps=(("/bin/sh", "-c", DEBIAN),), before=upgrade),
        Command(name=JK, steps=peers.jk_update(chroots, ("/lib",)), before=upgrade),
    ]
    samples = interleaved(commands, setup.rounds(11, 5))
    install(original)
    os.unlink(OVERRIDE)
    for chroot in chroots:  # jailkit makes one of its own, which is no copy of anything
        os.unlink(f"{chroot}/etc/ld.so.cache")
    remember(setup)
    return Measurement(name="3x40 repair", samples=samples)


def _configure(certificates: str) -> None:
    """Set the CApath of all instances, and reload them, as an administrator who is done does."""
    subprocess.run(["/bin/sh", "-euc", CONFIGURE, "sh", certificates], check=True)
