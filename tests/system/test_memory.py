"""What chrootsync remembers, on real Postfix: who changed what, what can be taken back, which reloads are due.

Whatever becomes of the memory, and however many runs meet, each chroot ends in sync.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any

import pytest

from .container import Container
from .mail import INPUT, INSTANCES, OUTPUT, RESOLVER, STALE_RESOLVER, SUBMISSION, Mail, Postfix
from .test_main_job import Run, check, kill_before_reload, reloads, spoil, synced
from .test_units import install

STATE = "/var/lib/chrootsync"
LOCAL_RULES = "/etc/chrootsync/rules.d/local.toml"
SERVICES = "/etc/services"
RESOLV = "/etc/resolv.conf"
MODULE = f"/lib/{platform.machine()}-linux-gnu/libnss_compat.so.2"
PACKAGES = {SERVICES: "netbase", MODULE: "libc6"}
ORIGINALS = "/var/tmp/originals"
STALE = "# stale\n"
LOG = sorted(instance.log for instance in INSTANCES)

# Looks an account up by the module in the chroot $1, and prints which file of it libc has loaded.
LOOK_UP = """
import ctypes, os, pwd, sys

maps = open("/proc/self/maps")
os.chroot(sys.argv[1])
os.chdir("/")
ctypes.CDLL(None).__nss_configure_lookup(b"passwd", b"compat")
try:
    pwd.getpwnam("nobody")
except KeyError:
    pass
print(*sorted({line.split()[-1] for line in maps if "libnss_compat" in line}))
"""

# Replaces one name that a module needs by one that no libc has. $1 the module, $2 the new file.
AGE = """
import shutil, sys

with open(sys.argv[1], "rb") as file:
    module = file.read()
name, other = b"\\0__nss_files_fopen\\0", b"\\0__nss_files_gone_\\0"
assert module.count(name) == 1
shutil.copyfile(sys.argv[1], sys.argv[2])
with open(sys.argv[2], "wb") as file:
    file.write(module.replace(name, other))
"""
GONE = "__nss_files_gone_"

# Reads files again and again, as daemons do, until $1 is there; prints what it got, each once.
WATCH = """
import json, os, sys, time

stop, *paths = sys.argv[1:]
seen = set()
while not os.path.exists(stop):
    time.sleep(0.001)
    for path in paths:
        try:
            with open(path) as file:
                seen.add(file.read())
        except FileNotFoundError:
            seen.add(None)
    open(f"{stop}.begun", "w").close()
print(json.dumps(list(seen)))
"""

# In the place of postfix: does $1 for a reload of the output instance, all else as ever.
WRAPPER = f"""#!/bin/sh
case "$*" in "-c {OUTPUT.config} reload") %s;; esac
exec /usr/sbin/postfix.real "$@"
"""

# Puts a stale copy back whenever somebody has replaced it.
RIVAL = "while :; do cmp -s /var/tmp/stale $1 || cat /var/tmp/stale > $1; sleep 0.05; done"


def kinds(run: Run, instance: Postfix) -> dict[str, str]:
    """The kind of each drift of an instance that is more than information, by path."""
    return {each["path"]: each["kind"] for each in run.instance(instance)["drift"] if each["severity"] != "info"}


def reason(run: Run, instance: Postfix, path: str) -> str:
    """What is said of the drift of a path."""
    [found] = [each["reason"] for each in run.instance(instance)["drift"] if each["path"] == path]
    return str(found)


def history(container: Container) -> list[dict[str, Any]]:
    """The repairs that are remembered, the newest first."""
    repairs = json.loads(container.run(["chrootsync", "history", "--format", "json"]).stdout)["repairs"]
    assert isinstance(repairs, list)
    return repairs


def changes(repair: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The changes of a repair, each with the name of its instance."""
    return [(each["name"], change) for each in repair["instances"] for change in each["changes"]]


