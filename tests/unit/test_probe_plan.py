"""Which lookups an instance is probed with: those that its daemons need, and no others."""

from __future__ import annotations

from dataclasses import replace

from chrootsync.model import Daemon, Entry, FileType, Instance, Presence, Severity, State
from chrootsync.probe.needs import Need, Needs, Socket
from chrootsync.probe.plan import Item, Plan, plan
from tests.unit.scenery import instance, rule

HOSTS = "127.0.0.1 localhost\n::1 ip6-localhost\n192.0.2.1 mx.example mx # ours\n192.0.2.2 10.0.0.1\nnonsense\n"
EVERYTHING = {"/etc/hosts", "/etc/resolv.conf", "/etc/services", "/etc/passwd", "/etc/localtime"}


def postfix(*daemons: Daemon) -> Instance:
    return instance("postfix-out", service="postfix", provider="postfix", chroot="/queue", daemons=daemons)


def daemon(name: str = "smtp/unix", program: str = "smtp", *, chrooted: bool = True, **parameters: str) -> Daemon:
    own = {"mail_owner": "postfix", **parameters}
    return Daemon(name=name, program=program, chrooted=chrooted, parameters=own)


def planned(where: Instance, need: Need | None = None, *, dns: bool = True) -> Plan:
    return plan(where, need or Need(files=set(EVERYTHING)), HOSTS, now=1_700_000_000.9, dns=dns)


def whats(made: Plan) -> list[str]:
    return [item.what for item in made.items]


def item(made: Plan, what: str) -> Item:
    [found] = [one for one in made.items if one.what == what]
    return found


def test_what_a_chroot_needs_is_looked_up_as_mail_owner() -> None:
    made = planned(postfix(daemon()))

    assert whats(made) == [
        "getaddrinfo localhost",
        "getaddrinfo mx.example",
        "DNS . NS",
        "getservbyname smtp/tcp",
        "getpwnam root",
        "localtime",
    ]
    assert made.users == ("postfix",)
    assert made.chroot == "/queue"
    assert made.names == 8
    assert item(made, "localtime").inside == ("time", 1_700_000_000, "early")


def test_what_nobody_needs_is_not_looked_up() -> None:
    made = planned(postfix(daemon()), Need())

    assert whats(made) == ["localtime"]
    assert made.names == 0


def test_without_dns_no_name_server_is_asked() -> None:
    where = postfix(daemon(relayhost="[relay.example]:587", myhostname="own.example"))

    assert not {"DNS . NS", "DNS relay.example A", "getaddrinfo own.example"} & {*whats(planned(where, dns=False))}


def test_relays_and_the_own_name_are_looked_up_as_smtp_does() -> None:
    where = postfix(
        daemon(relayhost="[relay.example]:587", myhostname="own.example"),
        daemon("other/unix", relayhost="mx-of.example"),
        daemon("third/unix", relayhost="[192.0.2.9]"),
        daemon("free/unix", relayhost="[unused.example]", chrooted=False),
    )

    made = planned(where)

    assert [what for what in whats(made) if "example" in what] == [
        "getaddrinfo mx.example",
        "getaddrinfo own.example",
        "getaddrinfo relay.example",
        "DNS relay.example A",
        "DNS mx-of.example MX",
    ]
    assert item(made, "getaddrinfo mx.example").differs
    assert not item(made, "getaddrinfo relay.example").differs, "some name servers give other addresses each time"


def test_named_ports_in_use_are_looked_up_once_each() -> None:
    where = postfix(
        daemon("submission/inet", "smtpd", smtpd_milters="inet:localhost:milter, inet:[::1]:8891 unix:private/x"),
        daemon("[::1]:10025/inet", "smtpd"),
        daemon("127.0.0.1:smtps/inet", "smtpd"),
        daemon(relayhost="[relay.example]:submission", content_filter="scan:[127.0.0.1]:10024"),
    )

    names = [what for what in whats(planned(where)) if what.startswith("getservbyname")]

    assert names == [f"getservbyname {name}/tcp" for name in ("smtp", "submission", "smtps", "milter")]


