"""Where system tests can run, and the containers that they run in.

Without root or Debian's tools they are skipped with the reason. Where CHROOTSYNC_REQUIRE_SYSTEM is set, as in
continuous integration, such a skip is a failure: a test that nobody runs proves nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from . import image
from .container import Container, control_groups, remove_stale_groups
from .debian import HOSTS, Debian
from .mail import INSTANCES, Mail

TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "strace": "strace",
}


def why_not() -> str | None:
    """What keeps system tests from running here; None where nothing does."""
    if os.geteuid() != 0:
        return "needs root: systemd runs in a container"
    if not any(line.split(" ")[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        return "needs a root that is a mount point, which that of a plain chroot is not"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=image.PATH) is None})
    if missing:
        return f"needs the packages {', '.join(missing)} (scripts/setup-system-tests installs them)"
    if not control_groups() or not all(os.access(place, os.W_OK) for place in control_groups()):
        return "needs control groups that can be written to"
    return None


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark all tests of this folder, whichever way they came to be collected."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    reason = why_not()
    if reason is None:
        remove_stale_groups()
    elif os.environ.get("CHROOTSYNC_REQUIRE_SYSTEM", "0") not in {"", "0"}:
        pytest.fail(f"CHROOTSYNC_REQUIRE_SYSTEM is set, but a system test cannot run: {reason}", pytrace=False)
    else:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def base(_possible: None) -> Path:
    """A Debian 12 with systemd and Postfix as they come."""
    return image.base()


@pytest.fixture(scope="session")
def trixie_base(_possible: None) -> Path:
    """The same of Debian 13."""
    return image.base("trixie")


@pytest.fixture(scope="session")
def three_instances(base: Path) -> tuple[Path, ...]:
    """The layers of a Debian 12 with three instances of Postfix."""
    return (image.instances(base), base)


@pytest.fixture(scope="session")
def trixie_instances(trixie_base: Path) -> tuple[Path, ...]:
    """The same of Debian 13."""
    return (image.instances(trixie_base), trixie_base)


@pytest.fixture(scope="session")
def managers(base: Path) -> Path:
    """The layer with the package managers of other distributions."""
    return image.managers(base)


def installed(below: Path, factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, ...]:
    """The layers that install chrootsync on a base, from a wheel of this checkout; parallel processes share them."""
    folder = factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent
    dependencies = image.dependencies(below)
    target = folder / f"chrootsync-layer-{image.suite_of(below)}"
    return (image.project([dependencies, below], target), dependencies)


@pytest.fixture(scope="session")
def chrootsync(base: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, ...]:
    """The layers that install chrootsync on Debian 12."""
    return installed(base, tmp_path_factory, worker_id)


@pytest.fixture(scope="session")
def trixie_chrootsync(trixie_base: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, ...]:
    """The same on Debian 13."""
    return installed(trixie_base, tmp_path_factory, worker_id)


@pytest.fixture(scope="module")
def container(chrootsync: tuple[Path, ...], three_instances: tuple[Path, ...]) -> Iterator[Container]:
    """A freshly booted Debian 12 with three instances and chrootsync, shared by the tests of one module."""
    with Container([*chrootsync, *three_instances]) as host:
        yield host


@pytest.fixture(scope="module")
def trixie_container(trixie_chrootsync: tuple[Path, ...], trixie_instances: tuple[Path, ...]) -> Iterator[Container]:
    """The same with Debian 13."""
    with Container([*trixie_chrootsync, *trixie_instances]) as host:
        yield host


@pytest.fixture(scope="module")
def mail(container: Container) -> Mail:
    """The three instances on the module's Debian 12."""
    return Mail(container)


@pytest.fixture(scope="module")
def trixie_mail(trixie_container: Container) -> Mail:
    """The same on its Debian 13."""
    return Mail(trixie_container)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Debian]:
    """Debian 12, then Debian 13, as docs/debian.md has them; the tests of a module share each of them."""
    suite: str = request.param
    below = image.base(suite)
    layers = (image.instances(below), image.modules(below), below)
    with Container([*installed(below, tmp_path_factory, worker_id), *layers]) as host:
        host.run(["sed", "-i", f"s/^hosts:.*/hosts: {HOSTS}/", "/etc/nsswitch.conf"])
        debian = Debian(suite, Mail(host))
        debian.configure("-e", "local_recipient_maps=unix:passwd.byname", instances=INSTANCES)
        yield debian