def rollback(container: Container, *arguments: str, code: int) -> dict[str, Any]:
    """Take a repair back; the rollback as a repair."""
    done = container.run(["chrootsync", "rollback", "--format", "json", *arguments], check=False)
    assert done.returncode == code, f"{done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    [made] = json.loads(done.stdout)["repairs"]
    assert isinstance(made, dict)
    return made


def outcomes(repair: dict[str, Any]) -> set[tuple[str, str]]:
    """What came of the changes of a repair: status and reason."""
    return {(change["outcome"]["status"], change["outcome"]["reason"]) for _, change in changes(repair)}


def append(container: Container, path: str, line: str) -> None:
    """Change a file of the host as its owner would."""
    container.shell('echo "$2" >> "$1"', path, line)


def replace(container: Container, path: str, by: str) -> None:
    """Replace a file of the host as a package manager does, by rename."""
    container.shell('cp -p "$2" "$1.new"; mv "$1.new" "$1"', path, by)


def copy(instance: Postfix, path: str) -> str:
    """Where an instance has its copy of a file."""
    return f"{instance.chroot}{path}"


def mode(container: Container, path: str) -> int:
    """The permission bits of a file."""
    return int(container.run(["stat", "-c", "%a", path]).stdout, 8)


def forget(container: Container) -> None:
    """Lose all that is remembered; what is only a cache may stay, so that the tests are faster."""
    container.shell('[ ! -d "$1" ] || find "$1" -mindepth 1 ! -name "cache-*" -delete', STATE)


@contextmanager
def reloading(container: Container, command: str) -> Iterator[None]:
    """Let a reload of the output instance do something else first."""
    container.run(["mv", "/usr/sbin/postfix", "/usr/sbin/postfix.real"])
    container.write("/usr/sbin/postfix", WRAPPER % command, mode=0o755)
    try:
        yield
    finally:
        container.run(["mv", "/usr/sbin/postfix.real", "/usr/sbin/postfix"])


@pytest.fixture(scope="module")
def saved(container: Container) -> Container:
    """A host in sync that has the shipped units, and copies of all that the tests are going to change."""
    install(container)
    check(container, "--fix", code=0)
    forget(container)
    check(container, "--fix", code=0)
    container.shell('mkdir "$1"; cp -a --parents "$2" "$3" "$4" "$5" "$1"', ORIGINALS, SERVICES, RESOLV, MODULE, STATE)
    return container


@pytest.fixture
def host(saved: Container) -> Container:
    """A host in sync of which only the checksums of its files are remembered, whatever a test has left behind."""
    back = 'cd "$1"; rm -rf "$4" "$5"; cp -a --parents ".$2" ".$3" ".$4" /'
    saved.shell(back, ORIGINALS, SERVICES, RESOLV, STATE, LOCAL_RULES)
    replace(saved, MODULE, ORIGINALS + MODULE)
    if check(saved, "--fix", code=0).report["status"] == "repaired":
        saved.shell('rm -rf "$2"; cp -a "$1$2" "$2"', ORIGINALS, STATE)
    return saved


@pytest.fixture
def start(mail: Mail, host: Container) -> int:  # noqa: ARG001 - what repairing logged comes before the mark
    """The place in the log from which on a test looks at it."""
    reloads(mail, 0)
    return mail.mark()


# --- Who changed --------------------------------------------------------------------------------------------------


def test_a_copy_by_debians_script_is_outdated_once_the_hosts_file_has_changed(host: Container) -> None:
    copies = [copy(instance, SERVICES) for instance in INSTANCES]
    inodes = host.run(["stat", "-c", "%i", *copies]).stdout.split()
    host.run(["systemctl", "restart", OUTPUT.unit])
    host.run(["/usr/lib/postfix/configure-instance.sh", SUBMISSION.multi])
    host.run(["/usr/lib/postfix/configure-instance.sh", INPUT.multi])
    assert not set(inodes) & set(host.run(["stat", "-c", "%i", *copies]).stdout.split()), "they are the script's"
    assert check(host, "--fix", code=0).report["status"] == "in-sync"
    append(host, SERVICES, "# more")

    fixed = check(host, "--fix", code=0)

    assert [kinds(fixed, instance) for instance in INSTANCES] == [{SERVICES: "outdated"}] * 3
    assert all(synced(host, instance, SERVICES) for instance in INSTANCES)


