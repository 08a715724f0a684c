"""The read-only layers that containers are made of: a Debian, chrootsync's dependencies, chrootsync itself.

Building a Debian takes a minute and half a gigabyte, so it is done once per recipe and kept in the user's cache folder;
a finished layer is never written again. All work happens in a mount and process namespace of its own: nothing stays
mounted or running when a build is interrupted.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from . import mail

PROJECT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"  # where a test asks for no other
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}  # wheels are fetched for it, whatever Python runs the tests
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "postfix",
    "procps",
    "iproute2",
    "rsyslog",
    "ca-certificates",
    "netbase",
    "bind9",  # one more daemon that knows how to chroot
    "acl",
    "attr",
    "strace",
)

# What a Debian holds that is only looked at, never booted.
IMAGE_PACKAGES = ("postfix", "ca-certificates", "netbase", "python3")

# The modules that systemd brings for nsswitch.conf, in a layer of their own, because each is entered there when it is
# installed; and Mozilla's NSS, which is named like one of them and has nothing to do with them.
MODULES = ("libnss-systemd", "libnss-mymachines", "libnss-resolve", "libnss-myhostname", "libnss3")

# Daemons that know how to chroot, besides those of the base.
SERVICES = ("openssh-server", "openssh-client", "php-fpm")

# Package managers of other distributions, in a layer of their own: the base stays as it is.
MANAGERS = ("rpm", "pacman-package-manager")

# What uses rpm in turn; Debian's packages of these two do not go together, so that each has its layer.
FRONTENDS = {"dnf": ("rpm", "dnf", "dnf-plugins-core"), "zypper": ("rpm", "zypper")}

# What brings resolv.conf from a network. resolvconf is fetched only: once installed, the others write by way of it.
NETWORK = ("isc-dhcp-client", "ifupdown", "resolvconf")

# Fetches packages for the Debian in $1, from the mirror $2 and the suite $3, into the folder $4. This machine's apt
# does it, which knows the way out, whatever proxies there are.
FETCH = """
below=$1 mirror=$2 suite=$3 folder=$4
shift 4
mkdir -p "$folder/lists/partial" "$folder/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$folder/sources.list"
fetch() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=- \\
        -o Dir::State::status="$below/var/lib/dpkg/status" -o Dir::State::lists="$folder/lists" \\
        -o Dir::Cache="$folder" "$@"
}
fetch update
fetch -y --no-install-recommends --download-only install "$@"
"""

# Runs inside the new Debian. Timers would take apt's lock in the middle of a test, and a name server on 127.0.0.1
# would answer where a missing resolv.conf makes the resolver fall back to that address.
CUSTOMISE = """
systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer
systemctl disable named.service
find /var/cache/apt/archives -name '*.deb' ! -name 'netbase_*' ! -name 'libc6_*' -delete
rm -rf /var/lib/apt/lists/*
: > /etc/resolv.conf
echo testhost > /etc/hostname
printf '127.0.0.1\\tlocalhost testhost.test testhost\\n' > /etc/hosts
"""

# The same for a Debian that nothing boots.
CUSTOMISE_IMAGE = """
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
printf 'nameserver 192.0.2.53\\n' > /etc/resolv.conf
echo testimage > /etc/hostname
printf '127.0.0.1\\tlocalhost\\n' > /etc/hosts
"""

# Mounts the layers as a container would see them, runs a script in them, and copies what it wrote to a new layer.
# $1 lower layers, $2 new layer, $3 a folder for /mnt, $4 the script. What overlays note in extended attributes is left
# out: it belongs to this very stack.
LAYER = """
mount -t tmpfs tmpfs /run
mkdir /run/up /run/wk /run/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=/run/up,workdir=/run/wk" /run/root
mount --bind "$3" /run/root/mnt
chroot /run/root /bin/sh -euc "$4"
for part in etc opt usr var; do
    if [ -d "/run/up/$part" ]; then cp -dR --preserve=mode,ownership,timestamps,links "/run/up/$part" "$2/"; fi
done
"""


class BuildError(Exception):
    """A layer could not be built; the text ends with what the failed command printed."""


def cache() -> Path:
    """The folder that layers are kept in, created where it is missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chrootsync-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between test processes: the parallel ones build each layer once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def confined(*command: str) -> list[str]:
    """The command line that runs ``command`` so that its mounts and processes end with it, and it with this process."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *command,
    ]


def build(command: Sequence[str], *, timeout: float) -> None:
    """Run one step of a build."""
    environment = {**os.environ, "PATH": f"{PATH}:{os.environ.get('PATH', '')}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def digest(*parts: str) -> str:
    """A short name for a recipe."""
    return hashlib.sha256("\0".join((platform.machine(), *parts)).encode()).hexdigest()[:12]


@contextmanager
def once(target: Path) -> Iterator[Path | None]:
    """Give a temporary folder to build ``target`` in, which gets its name when complete; None where it is there.

    Left-overs of interrupted builds of the same layer are removed first.
    """
    if target.exists():
        yield None
        return
    with locked(target.parent / f"{target.name}.lock"):
        if target.exists():
            yield None
            return
        for stale in target.parent.glob(f"{target.name}.tmp*"):
            shutil.rmtree(stale)
        work = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp", dir=target.parent))
        work.chmod(0o755)
        try:
            yield work
            work.rename(target)
        finally:
            if work.exists():
                shutil.rmtree(work)


def mirrors(sources: Path = Path("/etc/apt")) -> list[str]:
    """The Debian mirrors that this machine's apt is set up for, in its own order; none on another distribution."""
    files = [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]
    lines = re.compile(r"^deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+(.*)$", re.MULTILINE)
    found: list[tuple[str, str, str]] = []
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text(errors="replace")
        if file.suffix == ".list":
            found += [(uri, suite, parts) for uri, suite, parts in lines.findall(text)]
        elif file.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                fields = {
                    name.lower(): re.sub(r"^#.*$", "", value, flags=re.MULTILINE)
                    for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n(?:[ \t#].*))*)", stanza, re.MULTILINE)
                }
                if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").strip() != "no":
                    found += [
                        (uri, suite, fields.get("components", ""))
                        for uri in fields.get("uris", "").split()
                        for suite in fields.get("suites", "").split()
                    ]
    release = platform.freedesktop_os_release()
    suites = {*PYTHONS, release.get("VERSION_CODENAME"), "oldstable", "stable", "testing", "unstable", "sid"}
    if release.get("ID") != "debian":
        return []
    return list(
        dict.fromkeys(
            uri
            for uri, suite, parts in found
            if suite in suites and "main" in parts.split() and urlsplit(uri).scheme in {"http", "https", "file"}
        )
    )


def debian(suite: str, packages: Sequence[str], customise: str, target: Path) -> Path:
    """Build a Debian with ``packages`` and all that they depend on, from the mirror that this machine's apt uses."""
    with once(target) as work:
        if work is not None:
            command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(work)]
            build(confined(*command, *mirrors()[:1]), timeout=900)
            build(confined("chroot", str(work), "/bin/sh", "-euc", customise), timeout=60)
    return target


def base(suite: str = SUITE) -> Path:
    """A minimal Debian with systemd and Postfix; the packages netbase and libc6 lie in its /var/cache/apt/archives.

    ``suite`` is bookworm (12) or trixie (13).
    """
    return debian(suite, PACKAGES, CUSTOMISE, cache() / f"{suite}-{digest(*PACKAGES, CUSTOMISE)}")


def rootfs(suite: str) -> Path:
    """A Debian with Postfix and python3 to be looked at as an image; ``suite`` may also be bullseye (11).

    It is a finished layer: whoever wants to write takes a copy, or an overlay.
    """
    if suite in PYTHONS:
        return base(suite)  # there for other tests as well, and a minute saved
    target = cache() / f"{suite}-image-{digest(*IMAGE_PACKAGES, CUSTOMISE_IMAGE)}"
    return debian(suite, IMAGE_PACKAGES, CUSTOMISE_IMAGE, target)


def suite_of(below: Path) -> str:
    """The suite that a base is of."""
    release = (below / "usr/lib/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
    if found is None:
        raise BuildError(f"{below}/usr/lib/os-release names no VERSION_CODENAME")
    return found[1]


def layer(lower: Sequence[Path], target: Path, script: str, *, wheels: Path = Path("/mnt")) -> None:
    """Run ``script`` on top of the ``lower`` layers (uppermost first) and put into ``target`` what it wrote.

    ``wheels`` is /mnt meanwhile.
    """
    stack = ":".join(str(path) for path in lower)
    build(confined("sh", "-euc", LAYER, "layer", stack, str(target), str(wheels), script), timeout=300)


def instances(below: Path) -> Path:
    """A layer with three instances of Postfix, a name server and a sink; making it takes Postfix ten seconds."""
    script = mail.setup(suite_of(below))
    target = cache() / f"instances-{digest(below.name, script)}"
    with once(target) as work:
        if work is not None:
            layer([below], work, script)
    return target


def fetched(below: Path, target: Path, packages: Sequence[str], script: str) -> Path:
    """A layer that ``script`` makes on top of a base; /mnt/archives then has the packages with all they depend on."""
    with once(target) as work:
        if work is not None:
            mirror = (below / "etc/apt/sources.list").read_text().split()[1]  # where debootstrap had it from
            with tempfile.TemporaryDirectory() as folder:
                fetch = ["sh", "-euc", FETCH, "fetch", str(below), mirror, suite_of(below), folder, *packages]
                build(confined(*fetch), timeout=300)
                layer([below], work, script, wheels=Path(folder))
    return target


def managers(below: Path) -> Path:
    """A layer with rpm and pacman, which own nothing yet; rpm keeps its database where other distributions have it."""
    script = """
        export DEBIAN_FRONTEND=noninteractive
        dpkg --install /mnt/archives/*.deb
        mkdir -p /etc/rpm
        echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros.database
        rpm --initdb
    """
    target = cache() / f"managers-{digest(below.name, FETCH, script, *MANAGERS)}"
    return fetched(below, target, MANAGERS, script)


def frontend(below: Path, name: str) -> Path:
    """A layer with rpm, and with dnf or zypper on top of it; nothing is installed by them yet."""
    script = """
        export DEBIAN_FRONTEND=noninteractive
        dpkg --install /mnt/archives/*.deb
        mkdir -p /etc/rpm
        echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros.database
        rpm --initdb
    """
    target = cache() / f"{name}-{digest(below.name, FETCH, script, *FRONTENDS[name])}"
    return fetched(below, target, FRONTENDS[name], script)


def network(below: Path) -> Path:
    """A layer with ifupdown and dhclient; the package resolvconf lies in its /var/cache/apt/archives."""
    script = """
        export DEBIAN_FRONTEND=noninteractive
        mv /mnt/archives/resolvconf_*.deb /var/cache/apt/archives/
        dpkg --install /mnt/archives/*.deb
        systemctl disable networking.service
    """
    return fetched(below, cache() / f"network-{digest(below.name, FETCH, script, *NETWORK)}", NETWORK, script)


def modules(below: Path) -> Path:
    """A layer with the modules that systemd brings for nsswitch.conf, and libnss3; systemd-resolved is switched off.

    It goes between a base and its instances, whose resolv.conf counts.
    """
    script = """
        export DEBIAN_FRONTEND=noninteractive
        dpkg --install /mnt/archives/*.deb
        systemctl disable systemd-resolved.service
        systemctl mask systemd-resolved.service
        rm -f /etc/resolv.conf
        : > /etc/resolv.conf
    """
    return fetched(below, cache() / f"modules-{digest(below.name, FETCH, script, *MODULES)}", MODULES, script)


def jailkit(below: Path) -> Path:
    """A layer with jailkit, which has built no jail yet."""
    script = "DEBIAN_FRONTEND=noninteractive dpkg --install /mnt/archives/*.deb"
    return fetched(below, cache() / f"jailkit-{digest(below.name, FETCH, script)}", ["jailkit"], script)


def services(below: Path) -> Path:
    """A layer with OpenSSH and PHP-FPM as Debian packages them: both start at boot."""
    script = "DEBIAN_FRONTEND=noninteractive dpkg --install /mnt/archives/*.deb"
    return fetched(below, cache() / f"services-{digest(below.name, FETCH, script, *SERVICES)}", SERVICES, script)


def dependencies(below: Path) -> Path:
    """A layer with a virtual environment in /opt/chrootsync that holds what chrootsync depends on."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements: list[str] = project["dependencies"]
    script = (
        "python3 -m venv /opt/chrootsync\n/opt/chrootsync/bin/pip install --no-index --find-links /mnt /mnt/*.whl\n"
    )
    target = cache() / f"dependencies-{digest(below.name, script, *requirements)}"
    with once(target) as work:
        if work is not None:
            machine, python = platform.machine(), PYTHONS[suite_of(below)]
            platforms = [f"--platform={name}_{machine}" for name in ("manylinux_2_28", "manylinux2014")]
            with tempfile.TemporaryDirectory() as wheels:
                fetch = ["-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={python}"]
                build([sys.executable, *fetch, *platforms, f"--dest={wheels}", *requirements], timeout=300)
                layer([below], work, script, wheels=Path(wheels))
    return target


def project(below: Sequence[Path], target: Path) -> Path:
    """A layer with this checkout's chrootsync, installed from a wheel as users get it, and its command on the PATH."""
    with once(target) as work:
        if work is not None:
            script = """
                /opt/chrootsync/bin/pip install --no-index --no-deps /mnt/chrootsync-*.whl
                ln -s /opt/chrootsync/bin/chrootsync /usr/local/bin/chrootsync
            """
            with tempfile.TemporaryDirectory() as wheels:
                # Where the build backend is at hand, an isolated build would only fetch it again.
                backend = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
                wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", *backend, f"--wheel-dir={wheels}", str(PROJECT)]
                build([sys.executable, *wheel], timeout=300)
                layer(below, work, script, wheels=Path(wheels))
    return target
