"""While packages change: chrootsync beside dpkg, apt, rpm and pacman at work, and called by them.

Each manager has a package with a file that all three chroots must hold. The managers, their locks, scripts, triggers
and hooks are the real ones; a script of a package stops where a test wants to look, so that nothing depends on how fast
this machine is.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from chrootsync.model import Code

from .container import Container
from .mail import INSTANCES, NAME_SERVER, Mail, Postfix
from .test_main_job import REPACK, Run, check, reloads, synced

RESOLVER = "/etc/resolv.conf"
SERVICES = "/etc/services"  # of the package netbase
DPKG_LOCK = "/var/lib/dpkg/lock"
PACMAN_LOCK = "/var/lib/pacman/db.lck"
CONFIG = "/etc/chrootsync/chrootsync.toml"
HOOK_LIMIT = 30  # seconds that a hook may take
DEADLOCK = 40  # seconds that files of packages may wait: so long takes a hook that its own package manager waits for

PROMPT = 8000  # milliseconds; far from any limit that somebody else waits for
PATIENCE = 20  # seconds that apt is kept waiting at its prompt
CHECK_FIX = ("chrootsync", "check", "--fix", "--format", "json")

ALL = list(INSTANCES)
NONE: list[Postfix] = []
LOG = [each.log for each in INSTANCES]

RULES = """
[ruleset]
service = "postfix"
description = "Files of packages of each package manager"

[[rule]]
id = "test.packaged"
why = "the tests look at it"
files = ["/etc/by-dpkg", "/etc/by-rpm", "/etc/by-pacman"]
on_change = "nothing"
"""

EARLY_RULE = """
[[rule]]
id = "test.{name}"
why = "it comes with a package that is not there yet"
files = ["/etc/{name}"]
when = {{ exists = "/etc/{name}" }}
on_change = "nothing"
"""

# What a script of a package does: wait until a test lets it go on, or call chrootsync and wait for its end.
PAUSE = "touch /run/paused; n=0; until [ -e /run/go-on ] || [ $n = 1200 ]; do sleep 0.05; n=$((n + 1)); done"
CALL = "/usr/local/sbin/hook"

# Called as a hook, with its name: notes how chrootsync ended and how many seconds that took.
HOOK = """#!/bin/sh
began=$(date +%s)
/usr/local/bin/chrootsync check --fix --trigger hook > /var/tmp/hook.out 2>&1
echo "$1 $? $(($(date +%s) - began))" >> /var/tmp/hooks
"""

# Runs a package manager ($3 and on), and holds it up before the first system call $1 that has to do with the file $2.
HELD_UP = """
call=$1 file=$2
shift 2
exec strace -D -f -qq -o /dev/null -e "trace=$call" -P "$file" -e "inject=$call:delay_enter=60s" "$@"
"""

# Ends strace, whereupon the package manager $1 goes on.
GO_ON = 'kill -KILL "$(sed -n "s/^TracerPid:\\t//p" "/proc/$(pgrep -x "$1")/status")"'

# apt-get asks only where a package that nobody named is changed, or one is removed; it is answered by a FIFO.
AT_THE_PROMPT = """
rm -f /var/tmp/answer
mkfifo /var/tmp/answer
exec script --quiet --return --flush --command "apt-get install $1 leftover-" /var/tmp/apt.log <> /var/tmp/answer
"""

# Holds the lock of dpkg as dpkg does, and meanwhile runs a command.
HOLDER = f"""
import fcntl, subprocess, sys

