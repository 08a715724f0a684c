"""The throw-away container that is measured in: a Debian with three Postfix instances, chrootsync and the peers.

It is that of the system tests. What is measured lies on this machine's disk, in a folder that the container has as
well: in memory, where its other files are, nothing has to be synced.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system import conftest, image
from tests.system.container import Container, remove_stale_groups

PEERS = ("jailkit", "aide", "rsync", "gcc", "libc6-dev")
PLACE = "/srv/bench"  # in the container
CODE = "/opt/bench"
PYTHON = "/opt/chrootsync/bin/python"
DISK = "/var/tmp"  # noqa: S108 -- not memory, and folders are made by mkdtemp
PREFIX = "chrootsync-bench-"
LIMIT = 7200.0  # seconds that a part may take, on a machine that is very busy
GIGABYTES = 8.0  # free on disk: the two largest sets take six together
SMALL_GIGABYTES = 1.5


def why_not() -> str | None:
    """What keeps a container from being booted here; None where nothing does."""
    return conftest.why_not()


@contextmanager
def place(gigabytes: float) -> Iterator[Path]:
    """A folder on disk that is gone afterwards; raises SystemExit where there is no room."""
    _remove_stale()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=DISK) as folder:
        free = shutil.disk_usage(folder).free / 1e9
        if free < gigabytes:
            raise SystemExit(f"benchmarks: {DISK} has {free:.1f} GB free; this needs {gigabytes:g}")
        os.chmod(folder, 0o755)  # noqa: S103 -- as every directory on the way to a root
        yield Path(folder)


def _remove_stale() -> None:
    """Remove the folders of benchmarks that were killed: they may hold gigabytes."""
    for folder in Path(DISK).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists() and folder.owner() == Path("/proc/self").owner():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def booted(folder: Path) -> Iterator[Container]:
    """The container; it sees ``folder`` as PLACE, and has its chroots and chrootsync's state there."""
    remove_stale_groups()
    base = image.base()
    dependencies = image.dependencies(base)
    with tempfile.TemporaryDirectory(prefix="chrootsync-bench-") as work:
        project = image.project([dependencies, base], Path(work) / "layer")
        layers = (project, dependencies, _peers(base), image.instances(base), base)
        binds = {PLACE: folder, **_on_disk(folder, layers), CODE: _code(Path(work))}
        with Container(layers, binds) as host:
            yield host


def session(container: Container, part: str, *, small: bool) -> subprocess.CompletedProcess[str]:
    """Measure one part in the container."""
    command = [PYTHON, "-m", "benchmarks.session", part, PLACE, "--live", *(["--small"] if small else [])]
    return container.run(["env", "-C", CODE, *command], timeout=LIMIT, check=False)


def _peers(base: Path) -> Path:
    """A layer with the tools that chrootsync is compared with, and a compiler for the floors."""
    script = "DEBIAN_FRONTEND=noninteractive dpkg --install /mnt/archives/*.deb"
    target = image.cache() / f"peers-{image.digest(base.name, image.FETCH, script, *PEERS)}"
    return image.fetched(base, target, PEERS, script)


def _on_disk(folder: Path, layers: tuple[Path, ...]) -> dict[str, Path]:
    """Folders for what the container would keep in memory, filled as its layers have them; lowest first."""
    spool, state = folder / "spool", folder / "state"
    state.mkdir(mode=0o700)
    for layer in reversed(layers):
        if (layer / "var/spool").is_dir():
            image.build(["cp", "-a", f"{layer}/var/spool", str(folder)], timeout=60)
    return {"/var/spool": spool, "/var/lib/chrootsync": state}


def _code(work: Path) -> Path:
    """A copy of these modules, which the container cannot write through."""
    source = Path(__file__).parent
    shutil.copytree(source, work / "code" / "benchmarks", ignore=shutil.ignore_patterns("__pycache__", "results"))
    return work / "code"