def test_a_copy_that_somebody_edits_after_a_repair_is_modified(host: Container) -> None:
    append(host, SERVICES, "# more")
    check(host, "--fix", code=0)
    append(host, copy(OUTPUT, SERVICES), "# by hand")

    found = check(host, code=1)

    assert [kinds(found, instance) for instance in INSTANCES] == [{}, {}, {SERVICES: "modified"}]
    assert "this was not written by chrootsync" in reason(found, OUTPUT, SERVICES)


def test_on_conflict_keep_keeps_what_is_modified_and_copies_what_is_outdated(host: Container) -> None:
    host.write(LOCAL_RULES, '[[override]]\nid = "postfix.services"\non_conflict = "keep"\n')
    append(host, SERVICES, "# more")
    check(host, "--fix", code=0)
    append(host, copy(OUTPUT, SERVICES), "# by hand")
    append(host, SERVICES, "# still more")
    edited = host.read(copy(OUTPUT, SERVICES))

    fixed = check(host, "--fix", code=1)
    forget(host)
    forgotten = check(host, "--fix", code=1)

    outdated = {SERVICES: "outdated"}
    assert [kinds(fixed, instance) for instance in INSTANCES] == [outdated, outdated, {SERVICES: "modified"}]
    assert [kinds(forgotten, instance) for instance in INSTANCES] == [{}, {}, {SERVICES: "differs"}]
    assert synced(host, SUBMISSION, SERVICES)
    assert synced(host, INPUT, SERVICES)
    assert host.read(copy(OUTPUT, SERVICES)) == edited


# --- History ------------------------------------------------------------------------------------------------------


def test_history_tells_who_called_what_was_changed_and_whose_it_is(host: Container) -> None:
    versions = {
        path: host.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package]).stdout
        for path, package in PACKAGES.items()
    }
    append(host, SERVICES, "# more")
    host.shell('cp -p "$1" "$2"; echo changed >> "$2"', MODULE, "/var/tmp/module")
    replace(host, MODULE, "/var/tmp/module")
    check(host, "--fix", "--trigger", "apt", code=0)
    spoil(host, OUTPUT, RESOLV, STALE_RESOLVER)
    check(host, "--fix", code=0)

    newest, by_apt = history(host)
    listed = host.run(["chrootsync", "history"]).stdout.splitlines()
    told = host.run(["chrootsync", "history", str(by_apt["id"])]).stdout

    assert [(name, change["path"], change["kind"]) for name, change in changes(newest)] == [
        (OUTPUT.log, RESOLV, "differs")
    ]
    assert (newest["trigger"], by_apt["trigger"]) == ("manual", "apt")
    assert {
        (name, change["path"], change["kind"], change["package"], change["outcome"]["status"])
        for name, change in changes(by_apt)
    } == {(name, path, "outdated", versions[path], "repaired") for name in LOG for path in PACKAGES}
    assert [each["reload"]["done"] for each in by_apt["instances"]] == [True] * 3
    assert [line.split()[0] for line in listed] == ["ID", str(newest["id"]), str(by_apt["id"])]
    assert "trigger apt" in told
    for path in PACKAGES:
        assert all(f"{copy(instance, path)}\n" in told for instance in INSTANCES)
        assert f"package {versions[path]}" in told


# --- Taking a repair back -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenBack:
    """The output instance's ``resolv.conf``: ``repair`` replaced a stale one, ``rollback`` has put that back."""

    repair: int
    rollback: int
    start: int


