"""What must hold however chrootsync is started by itself: by the watcher, the path unit or the timer, as installed."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .container import Container
from .mail import INSTANCES, OUTPUT, RESOLVER, Mail, Postfix
from .test_main_job import REPACK, check, complaints, reloads, synced
from .watching import MODES, Automatic, begin, replace, resolver

NUMBERS = itertools.count(1)
RUN_RESOLVE = "/run/systemd/resolve"
STUB = f"{RUN_RESOLVE}/stub-resolv.conf"

# $1 how many changes, one after the other by rename, in about a second.
BURST = """
for number in $(seq "$1"); do
    printf 'nameserver 127.0.0.5\\n# change %s of %s\\n' "$number" "$1" > /etc/resolv.conf.new
    mv /etc/resolv.conf.new /etc/resolv.conf
    sleep 0.002
done
"""


@pytest.fixture(scope="module", params=MODES)
def host(
    request: pytest.FixtureRequest, chrootsync: tuple[Path, ...], three_instances: tuple[Path, ...]
) -> Iterator[Automatic]:
    """A freshly booted host with three instances, kept in sync in each of the modes in turn."""
    with Container([*chrootsync, *three_instances]) as container:
        container.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
        host = Automatic(request.param, Mail(container))
        host.install()
        yield host


@pytest.fixture
def start(host: Automatic) -> int:
    """Start from a host in sync; the place in the log of mail from which on a test looks at it."""
    return begin(host)


def fresh() -> str:
    """A resolv.conf that was never there."""
    return resolver(f"number {next(NUMBERS)}")


def reloaded_once(host: Automatic, start: int, *instances: Postfix) -> None:
    """Wait for the reloads of some instances; each comes once, and no other is reloaded."""
    host.wait_reloaded(start, *instances)
    assert reloads(host.mail, start) == sorted(instance.log for instance in instances)


def test_a_package_update_is_in_all_three_chroots_when_it_is_over(host: Automatic, start: int) -> None:
    container = host.container
    container.shell(REPACK, "netbase", "echo 'automatic-test 54321/tcp' >> etc/services", "/var/tmp/netbase.deb")
    # Bytes behind the end of an ELF file change nothing for those who load it.
    modules = "for file in lib/*/libnss_*.so.2 lib/*/libresolv.so.2; do echo changed >> $file; done"
    container.shell(REPACK, "libc6", modules, "/var/tmp/libc6.deb")
    install = ["apt-get", "-y", "install", "--reinstall", "/var/tmp/netbase.deb", "/var/tmp/libc6.deb"]
    container.run(install, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=180)

    host.wait_synced("/etc/services")
    host.wait_until(lambda: check(container).code == 0, "everything is in sync")

    reloaded_once(host, start, *INSTANCES)
    assert complaints(host.mail) == ""


def test_a_replaced_resolver_file_is_copied(host: Automatic, start: int) -> None:
    replace(host.container, "/etc/resolv.conf", fresh())
    host.wait_synced("/etc/resolv.conf")
    reloaded_once(host, start, *INSTANCES)


def test_a_resolver_file_that_is_rewritten_in_place_is_copied(host: Automatic, start: int) -> None:
    host.container.write("/etc/resolv.conf", fresh())
    host.wait_synced("/etc/resolv.conf")
    reloaded_once(host, start, *INSTANCES)


def test_a_link_to_the_stub_of_a_resolver_is_followed_wherever_it_changes(host: Automatic, start: int) -> None:
    """systemd-resolved rewrites its file, and makes file and directory anew when it starts."""
    container = host.container
    container.shell(f"mkdir -p {RUN_RESOLVE}; chown systemd-network: {RUN_RESOLVE}")
    container.write(STUB, fresh())
    try:
        container.run(["ln", "-s", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf.new"])
        container.run(["mv", "-T", "/etc/resolv.conf.new", "/etc/resolv.conf"])
        host.wait_synced("/etc/resolv.conf")
        if host.mode == "path":  # whose directories are those that there were when it was installed
            container.run(["chrootsync", "install", "systemd", "--mode", "path"])

        container.write(STUB, fresh())
        host.wait_synced("/etc/resolv.conf")

        container.run(["rm", STUB])
        container.write(STUB, fresh())
        host.wait_synced("/etc/resolv.conf")

        container.run(["rm", "-r", RUN_RESOLVE])
        container.write(STUB, fresh())
        host.wait_synced("/etc/resolv.conf")
    finally:
        replace(container, "/etc/resolv.conf", RESOLVER)
    host.wait_synced("/etc/resolv.conf")
    host.wait_reloaded(start, *INSTANCES)


def test_a_burst_of_changes_is_a_few_repairs_and_the_last_content_wins(host: Automatic, start: int) -> None:
    """There was a reload just now, from which others keep their distance: that for the last content is left to come."""
    container = host.container
    replace(container, "/etc/resolv.conf", fresh())
    host.wait_reloaded(start, *INSTANCES)
    host.configure(interval=3600)
    with host.passes() as passes:
        if host.mode != "timer":
            passes.wait_quiet()  # the configuration file is watched, too
        behind = host.mail.mark()
        passes.count = 0
        began = time.monotonic()
        container.shell(BURST, "200")
        lasted = time.monotonic() - began
        host.wait_synced("/etc/resolv.conf")
        if host.mode == "watch":
            assert passes.wait_quiet() <= 3 + lasted / 0.5  # the time to settle
        assert passes.count < 40
    assert container.read("/etc/resolv.conf") == f"{RESOLVER}# change 200 of 200\n"
    host.wait_until(lambda: pending(container) == [*INSTANCES], "reloads are pending")
    assert reloads(host.mail, behind) == []

    host.configure(interval=0)
    reloaded_once(host, behind, *INSTANCES)


def pending(container: Container) -> list[Postfix]:
    """The instances whose reload is pending."""
    run = check(container)
    return [instance for instance in INSTANCES if run.instance(instance)["reload"]["pending"]]


def test_reloads_keep_their_distance_and_the_last_one_is_never_lost(host: Automatic, start: int) -> None:
    """Nothing else than time brings the last one."""
    container = host.container
    host.configure(interval=3)
    replace(container, "/etc/resolv.conf", fresh())
    host.wait_synced("/etc/resolv.conf")
    host.wait_reloaded(start, *INSTANCES)
    behind = host.mail.mark()

    replace(container, "/etc/resolv.conf", fresh())
    host.wait_synced("/etc/resolv.conf")
    host.wait_reloaded(behind, *INSTANCES)

    assert reloads(host.mail, behind) == sorted(instance.log for instance in INSTANCES)
    host.wait_until(lambda: check(container).code == 0, "no reload is pending any more")


def test_an_administrator_at_work_is_not_disturbed_and_told(host: Automatic, start: int) -> None:
    container, since = host.container, host.logged()
    main_cf = f"{OUTPUT.config}/main.cf"
    container.shell('cp -p "$1" /var/tmp/main.cf; echo "delay_warning_time = 1h" >> "$1"', main_cf)
    replace(container, "/etc/resolv.conf", fresh())

    host.wait_synced("/etc/resolv.conf")
    reloaded_once(host, start, *(instance for instance in INSTANCES if instance is not OUTPUT))
    said = host.wait_said(re.escape(main_cf), since)

    assert "postfix-out" in said
    # While a repair is under way, a check does not tell what is pending.
    host.wait_until(lambda: pending(container) == [OUTPUT], "it is pending")
    behind = host.mail.mark()
    container.run(["postfix", "-c", OUTPUT.config, "reload"])
    assert reloads(host.mail, behind) == [OUTPUT.log]
    host.wait_until(lambda: check(container).code == 0, "the reload is not pending any more")


def test_a_rival_that_keeps_writing_a_copy_is_left_alone_in_the_end_and_told(host: Automatic, start: int) -> None:
    del start
    container, since = host.container, host.logged()
    copy = f"{OUTPUT.chroot}/etc/services"
    container.shell('echo "automatic-test-$1 54322/tcp" >> /etc/services', f"{next(NUMBERS)}")
    host.wait_synced("/etc/services")

    def contested() -> bool:
        return re.search(r"\bcontested\b", host.journal(since)) is not None

    repairs = 0
    while not contested():
        container.write(copy, f"# the rival's, number {repairs}\n")
        container.run(["touch", "/etc/services"])  # the copy itself nobody watches
        host.wait_until(lambda: contested() or synced(container, OUTPUT, "/etc/services"), "repaired, or told")
        repairs += 0 if contested() else 1
        assert repairs <= 3
    assert container.read(copy) == f"# the rival's, number {repairs}\n"
    assert check(container, code=0).drift(OUTPUT) == {}  # it is a warning


def test_what_a_repair_writes_wakes_nothing(host: Automatic, start: int) -> None:
    del start
    if host.mode == "timer":
        pytest.skip("a timer is woken by nothing but time")
    container = host.container
    with host.passes() as passes:
        before = passes.wait_quiet()
        replace(container, "/etc/resolv.conf", fresh())
        host.wait_synced("/etc/resolv.conf")
        caused = passes.wait_quiet() - before
        for instance in INSTANCES:
            container.write(f"{instance.chroot}/etc/services", "# stale\n")
        check(container, "--fix", code=0)
        after = passes.wait_quiet() - caused - before
    assert caused in {1, 2}  # one may follow, to see what changed meanwhile
    assert after == 1  # that by hand


def test_a_new_instance_is_picked_up(host: Automatic, start: int) -> None:
    del start
    container = host.container
    chroot = "/var/spool/postfix-new"
    container.run(["postmulti", "-e", "create", "-I", "postfix-new", "-G", "mta"])

    def served() -> bool:
        return (
            container.run(["cmp", "-s", "/etc/resolv.conf", f"{chroot}/etc/resolv.conf"], check=False).returncode == 0
        )

    host.wait_until(served, "the new instance is in sync")
    replace(container, "/etc/resolv.conf", fresh())
    host.wait_until(served, "the new instance is kept in sync")
    assert all(synced(container, instance, "/etc/resolv.conf") for instance in INSTANCES)
