"""The command lines of what chrootsync is compared with, each with the flags that serve it best.

What a peer does not do of the work is said in :mod:`benchmarks.goals`, in the notes below the table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.data import DataSet
from benchmarks.measure import Command, Steps

RSYNC = "/usr/bin/rsync"
JK_UPDATE = "/usr/sbin/jk_update"
AIDE = "/usr/bin/aide"
CMP_LOOP = 'while IFS= read -r -d "" one && IFS= read -r -d "" other; do cmp -s "$one" "$other" || exit 1; done'

AIDE_CONF = """\
database_in=file:{database}
database_out=file:{database}.new
gzip_dbout=no
report_url=stdout
num_workers=2
"""


def compile_floor(place: str) -> str | None:
    """The floor of floor.c; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = f"{place}/floor"
    subprocess.run([compiler, "-O2", "-o", program, str(Path(__file__).with_name("floor.c"))], check=True)
    return program


def floors(program: str | None, pairs: str) -> Iterator[Command]:
    """What it costs to look at every pair with nothing around it."""
    if program is not None:
        yield Command(name="Fs", steps=((program, "stat"),), stdin=pairs)
        yield Command(name="Fr", steps=((program, "read"),), stdin=pairs)


def generic(pairs: str, *, rounds: int) -> Iterator[Command]:
    """What every system has: a loop of cmp, and sha256sum of both sides."""
    yield Command(name="cmp in a loop", steps=(("/bin/bash", "-c", CMP_LOOP),), stdin=pairs, rounds=rounds)
    hashes = (("/usr/bin/xargs", "-0", "sha256sum", "--"),)
    yield Command(name="sha256sum", steps=hashes, stdin=pairs, rounds=rounds)


def rsync(data: DataSet, *, rounds: int = 1000) -> Iterator[Command]:
    """A run of rsync for each chroot; it walks the tree of a jail, which is quicker than a list of files."""
    if not os.path.exists(RSYNC):
        return
    loop = " in a loop" if len(data.chroots) > 1 else ""
    for flags in ("-anc", "-an"):
        steps = tuple(_rsync(flags, data, instance) for instance in data.chroots)
        yield Command(name=f"rsync {flags}{loop}", steps=steps, rounds=rounds)


def _rsync(flags: str, data: DataSet, instance: str) -> tuple[str, ...]:
    chroot = data.root + data.chroots[instance]
    if not os.path.isdir(f"{data.root}/etc/postfix"):
        return (RSYNC, flags, f"{data.root}/srv/share/", f"{chroot}/srv/share/")
    names = f"--files-from={data.names(instance)}"
    return (RSYNC, flags, "--copy-links", "--from0", names, f"{data.root}/", f"{chroot}/")


def jk_update(chroots: Sequence[str], directories: Sequence[str], *flags: str) -> Steps:
    """One run for each chroot."""
    return tuple((JK_UPDATE, *flags, "-j", chroot, *directories) for chroot in chroots)


def jk_update_image(data: DataSet, *, rounds: int) -> Iterator[Command]:
    """It knows no images: it is given the image's /srv as its own, in a mount namespace of one shell."""
    if not (os.path.exists(JK_UPDATE) and os.geteuid() == 0):
        return
    loops = " && ".join(" ".join(step) for step in jk_update(tuple(data.chroots.values()), ("/srv/share",), "-d"))
    script = f"{data.place}/jk_update.sh"
    Path(script).write_text(f"mount --bind {data.root}/srv /srv && {loops}\n")
    steps = (("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-e", script),)
    yield Command(name="jk_update -d" + (" in a loop" if len(data.chroots) > 1 else ""), steps=steps, rounds=rounds)


def aide(place: str, chroots: Sequence[str], *, rounds: int) -> Iterator[Command]:
    """A check of copies against a database that is made here, which is not measured."""
    if not os.path.exists(AIDE):
        return
    database = f"{place}/aide.db"
    lines = [f"{chroot}/(etc|lib|usr|srv)/ p+u+g+s+sha256\n" for chroot in chroots]
    Path(f"{place}/aide.conf").write_text(AIDE_CONF.format(database=database) + "".join(lines))
    subprocess.run(
        [AIDE, "--init", f"--config={place}/aide.conf"], check=True, stdout=subprocess.DEVNULL, env=_environment()
    )
    os.rename(f"{database}.new", database)
    yield Command(name="aide --check", steps=((AIDE, "--check", f"--config={place}/aide.conf"),), rounds=rounds)


def _environment() -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