@pytest.fixture
def taken_back(mail: Mail, host: Container) -> TakenBack:
    """A stale copy that was repaired, and is there again; the log is looked at from then on."""
    spoil(host, OUTPUT, RESOLV, STALE_RESOLVER)
    check(host, "--fix", code=0)
    made = rollback(host, code=0)
    reloads(mail, 0)
    return TakenBack(repair=made["undoes"], rollback=made["id"], start=mail.mark())


def test_a_rollback_puts_back_what_was_there_and_reloads_the_instance(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, RESOLV, STALE_RESOLVER)
    check(container, "--fix", code=0)
    mail.send("repaired@example.test")
    mail.wait(r"postfix-out/smtp\[.*repaired@example\.test.*status=sent", start)
    assert reloads(mail, start) == [OUTPUT.log]
    start = mail.mark()

    made = rollback(container, code=0)

    assert made["undoes"] == history(container)[1]["id"]
    assert [(name, change["path"]) for name, change in changes(made)] == [(OUTPUT.log, RESOLV)]
    assert container.read(copy(OUTPUT, RESOLV)) == STALE_RESOLVER
    assert container.read(copy(INPUT, RESOLV)) == RESOLVER
    assert reloads(mail, start) == [OUTPUT.log]
    mail.send("taken-back@example.test")
    mail.wait(r"taken-back@example\.test.*status=deferred .*Name service error for name=sink\.test", start)
    assert mail.delivered("taken-back@example.test") == 0
    start = mail.mark()
    check(container, "--fix", "--force", code=0)
    mail.flush(OUTPUT)
    mail.wait(r"taken-back@example\.test.*status=sent", start)


def test_what_was_taken_back_is_left_alone_until_it_is_forced(mail: Mail, taken_back: TakenBack) -> None:
    container, start = mail.container, taken_back.start

    found = check(container, code=0)
    check(container, "--strict", code=1)
    by_timer = check(container, "--fix", "--trigger", "timer", code=0)
    assert container.read(copy(OUTPUT, RESOLV)) == STALE_RESOLVER
    assert reloads(mail, start) == []
    forced = check(container, "--fix", "--force", code=0)

    assert kinds(found, OUTPUT) == kinds(by_timer, OUTPUT) == {RESOLV: "held"}
    assert found.drifted() == []
    assert f"repair {taken_back.repair} was rolled back here" in reason(found, OUTPUT, RESOLV)
    assert forced.reloaded() == [OUTPUT]
    assert container.read(copy(OUTPUT, RESOLV)) == RESOLVER
    assert reloads(mail, start) == [OUTPUT.log]


@pytest.mark.usefixtures("taken_back")
def test_what_was_taken_back_is_repaired_once_the_hosts_file_changes(host: Container) -> None:
    append(host, RESOLV, "# the network has changed")

    fixed = check(host, "--fix", "--trigger", "timer", code=0)

    assert [kinds(fixed, instance) for instance in INSTANCES] == [{RESOLV: "outdated"}] * 3
    assert synced(host, OUTPUT, RESOLV)


def test_a_rollback_can_be_taken_back(mail: Mail, taken_back: TakenBack) -> None:
    container, start = mail.container, taken_back.start

    again = rollback(container, str(taken_back.rollback), code=0)
    newest, undone, repair = history(container)

    assert (again["undoes"], undone["undoes"]) == (taken_back.rollback, taken_back.repair)
    assert (newest["undone_by"], undone["undone_by"], repair["undone_by"]) == ([], [newest["id"]], [])
    assert container.read(copy(OUTPUT, RESOLV)) == RESOLVER
    assert check(container, "--strict", code=0).report["status"] == "in-sync"
    assert reloads(mail, start) == [OUTPUT.log]


