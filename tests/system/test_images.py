"""Images of Debian 11, 12 and 13 with three instances of Postfix, checked and repaired with nothing of them run.

Their Postfix and their C library say whether it was right: by chroot(2), after the fact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chrootsync.model import Host
from chrootsync.providers.postfix import defaults
from chrootsync.root import Root
from tests.unit.tree_reader import MemoryCache

from . import image
from .mail import INSTANCES
from .workshop import LOAD, Workshop

SUITES = ("bullseye", "bookworm", "trixie")
CHROOTS = [instance.chroot for instance in INSTANCES]

# Three instances as somebody writes them who has no postmulti(1) at hand; the distribution's chroot column says "y".
BY_HAND = """
for name in in out; do
    mkdir -p /etc/postfix-$name /var/spool/postfix-$name /var/lib/postfix-$name
    cp -p /etc/postfix/master.cf /etc/postfix-$name/
    {
        cat /etc/postfix/main.cf
        echo "multi_instance_name = postfix-$name"
        echo "multi_instance_enable = yes"
        echo "queue_directory = /var/spool/postfix-$name"
        echo "data_directory = /var/lib/postfix-$name"
    } > /etc/postfix-$name/main.cf
done
{
    echo "multi_instance_wrapper = \\${command_directory}/postmulti -p --"
    echo "multi_instance_enable = yes"
    echo "multi_instance_directories = /etc/postfix-in /etc/postfix-out"
} >> /etc/postfix/main.cf
"""

# What a resolver needs is the same in all of them; what of it libc does not have built in, is not. Debian 11 has
# glibc 2.31, whose libnss_dns needs libresolv; its "db" comes with another package, and is not installed.
LIBRARIES = {
    "bullseye": {
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/lib/x86_64-linux-gnu/libnss_dns.so.2",
        "/lib/x86_64-linux-gnu/libnss_files.so.2",
        "/lib/x86_64-linux-gnu/libresolv.so.2",
    },
    "bookworm": {"/lib/x86_64-linux-gnu/libgcc_s.so.1"},
    "trixie": {"/lib/libgcc_s.so.1"},
}
MODULES = ("libnss_files.so.2", "libnss_dns.so.2")

# What postfix-script does for "postfix check", for one chroot; Debian 13 has its libraries flat in lib.
COMPARE = """
cd "$1"
for part in bin etc lib lib32 lib64 libexec sbin usr; do
    if [ -d "$part" ]; then find "$part" -type f; fi