with open("{DPKG_LOCK}", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""

# --- Packages -------------------------------------------------------------------------------------------------------

numbers = itertools.count(1)
"""Every package has a version that is higher than all before it, and contents of its own."""


def deb(host: Container, name: str, script: str = "", *, checksums: bool = True, triggers: str = "") -> str:
    """A new version of a Debian package that has the file /etc/NAME; ``script`` is its postinst."""
    number = next(numbers)
    folder = f"/var/tmp/deb/{name}"
    fields = f"Package: {name}\nVersion: {number}\nArchitecture: all\nMaintainer: Test <test@test.test>\n"
    host.write(f"{folder}/DEBIAN/control", f"{fields}Description: test\n")
    host.write(f"{folder}/DEBIAN/postinst", f"#!/bin/sh -e\n{script}\n", mode=0o755)
    host.write(f"{folder}/DEBIAN/triggers", triggers)
    host.write(f"{folder}/etc/{name}", f"{name} {number}\n")
    if checksums:
        host.shell('cd "$1"; md5sum "etc/$2" > DEBIAN/md5sums', folder, name)
    host.run(["dpkg-deb", "-Znone", "--build", folder, f"{folder}.deb"])
    return f"{folder}.deb"


def netbase(host: Container) -> str:
    """A new version of Debian's package, with one more service."""
    number = next(numbers)
    change = f"echo 'test-{number} {50000 + number}/tcp' >> etc/services"
    version = f"sed -i 's/^Version: .*/&.{number}/' DEBIAN/control"
    host.shell(REPACK, "netbase", f"{change}; {version}", "/var/tmp/netbase.deb")
    return "/var/tmp/netbase.deb"


def by_dpkg(host: Container, name: str, script: str = "") -> list[str]:
    """The command that installs a new version of a package with the file /etc/NAME; its script runs after that."""
    return ["dpkg", "--install", deb(host, name, script)]


def by_rpm(host: Container, name: str, script: str = ":", *, more: str = "") -> list[str]:
    """The same with rpm."""
    number = next(numbers)
    spec = f"""
Name: {name}
Version: {number}
Release: 1
Summary: test
License: none
BuildArch: noarch
%description
%install
mkdir -p %{{buildroot}}/etc
echo {name} {number} > %{{buildroot}}/etc/{name}
%post
{script}
{more}
%files
/etc/{name}
"""
    host.write(f"/var/tmp/rpm/{name}.spec", spec)
    host.run(["rpmbuild", "-bb", "--quiet", "--define", "_topdir /var/tmp/rpm", f"/var/tmp/rpm/{name}.spec"])
    # Debian's rpm knows nothing of what Debian's own packages provide.
    return ["rpm", "-U", "--nodeps", "--noplugins", f"/var/tmp/rpm/RPMS/noarch/{name}-{number}-1.noarch.rpm"]


def by_pacman(host: Container, name: str, script: str = ":", *, mtree: bool = True) -> list[str]:
    """The same with pacman."""
    folder = f"/var/tmp/pacman/{name}"
    number = next(numbers)
    host.write(f"{folder}/.PKGINFO", f"pkgname = {name}\npkgver = {number}-1\narch = any\nsize = 1\n")
    functions = "".join(f"post_{event}() {{\n{script}\n}}\n" for event in ("install", "upgrade"))
    host.write(f"{folder}/.INSTALL", functions)
    host.write(f"{folder}/etc/{name}", f"{name} {number}\n")
    host.write(f"{folder}.mtree", f"#mtree\n./etc/{name} time=1.0 mode=644 type=file\n")
    host.write("/var/tmp/pacman/pacman.conf", "[options]\nArchitecture = auto\nSigLevel = Never\n")
    pack = """
        cd "$1"
        gzip -c "$1.mtree" > .MTREE
        tar --owner=0 --group=0 -czf "$1.pkg.tar.gz" .MTREE .PKGINFO .INSTALL etc
    """
    if not mtree:
        pack = pack.replace(".MTREE .PKG", ".PKG")
    host.shell(pack, folder)
    arguments = ["--config", "/var/tmp/pacman/pacman.conf", "--noconfirm", "--upgrade"]
    return ["pacman", *arguments, f"{folder}.pkg.tar.gz"]


MANAGERS: dict[str, Callable[[Container, str, str], list[str]]] = {"dpkg": by_dpkg, "rpm": by_rpm, "pacman": by_pacman}


@dataclass(frozen=True, kw_only=True, slots=True)
class Early:
    """A package whose file is in place for a moment before its manager's database tells of it.

    There the manager is held up: before the system ``call`` that has to do with ``file``. ``known`` tells whether
    something else tells of it already.
    """

    name: str
    manager: str
    call: str
    file: str
    known: bool
    command: Callable[[Container, str], list[str]]


EARLY = (
    Early(
        name="early-dpkg",
        manager="dpkg",
        call="rename",
        file="/var/lib/dpkg/info/early-dpkg.list-new",
        known=True,
        command=by_dpkg,
    ),
    Early(
        name="no-checksums",
        manager="dpkg",
        call="rename",
        file="/var/lib/dpkg/info/no-checksums.list-new",
        known=False,
        command=lambda host, name: ["dpkg", "--install", deb(host, name, checksums=False)],
    ),
    Early(
        name="early-rpm",
        manager="rpm",
        call="pwrite64",
        file="/var/lib/rpm/rpmdb.sqlite-wal",
        known=False,
        command=by_rpm,
    ),
    Early(
        name="early-pacman",
        manager="pacman",
        call="utimensat",  # each file gets its times once it is written
        file="/etc/early-pacman",
        known=True,
        command=by_pacman,
    ),
    Early(
        name="no-mtree",
        manager="pacman",
        call="utimensat",
        file="/etc/no-mtree",
        known=False,
        command=lambda host, name: by_pacman(host, name, mtree=False),
    ),
)

# --- What goes on at the same time ----------------------------------------------------------------------------------

Ending = Future[CompletedProcess[str]]


@contextmanager
def beside(host: Container, argv: Sequence[str]) -> Iterator[Ending]:
    """Run a command while the block runs, and wait for its end."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(host.run, argv, check=False)


def until(what: Callable[[], bool], ending: Ending) -> None:
    """Wait for something, as long as the command that brings it about is running."""
    deadline = time.monotonic() + 60
    while not what():
        assert not ending.done(), ending.result()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def paused(host: Container, argv: Sequence[str]) -> Iterator[None]:
    """Run a package manager up to the pause of its package's script; it goes on, and ends well, after the block."""
    host.run(["rm", "-f", "/run/paused", "/run/go-on"])
    with beside(host, argv) as ending:
        try:
            until(lambda: host.exists("/run/paused"), ending)
            yield
        finally:
            host.run(["touch", "/run/go-on"])
    assert ending.result().returncode == 0, ending.result()


@contextmanager
def held_up(host: Container, early: Early) -> Iterator[None]:
    """Install a package up to where its file is in place and its manager is held up, which goes on after the block."""
    command = early.command(host, early.name)
    with beside(host, ["sh", "-euc", HELD_UP, "sh", early.call, early.file, *command]) as ending:
        try:
            until(lambda: host.exists(f"/etc/{early.name}"), ending)
            yield
        finally:
            host.shell(GO_ON, early.manager, check=False)
    assert ending.result().returncode == 0, ending.result()


@contextmanager
def at_the_prompt(host: Container, package: str) -> Iterator[Callable[[], None]]:
    """Let apt-get ask whether to install a package and remove another; it gets a yes, at the latest after the block."""
    host.run(["dpkg", "--install", deb(host, "leftover")])
    host.write("/var/tmp/apt.log", "")

    def answer() -> None:
        host.shell("echo y 1<> /var/tmp/answer")  # which does not block where nobody listens any more

    with beside(host, ["sh", "-euc", AT_THE_PROMPT, "sh", package]) as ending:
        try:
            host.wait_for(r"\[Y/n\]", "/var/tmp/apt.log")
            yield answer
        finally:
            answer()
    assert ending.result().returncode == 0, host.read("/var/tmp/apt.log")
    assert not host.exists("/etc/leftover")


# --- What is looked at ----------------------------------------------------------------------------------------------


def new_network(host: Container) -> None:
    """Change resolv.conf as a new network does, so that all copies are stale."""
    host.write(RESOLVER, f"nameserver {NAME_SERVER}\nsearch net{next(numbers)}.test\n")


def edit(host: Container, path: str) -> None:
    """Change a host file by hand."""
    host.write(path, f"edited {next(numbers)}\n")


def limit(host: Container, seconds: float) -> None:
    """Let files of packages wait this long at most; automatic reloads need no distance."""
    host.write(CONFIG, f"[packages]\nwait = {seconds}\n[reload]\ninterval = 0\n")


def read(ending: Ending) -> Run:
    """What a ``chrootsync check`` said that ran beside."""
    done = ending.result()
    return Run(code=done.returncode, report=json.loads(done.stdout))


def outcomes(run: Run, path: str) -> set[str]:
    """What came of the copies of a file."""
    return {drift["outcome"]["status"] for drift in drifts(run, path)}


def reasons(run: Run, path: str) -> set[str]:
    """What the report says on that."""
    return {drift["outcome"]["reason"] for drift in drifts(run, path)}


def drifts(run: Run, path: str) -> list[dict[str, Any]]:
    """The drift of a file, which is in all three chroots."""
    found = [[each for each in run.instance(one)["drift"] if each["path"] == path] for one in INSTANCES]
    assert [len(each) for each in found] == [1, 1, 1]
    return [each for [each] in found]


def up_to_date(host: Container, path: str) -> list[Postfix]:
    """The instances whose copy holds what the host's file holds."""
    return [instance for instance in INSTANCES if synced(host, instance, path)]


def hooks(host: Container) -> list[tuple[str, int]]:
    """The hooks that ran, with chrootsync's exit status; none of them took long."""
    ran = [line.split() for line in host.read("/var/tmp/hooks").splitlines()]
    assert all(int(seconds) < HOOK_LIMIT for _, _, seconds in ran)
    return [(name, int(code)) for name, code, _ in ran]


def process(host: Container, program: str) -> int:
    """The process of a program."""
    return int(host.run(["pgrep", "--newest", "--exact", program]).stdout)


# --- The host -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def container(chrootsync: tuple[Path, ...], managers: Path, three_instances: tuple[Path, ...]) -> Iterator[Container]:
    """A host with three instances, chrootsync, and all package managers, each of which has a package installed."""
    with Container([*chrootsync, managers, *three_instances]) as host:
        host.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
        rules = RULES + "".join(EARLY_RULE.format(name=early.name) for early in EARLY)
        host.write("/etc/chrootsync/rules.d/test.toml", rules)
        host.write("/usr/local/sbin/hook", HOOK, mode=0o755)
        for name, install in MANAGERS.items():
            host.run(install(host, f"by-{name}", ":"))
        yield host


@pytest.fixture
def host(container: Container) -> Container:
    """A host in sync, on which files of packages do not wait long."""
    limit(container, 0.5)
    container.shell(": > /var/tmp/hooks")
    check(container, "--fix", code=0)
    return container


@pytest.fixture
def start(host: Container, mail: Mail) -> int:  # noqa: ARG001 - what repairing logged comes before the mark
    """The place in the log from which on a test looks at it."""
    reloads(mail, 0)
    return mail.mark()


# --- Beside apt -----------------------------------------------------------------------------------------------------


def test_at_apts_prompt_the_resolver_is_repaired_and_files_of_packages_wait(
    host: Container, mail: Mail, start: int
) -> None:
    limit(host, 2)
    host.run(["dpkg", "--install", netbase(host)])
    with at_the_prompt(host, netbase(host)):
        new_network(host)
        apt = process(host, "apt-get")
        meanwhile = check(host, "--fix", code=Code.LOCKED)
        assert up_to_date(host, RESOLVER) == ALL
        assert up_to_date(host, SERVICES) == NONE
        assert reloads(mail, start) == sorted(LOG)
    ended = check(host, "--fix", code=0)

    assert outcomes(meanwhile, RESOLVER) == {"repaired"}
    assert outcomes(meanwhile, SERVICES) == {"waiting"}
    assert reasons(meanwhile, SERVICES) == {f"until apt-get (process {apt}) has ended"}
    assert meanwhile.reloaded() == ALL
    assert 2000 <= meanwhile.report["duration_ms"] < PROMPT
    assert outcomes(ended, SERVICES) == {"repaired"}
    assert up_to_date(host, SERVICES) == ALL
    check(host, code=0)


def test_what_waited_is_repaired_in_the_same_run_once_apt_has_ended(host: Container, mail: Mail, start: int) -> None:
    """Both passes reload: automatic runs keep a distance between reloads, one that was asked for by hand does not."""
    host.write(CONFIG, "[packages]\nwait = 30\n")
    host.run(["dpkg", "--install", netbase(host)])
    with at_the_prompt(host, netbase(host)) as answer:
        new_network(host)
        with beside(host, CHECK_FIX) as ending:
            until(lambda: sorted(mail.reloads(start)) == sorted(LOG), ending)
            assert up_to_date(host, RESOLVER) == ALL
            assert up_to_date(host, SERVICES) == NONE
            answer()
    run = read(ending)

    assert run.code == 0
    assert outcomes(run, RESOLVER) == outcomes(run, SERVICES) == {"repaired"}
    assert run.reloaded() == ALL
    assert up_to_date(host, SERVICES) == ALL
    assert reloads(mail, start) == sorted([*LOG, *LOG])
    check(host, code=0)


def test_who_waits_for_apt_keeps_no_other_repair_from_running(host: Container) -> None:
    host.run(["dpkg", "--install", netbase(host)])
    with at_the_prompt(host, netbase(host)) as answer:
        host.write("/etc/patient.toml", "[packages]\nwait = 60\n")
        ends = [time.monotonic() + PATIENCE * part / 4 for part in range(1, 5)]
        with beside(host, [*CHECK_FIX, "--config", "/etc/patient.toml"]) as ending:
            for end in ends:
                time.sleep(max(0.0, end - time.monotonic()))
                new_network(host)
                other = check(host, "--fix", code=Code.LOCKED)
                assert other.report["duration_ms"] < PROMPT
                assert outcomes(other, RESOLVER) == {"repaired"}
                assert outcomes(other, SERVICES) == {"waiting"}
                assert up_to_date(host, RESOLVER) == ALL
                assert not ending.done()
            answer()
    run = read(ending)

    assert run.code == 0
    assert outcomes(run, SERVICES) == {"repaired"}
    check(host, code=0)


# --- Called by a package manager ------------------------------------------------------------------------------------


def test_hooks_of_apt_and_dpkg_may_wait_for_chrootsync(host: Container) -> None:
    limit(host, DEADLOCK)
    scripts = f"case $1 in configure) {CALL} postinst ;; triggered) {CALL} trigger ;; esac"
    package = deb(host, "by-dpkg", scripts, triggers=f"interest-noawait {SERVICES}\n")
    events = "".join(f'DPkg::{event}-Invoke {{"{CALL} apt-{event.lower()}";}};\n' for event in ("Pre", "Post"))
    host.write("/etc/apt/apt.conf.d/99test", events)
    host.write("/etc/dpkg/dpkg.cfg.d/test", f"post-invoke={CALL} dpkg-post\n")
    new_network(host)
    try:
        host.run(["apt-get", "--yes", "install", netbase(host), package], env={"DEBIAN_FRONTEND": "noninteractive"})
    finally:
        host.run(["rm", "/etc/apt/apt.conf.d/99test", "/etc/dpkg/dpkg.cfg.d/test"])

    ran = hooks(host)
    assert {name for name, _ in ran} == {"apt-pre", "dpkg-post", "postinst", "trigger", "apt-post"}
    assert {code for _, code in ran} == {0}
    assert (ran[0][0], ran[-1][0]) == ("apt-pre", "apt-post")
    assert host.run(["dpkg", "--audit"]).stdout == ""
    for path in (RESOLVER, SERVICES, "/etc/by-dpkg"):
        assert up_to_date(host, path) == ALL
    check(host, code=0)


def test_a_package_that_starts_the_service_is_delayed_and_no_more(host: Container) -> None:
    """The service is no child of apt's, so that it waits; its limit ends that."""
    limit(host, 3)
    host.run(["chrootsync", "install", "systemd", "--mode", "timer"])
    host.run(["systemctl", "stop", "chrootsync.timer"])
    began = time.monotonic()
    package = deb(host, "by-dpkg", "systemctl start chrootsync.service || true")
    host.run(["apt-get", "--yes", "install", package])

    assert 3 <= time.monotonic() - began < HOOK_LIMIT
    status = host.run(["systemctl", "show", "--property=ExecMainStatus", "--value", "chrootsync.service"]).stdout
    assert int(status) == Code.LOCKED
    assert host.run(["dpkg", "--audit"]).stdout == ""
    assert up_to_date(host, "/etc/by-dpkg") == NONE
    host.run(["systemctl", "start", "chrootsync.service"])
    assert up_to_date(host, "/etc/by-dpkg") == ALL


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_script_of_a_package_may_wait_for_chrootsync(host: Container, manager: str) -> None:
    limit(host, DEADLOCK)
    new_network(host)
    host.run(MANAGERS[manager](host, f"by-{manager}", f"{CALL} script"))

    assert hooks(host) == [("script", 0)]
    for path in (RESOLVER, f"/etc/by-{manager}"):
        assert up_to_date(host, path) == ALL
    check(host, code=0)


def test_a_file_trigger_of_rpm_may_wait_for_chrootsync(host: Container) -> None:
    limit(host, DEADLOCK)
    host.run(by_rpm(host, "by-rpm", more=f"%transfiletriggerin -p /bin/sh -- /etc\ncat > /dev/null; {CALL} trigger"))

    assert hooks(host) == [("trigger", 0)]
    assert up_to_date(host, "/etc/by-rpm") == ALL


def test_a_hook_of_pacman_may_wait_for_chrootsync(host: Container) -> None:
    limit(host, DEADLOCK)
    hook = "[Trigger]\nType = Path\nOperation = Install\nOperation = Upgrade\nTarget = etc/by-pacman\n"
    action = f"[Action]\nWhen = PostTransaction\nExec = {CALL} hook\n"
    host.write("/etc/pacman.d/hooks/test.hook", hook + action)
    try:
        host.run(by_pacman(host, "by-pacman"))
    finally:
        host.run(["rm", "/etc/pacman.d/hooks/test.hook"])

    assert hooks(host) == [("hook", 0)]
    assert up_to_date(host, "/etc/by-pacman") == ALL


# --- Beside package managers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_file_of_a_package_waits_for_the_manager_that_brings_it(host: Container, manager: str) -> None:
    path = f"/etc/by-{manager}"
    with paused(host, MANAGERS[manager](host, f"by-{manager}", PAUSE)):
        new_network(host)
        number = process(host, manager)
        meanwhile = check(host, "--fix", code=Code.LOCKED)
        assert up_to_date(host, RESOLVER) == ALL
        assert up_to_date(host, path) == NONE
    ended = check(host, "--fix", code=0)

    assert outcomes(meanwhile, RESOLVER) == {"repaired"}
    assert outcomes(meanwhile, path) == {"waiting"}
    assert reasons(meanwhile, path) == {f"until {manager} (process {number}) has ended"}
    assert outcomes(ended, path) == {"repaired"}
    assert up_to_date(host, path) == ALL


@pytest.mark.parametrize("early", EARLY, ids=lambda early: str(early.name))
def test_a_new_file_waits_before_its_package_is_known(host: Container, early: Early) -> None:
    path = f"/etc/{early.name}"
    with held_up(host, early):
        new_network(host)
        meanwhile = check(host, "--fix", code=Code.LOCKED)
        assert up_to_date(host, RESOLVER) == ALL
        assert not any(host.exists(instance.chroot + path) for instance in INSTANCES)
    ended = check(host, "--fix", code=0)

    assert outcomes(meanwhile, path) == {"waiting"}
    assert {drift["package"] is not None for drift in drifts(meanwhile, path)} == {early.known}
    assert outcomes(ended, path) == {"repaired"}
    assert up_to_date(host, path) == ALL


def test_a_lock_that_pacman_left_behind_holds_nothing_up(host: Container) -> None:
    host.run(by_pacman(host, "by-pacman"))
    host.write(PACMAN_LOCK, "")
    try:
        run = check(host, "--fix", code=0)
    finally:
        host.run(["rm", PACMAN_LOCK])

    assert outcomes(run, "/etc/by-pacman") == {"repaired"}
    assert up_to_date(host, "/etc/by-pacman") == ALL


def test_whoever_else_holds_dpkgs_lock_is_waited_for(host: Container) -> None:
    edit(host, "/etc/by-dpkg")
    with paused(host, ["python3", "-c", HOLDER, "sh", "-c", PAUSE]):
        holder = process(host, "python3")
        meanwhile = check(host, "--fix", code=Code.LOCKED)
        assert up_to_date(host, "/etc/by-dpkg") == NONE
    check(host, "--fix", code=0)

    assert reasons(meanwhile, "/etc/by-dpkg") == {f"until python3 (process {holder}) has ended"}
    assert up_to_date(host, "/etc/by-dpkg") == ALL


def test_whoever_holds_dpkgs_lock_and_calls_chrootsync_is_not_waited_for(host: Container) -> None:
    limit(host, DEADLOCK)
    edit(host, "/etc/by-dpkg")
    began = time.monotonic()
    host.run(["python3", "-c", HOLDER, "sh", "-c", "chrootsync check --fix; exit $?"])

    assert time.monotonic() - began < HOOK_LIMIT
    assert up_to_date(host, "/etc/by-dpkg") == ALL


ROOT_LOCK = """
import fcntl, os, time

status = os.stat("/")
with open(f"/run/chrootsync/{status.st_dev}-{status.st_ino}.lock", "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    open("/run/locked", "w").close()
    while os.path.exists("/run/locked"):
        time.sleep(0.05)
"""


def test_of_transactions_in_a_row_each_is_waited_for(host: Container) -> None:
    """A second manager begins after the first has ended, but before the second pass has looked."""
    limit(host, 30)
    holder = ["python3", "-c", HOLDER, "sh", "-c", PAUSE]
    edit(host, "/etc/by-dpkg")
    with ExitStack() as stack:
        with paused(host, holder):
            new_network(host)
            ending = stack.enter_context(beside(host, CHECK_FIX))
            until(lambda: up_to_date(host, RESOLVER) == ALL, ending)
            until(lambda: not host.shell("ls /run/chrootsync"), ending)
            other = stack.enter_context(beside(host, ["python3", "-c", ROOT_LOCK]))
            until(lambda: host.exists("/run/locked"), other)
        time.sleep(2)
        with paused(host, holder):
            new_network(host)
            host.run(["rm", "/run/locked"])
            until(lambda: up_to_date(host, RESOLVER) == ALL, ending)
            assert up_to_date(host, "/etc/by-dpkg") == NONE
    run = read(ending)

    assert run.code == 0
    assert up_to_date(host, "/etc/by-dpkg") == ALL


COMPARED = """
import os, sys, time
from chrootsync import pipeline

named = pipeline.named

def slow(*compared):
    found = named(*compared)
    if not os.path.exists("/run/go-on"):
        open("/run/compared", "w").close()
        while os.path.exists("/run/compared"):
            time.sleep(0.05)
    return found

pipeline.named = slow
sys.argv = ["chrootsync", "check", "--fix", "--format", "json"]
from chrootsync.cli import main
main()
"""


def test_a_transaction_that_ends_after_comparing_is_compared_again(host: Container) -> None:
    limit(host, 30)
    host.run(by_dpkg(host, "early-dpkg"))
    check(host, "--fix", code=0)
    first = deb(host, "by-dpkg")
    second = deb(host, "early-dpkg")
    host.write("/var/tmp/deb/early-dpkg/DEBIAN/preinst", f"#!/bin/sh -e\n{PAUSE}\n", mode=0o755)
    host.run(["dpkg-deb", "-Znone", "--build", "/var/tmp/deb/early-dpkg", second])
    with ExitStack() as stack:
        with paused(host, ["dpkg", "--install", first, second]):
            ending = stack.enter_context(beside(host, ["/opt/chrootsync/bin/python", "-c", COMPARED]))
            until(lambda: host.exists("/run/compared"), ending)
        host.run(["rm", "/run/compared"])
    run = read(ending)

    assert run.code == 0
    assert up_to_date(host, "/etc/by-dpkg") == ALL
    assert up_to_date(host, "/etc/early-dpkg") == ALL
