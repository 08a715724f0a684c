"""Small trees in the layout of other distributions, with real ELF files: what a Postfix there would see of its host.

The files are Debian's. A loader has the directories that it searches compiled in, so that each tree has one in which
these two strings are the distribution's own. Facts: postfix.spec of Fedora and SUSE, PKGBUILD of Arch, APKBUILD of
Alpine, nsswitch.conf as their packages install it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit import elf_builder
from tests.unit.scenery import grow

from .workshop import Workshop

TRIPLET = "x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"
MUSL_LOADER = "ld-musl-x86_64.so.1"
DIRECTORIES = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0"

# What a host has of the modules that it may name, with all that they need.
GLIBC = (
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libcap.so.2",
    "libresolv.so.2",
    "libnss_compat.so.2",
    "libnss_dns.so.2",
)
SYSTEMD = tuple(f"libnss_{name}.so.2" for name in ("systemd", "mymachines", "resolve", "myhostname"))

RESOLVER = "nameserver 192.0.2.53\n"
SERVICES = "smtp 25/tcp mail\n"
MASTER = """\
smtp      inet  n       -       y       -       -       smtpd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       y       -       -       smtp
local     unix  -       n       n       -       -       local
"""
ALWAYS = {"/etc/resolv.conf", "/etc/services", "/etc/hosts"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """A distribution: how it lays out a host, how it configures Postfix, and what a chroot there needs for that.

    ``links`` are its merged directories, ``libraries`` where its packages put libraries (but those that are ``apart``
    into /usr/lib64), ``searched`` what its loader searches (none with musl), ``files`` what else is there, ``copies``
    the libraries that a chroot needs, by path. Each names a module more than by default, mymachines, because of what
    that one needs in turn.
    """

    release: str
    libraries: str
    searched: tuple[str, str] | None
    daemons: str
    copies: frozenset[str]
    links: Mapping[str, str] = field(default_factory=dict)
    main: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = SYSTEMD
    apart: frozenset[str] = frozenset()


def _main(daemons: str, commands: str, shared: str, *more: str) -> str:
    """A main.cf as postfix-install fills it in."""
    lines = [
        "compatibility_level = 3.6",
        "queue_directory = /var/spool/postfix",
        f"command_directory = {commands}",
        f"daemon_directory = {daemons}",
        "data_directory = /var/lib/postfix",
        "mail_owner = postfix",
        f"shlib_directory = {shared}",
        *more,
    ]
    return "".join(f"{line}\n" for line in lines)


def _in(directory: str, *names: str) -> frozenset[str]:
    return frozenset(f"{directory}/{name}" for name in names)


BOTH = ("libgcc_s.so.1", "libnss_myhostname.so.2", "libnss_mymachines.so.2", "libcap.so.2")
MERGED = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
FEDORA_TLS = (
    "smtp_tls_CApath = /etc/pki/tls/certs",
    "smtp_tls_CAfile = /etc/pki/tls/certs/ca-bundle.crt",
    "smtp_tls_security_level = may",
    "meta_directory = /etc/postfix",
)
BUNDLE = {
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": "# certificates\n",
    "/etc/pki/tls/certs/ca-bundle.crt": "../../ca-trust/extracted/pem/tls-ca-bundle.pem",
}
STUB = {
    "/etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "/run/systemd/resolve/stub-resolv.conf": RESOLVER,
}

DISTRIBUTIONS: dict[str, Distribution] = {
    "rhel": Distribution(
        release='ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n',
        links=MERGED,
        libraries="/usr/lib64",
        searched=("/lib64", "/usr/lib64"),
        daemons="/usr/libexec/postfix",
        main=_main("/usr/libexec/postfix", "/usr/sbin", "/usr/lib64/postfix", *FEDORA_TLS),
        files={
            "/etc/nsswitch.conf": "hosts: files mymachines dns myhostname\nservices: files sss\n",
            **BUNDLE,
        },
        copies=_in("/lib64", *BOTH),
    ),
    "fedora": Distribution(
        release="ID=fedora\nVERSION_ID=42\n",
        links={**MERGED, "/sbin": "usr/bin", "/usr/sbin": "bin"},
        libraries="/usr/lib64",
        searched=("/lib64", "/usr/lib64"),
        daemons="/usr/libexec/postfix",
        main=_main("/usr/libexec/postfix", "/usr/sbin", "/usr/lib64/postfix", *FEDORA_TLS),
        files={
            "/etc/nsswitch.conf": "hosts: files mymachines myhostname resolve [!UNAVAIL=return] dns\nservices: files\n",
            **BUNDLE,
            **STUB,
        },
        copies=_in("/lib64", *BOTH, "libnss_resolve.so.2", "libm.so.6"),
    ),
    "leap": Distribution(  # not merged: libc is in /lib64, what is not needed to boot in /usr/lib64
        release='ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
        libraries="/lib64",
        searched=("/lib64", "/usr/lib64"),
        daemons="/usr/lib/postfix/bin",
        main=_main("/usr/lib/postfix/bin/", "/usr/sbin", "/usr/lib/postfix", "setgid_group = maildrop"),
        files={
            "/etc/nsswitch.conf": "hosts: files mdns_minimal [NOTFOUND=return] dns mymachines\nservices: files\n",
        },
        copies=_in("/lib64", "libgcc_s.so.1", "libnss_mymachines.so.2", "libcap.so.2"),
        apart=frozenset({"libcap.so.2"}),
    ),
    "tumbleweed": Distribution(  # what a package configures is in /usr/etc, /etc is the administrator's
        release='ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nVERSION_ID="20250801"\n',
        links=MERGED,
        libraries="/usr/lib64",
        searched=("/lib64", "/usr/lib64"),
        daemons="/usr/lib/postfix/bin",
        main=_main("/usr/lib/postfix/bin/", "/usr/sbin", "/usr/lib/postfix", "setgid_group = maildrop"),
        files={
            "/usr/etc/nsswitch.conf": "hosts: files mymachines dns myhostname\nservices: files\n",
        },
        copies=_in("/lib64", *BOTH),
    ),
    "arch": Distribution(
        release="ID=arch\nBUILD_ID=rolling\n",
        links={
            "/bin": "usr/bin",
            "/sbin": "usr/bin",
            "/usr/sbin": "bin",
            "/lib": "usr/lib",
            "/lib64": "usr/lib",
            "/usr/lib64": "lib",
        },
        libraries="/usr/lib",
        searched=("/usr/lib", "/usr/lib"),
        daemons="/usr/lib/postfix/bin",
        main=_main("/usr/lib/postfix/bin", "/usr/bin", "/usr/lib/postfix"),
        files={
            "/etc/nsswitch.conf": (
                "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\nservices: files\n"
            ),
            **STUB,
        },
        copies=_in("/usr/lib", *BOTH, "libnss_resolve.so.2", "libm.so.6"),
    ),
    "alpine": Distribution(
        release="ID=alpine\nVERSION_ID=3.22.1\n",
        libraries="/lib",
        searched=None,
        daemons="/usr/libexec/postfix",
        main=_main("/usr/libexec/postfix", "/usr/sbin", "/usr/lib/postfix"),
        copies=frozenset(),
        modules=(),
    ),
    "debian": Distribution(
        release="ID=debian\nVERSION_ID=12\n",
        links={**MERGED},
        libraries=f"/usr/lib/{TRIPLET}",
        searched=(f"/lib/{TRIPLET}", f"/usr/lib/{TRIPLET}"),
        daemons="/usr/lib/postfix/sbin",
        main="compatibility_level = 3.6\n",
        files={"/etc/nsswitch.conf": "hosts: files mymachines dns myhostname\nservices: db files\n"},
        copies=_in(f"/lib/{TRIPLET}", *BOTH),
    ),
}


def build(workshop: Workshop, name: str, *, release: str = "") -> str:
    """Lay out a distribution below /srv of a host, anew; its path there."""
    one = DISTRIBUTIONS[name]
    path = f"/srv/{name}"
    root = workshop.root / "srv" / name
    if root.exists():
        shutil.rmtree(root)
    root.mkdir()
    grow(
        root,
        {target if target.startswith("/") else f"/{target}": None for target in one.links.values() if "/" in target},
    )
    grow(root, dict(one.links))
    texts = {
        "/etc/os-release": release or one.release,
        "/etc/passwd": "root:x:0:0::/root:/bin/sh\npostfix:x:89:89::/var/spool/postfix:/sbin/nologin\n",
        "/etc/group": "root:x:0:\npostfix:x:89:\n",
        "/etc/hosts": "127.0.0.1 localhost\n",
        "/usr/etc/services" if name == "tumbleweed" else "/etc/services": SERVICES,
        "/etc/postfix/main.cf": one.main,
        "/etc/postfix/master.cf": MASTER,
        "/etc/resolv.conf": RESOLVER,
        f"{one.daemons}/master": "",
    }
    for place, text in {**texts, **one.files}.items():
        is_link = text.startswith("../")
        grow(root, {place: text if is_link else text.encode()})
    grow(root, {"/var/spool/postfix": None, "/bin" if "/bin" not in one.links else "/usr/bin": None})
    if one.searched is None:
        _musl(workshop, root)
    else:
        _glibc(workshop, root, one, one.searched)
    return path


def _glibc(workshop: Workshop, root: Path, one: Distribution, searched: tuple[str, str]) -> None:
    """Libraries, modules, a shell, and a loader that searches the distribution's directories."""
    theirs = workshop.root / "usr/lib" / TRIPLET
    for library in (*GLIBC, *one.modules):
        place = _made(root, "/usr/lib64" if library in one.apart else one.libraries)
        shutil.copy2(theirs / library, place / library)
    old, new = DIRECTORIES.split(b"\0")[:2], [directory.encode() for directory in searched]
    # Slashes more or less are the same path, so that the strings keep their lengths; its last two lead nowhere.
    strings = [ours.ljust(len(his), b"/") for ours, his in zip(new, old, strict=True)]
    patched = b"\0".join([*strings, b"/nil/", b"/usr/nil/", b""])
    loader = (theirs / LOADER).read_bytes()
    assert loader.count(DIRECTORIES) >= 1
    assert len(patched) == len(DIRECTORIES)
    for directory in {"/lib64", one.libraries}:
        target = _made(root, directory) / LOADER
        target.write_bytes(loader.replace(DIRECTORIES, patched))
        target.chmod(0o755)
    shutil.copy2(workshop.root / "usr/bin/dash", _made(root, "/bin") / "sh")


def _musl(workshop: Workshop, root: Path) -> None:
    """musl's one file, which is its loader too, and a program that asks for it."""
    loader = _made(root, "/lib") / MUSL_LOADER
    shutil.copy2(workshop.root / "usr/lib/x86_64-linux-musl/libc.so", loader)
    program = _made(root, "/bin") / "sh"
    program.write_bytes(elf_builder.elf(needed=[MUSL_LOADER], interpreter=f"/lib/{MUSL_LOADER}"))
    program.chmod(0o755)


def _made(root: Path, directory: str) -> Path:
    """A directory of a tree, where the tree's links lead."""
    place = root / directory.lstrip("/")
    if not os.path.isdir(place):
        grow(root, {directory: None})
    return place