def test_sockets_of_rules_and_those_in_the_queue_directory_are_connected_to() -> None:
    smtpd = daemon(
        "smtp/inet",
        "smtpd",
        smtpd_milters="unix:opendkim/dkim.sock unix:/run/absolute.sock",
        smtpd_sasl_auth_enable="yes",
        smtpd_sasl_type="dovecot",
        smtpd_sasl_path="private/auth",
        smtpd_recipient_restrictions="permit_mynetworks, check_policy_service unix:private/policy, reject",
    )
    rules = {
        "/dev/log": Socket(path="/dev/log", matters=False, advice=None),
        "/run/mysqld.sock": Socket(path="/run/mysqld.sock", matters=True, advice="use proxy:"),
    }

    made = planned(postfix(smtpd), Need(sockets=rules))

    found = {one.what: (one.inside[1], one.outside[1], one.fails) for one in made.items if one.inside[0] == "socket"}
    assert found == {
        "socket /dev/log": ("/dev/log", "/dev/log", False),
        "socket /run/mysqld.sock": ("/run/mysqld.sock", "/run/mysqld.sock", True),
        "socket opendkim/dkim.sock": ("/opendkim/dkim.sock", "/queue/opendkim/dkim.sock", True),
        "socket private/auth": ("/private/auth", "/queue/private/auth", True),
        "socket private/policy": ("/private/policy", "/queue/private/policy", True),
    }
    assert item(made, "socket /run/mysqld.sock").advice == "use proxy:"


def test_of_a_static_instance_the_user_is_guessed_and_the_time_zone_is_read_late() -> None:
    jail = replace(instance("sftp"), service="sshd")
    named = replace(instance("ns"), service="bind")

    assert planned(jail, Need()).items == ()
    late = item(planned(jail, Need(files={"/etc/localtime"})), "localtime")
    assert late.inside == ("time", 1_700_000_000, "late")
    assert planned(jail).users == ("nobody",)
    assert planned(named).users == ("bind", "named", "nobody")


def test_needs_are_seen_from_entries() -> None:
    needs = Needs()
    where = postfix(daemon())

    def see(path: str, want: FileType = FileType.FILE, source: str | None = None, **fields: object) -> None:
        rules = {key: fields.pop(key) for key in ("presence", "directories", "severity") if key in fields}
        entry = Entry(instance=where, rule=rule(**rules), path=path, source=source, because="", want=State(type=want))
        needs.see(replace(entry, **fields))  # type: ignore[arg-type]  # fields of any type

    see("/etc/hosts", source="/etc/hosts")
    see("/usr/etc/services", source="/usr/etc/services")
    see("/etc/resolv.conf", presence=Presence.IF_PRESENT)
    see("/etc/nsswitch.conf", source="/etc/nsswitch.conf")
    see("/dev/log", FileType.SOCKET, severity=Severity.INFO)
    see("/run/x", FileType.SOCKET, advice="do this")
    see("/certs/0a1b2c3d.0", source="/etc/ssl/certs/0a1b2c3d.0", directories=("/etc/ssl/certs",))
    see("/gone/0a1b2c3d.0", source="/gone/0a1b2c3d.0", directories=("/gone",), surplus=True)

    need = needs.of("postfix-out")
    assert need.files == {"/etc/hosts", "/etc/services"}
    assert need.sockets == {
        "/dev/log": Socket(path="/dev/log", matters=False, advice=None),
        "/run/x": Socket(path="/run/x", matters=True, advice="do this"),
    }
    assert need.certificates == {"/certs": "/etc/ssl/certs"}
    assert item(planned(where, need), "CApath /certs").outside == ("certificates", "/etc/ssl/certs")
    assert needs.of("another") == Need()
