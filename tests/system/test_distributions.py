"""Hosts of other distributions: what their chroots get, where it lies, and whether their loader finds it there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.scenery import grow

from . import image
from .distributions import ALWAYS, DISTRIBUTIONS, LOADER, MUSL_LOADER, RESOLVER, TRIPLET, build
from .workshop import LOAD, Workshop

CHROOT = "/var/spool/postfix"
WITH_GLIBC = [name for name, one in DISTRIBUTIONS.items() if one.searched]

# How a script fills a chroot that was made after Postfix's examples/chroot-setup/LINUX2, $1 being the host: everything
# over again, libraries by a glob.
GLOB = """
cd "$1/var/spool/postfix"
mkdir -p etc lib64 usr/lib/zoneinfo
cp -p "$1/etc/services" "$1/etc/resolv.conf" "$1/etc/nsswitch.conf" "$1/etc/hosts" "$1/etc/passwd" etc
cp -p "$1"/lib64/libnss_*.so* "$1"/lib64/libresolv.so* lib64
"""


@pytest.fixture(scope="module")
def workshop(chrootsync: tuple[Path, ...], base: Path) -> Iterator[Workshop]:
    """A Debian 12 with systemd's modules and musl, whose files the other distributions are made of."""
    script = "dpkg --install /mnt/archives/musl_*.deb"
    target = image.cache() / f"musl-{image.digest(base.name, image.FETCH, script)}"
    musl = image.fetched(base, target, ["musl"], script)
    with Workshop([*chrootsync, musl, image.modules(base), base], {}) as made:
        yield made


@pytest.fixture(params=DISTRIBUTIONS)
def name(request: pytest.FixtureRequest) -> str:
    """Each of the distributions."""
    found: str = request.param
    return found


def check(workshop: Workshop, path: str, *arguments: str, code: int) -> dict[str, Any]:
    """The report of a check."""
    done = workshop.chrootsync("check", "--root", path, "--format", "json", *arguments)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == code, drifts(report, "error", "warning") or report
    return report


def drifts(report: dict[str, Any], *severities: str) -> dict[str, str]:
    """The kinds of what was found, by path."""
    found = [drift for one in report["instances"] for drift in one["drift"]]
    return {drift["path"]: drift["kind"] for drift in found if drift["severity"] in severities}


def held(workshop: Workshop, path: str) -> set[str]:
    """The files in the chroot."""
    listed = workshop.run(["find", f"{path}{CHROOT}", "!", "-type", "d", "-printf", r"/%P\n"]).stdout
    return set(listed.split())


def load(workshop: Workshop, path: str, *libraries: str) -> list[str]:
    """What hindered libraries from being loaded inside the chroot, by a process that the distribution's loader started.

    The process is outside first, as Postfix's daemons are, and what it needs itself is mapped there.
    """
    loader = [f"{path}/lib64/{LOADER}", "--inhibit-cache", "--library-path", f"/usr/lib/{TRIPLET}"]
    return workshop.run(
        [*loader, "/usr/bin/python3", "-I", "-c", LOAD, f"{path}{CHROOT}", *libraries]
    ).stdout.splitlines()


# --- What a chroot gets -----------------------------------------------------------------------------------------------


def test_each_gets_what_it_needs_where_its_loader_looks_and_no_more(workshop: Workshop, name: str) -> None:
    path = build(workshop, name)
    one = DISTRIBUTIONS[name]
    assert drifts(check(workshop, path, code=1), "error")
    check(workshop, path, "--fix", code=0)
    found = held(workshop, path)
    assert {file for file in found if ".so" in file} == one.copies
    services = {"/usr/etc/services"} if name == "tumbleweed" else {"/etc/services"}
    assert {"/etc/resolv.conf", "/etc/hosts"} | services <= found
    nsswitch = {place for place in one.files if place.endswith("nsswitch.conf")}
    assert found - one.copies <= ALWAYS | services | nsswitch
    again = check(workshop, path, "--fix", code=0)
    assert again["status"] == "in-sync"
    assert set(drifts(again, "error", "warning").values()) <= {"unreachable"}


@pytest.mark.parametrize("name", WITH_GLIBC)
def test_the_loader_of_each_finds_the_copies(workshop: Workshop, name: str) -> None:
    path = build(workshop, name)
    modules = [Path(copy).name for copy in sorted(DISTRIBUTIONS[name].copies)]
    unmapped = [module for module in modules if module != "libm.so.6"]  # Python has that one itself
    assert len(load(workshop, path, *unmapped)) == len(unmapped), "what loads from an empty chroot proves nothing"
    check(workshop, path, "--fix", code=0)
    assert load(workshop, path, *modules) == []
    [capabilities] = [copy for copy in DISTRIBUTIONS[name].copies if "libcap" in copy]
    workshop.run(["rm", f"{path}{CHROOT}{capabilities}"])
    systemds = [module for module in modules if module.startswith("libnss_")]
    assert all("libcap.so.2: cannot open shared object file" in line for line in load(workshop, path, *systemds))
    assert drifts(check(workshop, path, code=1), "error") == {capabilities: "missing"}