done | while read -r file; do
    host=/$file
    [ -e "$host" ] || host=/usr/lib/x86_64-linux-gnu/${file##*/}
    cmp -s "$file" "$host" || echo "$1/$file differs"
done
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An unpacked image of one suite, whose chroots hold what its package brought."""

    workshop: Workshop
    suite: str

    @property
    def path(self) -> str:
        return f"/srv/{self.suite}"

    @property
    def files(self) -> Path:
        """The image as this machine sees it."""
        return self.workshop.root / "srv" / self.suite

    def check(self, *arguments: str, code: int | None = None, user: str = "") -> dict[str, Any]:
        """The report of a check."""
        done = self.workshop.chrootsync("check", "--root", self.path, "--format", "json", *arguments, user=user)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def fix(self, *arguments: str) -> dict[str, Any]:
        return self.check("--fix", *arguments, code=0)

    def empty(self) -> None:
        """Take everything out of the chroots that a rule could name."""
        self.workshop.shell(
            'for each; do cd "$each"; rm -rf bin dev etc lib lib32 lib64 libexec sbin usr; done',
            *CHROOTS,
            root=self.path,
        )

    def held(self, chroot: str) -> set[str]:
        """The files in a chroot below the directories that services look into."""
        listed = self.workshop.shell('cd "$1"; find etc lib usr ! -type d 2>/dev/null || true', chroot, root=self.path)
        return {f"/{name}" for name in listed.split()}

    def load(self, chroot: str, *libraries: str) -> list[str]:
        """What hindered libraries from being loaded inside a chroot by a program of the image."""
        command = ["chroot", self.path, "/usr/bin/python3", "-I", "-c", LOAD, chroot, *libraries]
        return self.workshop.run(command).stdout.splitlines()


@pytest.fixture(scope="module")
def workshop(chrootsync: tuple[Path, ...], base: Path) -> Iterator[Workshop]:
    """A Debian 12 with chrootsync and the images."""
    layers = {}
    for suite in SUITES:
        below = image.rootfs(suite)
        layers[suite] = [below] if suite == "bullseye" else [image.instances(below), below]
    with Workshop([*chrootsync, base], layers) as made:
        made.shell(BY_HAND, root="/srv/bullseye")
        yield made


@pytest.fixture(params=SUITES)
def debian(workshop: Workshop, request: pytest.FixtureRequest) -> Image:
    """An image whose chroots are empty."""
    made = Image(workshop=workshop, suite=request.param)
    made.workshop.shell("printf 'nameserver 192.0.2.53\\n' > /etc/resolv.conf", root=made.path)
    made.empty()
    return made


def drifts(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Instance, path, kind and severity of all that a report found."""
    return [
        (one["name"], drift["path"], drift["kind"], drift["severity"])
        for one in report["instances"]
        for drift in one["drift"]
    ]


# --- Checking ---------------------------------------------------------------------------------------------------------


def test_three_instances_are_found(debian: Image) -> None:
    found = debian.check(code=1)["instances"]
    assert [one["chroot"] for one in found] == CHROOTS
    assert not [drift for drift in drifts({"instances": found}) if drift[2] == "bad-instance"]


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_check_runs_nothing_of_an_image_and_changes_nothing_anywhere(debian: Image, user: str) -> None:
    """The kernel says which programs were run: the interpreter, and nothing else."""
    trace = ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", "/run/traces/trace"]
    command = ["/opt/chrootsync/bin/chrootsync", "check", "--root", debian.path, "--format", "plain"]
    debian.workshop.shell("rm -rf /run/traces; mkdir -m 1777 /run/traces")
    with debian.workshop.untouched("/", debian.path):
        done = debian.workshop.run([*trace, *command], check=False, user=user)
    assert done.returncode == 1, done.stderr
    executed = re.findall(
        r"exec\w+\((?:AT_\w+, )?\"([^\"]*)\"", debian.workshop.run(["cat", "/run/traces/trace"]).stdout
    )
    assert executed == ["/opt/chrootsync/bin/chrootsync"]


def test_nobody_finds_what_root_finds(debian: Image) -> None:
    debian.fix()
    debian.workshop.shell('echo "nameserver 192.0.2.9" > "$1/etc/resolv.conf"', CHROOTS[1], root=debian.path)
    assert drifts(debian.check(code=1, user="nobody")) == drifts(debian.check(code=1))


def test_without_the_right_to_read_it_says_so(debian: Image) -> None:
    debian.workshop.run(["chmod", "0700", debian.path])
    try:
        done = debian.workshop.chrootsync("check", "--root", debian.path, user="nobody")
    finally:
        debian.workshop.run(["chmod", "0755", debian.path])
    message = f"--root {debian.path}: permission denied; run this as a user who may read the image"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"chrootsync: {message}\n")


def test_a_configuration_that_only_root_may_read_is_told(debian: Image) -> None:
    debian.workshop.run(["chmod", "0600", f"{debian.path}/etc/postfix-in/main.cf"])
    try:
        found = debian.check(code=1, user="nobody")["instances"]
    finally:
        debian.workshop.run(["chmod", "0644", f"{debian.path}/etc/postfix-in/main.cf"])
    [problem] = [drift["reason"] for one in found for drift in one["drift"] if drift["kind"] == "bad-instance"]
    assert problem == "/etc/postfix-in/main.cf: permission denied: make it readable"


# --- Repairing --------------------------------------------------------------------------------------------------------


