"""Hooks of package managers and networks, as ``chrootsync install`` writes them, called by what they are for.

Each transaction is a real one. Debian's dnf comes with a plugin post-transaction-actions that fails at each action,
because libdnf's Python module lacks a name that it uses: the fixture adds that name. There is no package of apk, and
NetworkManager wants a network: of these two the calling convention is what is tested. zypper and pacman are Debian's as
they are; so is rpm, which is told by a package of ours that there is a shell, as it knows nothing of Debian's.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import image
from .container import Container
from .journal import cursor, logged, repaired
from .mail import INSTANCES, NAME_SERVER, OUTPUT, Mail
from .test_main_job import REPACK, check, reloads, synced

DEADLINE = 30  # seconds
SERVICES = "/etc/services"
RESOLVER = "/etc/resolv.conf"
HOOK = "/etc/chrootsync/hook"
SYSTEMCTL = "/usr/bin/systemctl"
LOG = [each.log for each in INSTANCES]

# Runs a command where no systemd is to be seen; the socket of its journal, which syslog(3) writes to, still is.
WITHOUT_SYSTEMD = """
mkdir -p /mnt/journal
mount --bind /run/systemd/journal /mnt/journal
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/journal
mount --move /mnt/journal /run/systemd/journal
exec "$@"
"""

# Runs a command where $1 stands in for $2.
BOUND = """
mount --bind "$1" "$2"
shift 2
exec "$@"
"""

# The name that Debian's build of libdnf lacks.
DNF = """
try:
    import libdnf.conf
    libdnf.conf.ConfigParser_substitute = libdnf.conf.ConfigParser.substitute
except ImportError:
    pass
