"""What Debian's script copies and what chrootsync requires, file by file, as docs/debian.md has it; and what it is for.

Modules are loaded inside the chroot, by a process that was outside before, as Postfix's daemons are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .debian import Debian, documented_files, documented_modules, findings, forgotten
from .mail import INPUT, INSTANCES, OUTPUT, Mail

# Loads modules inside the chroot $1 as the user postfix, each in a process of its own; prints what hindered each, and
# which libraries had been mapped before chroot.
LOAD = """
import ctypes, json, multiprocessing, os, pwd, sys

chroot, *modules = sys.argv[1:]
user = pwd.getpwnam("postfix")
with open("/proc/self/maps") as maps:
    mapped = {os.path.basename(line.split()[-1]) for line in maps if ".so" in line}

def load(module, pipe):
    os.chroot(chroot)
    os.chdir("/")
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    try:
        ctypes.CDLL(module)
        pipe.send("")
    except OSError as error:
        pipe.send(str(error))

context = multiprocessing.get_context("fork")
hindered = {}
for module in modules:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=load, args=(module, theirs))
    process.start()
    theirs.close()
    hindered[module] = ours.recv()
    process.join()
print(json.dumps({"hindered": hindered, "mapped": sorted(mapped)}))
"""

# Makes each file in the chroot $1 longer, and shuts each device.
SPOIL = """
cd "$1"
find dev etc lib usr -type f -exec sh -c 'for each; do echo >> "$each"; done' sh {} +
find dev -type c -exec chmod 600 {} +
"""

# What of a module's needs the loading process has mapped, as every daemon of Postfix has.
MAPPED = {"libc.so.6", "libm.so.6"}


def load(debian: Debian) -> dict[str, str]:
    """What hindered each documented module from being loaded inside the chroot; nothing where it loads."""
    modules = documented_modules(debian.suite)
    done = debian.container.run(["/usr/bin/python3", "-I", "-c", LOAD, INPUT.chroot, *modules])
    result = json.loads(done.stdout)
    needed = debian.container.shell('ldd /usr/lib/*/"$1" /usr/lib/*/"$2"', *list(modules)[:2]).split()
    assert set(result["mapped"]) & {*needed} - {"ld-linux-x86-64.so.2"} <= MAPPED, "the test would prove too little"
    hindered: dict[str, str] = result["hindered"]
    return hindered


def fill(debian: Debian, *, ours: bool) -> None:
    """Fill empty chroots by chrootsync alone, or by their script alone."""
    debian.switch_script(on=not ours)
    debian.empty()
    debian.start()
    if ours:
        debian.check("--fix", code=0)
    debian.switch_script(on=True)


def test_each_side_brings_the_documented_files(debian: Debian) -> None:
    rows = documented_files(debian.suite)
    fill(debian, ours=False)
    theirs = debian.snapshot()
    fill(debian, ours=True)
    ours = debian.snapshot()

    for instance in INSTANCES:
        assert {path for path in theirs.paths(instance) if not any(r.theirs and r.matches(path) for r in rows)} == set()
        required = [row for row in rows if row.ours == "requires"]
        assert {path for path in ours.paths(instance) if not any(row.matches(path) for row in required)} == set()
        for row in rows:
            assert any(map(row.matches, theirs.paths(instance))) == row.theirs, row
            assert any(map(row.matches, ours.paths(instance))) == (row.ours == "requires"), row


def test_of_their_copies_the_documented_ones_are_watched(debian: Debian) -> None:
    rows = documented_files(debian.suite)
    fill(debian, ours=False)
    assert debian.check(code=1).instance(OUTPUT)["drift"]
    watched = {
        path for path in debian.snapshot().paths(OUTPUT) if any(row.matches(path) and row.ours != "-" for row in rows)
    }

    debian.container.shell(SPOIL, OUTPUT.chroot)

    found = findings(debian.check(code=1), OUTPUT)
    assert set(found) == watched | set(forgotten(debian.suite))


def test_modules_load_with_the_documented_copies(debian: Debian) -> None:
    documented = documented_modules(debian.suite)
    fill(debian, ours=False)
    assert {module for module, why in load(debian).items() if why} == {
        module for module, lack in documented.items() if lack
    }
    for module, why in load(debian).items():
        assert documented[module] in why

    fill(debian, ours=True)
    assert load(debian) == dict.fromkeys(documented, "")


def test_sockets_that_modules_would_ask_are_told(debian: Debian) -> None:
    """They are the host's own; each lookup goes on with the next module without them."""
    fill(debian, ours=True)

    drift = debian.check(code=0).instance(OUTPUT)["drift"]

    assert {each["path"]: each["severity"] for each in drift if each["kind"] == "unreachable"} == {
        "/run/dbus/system_bus_socket": "info",
        "/run/systemd/resolve/io.systemd.Resolve": "info",
        "/run/systemd/userdb/io.systemd.Multiplexer": "info",
    }


@pytest.fixture
def native(debian: Debian) -> Iterator[Mail]:
    """The output instance looks its next host up by nsswitch.conf: a name that only libnss_myhostname knows.

    Accounts are looked up in files alone: a daemon looks its own up before chroot, so that libnss_systemd would be
    mapped from the host, and libcap with it.
    """
    settings = ["smtp_host_lookup=native", "relayhost=[sink.localhost]:2525"]
    debian.configure("-e", *settings)
    debian.container.shell(
        "cp /etc/nsswitch.conf /var/tmp; sed -Ei 's/^((passwd|group):).*/\\1 files/' /etc/nsswitch.conf"
    )
    yield debian.mail
    debian.container.run(["cp", "/var/tmp/nsswitch.conf", "/etc/nsswitch.conf"])


def test_postfix_finds_a_host_through_a_module(debian: Debian, native: Mail) -> None:
    works = not documented_modules(debian.suite)["libnss_myhostname.so.2"]
    fill(debian, ours=False)
    start = native.mark()
    native.send("theirs@sink.test")
    line = native.wait(r"postfix-out/smtp\S+ \S+ to=<theirs@sink.test>, .*status=", start)
    assert ("relay=sink.localhost[127.0.0.1]" in line and "status=sent" in line) == works
    assert ("unable to look up host" in line and "status=deferred" in line) != works

    fill(debian, ours=True)
    start = native.mark()
    native.send("ours@sink.test")
    line = native.wait(r"postfix-out/smtp\S+ \S+ to=<ours@sink.test>, .*status=", start)
    assert "relay=sink.localhost[127.0.0.1]" in line
    assert "status=sent" in line