def test_nothing_is_held_any_more_once_the_rollback_was_taken_back(host: Container, taken_back: TakenBack) -> None:
    rollback(host, str(taken_back.rollback), code=0)
    spoil(host, OUTPUT, RESOLV, STALE_RESOLVER)

    assert kinds(check(host, code=1), OUTPUT) == {RESOLV: "modified"}


def test_what_is_put_back_is_never_more_readable_than_its_source_is_today(host: Container) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    check(host, "--fix", code=0)
    host.run(["chmod", "600", SERVICES])

    rollback(host, code=0)

    assert host.read(copy(OUTPUT, SERVICES)) == STALE
    assert mode(host, copy(OUTPUT, SERVICES)) == 0o600


def test_what_was_taken_back_is_closed_when_its_source_is(host: Container) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    check(host, "--fix", code=0)
    rollback(host, code=0)
    host.run(["chmod", "600", SERVICES])

    check(host, "--fix", code=0)

    assert mode(host, copy(OUTPUT, SERVICES)) == 0o600


def loaded(container: Container) -> str:
    """The module that a lookup in the output instance's chroot loads; nothing where it cannot be loaded."""
    return container.run(["python3", "-c", LOOK_UP, OUTPUT.chroot]).stdout.strip()


def test_an_old_module_of_a_package_is_put_back_by_force_alone(host: Container) -> None:
    host.shell('cp -p "$1" "$2"; echo old >> "$2"', MODULE, "/var/tmp/old")
    for version in ("/var/tmp/old", ORIGINALS + MODULE):
        replace(host, MODULE, version)
        check(host, "--fix", OUTPUT.log, code=0)
    owner = host.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", "libc6"]).stdout

    refused = rollback(host, code=3)
    assert synced(host, OUTPUT, MODULE)
    forced = rollback(host, "--force", code=0)

    why = f"this library belongs to {owner}; take it back all the same with --force if it has to be"
    assert outcomes(refused) == {("failed", why)}
    assert outcomes(forced) == {("repaired", "")}
    host.run(["cmp", "/var/tmp/old", copy(OUTPUT, MODULE)])
    assert loaded(host) == MODULE


def test_an_old_module_that_does_not_fit_is_not_even_put_back_by_force(host: Container) -> None:
    host.run(["python3", "-c", AGE, MODULE, "/var/tmp/old"])
    replace(host, MODULE, "/var/tmp/old")
    check(host, "--fix", OUTPUT.log, code=0)
    assert loaded(host) == "", "the loader says so, too"
    replace(host, MODULE, ORIGINALS + MODULE)
    check(host, "--fix", OUTPUT.log, code=0)

    refused = rollback(host, "--force", code=3)

    name = MODULE.rpartition("/")[2]
    why = f"{name} needs {GONE}@GLIBC_PRIVATE, which libc.so.6 does not have"
    assert outcomes(refused) == {("failed", f"the old libraries do not fit the others: {why}")}
    assert synced(host, OUTPUT, MODULE)
    assert loaded(host) == MODULE


# --- Reloads ------------------------------------------------------------------------------------------------------


def test_a_reload_that_fails_is_told_and_tried_again_until_it_is_done(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, SERVICES, STALE)
    with reloading(container, "echo no way >&2; exit 1"):
        fixed = check(container, "--fix", code=4)
        told = check(container, code=4)
        again = check(container, "--fix", code=4)
    assert synced(container, OUTPUT, SERVICES)
    assert reloads(mail, start) == []

    mended = check(container, "--fix", code=0)
    after = check(container, code=0)

    for run in (fixed, again):
        assert run.instance(OUTPUT)["reload"]["pending"]
        assert run.instance(OUTPUT)["reload"]["output"] == "no way"
        assert run.instance(OUTPUT)["reload"]["error"].endswith("ended with status 1")
    assert told.instance(OUTPUT)["reload"]["pending"]
    assert mended.reloaded() == [OUTPUT]
    assert not after.instance(OUTPUT)["reload"]["pending"]
    assert reloads(mail, start) == [OUTPUT.log]