"""

SPEC = """
Name: services
Version: {number}
Release: 1
Summary: test
License: none
BuildArch: noarch
%description
%install
mkdir -p %{{buildroot}}/etc
echo 'test-{number} {port}/tcp' > %{{buildroot}}/etc/services
%files
/etc/services
"""

# On a distribution of rpm's own, a package provides the shell.
SHELL = """
Name: shell
Version: 1
Release: 1
Summary: test
License: none
BuildArch: noarch
Provides: /bin/sh
%description
%files
"""

# --- Packages with another /etc/services, which all chroots hold -----------------------------------------------------

numbers = itertools.count(1)


def by_dpkg(host: Container) -> list[str]:
    """The command that installs a new version of netbase; whoever changed its file before does not count."""
    number = next(numbers)
    change = f"echo 'test-{number} {50000 + number}/tcp' >> etc/services"
    version = f"sed -i 's/^Version: .*/&.{number}/' DEBIAN/control"
    host.shell(REPACK, "netbase", f"{change}; {version}", "/var/tmp/netbase.deb")
    return ["dpkg", "--force-confnew", "--install", "/var/tmp/netbase.deb"]


def by_apt(host: Container) -> list[str]:
    """The same with apt."""
    options = ["--yes", "-o", "Dpkg::Options::=--force-confnew"]
    return ["apt-get", *options, "install", "--reinstall", by_dpkg(host)[-1]]


def by_rpm(host: Container) -> list[str]:
    """The same with rpm and a package of our own."""
    number = next(numbers)
    return ["rpm", "-U", rpm(host, "services", number, SPEC.format(number=number, port=50000 + number))]


def rpm(host: Container, name: str, version: int, spec: str) -> str:
    """A package that is built for rpm."""
    host.write(f"/var/tmp/rpm/{name}.spec", spec)
    host.run(["rpmbuild", "-bb", "--quiet", "--define", "_topdir /var/tmp/rpm", f"/var/tmp/rpm/{name}.spec"])
    return f"/var/tmp/rpm/RPMS/noarch/{name}-{version}-1.noarch.rpm"


def by_dnf(host: Container) -> list[str]:
    """The same with dnf, which needs no repository for that."""
    return ["dnf", "-y", "--disablerepo=*", "--nogpgcheck", "--disableplugin=local", "install", by_rpm(host)[-1]]


def by_zypper(host: Container) -> list[str]:
    """The same with zypper."""
    options = ["--non-interactive", "--no-refresh", "--no-gpg-checks"]
    return ["zypper", *options, "install", "--allow-unsigned-rpm", "--no-recommends", by_rpm(host)[-1]]


def by_pacman(host: Container) -> list[str]:
    """The same with pacman."""
    number = next(numbers)
    folder = "/var/tmp/pacman/services"
    host.write(f"{folder}/.PKGINFO", f"pkgname = services\npkgver = {number}-1\narch = any\nsize = 1\n")
    host.write(f"{folder}/etc/services", f"test-{number} {50000 + number}/tcp\n")
    host.write("/var/tmp/pacman/pacman.conf", "[options]\nArchitecture = auto\nSigLevel = Never\n")
    host.shell('cd "$1"; tar --owner=0 --group=0 -czf "$1.pkg.tar.gz" .PKGINFO etc', folder)
    options = ["--config", "/var/tmp/pacman/pacman.conf", "--noconfirm", "--overwrite", "*"]
    return ["pacman", *options, "--upgrade", f"{folder}.pkg.tar.gz"]


MANAGERS: Mapping[str, Callable[[Container], list[str]]] = {
    "apt": by_apt,
    "dpkg": by_dpkg,
    "rpm": by_rpm,
    "dnf": by_dnf,
    "zypper": by_zypper,
    "pacman": by_pacman,
}

# --- The host ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def container(chrootsync: tuple[Path, ...], base: Path, three_instances: tuple[Path, ...]) -> Iterator[Container]:
    """A host with three instances, all package managers, and the service, which nothing but hooks starts."""
    others = [image.managers(base), *(image.frontend(base, name) for name in image.FRONTENDS), image.network(base)]
    with Container([*chrootsync, *others, *three_instances]) as host:
        host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
        host.write("/usr/lib/python3/dist-packages/libdnf_substitute.py", DNF)
        host.write("/usr/lib/python3/dist-packages/libdnf_substitute.pth", "import libdnf_substitute\n")
        host.run(["rpm", "-U", rpm(host, "shell", 1, SHELL)])
        # Automatic reloads keep a minute's distance, which tests have no time for.
        host.write("/etc/chrootsync/chrootsync.toml", "[reload]\ninterval = 0\n")
        host.run(["chrootsync", "install", "systemd", "--mode", "timer"])
        host.run(["systemctl", "stop", "chrootsync.timer"])
        yield host


@pytest.fixture
def host(container: Container) -> Container:
    """The host, in sync; nothing that an earlier test has started is under way any more."""
    wait_idle(container, cursor(container))
    check(container, "--fix", "--wait", "60", code=0)
    return container


@pytest.fixture
def start(host: Container, mail: Mail) -> int:  # noqa: ARG001 - what repairing logged comes before the mark
    """The place in the log from which on a test looks at it."""
    reloads(mail, 0)
    return mail.mark()


@contextmanager
def installed(host: Container, *targets: str) -> Iterator[None]:
    """Install targets for the length of a block."""
    host.run(["chrootsync", "install", *targets])
    try:
        yield
    finally:
        host.run(["chrootsync", "uninstall", *targets])


def wait_until(host: Container, since: str, what: Callable[[], bool]) -> None:
    """Wait until something is true; a failure shows what chrootsync logged."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "\n".join(logged(host, since))
        time.sleep(0.1)


def wait_idle(host: Container, since: str) -> None:
    """Wait until the service has ended, and nobody asks for it any more."""
    idle = """
        test ! -e /run/chrootsync/requested
        case $(systemctl show -P ActiveState chrootsync.service) in inactive|failed) ;; *) exit 1 ;; esac
    """
    wait_until(host, since, lambda: host.run(["sh", "-euc", idle], check=False).returncode == 0)


def in_sync(host: Container, path: str) -> bool:
    """Whether all three copies hold what the host's file holds."""
    return all(synced(host, instance, path) for instance in INSTANCES)