def test_with_musl_there_is_nothing_to_load(workshop: Workshop) -> None:
    """Its resolver is in its one file, which a daemon has mapped before chroot; it reads three files, and no others."""
    path = build(workshop, "alpine")
    assert (workshop.root / path[1:] / "lib" / MUSL_LOADER).read_bytes()[:4] == b"\x7fELF"
    check(workshop, path, "--fix", code=0)
    assert held(workshop, path) == ALWAYS


DERIVATIVES = {
    "rocky": ("rhel", 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'),
    "almalinux": ("rhel", 'ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'),
    "centos": ("rhel", 'ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\n'),
    "ol": ("rhel", 'ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n'),
    "amzn": ("fedora", 'ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n'),
    "sles": ("leap", 'ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\n'),
    "slowroll": ("tumbleweed", 'ID="opensuse-slowroll"\nID_LIKE="opensuse suse opensuse-tumbleweed"\n'),
    "manjaro": ("arch", "ID=manjaro\nID_LIKE=arch\n"),
    "endeavouros": ("arch", "ID=endeavouros\nID_LIKE='arch'\n"),
    "postmarketos": ("alpine", 'ID="postmarketos"\nID_LIKE="alpine"\n'),
    "raspbian": ("debian", 'ID=raspbian\nID_LIKE=debian\nVERSION_ID="12"\n'),
    "ubuntu": ("debian", 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'),
    "unnamed like rhel": ("rhel", "NAME=Own\n"),
    "unnamed like debian": ("debian", "#\n"),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_a_derivative_gets_what_its_parent_gets(workshop: Workshop, derivative: str) -> None:
    parent, release = DERIVATIVES[derivative]
    path = build(workshop, parent, release=release)
    check(workshop, path, "--fix", code=0)
    assert {file for file in held(workshop, path) if ".so" in file} == DISTRIBUTIONS[parent].copies


@pytest.mark.parametrize(
    "release",
    [
        "ID=debian\nVERSION_ID=13\n",
        "ID=debian\nVERSION_CODENAME=forky\n",
        'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="25.10"\n',
        'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n',
    ],
)
def test_newer_debians_and_those_that_count_otherwise_have_flat_libraries(workshop: Workshop, release: str) -> None:
    path = build(workshop, "debian", release=release)
    check(workshop, path, "--fix", code=0)
    copies = {f"/lib/{Path(copy).name}" for copy in DISTRIBUTIONS["debian"].copies}
    assert {file for file in held(workshop, path) if ".so" in file} == copies
    libraries = [Path(copy).name for copy in sorted(copies)]
    # A loader that searches lib as its third directory, as Debian's does.
    loader = (workshop.root / "usr/lib" / TRIPLET / LOADER).read_bytes()
    (workshop.root / path[1:] / "lib64" / LOADER).write_bytes(loader)
    assert load(workshop, path, *libraries) == []


def test_what_postfix_is_and_where_its_programs_lie_is_known(workshop: Workshop, name: str) -> None:
    """Its library says which version it is."""
    path = build(workshop, name)
    shared = {"rhel": "/usr/lib64/postfix", "fedora": "/usr/lib64/postfix"}.get(name, "/usr/lib/postfix")
    workshop.shell('mkdir -p "$2"; cp /usr/lib/postfix/libpostfix-global.so "$2"', path, f"{path}{shared}")
    [found] = json.loads(workshop.chrootsync("instances", "--root", path, "--format", "json").stdout)["instances"]
    assert found["version"] == workshop.run(["postconf", "-hd", "mail_version"]).stdout.strip()


def test_whoever_has_unpacked_an_image_can_repair_it(workshop: Workshop, name: str) -> None:
    """Without root's rights; the copies are his own, as all of the image is."""
    path = build(workshop, name)
    workshop.run(["chown", "-hR", "nobody:nogroup", path])
    for _ in range(2):
        done = workshop.chrootsync("check", "--fix", "--root", path, user="nobody")
        assert done.returncode == 0, done.stdout + done.stderr
    assert DISTRIBUTIONS[name].copies <= held(workshop, path)
    assert workshop.run(["find", path, "!", "-user", "nobody"]).stdout == ""


# Where OpenSSL looks for certificates by default, and where that leads.
CERTIFICATES = {
    "debian": ("/usr/lib/ssl/certs", "/etc/ssl/certs"),
    "rhel": ("/etc/pki/tls/certs", ""),
    "fedora": ("/etc/pki/tls/certs", ""),
    "leap": ("/etc/ssl/certs", "/var/lib/ca-certificates/pem"),
    "tumbleweed": ("/etc/ssl/certs", "/var/lib/ca-certificates/pem"),
    "arch": ("/etc/ssl/certs", ""),
    "alpine": ("/etc/ssl/certs", ""),
}


def test_certificates_of_the_system_come_and_go_with_it(workshop: Workshop, name: str) -> None:
    path = build(workshop, name)
    searched, target = CERTIFICATES[name]
    root = workshop.root / path[1:]
    if target:
        grow(root, {target: None, searched: target})
    hashed = f"{target or searched}/0a1b2c3d.0"
    grow(root, {hashed: b"# one\n", f"{target or searched}/4e5f6a7b.0": b"# another\n"})
    with (root / "etc/postfix/main.cf").open("a") as main:
        main.write("tls_append_default_CA = yes\nsmtp_tls_CAfile = /etc/own.crt\n")
    certificates = {f"{searched}/0a1b2c3d.0", f"{searched}/4e5f6a7b.0"}
    remembered = ("--state", f"/var/tmp/certificates-{name}")  # what is dropped is kept, for a rollback
    check(workshop, path, "--fix", *remembered, code=0)
    assert {file for file in held(workshop, path) if "/certs/" in file} == certificates
    (root / hashed.lstrip("/")).unlink()
    check(workshop, path, "--fix", *remembered, code=0)
    assert {file for file in held(workshop, path) if "/certs/" in file} == {f"{searched}/4e5f6a7b.0"}


# --- Other scripts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rhel", "leap"])
def test_what_a_script_by_globs_forgets_is_told_and_what_it_brings_is_kept_fresh(workshop: Workshop, name: str) -> None:
    path = build(workshop, name)
    workshop.shell(GLOB, path)
    missing = {copy for copy in DISTRIBUTIONS[name].copies if not Path(copy).name.startswith("libnss_")}
    found = drifts(check(workshop, path, code=1), "error")
    assert {place: kind for place, kind in found.items() if ".so" in place} == dict.fromkeys(missing, "missing")

    check(workshop, path, "--fix", code=0)
    workshop.shell('echo "# newer" >> "$1/lib64/libnss_compat.so.2"', path)
    kept = "/lib64/libnss_compat.so.2"
    assert drifts(check(workshop, path, code=1), "error", "warning")[kept] in {"differs", "outdated"}
    check(workshop, path, "--fix", code=0)


@pytest.mark.parametrize("name", ["rhel", "leap"])
def test_no_tug_of_war_with_a_script_by_globs(workshop: Workshop, name: str) -> None:
    path = build(workshop, name)
    check(workshop, path, "--fix", code=0)
    workshop.shell(GLOB, path)
    check(workshop, path, "--fix", "--state", "/var/tmp/rounds", code=0)
    for turn in range(5):
        workshop.shell('echo "nameserver 192.0.2.$2" > "$1/etc/resolv.conf"', path, str(turn))
        workshop.shell(GLOB, path)
        report = check(workshop, path, "--fix", "--state", "/var/tmp/rounds", code=0)
        assert report["status"] == "in-sync", "what the script copied is right, and stays"
        with workshop.untouched(path):
            check(workshop, path, "--fix", "--state", "/var/tmp/rounds", code=0)


# What Fedora's unit runs before Postfix, in other words.
CHROOT_UPDATE = """
if [ -x /etc/postfix/chroot-update ]; then exec /etc/postfix/chroot-update; fi
"""


def test_the_documented_hook_repairs_and_never_keeps_postfix_from_starting(workshop: Workshop) -> None:
    documented = (image.PROJECT / "docs/distributions.md").read_text().split("```sh\n")[1].split("```")[0]
    workshop.write("/etc/postfix/chroot-update", documented)
    workshop.run(["chmod", "755", "/etc/postfix/chroot-update"])
    workshop.write("/etc/resolv.conf", RESOLVER)
    workshop.shell(f"cd {CHROOT} && rm -rf etc lib usr")
    workshop.shell(CHROOT_UPDATE)
    assert (workshop.root / "var/spool/postfix/etc/resolv.conf").read_text() == RESOLVER
    report = json.loads(workshop.chrootsync("check", "--format", "json").stdout)
    assert drifts(report, "error") == {}

    workshop.write("/etc/chrootsync/rules.d/local.toml", "[[[")
    try:
        assert workshop.chrootsync("check").returncode == 2
        workshop.shell(CHROOT_UPDATE)
    finally:
        workshop.run(["rm", "-r", "/etc/chrootsync"])