def test_a_repair_is_whole_says_that_nothing_was_reloaded_and_is_made_once(debian: Image) -> None:
    with debian.workshop.untouched("/"):
        fixed = debian.fix()
    assert fixed["status"] == "repaired"
    assert "this is an image: nothing runs in it, so nothing was reloaded" in fixed["notes"]
    assert all(one["reload"]["done"] is False for one in fixed["instances"])
    with debian.workshop.untouched("/", debian.path):
        again = debian.fix()
    assert again["status"] == "in-sync"
    assert debian.check("--strict", code=0)["status"] == "in-sync"


def test_each_chroot_holds_what_it_needs_and_no_more(debian: Image) -> None:
    debian.fix()
    for chroot in CHROOTS:
        held = debian.held(chroot)
        assert {path for path in held if path.startswith("/lib")} == LIBRARIES[debian.suite]
        certificates = {path for path in held if path.startswith("/etc/ssl/certs/")}
        assert held - certificates - LIBRARIES[debian.suite] <= {
            "/etc/gai.conf",
            "/etc/host.conf",
            "/etc/hosts",
            "/etc/nsswitch.conf",
            "/etc/resolv.conf",
            "/etc/services",
        }
        assert {"/etc/hosts", "/etc/resolv.conf", "/etc/services"} <= held
        assert all(re.fullmatch(r"[0-9a-f]{8}\.\d+", Path(path).name) for path in certificates)
        assert len(certificates) > 100


def test_only_what_is_in_the_chroots_is_touched(debian: Image) -> None:
    def elsewhere() -> list[str]:
        held = tuple(f"{chroot[1:]}/" for chroot in CHROOTS)
        return [line for line in debian.workshop.listing(debian.path) if not f"{line.split()[0]}/".startswith(held)]

    before = elsewhere()
    debian.fix()
    assert elsewhere() == before


def test_the_images_own_programs_find_the_copies_right(debian: Image) -> None:
    debian.fix()
    for chroot in CHROOTS:
        assert debian.workshop.shell(COMPARE, chroot, root=debian.path) == ""


def test_what_the_image_needs_is_loaded_inside_its_chroots(debian: Image) -> None:
    wanted = [Path(path).name for path in sorted(LIBRARIES[debian.suite])]
    for chroot in CHROOTS:
        debian.workshop.run(["mkdir", "-p", f"{debian.path}{chroot}"])
        before = debian.load(chroot, *wanted)
        assert len(before) == len(wanted), "what loads from an empty chroot proves nothing"
    debian.fix()
    for chroot in CHROOTS:
        assert debian.load(chroot, *wanted) == []


@pytest.mark.parametrize("suite", ["bullseye"])
def test_a_module_without_its_library_is_not_loaded(workshop: Workshop, suite: str) -> None:
    """What glob-made chroots forget: libnss_dns needs libresolv there."""
    old = Image(workshop=workshop, suite=suite)
    old.empty()
    old.fix()
    workshop.run(["rm", f"{old.path}{CHROOTS[2]}/lib/x86_64-linux-gnu/libresolv.so.2"])
    [hindered] = old.load(CHROOTS[2], *MODULES)
    assert "libresolv.so.2: cannot open shared object file" in hindered
    found = [drift for drift in drifts(old.check(code=1)) if drift[3] != "info"]
    assert found == [("postfix-out", "/lib/x86_64-linux-gnu/libresolv.so.2", "missing", "error")]
    old.fix()
    assert old.load(CHROOTS[2], *MODULES) == []