def without_systemd(host: Container, command: Sequence[str]) -> None:
    """Run a command where no systemd is to be seen."""
    host.run(["unshare", "--mount", "sh", "-euc", WITHOUT_SYSTEMD, "sh", *command])


# --- Package managers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_transaction_starts_the_service(host: Container, mail: Mail, start: int, manager: str) -> None:
    with installed(host, manager):
        command = MANAGERS[manager](host)
        since = cursor(host)
        host.run(command)
        wait_until(host, since, lambda: len(repaired(host, since, manager)) == len(INSTANCES))
        wait_idle(host, since)

    assert in_sync(host, SERVICES)
    assert repaired(host, since, manager) == LOG
    assert reloads(mail, start) == sorted(LOG)
    check(host, code=0)


@pytest.mark.parametrize("manager", MANAGERS)
def test_without_systemd_the_hook_repairs(host: Container, mail: Mail, start: int, manager: str) -> None:
    with installed(host, manager):
        command = MANAGERS[manager](host)
        since = cursor(host)
        without_systemd(host, command)

        assert in_sync(host, SERVICES)
        wait_until(host, since, lambda: repaired(host, since, manager) == LOG)
    assert reloads(mail, start) == sorted(LOG)
    check(host, code=0)


def test_with_both_hooks_of_debian_the_last_one_repairs(host: Container) -> None:
    with installed(host, "apt", "dpkg"):
        command = by_apt(host)
        since = cursor(host)
        without_systemd(host, command)

        assert in_sync(host, SERVICES)
        wait_until(host, since, lambda: repaired(host, since, "apt") == LOG)
        assert repaired(host, since, "dpkg") == []


# --- What must not trouble a package manager --------------------------------------------------------------------------

HANGS = "#!/bin/sh\nsleep 600\n"
IGNORES_SIGNALS = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n"
LEAVES_A_DAEMON = "#!/bin/sh\nsleep 600 &\nexit 3\n"
CRASHES = "#!/bin/sh\nkill -SEGV $$\n"
BROKEN = "#!/bin/sh\nexec /usr/bin/python3 -I -m no_chrootsync\n"  # the module is not found, as after an upgrade
TOO_LATE = "did not end within 1 seconds"
NOT_RUN = "called by "


@contextmanager
def less_patient(host: Container, *changes: tuple[str, str]) -> Iterator[None]:
    """Let the hook wait for less time than it does as installed; ``changes`` are patterns and their replacements."""
    kept = text = host.read(HOOK)
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count == 1, pattern
    host.write(HOOK, text, mode=0o755)
    try:
        yield
    finally:
        host.write(HOOK, kept, mode=0o755)


@contextmanager
def stand_in(host: Container, script: str | None) -> Iterator[None]:
    """Let a script, or nothing, be the interpreter that the hook calls; the hook then waits a second at most."""
    [interpreter] = re.findall(r"^interpreter=(\S+)$", host.read(HOOK), re.MULTILINE)
    host.run(["mv", interpreter, f"{interpreter}.kept"])
    try:
        if script is not None:
            host.write(interpreter, script, mode=0o755)
        with less_patient(host, (r"^limit=60 ", "limit=1 "), (r"-k 5 ", "-k 1 ")):
            yield
    finally:
        host.run(["mv", f"{interpreter}.kept", interpreter])