def test_without_a_memory_a_reload_is_due_where_a_copy_is_newer_than_a_daemon_that_reads_it(
    mail: Mail, start: int
) -> None:
    container = mail.container
    time.sleep(2.1)  # the start of a process is known to the second
    for instance in INSTANCES:
        container.run(["postfix", "-c", instance.config, "reload"])
    assert reloads(mail, start) == LOG
    start = mail.mark()

    with mail.session(OUTPUT):
        forget(container)
        check(container, "--fix", code=0)
        assert reloads(mail, start) == []
        spoil(container, OUTPUT, SERVICES, STALE)
        kill_before_reload(container)
        forget(container)
        fixed = check(container, "--fix", code=0)

    assert fixed.drifted() == []
    assert fixed.reloaded() == [OUTPUT]
    assert reloads(mail, start) == [OUTPUT.log]


# --- What may become of the memory --------------------------------------------------------------------------------

DAMAGED = {
    "garbage": 'head -c 20000 /dev/urandom > "$1/state.db"',
    "truncated": 'truncate -s 5000 "$1/state.db"',
    "newer": """python3 -c 'import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version = 99")' "$1/state.db" """,
}

HOLD = """
import pathlib, sqlite3, sys, time

database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
pathlib.Path("/run/held").touch()
time.sleep(600)
"""

FILL = """
cp -a "$1" /run/aside
mount -t tmpfs -o size=1m,mode=700 tmpfs "$1"
cp -a /run/aside/. "$1"
cat /dev/zero > "$1/fill" 2> /dev/null || true
"""

LOCK = """
systemd-run --quiet --collect --unit=holder python3 -c "$2" "$1/state.db"
until [ -e /run/held ]; do sleep 0.05; done
"""

# By each name, what puts the directory $1 out of reach, and what ends that; $2 is HOLD.
OUT_OF_REACH = {
    "read-only": ('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', 'umount "$1"'),
    "full": (FILL, 'umount "$1"; rm -r /run/aside'),
    "locked": (LOCK, "systemctl stop holder; rm /run/held"),
}


@contextmanager
def out_of_reach(container: Container, how: str) -> Iterator[None]:
    """Keep the database from being written meanwhile."""
    begin, end = OUT_OF_REACH[how]
    container.shell(begin, STATE, HOLD)
    try:
        yield
    finally:
        container.shell(end, STATE)


def notes(run: Run) -> str:
    """What a report says of the run as a whole."""
    return "\n".join(run.report["notes"])


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_database_that_cannot_be_used_is_set_aside_and_a_new_one_begun(host: Container, damage: str) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    host.shell(damage, STATE)

    found = check(host, code=1)
    fixed = check(host, "--fix", code=0)

    [name] = host.shell('cd "$1"; ls -d state.db.bad-*', STATE).split()
    assert kinds(found, OUTPUT) == kinds(fixed, OUTPUT) == {SERVICES: "differs"}
    assert "nobody can tell what was changed by whom; check --fix sets it aside" in notes(found)
    assert f"it was set aside as {name}" in notes(fixed)
    assert OUTPUT in fixed.reloaded()  # others may be too: nothing is known of their last reload
    assert len(history(host)) == 1


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_a_database_that_cannot_be_written_keeps_no_repair_back(host: Container, how: str) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    with out_of_reach(host, how):
        found = check(host, code=1)
        fixed = check(host, "--fix", code=0)
        after = check(host, code=0)

    assert kinds(found, OUTPUT) == kinds(fixed, OUTPUT) == {SERVICES: "differs"}
    assert "this run is not remembered" in notes(fixed)
    assert OUTPUT in fixed.reloaded()
    assert after.report["status"] == "in-sync"
    assert history(host) == []


