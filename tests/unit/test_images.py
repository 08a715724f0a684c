"""Odd roots: each gets a clear answer, and nothing outside of it is looked at."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chrootsync.cli.application import application
from tests.unit.machine import needs_root
from tests.unit.scenery import Tree, grow, snapshot

MAIN = b"compatibility_level = 3.6\n"
MASTER = b"smtp unix - - y - - smtp\nsmtpd inet n - y - - smtpd\n"
SECRET = b"nameserver 192.0.2.66\n# not of the image\n"

# The least that is a Debian with a Postfix; libraries are left out by the rules.
SYSTEM: Tree = {
    "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
    "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nchief:x:0:0::/root:/bin/sh\npostfix:x:4242:4242::/:/bin/false\n",
    "/etc/group": b"root:x:0:\npostfix:x:4242:\n",
    "/etc/nsswitch.conf": b"hosts: files dns\n",
    "/etc/resolv.conf": b"nameserver 192.0.2.1\n",
    "/etc/services": b"smtp 25/tcp\n",
    "/etc/hosts": b"127.0.0.1 localhost\n",
    "/etc/postfix/main.cf": MAIN,
    "/etc/postfix/master.cf": MASTER,
    "/var/spool/postfix": None,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Where an image is to be unpacked to."""
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Local rules that leave out what a hand-made image cannot have: libraries."""
    grow(tmp_path, {"/rules/postfix-nss.toml": b""})
    return tmp_path / "rules"


def run(*arguments: str) -> Result:
    """Run the command line in this process, its two streams apart."""
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(**({"mix_stderr": False} if old else {}))  # type: ignore[arg-type]  # the newer one has no such argument
    return runner.invoke(application(), list(arguments), prog_name="chrootsync")


def check(image: Path | str, rules: Path, *arguments: str) -> Result:
    return run("check", "--root", str(image), "--rules", str(rules), "--format", "plain", *arguments)


def without(*paths: str) -> Tree:
    return {path: what for path, what in SYSTEM.items() if path not in paths}


# --- What is no image -------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda _: None, "does not exist; name the directory of an unpacked image"),
    "a file": (lambda path: path.write_bytes(b"tar"), "is not a directory; unpack or mount the image, and name that"),
    "a fifo": (os.mkfifo, "is not a directory; unpack or mount the image, and name that"),
    "a dangling link": (
        lambda path: path.symlink_to("nowhere"),
        "is a link to nothing; name the directory of an unpacked image",
    ),
    "a loop": (
        lambda path: path.symlink_to(path.name),
        "is a link to nothing; name the directory of an unpacked image",
    ),
    "an empty directory": (
        Path.mkdir,
        "no system is in there, neither etc nor usr; name the directory that the image was unpacked to",
    ),
    "a directory of images": (
        lambda path: grow(path, {"/rootfs/etc/os-release": b"ID=debian\n"}),
        "no system is in there, neither etc nor usr; name the directory that the image was unpacked to",
    ),
}


@pytest.mark.parametrize("verb", ["check", "instances"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_image_is_a_mistake_in_one_sentence(tmp_path: Path, place: str, verb: str) -> None:
    make, message = PLACES[place]
    make(tmp_path / "image")
    result = run(verb, "--root", f"{tmp_path}/image")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"chrootsync: --root {tmp_path}/image: {message}\n"


def test_a_mistake_is_json_for_programs(tmp_path: Path) -> None:
    result = run("check", "--root", str(tmp_path / "none"), "--format", "json")
    message = f"--root {tmp_path}/none: does not exist; name the directory of an unpacked image"
    assert result.exit_code == 2
    assert json.loads(result.stdout or result.stderr)["error"]["messages"] == [message]


def test_an_image_may_be_named_through_a_link_or_relatively(
    image: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(image, SYSTEM)
    (image.parent / "latest").symlink_to("image")
    monkeypatch.chdir(image.parent)
    for name in ("latest", "./image", "image/../image/"):
        assert check(name, rules).exit_code == 1


@pytest.mark.parametrize("name", ["/", "//", "/.", "/..", "link"])
def test_the_machine_by_another_name_is_the_machine(tmp_path: Path, name: str) -> None:
    """Where it is taken for an image, nothing would be reloaded."""
    (tmp_path / "link").symlink_to("/")
    path = str(tmp_path / name) if name == "link" else name
    listed = json.loads(run("check", "--root", path, "--format", "json", "--config", config(tmp_path)).stdout)
    assert (listed["root"], [one["name"] for one in listed["instances"]]) == ("/", ["odd"])


def config(tmp_path: Path) -> str:
    """A configuration with one instance, whose chroot is not there, and with no Postfix, whatever the machine has."""
    instance = b'[[instance]]\nname = "odd"\nchroot = "/no/such/chroot"\nrules = ["bind"]\n'
    text = b'[postfix]\nconfig_directory = "/no/such"\n' + instance
    grow(tmp_path, {"/chrootsync.toml": text})
    return str(tmp_path / "chrootsync.toml")


# --- Images that lack something ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [without("/etc/postfix/main.cf"), {"/etc": None}, {"/usr": None}])
def test_without_postfix_there_is_nothing_to_check_and_it_says_what_was_looked_for(
    image: Path, rules: Path, tree: Tree
) -> None:
    grow(image, tree)
    sought = "no /etc/postfix/main.cf is there, and no configuration file that lists instances was named (--config)"
    result = check(image, rules)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"note: {sought}\nno instance in {image} found: nothing to check\n"
    assert check(image, rules, "--quiet").stdout == ""
    assert run("instances", "--root", str(image)).stdout == f"no instance found: {sought}\n"
    as_json = json.loads(run("check", "--root", str(image), "--format", "json").stdout)
    assert (as_json["status"], as_json["instances"], as_json["notes"]) == ("in-sync", [], [sought])


def test_a_configuration_file_that_names_no_instance_is_named(image: Path, rules: Path, tmp_path: Path) -> None:
    grow(image, {"/etc": None})
    grow(tmp_path, {"/own.toml": b'[postfix]\nconfig_directory = "/srv/mail"\n'})
    result = check(image, rules, "--config", str(tmp_path / "own.toml"))
    sought = f"no /srv/mail/main.cf is there, and {tmp_path}/own.toml lists no instance"
    assert result.stdout == f"note: {sought}\nno instance in {image} found: nothing to check\n"


MISSING = "error missing postfix /var/spool/postfix/etc/resolv.conf: this file is not in the chroot (postfix.resolver)"
BROKEN = "error bad-instance postfix /etc/postfix"
MASTER_CF = "/etc/postfix/master.cf"
LACKING = {
    "accounts": (["/etc/passwd", "/etc/group"], MISSING),
    "a release": (["/etc/os-release"], MISSING),
    "nsswitch.conf": (["/etc/nsswitch.conf"], MISSING),
    "resolv.conf": (
        ["/etc/resolv.conf"],
        "error bad-source postfix /var/spool/postfix/etc/resolv.conf: the source does not exist (postfix.resolver)",
    ),
    "master.cf": (
        [MASTER_CF],
        f"{BROKEN}: {MASTER_CF} does not exist: Postfix cannot start without it, restore it (chrootsync.instance)",
    ),
    "the queue directory": (
        ["/var/spool/postfix"],
        f"{BROKEN}: the chroot cannot be used: /var/spool/postfix: does not exist (chrootsync.instance)",
    ),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_an_image_lacks_is_said_once(image: Path, rules: Path, what: str) -> None:
    paths, expected = LACKING[what]
    grow(image, {"/var/spool": None, **without(*paths)})
    result = check(image, rules)
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines().count(expected) == 1


@pytest.mark.parametrize("what", ["accounts", "a release", "nsswitch.conf"])
def test_without_accounts_or_release_it_can_be_repaired(image: Path, rules: Path, what: str) -> None:
    grow(image, without(*LACKING[what][0]))
    assert check(image, rules, "--fix").exit_code == 0
    assert (image / "var/spool/postfix/etc/resolv.conf").read_bytes() == b"nameserver 192.0.2.1\n"
    before = snapshot(image)
    again = check(image, rules, "--fix")
    assert again.exit_code == 0
    assert "in sync" in again.stdout
    assert snapshot(image) == before


# --- Links that lead out ----------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the machine with all that an image could ask for."""
    grow(tmp_path, {f"/outside{path}": what for path, what in SYSTEM.items()})
    (tmp_path / "outside/etc/resolv.conf").write_bytes(SECRET)
    return tmp_path / "outside"