@pytest.mark.parametrize(
    ("manager", "script", "said"),
    [
        *(pytest.param(manager, HANGS, TOO_LATE, id=f"hangs-{manager}") for manager in MANAGERS),
        pytest.param("apt", IGNORES_SIGNALS, TOO_LATE, id="ignores-signals"),
        pytest.param("dpkg", LEAVES_A_DAEMON, None, id="leaves-a-daemon"),
        pytest.param("apt", CRASHES, NOT_RUN, id="crashes"),
        pytest.param("rpm", CRASHES, NOT_RUN, id="crashes-rpm"),
        pytest.param("apt", None, NOT_RUN, id="is-missing"),
        pytest.param("apt", BROKEN, "No module named", id="has-a-broken-python"),
    ],
)
def test_a_transaction_ends_well_though_chrootsync(
    host: Container, manager: str, script: str | None, said: str | None
) -> None:
    """A command in the container that takes more than a minute is a failure, and so is another exit status than 0."""
    with installed(host, manager):
        command = MANAGERS[manager](host)
        since = cursor(host)
        with stand_in(host, script):
            without_systemd(host, command)

        assert not in_sync(host, SERVICES)
        if said is not None:
            wait_until(host, since, lambda: any(said in line for line in logged(host, since)))


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_transaction_ends_well_though_the_hook_is_gone(host: Container, manager: str) -> None:
    with installed(host, manager):
        command = MANAGERS[manager](host)
        host.run(["mv", HOOK, f"{HOOK}.kept"])
        try:
            host.run(command)
        finally:
            host.run(["mv", f"{HOOK}.kept", HOOK])
        assert not in_sync(host, SERVICES)


def test_what_a_slow_repair_says_is_logged(host: Container) -> None:
    """It takes longer than a log may be slow to listen."""
    with installed(host, "apt"):
        command = by_apt(host)
        [interpreter] = re.findall(r"^interpreter=(\S+)$", host.read(HOOK), re.MULTILINE)
        since = cursor(host)
        host.run(["mv", interpreter, f"{interpreter}.kept"])
        try:
            host.write(interpreter, f'#!/bin/sh\nsleep 8\nexec {interpreter}.kept "$@"\n', mode=0o755)
            without_systemd(host, command)
        finally:
            host.run(["mv", f"{interpreter}.kept", interpreter])
        wait_until(host, since, lambda: repaired(host, since, "apt") == LOG)


def test_a_systemctl_that_hangs_is_ended(host: Container) -> None:
    with installed(host, "apt"):
        command = by_apt(host)
        since = cursor(host)
        host.write("/var/tmp/systemctl", HANGS, mode=0o755)
        without_systemctl = [*("unshare", "--mount", "sh", "-euc", BOUND, "sh"), "/var/tmp/systemctl", SYSTEMCTL]
        with less_patient(host, (r"-k 1 10 systemctl", "-k 1 1 systemctl")):
            host.run([*without_systemctl, *command])
        wait_until(host, since, lambda: in_sync(host, SERVICES))
        wait_idle(host, since)


# --- Networks ---------------------------------------------------------------------------------------------------------

INTERFACE = """
iface test0 inet static
    address 192.0.2.7/24
    pre-up ip link add test0 type veth peer name test1
    up cp /var/tmp/resolv.conf /etc/resolv.conf
    post-down ip link delete test0
"""


def resolver() -> str:
    """A resolv.conf that was never there."""
    return f"nameserver {NAME_SERVER}\nsearch net{next(numbers)}.test\n"


def brought(host: Container, since: str, trigger: str) -> None:
    """Wait until what a hook started has brought resolv.conf into all chroots."""
    wait_until(host, since, lambda: in_sync(host, RESOLVER) and OUTPUT.log in repaired(host, since, trigger))
    wait_idle(host, since)


def test_ifupdown_brings_its_resolver_into_all_chroots(host: Container) -> None:
    host.write("/etc/network/interfaces", INTERFACE)
    host.write("/var/tmp/resolv.conf", resolver())
    with installed(host, "ifupdown"):
        since = cursor(host)
        host.run(["ifup", "test0"])
        try:
            brought(host, since, "ifupdown")
        finally:
            host.run(["ifdown", "test0"])
    check(host, code=0)


def test_dhclient_brings_its_resolver_into_all_chroots(host: Container) -> None:
    """Its script is called as dhclient does when it has got a lease."""
    number = next(numbers)
    lease = {
        "reason": "BOUND",
        "interface": "test2",
        "new_ip_address": "192.0.2.8",
        "new_subnet_mask": "255.255.255.0",
        "new_domain_name": f"net{number}.test",
        "new_domain_name_servers": NAME_SERVER,
    }
    host.run(["ip", "link", "add", "test2", "type", "veth", "peer", "name", "test3"])
    with installed(host, "dhclient"):
        since = cursor(host)
        try:
            host.run(["/sbin/dhclient-script"], env=lease)
            brought(host, since, "dhclient")
        finally:
            host.run(["ip", "link", "delete", "test2"])
    assert f"net{number}.test" in host.read(f"{INSTANCES[0].chroot}{RESOLVER}")
    check(host, code=0)


