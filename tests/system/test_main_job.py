"""The main job: after a package update or a network change, one command makes every chroot right again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from chrootsync.model import Code

from .container import Container
from .mail import INPUT, INSTANCES, OUTPUT, RESOLVER, STALE_RESOLVER, Mail, Postfix

# Repacks a package that lies in apt's cache: $1 name, $2 a script that changes the unpacked files, $3 the new package.
REPACK = """
rm -rf /var/tmp/repack
dpkg-deb -R /var/cache/apt/archives/"$1"_*.deb /var/tmp/repack
sed -i 's/^Version: .*/&+changed/' /var/tmp/repack/DEBIAN/control
cd /var/tmp/repack
eval "$2"
dpkg-deb -Znone -b /var/tmp/repack "$3" >&2
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one ``chrootsync check`` said: its exit status and its report."""

    code: int
    report: dict[str, Any]

    def instance(self, instance: Postfix) -> dict[str, Any]:
        """What the report holds on one instance."""
        [found] = [each for each in self.report["instances"] if each["config"] == instance.config]
        assert isinstance(found, dict)
        return found

    def drift(self, instance: Postfix) -> dict[str, str]:
        """The kind of drift of each path of an instance that counts."""
        return {each["path"]: each["kind"] for each in self.instance(instance)["drift"] if each["severity"] == "error"}

    def drifted(self) -> list[Postfix]:
        """The instances with drift that counts."""
        return [instance for instance in INSTANCES if self.drift(instance)]

    def reloaded(self) -> list[Postfix]:
        """The instances that the report says were reloaded."""
        return [instance for instance in INSTANCES if self.instance(instance)["reload"]["done"]]


def check(container: Container, *arguments: str, code: int | None = None) -> Run:
    """Run ``chrootsync check`` and read its report; ``code`` is the exit status that it must have."""
    done = container.run(["chrootsync", "check", "--format", "json", *arguments], check=False)
    if done.returncode == Code.BUG:
        pytest.fail(container.shell("cat /tmp/chrootsync-*.log"))
    assert code is None or done.returncode == code, f"{done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    return Run(code=done.returncode, report=json.loads(done.stdout))


def text(container: Container, *arguments: str) -> str:
    """What ``chrootsync check`` prints for people where it is piped."""
    return container.run(["chrootsync", "check", *arguments], check=False).stdout


def reloads(mail: Mail, start: int) -> list[str]:
    """The instances whose master logged a reload behind a mark, sorted."""
    mail.settle(start)
    return sorted(mail.reloads(start))


def complaints(mail: Mail) -> str:
    """What ``postfix check`` has to say about the three instances; without a terminal it says it to the log."""
    start = mail.mark()
    for instance in INSTANCES:
        mail.container.run(["postfix", "-c", instance.config, "check"])
    mail.settle(start)
    return "\n".join(line for line in mail.log(start).splitlines() if "/postfix-script[" in line)


def masters(mail: Mail) -> Sequence[int]:
    """The masters' process numbers; each of them runs."""
    assert all(mail.running(instance) for instance in INSTANCES)
    return [mail.master(instance) for instance in INSTANCES]


def spoil(container: Container, instance: Postfix, name: str, content: str) -> None:
    """Put other contents into a copy."""
    container.write(f"{instance.chroot}{name}", content)


def synced(container: Container, instance: Postfix, name: str) -> bool:
    """Whether a copy holds what the host's file holds."""
    return container.run(["cmp", "-s", name, f"{instance.chroot}{name}"], check=False).returncode == 0