# --- What an image says counts in the image ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        ("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        ("/etc/services", "/etc/alternatives/services"),
        ("/etc/services", "../../../../../etc/alternatives/services"),
    ],
)
def test_links_lead_to_what_the_image_has(debian: Image, link: str, target: str) -> None:
    """The host has other things at the same places."""
    workshop = debian.workshop
    landing = "/run/systemd/resolve/stub-resolv.conf" if "resolv" in link else "/etc/alternatives/services"
    text = "nameserver 192.0.2.7\n"
    workshop.shell('mkdir -p "${1%/*}"; echo "nameserver 192.0.2.66" > "$1"', landing)
    make = 'mkdir -p "${3%/*}"; printf "%s" "$4" > "$3"; cp -p "$1" /var/tmp/kept; ln -sf "$2" "$1"'
    workshop.shell(make, link, target, landing, text, root=debian.path)
    try:
        debian.fix()
        copies = [workshop.run(["cat", f"{debian.path}{chroot}{link}"]).stdout for chroot in CHROOTS]
    finally:
        workshop.shell('mv /var/tmp/kept "$1"', link, root=debian.path)
    assert copies == [text] * 3


def test_owners_are_named_by_the_images_accounts(debian: Image) -> None:
    """The number is somebody else's on the host."""
    add = 'echo "$1:x:4242:4242::/:/bin/false" >> /etc/passwd; echo "$1:x:4242:" >> /etc/group'
    debian.workshop.shell(add, "hostly")
    debian.workshop.shell(f"cp -p /etc/passwd /etc/group /var/tmp; {add}", "imagined", root=debian.path)
    try:
        debian.fix()
        debian.workshop.shell('chown imagined:imagined "$1/etc/resolv.conf"', CHROOTS[0], root=debian.path)
        [found] = [drift for drift in debian.check(code=1)["instances"][0]["drift"] if drift["kind"] == "metadata"]
    finally:
        debian.workshop.shell("cp -p /var/tmp/passwd /var/tmp/group /etc", root=debian.path)
    assert (found["path"], found["have"]["owner"], found["have"]["group"]) == (
        "/etc/resolv.conf",
        "imagined",
        "imagined",
    )


def test_only_with_state_is_anything_remembered(debian: Image) -> None:
    remembered = f"/var/tmp/state-{debian.suite}"
    debian.fix()
    assert not (debian.workshop.root / "var/lib/chrootsync").exists()
    assert not (debian.files / "var/lib/chrootsync").exists()
    debian.empty()
    debian.fix("--state", remembered)
    done = debian.workshop.chrootsync("history", "--root", debian.path, "--state", remembered, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["repairs"]) == 1


def test_the_configuration_of_an_image_is_not_read(debian: Image) -> None:
    debian.workshop.shell(
        "mkdir -p /etc/chrootsync/rules.d; echo '[[[' > /etc/chrootsync/chrootsync.toml", root=debian.path
    )
    debian.workshop.shell("echo '[[[' > /etc/chrootsync/rules.d/local.toml", root=debian.path)
    try:
        debian.fix()
    finally:
        debian.workshop.run(["rm", "-rf", f"{debian.path}/etc/chrootsync"])


# --- What is compiled in ----------------------------------------------------------------------------------------------

# Postfix 3.5 says the same in other words, or does not know the name yet; 3.10 has another word for "tempfail".
REWORDED = {
    "bullseye": {
        "local_login_sender_maps",
        "mynetworks_style",
        "proxy_read_maps",
        "relay_domains",
        "smtpd_relay_restrictions",
        "tlsproxy_client_policy_maps",
        "tlsproxy_client_security_level",
    },
    "bookworm": set(),
    "trixie": {"milter_default_action", "tlsproxy_client_policy_maps", "tlsproxy_client_security_level"},
}


def test_what_is_known_of_a_postfix_that_is_not_run_is_what_it_says_itself(debian: Image) -> None:
    answer = debian.workshop.run(["chroot", debian.path, "/usr/sbin/postconf", "-c", "/dev/null", "-d"]).stdout
    said = {
        name: value.strip() for name, equals, value in (line.partition(" =") for line in answer.splitlines()) if equals
    }
    root = Root(str(debian.files))
    try:
        known = defaults.load(Host(root=root, run=None, cache=MemoryCache()))
    finally:
        root.close()
    wrong = {name for name, value in known.items() if said.get(name) != value}
    assert wrong == REWORDED[debian.suite] | {"myhostname"}  # a host's name is compiled in nowhere
