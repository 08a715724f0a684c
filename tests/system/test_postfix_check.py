"""``postfix check`` compares copies with the host's files; chrootsync finds all that it finds, and more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import pytest

from .debian import Debian, findings
from .mail import INSTANCES, OUTPUT, Postfix
from .test_main_job import complaints

SEEDS = (1, 2)

# What administrators and jailkit leave in chroots: files of the host, in all directories that are looked into. Files of
# daemons that the chroots have no use for are kept fresh like others.
EXTRAS = (
    "/bin/sh",
    "/etc/debian_version",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ssl/openssl.cnf",
    "/lib64/ld-linux-x86-64.so.2",
    "/sbin/ldconfig",
    "/usr/bin/env",
    "/usr/lib/os-release",
    "/usr/share/zoneinfo/UTC",
)

# Puts $2... from the host into the chroot $1.
BRING = """
chroot=$1
shift
for path; do
    mkdir -p "$chroot${path%/*}"
    cp -L "$path" "$chroot$path"
done
"""

# Spoils the files of the chroot $2 that have a counterpart on the host, each in a way that the random numbers of seed
# $1 choose; prints which way each was. A third is left as it is.
MUTATE = """
import json, os, random, stat, sys

chance = random.Random(int(sys.argv[1]))
chroot = sys.argv[2]

def flip(path):
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 255]))

def flip_secretly(path):
    times = os.stat(path)
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"more")

def empty(path):
    os.truncate(path, 0)

def open_wide(path):
    os.chmod(path, 0o666)

def remove(path):
    os.remove(path)

WAYS = [flip, flip_secretly, lengthen, empty, open_wide, remove]
done = {}
for top in ("bin", "etc", "lib", "lib64", "sbin", "usr"):
    for folder, folders, names in os.walk(os.path.join(chroot, top)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            inside = path[len(chroot):]
            if stat.S_ISREG(os.lstat(path).st_mode) and os.path.isfile(inside) and chance.random() < 0.67:
                way = chance.choice(WAYS)
                way(path)
                done[inside] = way.__name__
print(json.dumps(done))
"""

# What compares unequal but is not chrootsync's to compare: a file that not everybody may read, and one of a daemon.
ALIEN = """
umask 022
mkdir -p "$1/etc"
echo 'jailed:*:19000:0:99999:7:::' > "$1/etc/shadow"
echo alien > "$1/etc/issue"
chown postfix "$1/etc/issue"
"""


# Tells all of these two.
LOOK = """
cd "$1"
sha256sum etc/shadow etc/issue
stat -c '%n %i %Y %a %U' etc/shadow etc/issue
"""


def bring(debian: Debian) -> None:
    """Fill a chroot with more than it needs."""
    debian.container.shell(BRING, OUTPUT.chroot, *EXTRAS)


def mutate(debian: Debian, seed: int) -> dict[str, str]:
    """Spoil the output instance's chroot; gives the way for each path."""
    program = ["/usr/bin/python3", "-I", "-c", MUTATE, str(seed), OUTPUT.chroot]
    ways: dict[str, str] = json.loads(debian.container.run(program).stdout)
    return ways


def differing(debian: Debian) -> set[str]:
    """The copies that ``postfix check`` of each instance says differ from the host's files, by full paths."""
    return {
        found[1]
        for found in re.finditer(r"warning: (/\S+) and (/\S+) differ", complaints(debian.mail))
        if found[1].endswith(found[2])
    }


def inside(instance: Postfix, paths: Iterable[str]) -> set[str]:
    """The full paths of what lies in an instance's chroot."""
    return {f"{instance.chroot}{path}" for path in paths}


@pytest.fixture(autouse=True)
def _afresh(debian: Debian) -> Iterator[None]:
    """Chroots in sync; Debian's script is off, since on Debian 13 ``postfix check`` runs it before it looks."""
    debian.switch_script(on=True)
    debian.empty()
    debian.script()
    debian.switch_script(on=False)
    bring(debian)
    debian.check("--fix", code=0)
    yield
    debian.switch_script(on=True)


def test_a_chroot_in_sync_is_one_for_both(debian: Debian) -> None:
    assert differing(debian) == set()
    assert findings(debian.check(code=0), OUTPUT) == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_postfix_check_sees_goes_unseen(debian: Debian, seed: int) -> None:
    ways = mutate(debian, seed)
    assert {"flip", "flip_secretly", "lengthen", "empty", "open_wide", "remove"} == set(ways.values())

    found = findings(debian.check(code=1), OUTPUT)
    theirs = differing(debian)

    opened = {path for path, way in ways.items() if way == "open_wide"}
    spoilt = {path for path, way in ways.items() if way != "remove"} - opened
    assert theirs == inside(OUTPUT, (path for path in spoilt if not path.startswith("/lib64/")))
    assert opened | spoilt <= set(found)
    assert {found[path] for path in opened} == {"metadata"}

    debian.check("--fix", code=0)

    assert differing(debian) == set()
    assert findings(debian.check(code=0), OUTPUT) == {}


def test_what_postfix_check_does_not_look_at(debian: Debian) -> None:
    """It passes over lib64, libexec and lib32, over modes, and over what is missing."""
    debian.container.shell(
        'mkdir -p /lib32 /libexec; echo host | tee /lib32/a.so > /libexec/b; cd "$1"; mkdir -p lib32 libexec;'
        "echo copy | tee lib32/a.so > libexec/b; echo >> lib64/ld-linux-x86-64.so.2;"
        "chmod 666 etc/hosts; rm etc/services",
        OUTPUT.chroot,
    )

    found = findings(debian.check(code=1), OUTPUT)

    assert differing(debian) == set()
    assert found == {
        "/lib32/a.so": "differs",
        "/libexec/b": "differs",
        "/lib64/ld-linux-x86-64.so.2": "differs",
        "/etc/hosts": "metadata",
        "/etc/services": "missing",
    }
    debian.check("--fix", code=0)
    assert findings(debian.check(code=0), OUTPUT) == {}


def test_what_not_everybody_may_read_gets_nothing(debian: Debian) -> None:
    """A jail's own shadow is neither reported nor touched, and its checksum is not told; nor a daemon's own file."""
    debian.container.shell(ALIEN, OUTPUT.chroot)
    before = debian.container.shell(LOOK, OUTPUT.chroot)
    assert differing(debian) == inside(OUTPUT, ["/etc/shadow", "/etc/issue"])

    for arguments in ((), ("--fix",), ("--diff", "-vv")):
        run = debian.check(*arguments, code=0)
        assert findings(run, OUTPUT) == {}
        report = json.dumps(run.report)
        assert "shadow" not in report
        assert not any(checksum in report for checksum in before.split() if len(checksum) == 64)

    after = debian.container.shell(LOOK, OUTPUT.chroot)
    assert after == before
    debian.container.shell('cd "$1"; rm etc/shadow etc/issue', OUTPUT.chroot)
    assert differing(debian) == set()


def test_the_other_instances_are_left_alone(debian: Debian) -> None:
    mutate(debian, SEEDS[0])

    run = debian.check(code=1)

    assert [instance for instance in INSTANCES if findings(run, instance)] == [OUTPUT]