@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_an_etc_that_leads_out_leads_nowhere(image: Path, rules: Path, outside: Path, way: str) -> None:
    target = f"{outside}/etc" if way == "absolute" else "../outside/etc"
    grow(image, {**{path: what for path, what in SYSTEM.items() if not path.startswith("/etc/")}, "/etc": target})
    before = snapshot(image.parent)
    result = check(image, rules)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"no instance in {image} found: nothing to check\n")
    assert snapshot(image.parent) == before


@pytest.mark.parametrize("target", ["/etc", "../etc", "etc", "/../../etc/."])
def test_an_etc_that_leads_to_itself_is_told(image: Path, rules: Path, target: str) -> None:
    grow(image, {"/etc": target})
    result = check(image, rules)
    loop = "too many levels of symbolic links (one of them leads back to itself; mend it)"
    message = f"/etc/postfix: {loop}: make it readable; until then other instances are not"
    assert result.exit_code == 1
    assert message in result.stdout


@pytest.mark.parametrize(
    "target",
    [
        "/run/systemd/resolve/resolv.conf",
        "../run/systemd/resolve/resolv.conf",
        "../../../../../../run/systemd/resolve/resolv.conf",
    ],
)
def test_links_of_an_image_stay_in_it(image: Path, rules: Path, target: str) -> None:
    """As for somebody who lives in it: ``..`` above the root is the root."""
    own = b"nameserver 192.0.2.7\n"
    grow(image, {**without("/etc/resolv.conf"), "/run/systemd/resolve/resolv.conf": own, "/etc/resolv.conf": target})
    assert check(image, rules, "--fix").exit_code == 0
    assert (image / "var/spool/postfix/etc/resolv.conf").read_bytes() == own