def test_a_reload_that_fails_is_tried_again_though_it_cannot_be_remembered(mail: Mail, host: Container) -> None:
    with out_of_reach(host, "read-only"), mail.session(OUTPUT):
        spoil(host, OUTPUT, SERVICES, STALE)
        with reloading(host, "exit 1"):
            check(host, "--fix", code=4)
        again = check(host, "--fix", code=0)

    assert OUTPUT in again.reloaded()


def test_nothing_is_taken_back_that_could_not_be_held(host: Container) -> None:
    """After a crash the database may well be opened on a file system that is read-only."""
    spoil(host, OUTPUT, SERVICES, STALE)
    kill_before_reload(host)
    with out_of_reach(host, "read-only"):
        done = host.run(["chrootsync", "rollback"], check=False)

    assert done.returncode == 3
    assert synced(host, OUTPUT, SERVICES)


# --- Many at once -------------------------------------------------------------------------------------------------

FIX = ("chrootsync", "check", "--fix")


@contextmanager
def at_once(container: Container, *commands: Sequence[str]) -> Iterator[list[Future[CompletedProcess[str]]]]:
    """Run commands all at the same time; at the end all have ended."""
    with ThreadPoolExecutor(len(commands)) as pool:
        yield [pool.submit(container.run, command, check=False) for command in commands]


@contextmanager
def watched(container: Container, paths: Sequence[str]) -> Iterator[set[str | None]]:
    """What readers of some files get meanwhile; None where there was no file. It is known at the end."""
    stop = f"/run/watched-{time.monotonic_ns()}"
    seen: set[str | None] = set()
    with at_once(container, ["python3", "-c", WATCH, stop, *paths]) as [reader]:
        try:
            wait_for(container, '[ -e "$1.begun" ]', stop)
            yield seen
        finally:
            container.run(["touch", stop])
    seen.update(json.loads(reader.result().stdout))


def locks(container: Container) -> str:
    """The locks that there are, held or not."""
    return container.shell("ls /run/chrootsync")


def codes(runs: Sequence[Future[CompletedProcess[str]]]) -> list[int]:
    """How some runs ended."""
    return [run.result().returncode for run in runs]


def wait_for(container: Container, condition: str, *arguments: str) -> None:
    """Wait until a shell's condition holds."""
    container.shell(f"until {condition}; do sleep 0.05; done", *arguments, timeout=60)


BLOCK = "touch /run/blocked; until [ -e /run/go-on ]; do sleep 0.05; done"


@contextmanager
def held_up(container: Container, *commands: Sequence[str]) -> Iterator[list[Future[CompletedProcess[str]]]]:
    """Run repairs at the same time; one of them has repaired, and is reloading until the end of the block."""
    container.run(["rm", "-f", "/run/blocked", "/run/go-on"])
    with reloading(container, BLOCK), at_once(container, *commands) as runs:
        try:
            wait_for(container, "[ -e /run/blocked ]")
            yield runs
        finally:
            container.run(["touch", "/run/go-on"])


def test_there_is_one_repair_at_a_time_and_who_does_not_wait_is_told(mail: Mail, start: int) -> None:
    container = mail.container
    spoil(container, OUTPUT, SERVICES, STALE)
    with held_up(container, FIX, (*FIX, "--wait", "60")) as runs:
        refused = container.run(FIX, check=False)
        not_undone = container.run(["chrootsync", "rollback"], check=False)

    assert (refused.returncode, not_undone.returncode) == (5, 5)
    assert refused.stderr == not_undone.stderr
    assert refused.stderr.startswith("chrootsync: another repair of this root is under way")
    assert codes(runs) in ([0, 0], [5, 0]), "the second has waited"
    assert synced(container, OUTPUT, SERVICES)
    assert reloads(mail, start) == [OUTPUT.log]


def test_a_check_does_not_take_a_repair_that_is_under_way_for_one_that_was_cut_short(host: Container) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    with held_up(host, FIX):
        found = host.run(["chrootsync", "check"], check=False)

    assert "earlier repair" not in found.stdout
    assert found.returncode == 0