def test_networkmanagers_dispatcher_brings_its_resolver_into_all_chroots(host: Container) -> None:
    """NetworkManager-dispatcher(8): the interface and the action are arguments, and the environment holds the rest."""
    script = "/etc/NetworkManager/dispatcher.d/90-chrootsync"
    environment = {"CONNECTION_ID": "test", "DEVICE_IFACE": "test0", "NM_DISPATCHER_ACTION": "up"}
    with installed(host, "networkmanager"):
        assert host.run(["stat", "-c", "%U %a", script]).stdout == "root 755\n"
        host.write(RESOLVER, resolver())
        since = cursor(host)
        host.run([script, "test0", "pre-down"], env=environment)
        host.run([script, "none", "hostname"], env=environment)
        assert logged(host, since) == []
        host.run([script, "test0", "up"], env=environment)
        brought(host, since, "networkmanager")


def test_apks_commit_hook_repairs_after_the_commit(host: Container) -> None:
    """apk calls it with pre-commit and post-commit."""
    script = "/etc/apk/commit_hooks.d/zz-chrootsync"
    with installed(host, "apk"):
        host.write(SERVICES, f"test-{next(numbers)} 50000/tcp\n")
        since = cursor(host)
        without_systemd(host, [script, "pre-commit"])
        assert not in_sync(host, SERVICES)
        without_systemd(host, [script, "post-commit"])
        assert in_sync(host, SERVICES)
        wait_until(host, since, lambda: repaired(host, since, "apk") == LOG)


def test_a_new_authority_is_trusted_in_all_chroots_and_an_old_one_no_more(host: Container) -> None:
    """Authorities are found by links that are named after their checksums; they are read without a reload."""
    authority = "/usr/local/share/ca-certificates/test.crt"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout", "/dev/null"]
    with installed(host, "ca-certificates"):
        host.run(["mkdir", "-p", "/usr/local/share/ca-certificates"])
        host.run(["openssl", *request, "-out", authority])
        link = f"/etc/ssl/certs/{host.run(['openssl', 'x509', '-noout', '-hash', '-in', authority]).stdout.strip()}.0"
        since = cursor(host)
        host.run(["update-ca-certificates"])
        wait_until(host, since, lambda: repaired(host, since, "ca-certificates", "none") == LOG)
        wait_idle(host, since)
        assert in_sync(host, link)

        host.run(["rm", authority])
        since = cursor(host)
        host.run(["update-ca-certificates"])
        wait_until(host, since, lambda: repaired(host, since, "ca-certificates", "none") == LOG)
        wait_idle(host, since)
        assert not any(host.exists(f"{instance.chroot}{link}") for instance in INSTANCES)
    check(host, code=0)


def test_resolvconf_brings_its_resolver_into_all_chroots(host: Container) -> None:
    """Debian's Postfix has a hook of its own there, for the first instance only."""
    host.shell("DEBIAN_FRONTEND=noninteractive dpkg --install /var/cache/apt/archives/resolvconf_*.deb")
    try:
        with installed(host, "resolvconf"):
            since = cursor(host)
            host.shell('echo "search $1" | resolvconf -a test0.inet', domain := f"net{next(numbers)}.test")
            brought(host, since, "resolvconf")
            assert domain in host.read(f"{OUTPUT.chroot}{RESOLVER}")
    finally:
        host.run(["dpkg", "--purge", "resolvconf"])
        host.shell('rm -f /etc/resolv.conf; echo "nameserver $1" > /etc/resolv.conf', NAME_SERVER)
    check(host, "--fix", code=0)