def kill_before_reload(container: Container) -> None:
    """Repair, and be killed between swap and reload: nothing drifts any more, but daemons use what was replaced."""
    program = (
        "import os, signal, sys; from chrootsync import reload;"
        "reload.reload = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "sys.argv = ['chrootsync', 'check', '--fix']; from chrootsync.cli import main; main()"
    )
    killed = container.run(["/opt/chrootsync/bin/python", "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL, "there was nothing to reload"


@contextmanager
def moved_away(container: Container, path: str) -> Iterator[None]:
    """Keep a file or directory under another name meanwhile; its times stay."""
    container.run(["mv", path, f"{path}.kept"])
    try:
        yield
    finally:
        container.shell('rm -rf "$1"; mv "$1.kept" "$1"', path)


@pytest.fixture
def in_sync(container: Container) -> None:
    """Start from a host that was repaired, whatever a test before has left behind.

    The tests spoil the same copy again and again. Were all their repairs remembered, it would be contested.
    """
    container.write("/etc/chrootsync/chrootsync.toml", "[history]\nrepairs = 1\n")
    check(container, "--fix", code=0)


@pytest.fixture
def start(mail: Mail, in_sync: None) -> int:  # noqa: ARG001 - what repairing logged comes before the mark
    """The place in the log from which on a test looks at it."""
    reloads(mail, 0)
    return mail.mark()


def test_a_clean_host_is_in_sync_after_the_first_fix(mail: Mail) -> None:
    before = masters(mail)

    check(mail.container, "--fix", code=0)
    second = check(mail.container, code=0)

    assert second.report["status"] == "in-sync"
    assert [each["config"] for each in second.report["instances"]] == [each.config for each in INSTANCES]
    assert second.drifted() == []
    assert complaints(mail) == ""
    assert masters(mail) == before


def test_a_second_fix_writes_and_reloads_nothing(mail: Mail, start: int) -> None:
    listing = 'for chroot; do find "$chroot" -xdev \\( -name private -o -name public -o -name active \\) -prune -o '
    listing += (
        '\\( -path "$chroot/etc*" -o -path "$chroot/lib*" -o -path "$chroot/usr*" \\) -printf "%p %i %C@\\n"; done'
    )
    chroots = [instance.chroot for instance in INSTANCES]
    before = mail.container.shell(listing, *chroots)

    check(mail.container, "--fix", code=0)

    assert before.count("\n") > 100
    assert mail.container.shell(listing, *chroots) == before
    assert reloads(mail, start) == []


def test_a_package_update_makes_all_three_drift_until_they_are_fixed(mail: Mail, start: int) -> None:
    container = mail.container
    before = masters(mail)
    services = "echo 'chrootsync-test 54321/tcp' >> etc/services"
    # Bytes behind the end of an ELF file change nothing for those who load it.
    modules = "for file in lib/*/libnss_*.so.2 lib/*/libresolv.so.2; do echo changed >> $file; done"
    container.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
    container.shell(REPACK, "netbase", services, "/var/tmp/netbase.deb")
    container.shell(REPACK, "libc6", modules, "/var/tmp/libc6.deb")
    install = ["apt-get", "-y", "install", "--reinstall", "/var/tmp/netbase.deb", "/var/tmp/libc6.deb"]
    container.run(install, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=180)

    drifted = check(container, code=1)
    fixed = check(container, "--fix", code=0)
    after = check(container, code=0)

    for instance in INSTANCES:
        drift = drifted.drift(instance)
        assert drift["/etc/services"] == "outdated"
        names = {path.rpartition("/")[2] for path, kind in drift.items() if kind == "outdated"}
        assert {"libnss_files.so.2", "libnss_dns.so.2", "libnss_compat.so.2", "libresolv.so.2"} <= names
        assert synced(container, instance, "/etc/services")
    assert fixed.reloaded() == list(INSTANCES)
    assert after.drifted() == []
    assert reloads(mail, start) == sorted(instance.log for instance in INSTANCES)
    assert complaints(mail) == ""
    assert masters(mail) == before


def test_deferred_mail_is_delivered_after_the_stale_resolver_copy_is_fixed(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, "/etc/resolv.conf", STALE_RESOLVER)
    # New delivery agents read the copy; systemctl would run Debian's own script, which copies the file again.
    container.run(["postfix", "-c", OUTPUT.config, "reload"])
    assert reloads(mail, start) == [OUTPUT.log]
    mail.send("deferred@example.test")
    mail.wait(r"deferred@example\.test.*status=deferred .*Name service error for name=sink\.test", start)
    assert mail.delivered("deferred@example.test") == 0
    start = mail.mark()

    named = check(container, code=1)
    said = text(container)
    fixed = check(container, "--fix", code=0)

    assert named.drifted() == [OUTPUT]
    assert list(named.drift(OUTPUT)) == ["/etc/resolv.conf"]
    assert "/etc/resolv.conf" in said
    assert "postfix-out" in said
    assert fixed.reloaded() == [OUTPUT]
    assert container.read(f"{OUTPUT.chroot}/etc/resolv.conf") == RESOLVER
    mail.flush(OUTPUT)
    mail.wait(r"postfix-out/smtp\[.*deferred@example\.test.*status=sent", start)
    assert mail.delivered("deferred@example.test") == 1


@pytest.mark.parametrize("drifting", INSTANCES, ids=lambda instance: str(instance.log))
def test_only_the_drifted_instance_is_reloaded(mail: Mail, start: int, drifting: Postfix) -> None:
    before = masters(mail)
    spoil(mail.container, drifting, "/etc/services", "# stale\n")

    fixed = check(mail.container, "--fix", code=0)

    assert fixed.reloaded() == [drifting]
    assert reloads(mail, start) == [drifting.log]
    assert masters(mail) == before


def test_no_reload_repairs_without_one(mail: Mail, start: int) -> None:
    spoil(mail.container, OUTPUT, "/etc/services", "# stale\n")

    check(mail.container, "--fix", "--no-reload", code=0)

    assert synced(mail.container, OUTPUT, "/etc/services")
    assert reloads(mail, start) == []


def test_a_reload_that_is_still_due_is_told_until_somebody_has_done_it(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    check(container, "--fix", "--no-reload", code=0)

    due = check(container, code=4)
    # The start of a process is known to the second.
    container.shell("sleep 2.1; postfix -c $1 reload", OUTPUT.config)
    assert reloads(mail, start) == [OUTPUT.log]
    done = check(container, code=0)
    check(container, "--fix", code=0)

    assert due.instance(OUTPUT)["reload"]["pending"]
    assert not done.instance(OUTPUT)["reload"]["pending"]
    assert reloads(mail, start) == [OUTPUT.log]


def test_a_repair_that_is_killed_before_its_reload_is_followed_by_one(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    kill_before_reload(container)
    assert synced(container, OUTPUT, "/etc/services")
    assert reloads(mail, start) == []

    fixed = check(container, "--fix", code=0)

    assert fixed.drifted() == []
    assert fixed.reloaded() == [OUTPUT]
    assert reloads(mail, start) == [OUTPUT.log]


def test_debians_own_script_and_chrootsync_leave_each_other_in_peace(mail: Mail, start: int) -> None:
    """It copies whatever it knows at every start, deleting first; what it leaves is as good, so nothing is repaired."""
    container = mail.container
    for _ in range(3):
        for instance in INSTANCES:
            container.run(["/usr/lib/postfix/configure-instance.sh", instance.multi])
        assert check(container, code=0).drifted() == []
        check(container, "--fix", code=0)
    assert reloads(mail, start) == []
    assert complaints(mail) == ""


def test_a_named_instance_is_repaired_alone(mail: Mail, start: int) -> None:
    spoil(mail.container, INPUT, "/etc/services", "# stale\n")
    spoil(mail.container, OUTPUT, "/etc/services", "# stale\n")

    check(mail.container, "--fix", OUTPUT.config, code=0)

    assert not synced(mail.container, INPUT, "/etc/services")
    assert synced(mail.container, OUTPUT, "/etc/services")
    assert reloads(mail, start) == [OUTPUT.log]


def test_a_resolver_file_without_a_name_server_never_replaces_a_copy(mail: Mail, start: int) -> None:
    container = mail.container
    container.write("/etc/resolv.conf", "# the network is down\n")
    try:
        fixed = check(container, "--fix", code=1)
    finally:
        container.write("/etc/resolv.conf", RESOLVER)

    for instance in INSTANCES:
        assert fixed.drift(instance) == {"/etc/resolv.conf": "bad-source"}
        assert container.read(f"{instance.chroot}/etc/resolv.conf") == RESOLVER
    assert reloads(mail, start) == []


def test_an_administrator_at_work_is_not_disturbed(mail: Mail, start: int) -> None:
    """A reload would put a half-edited main.cf in force."""
    container = mail.container
    container.run(["postconf", "-c", OUTPUT.config, "-e", "delay_warning_time=1h"])
    spoil(container, OUTPUT, "/etc/services", "# stale\n")

    fixed = check(container, "--fix", code=4)

    assert synced(container, OUTPUT, "/etc/services")
    assert fixed.instance(OUTPUT)["reload"]["needed"]
    assert not fixed.instance(OUTPUT)["reload"]["done"]
    assert f"{OUTPUT.config}/main.cf" in fixed.instance(OUTPUT)["reload"]["error"]
    assert reloads(mail, start) == []
    container.run(["postfix", "-c", OUTPUT.config, "reload"])
    assert reloads(mail, start) == [OUTPUT.log]
    check(container, "--fix", code=0)


def test_a_disabled_instance_that_still_runs_is_served(mail: Mail, start: int) -> None:
    container = mail.container
    before = masters(mail)
    container.run(["postmulti", "-e", "disable", "-i", INPUT.multi])
    try:
        container.run(["postfix", "-c", INPUT.config, "reload"])
        assert reloads(mail, start) == [INPUT.log]
        start = mail.mark()
        spoil(container, INPUT, "/etc/services", "# stale\n")

        named = check(container, code=1)
        fixed = check(container, "--fix", code=0)

        assert list(named.drift(INPUT)) == ["/etc/services"]
        assert fixed.reloaded() == [INPUT]
        assert reloads(mail, start) == [INPUT.log]
        assert masters(mail) == before
    finally:
        container.run(["postmulti", "-e", "enable", "-i", INPUT.multi])
        container.run(["postfix", "-c", INPUT.config, "reload"])


@pytest.mark.parametrize(
    "main_cf", [None, "myhostname = broken.test\nthese words are no setting\n"], ids=["lost", "torn"]
)
def test_an_instance_with_a_broken_configuration_hides_no_other(mail: Mail, start: int, main_cf: str | None) -> None:
    container = mail.container
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    with moved_away(container, f"{INPUT.config}/main.cf"):
        if main_cf is not None:
            container.write(f"{INPUT.config}/main.cf", main_cf)

        said = text(container)
        fixed = check(container, "--fix", code=1)

    assert f"{INPUT.config}/main.cf" in said
    assert list(fixed.drift(INPUT).values()) == ["bad-instance"]
    assert fixed.reloaded() == [OUTPUT]
    assert synced(container, OUTPUT, "/etc/services")
    assert reloads(mail, start) == [OUTPUT.log]
    assert check(container, code=0).drifted() == []


def test_a_missing_queue_directory_hides_no_other(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, "/etc/services", "# stale\n")
    with moved_away(container, INPUT.chroot):
        said = text(container)
        fixed = check(container, "--fix", code=1)
        assert not container.exists(INPUT.chroot), "a queue directory is Postfix's to make"

    assert INPUT.chroot in said
    assert list(fixed.drift(INPUT).values()) == ["bad-instance"]
    assert fixed.reloaded() == [OUTPUT]
    assert synced(container, OUTPUT, "/etc/services")
    assert reloads(mail, start) == [OUTPUT.log]