def test_a_link_to_what_only_the_machine_has_is_a_missing_source(image: Path, rules: Path, outside: Path) -> None:
    grow(image, {**without("/etc/resolv.conf"), "/etc/resolv.conf": f"{outside}/etc/resolv.conf"})
    result = check(image, rules, "--fix")
    assert "error bad-source postfix /var/spool/postfix/etc/resolv.conf" in result.stdout
    assert not (image / "var/spool/postfix/etc/resolv.conf").exists()


@pytest.mark.parametrize("where", ["/var/spool/postfix", "/var/spool", "/var/spool/postfix/etc"])
def test_a_chroot_that_leads_out_is_repaired_nowhere_else(image: Path, rules: Path, outside: Path, where: str) -> None:
    tree = {path: what for path, what in SYSTEM.items() if not path.startswith("/var")}
    grow(image, {**tree, where: f"{outside}{where}"})
    before = snapshot(outside)
    result = check(image, rules, "--fix")
    assert result.exit_code in (0, 1, 3)
    assert snapshot(outside) == before


# --- Whose names and which rules --------------------------------------------------------------------------------------


@needs_root
def test_owners_are_named_as_in_the_image(image: Path, rules: Path) -> None:
    """4242 is nobody on this machine, and root's number has a name here that it need not have there."""
    grow(image, {**SYSTEM, "/etc/passwd": b"chief:x:0:0::/root:/bin/sh\npostfix:x:4242:4242::/:/bin/false\n"})
    assert check(image, rules, "--fix").exit_code == 0
    os.chown(image / "var/spool/postfix/etc/hosts", 4242, 4242)
    found = json.loads(check(image, rules, "--format", "json").stdout)["instances"][0]["drift"]
    [drift] = [one for one in found if one["path"] == "/etc/hosts"]
    assert (drift["have"]["owner"], drift["have"]["group"]) == ("postfix", "postfix")
    assert drift["want"]["owner"] == "chief"


def test_neither_configuration_nor_rules_nor_state_of_an_image_are_looked_at(image: Path, rules: Path) -> None:
    trap = b"[[[ this would be a mistake"
    grow(
        image,
        {
            **SYSTEM,
            "/etc/chrootsync/chrootsync.toml": trap,
            "/etc/chrootsync/rules.d/local.toml": trap,
            "/var/lib/chrootsync/state.db": trap,
        },
    )
    before = snapshot(image / "var/lib")
    assert check(image, rules, "--fix").exit_code == 0
    result = check(image, rules)
    assert (result.exit_code, result.stderr) == (0, "")
    assert snapshot(image / "var/lib") == before
