"""chrootsync and Debian's own script on the same chroots: each leaves alone what the other did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .debian import Debian, Snapshot, findings, forgotten
from .mail import INSTANCES, OUTPUT, RESOLVER, STALE_RESOLVER, Postfix

ROUNDS = 10
CA = "/usr/local/share/ca-certificates/test.crt"

# Makes a CA of one's own, for update-ca-certificates. $1 its certificate.
MAKE_CA = """
openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out "$1" -days 30 -subj /CN=Test 2>&1
update-ca-certificates
"""

# Distrusts the first CA that Debian trusts, and prints the names that its certificate had.
DISTRUST = """
name=$(grep -m 1 '^mozilla/' /etc/ca-certificates.conf)
pem=$(basename "$name" .crt).pem
cd /etc/ssl/certs
for each in ????????.[0-9]; do if [ "$(readlink "$each")" = "$pem" ]; then echo "/etc/ssl/certs/$each"; fi; done
sed -i "s|^$name|!$name|" /etc/ca-certificates.conf
update-ca-certificates >/dev/null
"""

# Where a host has a CApath of its own, by hashed names alone; nothing there is called *.pem.
HASHED = """
mkdir -p /etc/postfix/cas
cp -L /etc/ssl/certs/????????.0 /etc/postfix/cas
"""

LOCAL_RULE = """
[ruleset]
service = "postfix"
description = "A key"

