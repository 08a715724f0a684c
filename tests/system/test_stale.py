"""Processes that use what was replaced, on real Postfix: found, reloaded once, and what comes of it made sure of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .debian import Debian
from .mail import INPUT, INSTANCES, OUTPUT, RESOLVER, Postfix
from .test_main_job import Run, reloads

# Replaces a copy by the same one in a new file, as an upgrade would by rename; prints its path in the chroot. $1 the
# chroot, $2 the process: of the libraries that it has mapped from there, the first. It waits because the starts of
# processes are counted in hundredths of a second.
REPLACE = """
sleep 0.1
library=$(grep -o "$1/[^ ]*\\.so[^ ]*" /proc/$2/maps | sort -u | head -n 1)
test -n "$library"
cp -p "$library" "$library.new"
mv "$library.new" "$library"
printf %s "${library#$1}"
"""


@pytest.fixture(autouse=True)
def _afresh(debian: Debian) -> Iterator[None]:
    """Start from instances that have just begun, in sync."""
    debian.container.write("/etc/resolv.conf", RESOLVER)
    debian.start()
    debian.check("--fix", code=0)
    yield
    debian.container.write("/etc/resolv.conf", RESOLVER)


def told(run: Run, instance: Postfix) -> list[tuple[str, str, str]]:
    """Severity, path and reason of each stale process that is told of an instance."""
    drift = run.instance(instance)["drift"]
    return [(each["severity"], each["path"], each["reason"]) for each in drift if each["kind"] == "stale-process"]


def test_an_instance_that_has_just_begun_has_no_stale_process(debian: Debian) -> None:
    with debian.mail.session(INPUT):
        run = debian.check(code=0)
    assert {instance.log: told(run, instance) for instance in INSTANCES} == {one.log: [] for one in INSTANCES}


def test_a_session_that_outlives_its_reload_is_finishing_its_job(debian: Debian) -> None:
    """A library is replaced behind our back: what has it mapped is found, and reloaded once."""
    start = debian.mail.mark()
    with debian.mail.session(INPUT) as pid:
        path = debian.container.shell(REPLACE, INPUT.chroot, str(pid))
        found = debian.check(code=0)
        strict = debian.check("--strict", code=1)
        fixed = debian.check("--fix", code=0)
        later = debian.check(code=0)
        again = debian.check("--fix", code=0)

    [(severity, where, reason)] = told(found, INPUT)
    assert (severity, reason) == ("warning", f"smtpd[{pid}] still uses this library as it was; a reload ends that")
    assert where.rpartition("/")[2].partition(".so")[0] == path.rpartition("/")[2].partition(".so")[0]
    [process] = found.instance(INPUT)["stale"]
    assert (process["pid"], process["daemon"], process["uses"]) == (pid, "smtpd", [{"path": where}])
    assert told(strict, INPUT) == told(found, INPUT)
    assert [told(found, one) for one in (OUTPUT,)] == [[]]

    assert fixed.reloaded() == [INPUT]
    seen = fixed.instance(INPUT)["reload"]["seen"]
    assert seen == ["the master runs", f"still finishing their jobs: smtpd[{pid}]", "its log has no fatal line since"]
    assert [(severity, reason.partition("; ")[2]) for severity, _, reason in told(later, INPUT)] == [
        ("info", "it was told to end, and is finishing its job")
    ]
    assert again.reloaded() == []
    assert reloads(debian.mail, start) == [INPUT.log]
    assert told(debian.check(code=0), INPUT) == []


def test_what_somebody_else_copies_is_reloaded_for_the_programs_that_read_it(debian: Debian) -> None:
    """Debian 13's own script copies at each ``postfix check``, and does not reload; here Debian 12's does the same."""
    start = debian.mail.mark()
    with debian.mail.session(INPUT) as pid:
        debian.container.shell("sleep 0.1")
        debian.container.write("/etc/resolv.conf", f"{RESOLVER}options timeout:7\n")
        debian.script()
        found = debian.check(code=0)
        fixed = debian.check("--fix", code=0)
    [(severity, _, reason)] = told(found, INPUT)
    assert severity == "warning"
    assert reason.startswith(f"smtpd[{pid}] ")
    assert reason.endswith("; a reload ends that")
    [process] = found.instance(INPUT)["stale"]
    assert {"path": "/etc/resolv.conf"} in process["uses"]
    assert fixed.reloaded() == [INPUT]
    assert fixed.report["summary"]["repaired"] == 1
    assert reloads(debian.mail, start) == [INPUT.log]
    assert debian.check("--fix", code=0).reloaded() == []


def test_a_daemon_that_does_not_come_up_again_is_seen_in_the_log(debian: Debian) -> None:
    """Postfix itself calls such a reload a success."""
    container = debian.container
    container.shell('echo "# stale" > "$1"', f"{OUTPUT.chroot}/etc/services")
    qmgr = "/usr/lib/postfix/sbin/qmgr"
    container.run(["mv", qmgr, f"{qmgr}.real"])
    container.write(qmgr, "#!/bin/sh\nexit 1\n", mode=0o755)
    try:
        fixed = debian.check("--fix", code=4)
    finally:
        container.run(["mv", f"{qmgr}.real", qmgr])

    reload = fixed.instance(OUTPUT)["reload"]
    assert (reload["done"], reload["pending"]) == (True, False)
    assert reload["error"].startswith("its log says since the reload: master[")
    assert "throttling" in reload["error"]
    assert debian.check("--fix", code=0).reloaded() == []