def test_timer_hook_and_administrator_at_once(mail: Mail, start: int) -> None:
    container = mail.container
    append(container, SERVICES, "# more")
    service, by_hook, by_hand = ["systemctl", "start", "chrootsync.service"], [*FIX, "--trigger", "hook"], [*FIX]
    with at_once(container, service, by_hook, by_hand) as runs:
        pass

    assert codes(runs)[0] == 0
    assert set(codes(runs)) <= {0, 5}
    assert all(synced(container, instance, SERVICES) for instance in INSTANCES)
    assert reloads(mail, start) == LOG
    assert len(history(container)) == 1


def test_eight_at_once_repair_once_and_no_reader_sees_half_of_it(mail: Mail, start: int) -> None:
    container = mail.container
    old = container.read(SERVICES)
    append(container, SERVICES, "# more")
    new = container.read(SERVICES)
    with (
        watched(container, [copy(instance, SERVICES) for instance in INSTANCES]) as seen,
        at_once(container, *[(*FIX, "--wait", "60")] * 8) as runs,
    ):
        pass

    assert codes(runs) == [0] * 8
    assert seen == {old, new}
    assert reloads(mail, start) == LOG
    assert len(history(container)) == 1
    assert container.run(["find", *(each.chroot for each in INSTANCES), "-name", ".chrootsync-*"]).stdout == ""
    assert locks(container) == ""


def test_the_lock_of_a_repair_that_was_killed_keeps_nobody_out(host: Container) -> None:
    spoil(host, OUTPUT, SERVICES, STALE)
    kill_before_reload(host)
    assert locks(host) != ""

    fixed = check(host, "--fix", code=0)

    assert fixed.reloaded() == [OUTPUT]
    assert locks(host) == ""


# --- Tug-of-war ---------------------------------------------------------------------------------------------------


@contextmanager
def rival(container: Container, path: str) -> Iterator[None]:
    """Something puts a stale file back meanwhile, whenever it was replaced."""
    container.write("/var/tmp/stale", STALE)
    container.run(["systemd-run", "--quiet", "--collect", "--unit=rival", "sh", "-c", RIVAL, "rival", path])
    try:
        yield
    finally:
        container.run(["systemctl", "stop", "rival"])


def test_what_something_else_keeps_changing_is_left_alone_after_three_repairs(mail: Mail, start: int) -> None:
    container, path = mail.container, copy(OUTPUT, SERVICES)
    with rival(container, path):
        for _ in range(3):
            wait_for(container, 'cmp -s /var/tmp/stale "$1"', path)
            check(container, "--fix", code=0)
        wait_for(container, 'cmp -s /var/tmp/stale "$1"', path)
        found = check(container, "--strict", code=1)
        left = check(container, "--fix", code=0)
        assert reloads(mail, start) == [OUTPUT.log] * 3
        forced = check(container, "--fix", "--force", code=0)
        wait_for(container, 'cmp -s /var/tmp/stale "$1"', path)
    append(container, SERVICES, "# more")
    check(container, "--fix", code=0)

    assert kinds(found, OUTPUT) == kinds(left, OUTPUT) == {SERVICES: "contested"}
    assert left.reloaded() == []
    assert forced.reloaded() == [OUTPUT]
    assert synced(container, OUTPUT, SERVICES)


def test_a_copy_that_debians_script_opens_at_each_start_is_closed_each_time(host: Container) -> None:
    host.run(["chmod", "640", SERVICES])
    for _ in range(4):
        host.run(["/usr/lib/postfix/configure-instance.sh", OUTPUT.multi])
        assert mode(host, copy(OUTPUT, SERVICES)) == 0o644
        check(host, "--fix", code=0)
        assert mode(host, copy(OUTPUT, SERVICES)) == 0o640