[[rule]]
id = "postfix-local.key"
why = "a table reads it after chroot"
files = ["/etc/postfix/test.key"]
"""


@pytest.fixture(autouse=True)
def _afresh(debian: Debian) -> Iterator[None]:
    """Start from chroots that their script has filled, and chrootsync made right, with an empty memory."""
    debian.switch_script(on=True)
    debian.container.run(["rm", "-rf", "/var/lib/chrootsync"])
    debian.script()
    debian.check("--fix", code=0)
    yield
    debian.container.write("/etc/resolv.conf", RESOLVER)


# Debian 12's script copies blindly, Debian 13's looks at sizes and times.
only_twelve = pytest.mark.parametrize("debian", ["bookworm"], indirect=True)
only_thirteen = pytest.mark.parametrize("debian", ["trixie"], indirect=True)


def everywhere(found: dict[str, str]) -> dict[str, dict[str, str]]:
    """The same findings for all instances."""
    return {instance.log: found for instance in INSTANCES}


def found_by(debian: Debian, *arguments: str) -> dict[str, dict[str, str]]:
    """What a check finds in each instance."""
    run = debian.check(*arguments)
    return {instance.log: findings(run, instance) for instance in INSTANCES}


def change_sources(debian: Debian, number: int) -> set[str]:
    """Change what the chroots have copies of; gives the hashed names of a CA that is trusted no more."""
    debian.container.shell('echo "test$1 6500$1/tcp" >> /etc/services', str(number))
    debian.container.write("/etc/resolv.conf", f"{RESOLVER}options timeout:{number}\n")
    debian.container.shell(MAKE_CA, CA)
    return set(debian.container.shell(DISTRUST).split())


def quiet(debian: Debian, before: Snapshot) -> None:
    """Nothing is found, nothing is repaired, nothing is written."""
    for arguments in ((), ("--fix",)):
        run = debian.check(*arguments, code=0)
        assert {instance.log: findings(run, instance) for instance in INSTANCES} == everywhere({})
        assert run.report["summary"]["repaired"] == 0
        assert run.reloaded() == []
    assert debian.snapshot().written(before) == set()


def test_after_their_script_only_what_it_forgets_is_found(debian: Debian) -> None:
    debian.empty()
    debian.start()

    assert found_by(debian) == everywhere(forgotten(debian.suite))
    assert debian.check("--fix", code=0).reloaded() == list(INSTANCES)


def test_a_start_brings_what_had_gone_stale(debian: Debian) -> None:
    gone = change_sources(debian, 1)
    assert gone
    for found in found_by(debian).values():
        assert {"/etc/services", "/etc/resolv.conf", *gone} <= set(found)

    debian.start()

    assert found_by(debian) == everywhere({})


def test_their_script_leaves_what_chrootsync_brought(debian: Debian) -> None:
    debian.switch_script(on=False)
    debian.empty()
    debian.start()
    debian.check("--fix", code=0)
    ours = debian.snapshot()
    debian.switch_script(on=True)

    debian.start()

    theirs = debian.snapshot()
    for instance in INSTANCES:
        for path, thing in ours.things[instance.chroot].items():
            assert path in theirs.paths(instance), "their script removed it"
            certificate = path.startswith("/etc/ssl/certs/")
            if not (certificate and debian.suite == "bookworm"):  # there they are links now
                assert theirs.things[instance.chroot][path].shown == thing.shown, path
    assert found_by(debian) == everywhere({})


def test_ten_rounds_of_both_come_to_rest_at_once(debian: Debian) -> None:
    """Debian 12's script writes all its copies again each time, but never other contents; 13's writes nothing."""
    # There, each certificate is a .pem with a link to it, which chrootsync neither needs nor minds.
    rewritten = "/etc/ssl/certs/" if debian.suite == "bookworm" else None
    before = debian.snapshot()
    for turn in range(2, ROUNDS + 1):
        if turn == 4:  # their script is the first to notice
            change_sources(debian, turn)
        if turn == 7:  # chrootsync is
            change_sources(debian, turn)
            run = debian.check("--fix", code=0)
            assert {each["status"] for each in run.report["instances"]} == {"repaired"}
            before = debian.snapshot()

        (debian.script if turn % 2 else debian.start)()

        after = debian.snapshot()
        if turn != 4:
            left_out = rewritten if turn == 7 else None
            assert after.shown(left_out) == before.shown(left_out), f"round {turn}"
            assert debian.suite == "bookworm" or after.written(before) == set(), f"round {turn}"
        quiet(debian, after)
        before = after


def test_they_copy_a_bad_source_and_chrootsync_says_so(debian: Debian) -> None:
    debian.container.write("/etc/resolv.conf", "# no name server\n")
    assert found_by(debian) == everywhere({"/etc/resolv.conf": "bad-source"})
    debian.check("--fix", code=1)
    assert debian.container.read(f"{OUTPUT.chroot}/etc/resolv.conf") == RESOLVER

    debian.script()

    assert debian.container.read(f"{OUTPUT.chroot}/etc/resolv.conf") == "# no name server\n"
    assert found_by(debian) == everywhere({"/etc/resolv.conf": "bad-source"})
    debian.container.write("/etc/resolv.conf", RESOLVER)
    assert set(found_by(debian, "--fix")[OUTPUT.log]) == {"/etc/resolv.conf"}
    assert debian.container.read(f"{OUTPUT.chroot}/etc/resolv.conf") == RESOLVER


@only_thirteen
def test_thirteen_removes_a_copy_whose_source_is_gone_for_a_moment(debian: Debian) -> None:
    debian.container.run(["rm", "/etc/resolv.conf"])
    debian.script()
    assert not debian.container.exists(f"{OUTPUT.chroot}/etc/resolv.conf")
    assert found_by(debian) == everywhere({"/etc/resolv.conf": "bad-source"})

    debian.container.write("/etc/resolv.conf", RESOLVER)
    assert found_by(debian, "--fix") == everywhere({"/etc/resolv.conf": "missing"})
    assert found_by(debian) == everywhere({})


@only_thirteen
def test_thirteen_leaves_the_reload_to_others(debian: Debian) -> None:
    """Daemons go on with the resolver that they have read before."""
    debian.container.write("/etc/resolv.conf", STALE_RESOLVER)
    start = debian.mail.mark()

    debian.script()

    debian.mail.settle(start)
    assert debian.mail.reloads(start) == []
    assert found_by(debian) == everywhere({})


@only_thirteen
def test_thirteen_takes_size_and_time_for_contents(debian: Debian) -> None:
    copy = f"{OUTPUT.chroot}/etc/services"
    debian.container.shell('sed -i s/domain/DOMAIN/ "$1"; touch -r /etc/services "$1"', copy)
    module = debian.container.shell(
        'cd "$1"; echo lib/libnss_resolve.so.2; echo >> lib/libnss_resolve.so.2', OUTPUT.chroot
    )

    debian.script()

    assert found_by(debian, "--fix")[OUTPUT.log].keys() == {"/etc/services", f"/{module.strip()}"}
    assert found_by(debian) == everywhere({})


@only_thirteen
def test_thirteen_takes_away_what_simple_services_do_not_need(debian: Debian) -> None:
    """Without a chrooted smtp, lmtp or smtpd it removes modules and certificates; no rule wants them there then."""
    settings = [f"{name}/chroot=n" for name in ("smtp/unix", "relay/unix", "lmtp/unix", f"{OUTPUT.port}/inet")]
    try:
        debian.configure("-F", *settings)
        debian.script()
        debian.check("--fix", code=0)
        before = debian.snapshot()
        assert not {path for path in before.paths(OUTPUT) if "libnss" in path or "/ssl/" in path}

        debian.script()

        quiet(debian, before)
    finally:
        settings = [setting.replace("=n", "=y") for setting in settings]
        debian.configure("-F", *settings)


def contested(debian: Debian, kind: str, instance: Postfix) -> None:
    """Each start brings the same finding back; after three repairs chrootsync leaves it, and says so."""
    for expected in (kind, kind, kind, "contested", "contested"):
        debian.script()
        found = findings(debian.check("--fix", code=0), instance)
        assert found
        assert set(found.values()) == {expected}


@only_twelve
def test_twelve_trusts_certificates_that_the_host_does_not(debian: Debian) -> None:
    """It makes a hash link for each .pem in the directory; the host has one for what it trusts."""
    certificate = "/etc/ssl/certs/local.pem"
    debian.container.shell(
        'openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out "$1" -subj /CN=Local', certificate
    )
    try:
        contested(debian, "orphan", OUTPUT)
    finally:
        debian.container.run(["rm", certificate])


@only_twelve
def test_twelve_deletes_certificates_that_are_not_called_pem(debian: Debian) -> None:
    debian.container.shell(HASHED)
    debian.configure("-e", "smtp_tls_CApath=/etc/postfix/cas")
    try:
        contested(debian, "missing", OUTPUT)
    finally:
        debian.configure("-e", "smtp_tls_CApath=/etc/ssl/certs")


@only_twelve
def test_twelve_lets_everybody_read_a_key(debian: Debian) -> None:
    """A rule that names the key tells; without one nothing looks at what not everybody may read."""
    debian.container.write("/etc/postfix/test.key", "secret\n", mode=0o600)
    debian.container.write("/etc/default/postfix", "chroot_extra_files=/etc/postfix/test.key\n")
    try:
        debian.script()
        assert debian.snapshot().things[OUTPUT.chroot]["/etc/postfix/test.key"].mode == 0o644
        assert found_by(debian) == everywhere({})
        debian.container.write("/etc/chrootsync/rules.d/local.toml", LOCAL_RULE)
        assert found_by(debian, "--fix") == everywhere({"/etc/postfix/test.key": "metadata"})
        assert found_by(debian) == everywhere({})
    finally:
        debian.container.run(["rm", "-f", "/etc/chrootsync/rules.d/local.toml", "/etc/postfix/test.key"])


@only_twelve
def test_twelve_overlooks_a_service_with_a_bracket(debian: Debian) -> None:
    """Its awk wants a letter or a digit where a line of master.cf begins."""
    config = ["postconf", "-c", OUTPUT.config]
    debian.container.run(["cp", f"{OUTPUT.config}/master.cf", "/var/tmp/master.cf"])
    try:
        debian.container.run([*config, "-F", "*/*/chroot=n"])
        debian.container.run([*config, "-M", "[::1]:10025/inet=[::1]:10025 inet n - y - - smtpd"])
        debian.empty()
        debian.script()
        assert debian.snapshot().paths(OUTPUT) == set()
        found = findings(debian.check(code=1), OUTPUT)
        assert set(found.values()) == {"missing"}
        assert {"/etc/hosts", "/etc/resolv.conf", "/etc/services"} <= set(found)
    finally:
        debian.container.run(["cp", "/var/tmp/master.cf", f"{OUTPUT.config}/master.cf"])
        debian.start()


def test_the_first_instance_alone_gets_a_new_resolver(debian: Debian) -> None:
    """Debian's own unit watches resolv.conf, for one chroot; the others are found, and mended."""
    debian.container.write("/etc/resolv.conf", STALE_RESOLVER)
    debian.container.run(["systemctl", "start", "postfix-resolvconf.service"])
    debian.container.shell(
        'for n in 1 2 3 4 5 6 7 8 9 10; do cmp -s /etc/resolv.conf "$1" && break; sleep 0.2; done',
        f"{INSTANCES[0].chroot}/etc/resolv.conf",
    )

    found = found_by(debian, "--fix")

    assert {log for log, paths in found.items() if "/etc/resolv.conf" in paths} == {each.log for each in INSTANCES[1:]}
    assert found_by(debian) == everywhere({})
