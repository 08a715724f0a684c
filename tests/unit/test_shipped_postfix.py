"""When the shipped rules for Postfix hold: real main.cf and master.cf, read by the real provider from a small root."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chrootsync import shipped
from chrootsync.inventory.conditions import Holding, Undecided, holding
from chrootsync.inventory.facts import Facts
from chrootsync.model import Config, Drift, Host, Kind, Rule, RuleSet, Severity
from chrootsync.pipeline import Task, check
from chrootsync.providers.postfix import discover
from chrootsync.root.write import Writer
from chrootsync.rules.ruleset import parse
from tests.unit.elf_builder import elf
from tests.unit.machine import needs_root
from tests.unit.scenery import Tree, drifts, grow, repair
from tests.unit.tree_reader import MemoryCache, TreeReader

DEBIAN = b'ID=debian\nVERSION_ID="12"\n'
FEDORA = b'ID=rocky\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
SUSE = b'ID=opensuse-leap\nID_LIKE="suse opensuse"\n'
ARCH = b"ID=arch\n"
ALPINE = b"ID=alpine\n"
_LIBC = elf([], tail=b"GNU C Library (GNU libc) stable release version 2.36.\n")
GLIBC: Tree = {
    "/usr/bin/sh": elf(["libc.so.6"], interpreter="/lib64/ld-linux-x86-64.so.2"),
    **{f"{directory}/libc.so.6": _LIBC for directory in ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib")},
    **{f"{directory}/libgcc_s.so.1": elf([]) for directory in ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib")},
}
MUSL: Tree = {
    "/bin/sh": elf(["libc.musl-x86_64.so.1"], interpreter="/lib/ld-musl-x86_64.so.1"),
    "/lib/ld-musl-x86_64.so.1": elf([], tail=b"1.2.5\0"),
}
# One service of each kind, none of them chrooted; a case chroots what it needs.
PROGRAMS = (
    "smtpd smtp lmtp cleanup trivial-rewrite dnsblog tlsproxy qmgr qmqpd postscreen flush verify local virtual proxymap"
)


def master(*chrooted: str, extra: str = "") -> str:
    """A master.cf in which these programs run chrooted."""
    lines = (f"{name} unix - - {'y' if name in chrooted else 'n'} - - {name}\n" for name in PROGRAMS.split())
    return "".join(lines) + extra


@dataclass(frozen=True, kw_only=True)
class Case:
    """A host, what rules must hold for it, with what they catch (none: an empty text), and what must not."""

    main: str = ""
    master: str
    files: Tree = field(default_factory=dict)
    release: bytes = DEBIAN
    holds: Mapping[str, list[str]] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


def rule_sets() -> list[RuleSet]:
    paths = sorted(Path(shipped.directory("rules")).glob("postfix-*.toml"))
    return list(parse([(str(path), path.read_bytes()) for path in paths]))


def rules() -> list[Rule]:
    return [rule for rule_set in rule_sets() for rule in rule_set.rules]


def build(root: Path, case: Case) -> Host:
    grow(
        root,
        {
            **(MUSL if case.release == ALPINE else GLIBC),
            "/etc/os-release": case.release,
            "/etc/postfix/main.cf": case.main.encode(),
            "/etc/postfix/master.cf": case.master.encode(),
            **case.files,
        },
    )
    return Host(root=TreeReader(root), run=None, cache=MemoryCache())


def found(root: Path, case: Case) -> Iterator[Holding | Undecided]:
    host = build(root, case)
    [instance] = discover(host, Config(), rule_sets())
    assert instance.problem is None
    for held in holding(rules(), instance, Facts(host)):
        if isinstance(held, Holding | Undecided):
            yield held


def caught(root: Path, case: Case) -> dict[str, list[str]]:
    """The rules that hold, and what each of them caught."""
    result: dict[str, list[str]] = {}
    for held in found(root, case):
        assert isinstance(held, Holding), held
        result.setdefault(held.rule.id, []).append(held.value or "")
    return result


LDAP = b"server_host = ldaps://ldap.example.org:636\nsearch_base = dc=example\n"
SASL = "smtpd_sasl_auth_enable = yes\n"
SASLAUTHD = b"pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\n"
TLS_SYSTEM = "tls_append_default_CA = yes\nsmtp_tls_CAfile = /etc/ssl/ca.pem\n"
NETWORK = ("postfix.hosts", "postfix.services", "postfix.nss")
DATABASES = ("postfix.databases", "postfix.mysql", "postfix.postgresql", "postfix.ldapi", "postfix.ldapi-default")

CASES = {
    # --- The resolver, and what goes with it
    "smtpd": Case(
        master=master("smtpd"),
        holds={"postfix.resolver": [""], "postfix.nsswitch": [""], "postfix.libgcc": [""]}
        | {name: [""] for name in NETWORK},
    ),
    "smtp": Case(
        master=master("smtp"),
        holds={"postfix.resolver": [""], "postfix.services": [""], "postfix.nss": [""]},
        lacks=("postfix.hosts",),
    ),
    "lmtp": Case(master=master("lmtp"), holds={"postfix.resolver": [""], "postfix.services": [""]}),
    "dnsblog asks DNS and nobody else": Case(
        master=master("dnsblog"), holds={"postfix.resolver": [""], "postfix.nsswitch": [""]}, lacks=NETWORK
    ),
    "qmqpd": Case(
        master=master("qmqpd"),
        holds={"postfix.resolver": [""], "postfix.hosts": [""], "postfix.nss": [""]},
        lacks=("postfix.services",),
    ),
    "daemons without a network": Case(
        main="smtp_host_lookup = native\nvirtual_alias_maps = hash:/etc/postfix/virtual\n",
        master=master("cleanup", "qmgr", "tlsproxy", "trivial-rewrite"),
        lacks=("postfix.resolver", *NETWORK),
    ),
    "nothing is chrooted": Case(
        main=f"smtp_tls_CApath = /ca\n{SASL}virtual_alias_maps = unix:passwd.byname\n",
        master=master(),
        lacks=("postfix.resolver", "postfix.tls-capath", "postfix.saslauthd", "postfix.accounts", "postfix.syslog"),
    ),
    "native lookups": Case(
        main="smtp_host_lookup = dns, native\n", master=master("smtp"), holds={"postfix.hosts": [""]}
    ),
    "native lookups of lmtp are not those of smtp": Case(
        main="lmtp_host_lookup = native\n", master=master("smtp"), lacks=("postfix.hosts",)
    ),
    "native lookups by -o": Case(
        master=master(extra="relay unix - - y - - smtp\n  -o smtp_host_lookup=native\n"),
        holds={"postfix.hosts": [""]},
    ),
    "without DNS all lookups are native": Case(
        main="lmtp_dns_support_level = disabled\n", master=master("lmtp"), holds={"postfix.hosts": [""]}
    ),
    "an interface that has a name": Case(
        main="inet_interfaces = localhost, 192.0.2.1\n",
        master=master("trivial-rewrite"),
        holds={"postfix.hosts": [""], "postfix.nss": [""]},
        lacks=("postfix.resolver",),
    ),
    "interfaces without a name": Case(
        main="inet_interfaces = loopback-only\nproxy_interfaces = 192.0.2.1, [2001:db8::a]\n",
        master=master("trivial-rewrite", "smtp"),
        lacks=("postfix.hosts",),
    ),
    "a milter on another host": Case(
        main="non_smtpd_milters = { inet:milter.example.org:8891, connect_timeout=3s }\n",
        master=master("cleanup"),
        holds={"postfix.resolver": [""], "postfix.hosts": [""], "postfix.nss": [""]},
        lacks=("postfix.services", "postfix.milters"),
    ),
    "a milter on this host, at a named port": Case(
        main="non_smtpd_milters = inet:localhost:opendkim\n",
        master=master("cleanup"),
        holds={"postfix.hosts": [""], "postfix.services": [""], "postfix.nss": [""]},
        lacks=("postfix.resolver",),
    ),
    "milters of smtpd are handed to cleanup": Case(
        main="smtpd_milters = inet:milter.example.org:8891\n",
        master=master("cleanup"),
        lacks=("postfix.resolver", *NETWORK),
    ),
    "a milter by its address": Case(
        main="non_smtpd_milters = inet:127.0.0.1:8891 inet:[::1]:8891\n",
        master=master("cleanup"),
        lacks=("postfix.resolver", *NETWORK),
    ),
    # --- Tables on other hosts
    "a directory server": Case(
        main="virtual_alias_maps = hash:/etc/aliases, ldap:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": LDAP},
        holds={"postfix.resolver": [""], "postfix.hosts": [""], "postfix.nss": [""]},
        lacks=("postfix.services", *DATABASES),
    ),
    "a directory server behind proxy:": Case(
        main="virtual_alias_maps = proxy:ldap:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": LDAP},
        lacks=("postfix.resolver", *NETWORK, *DATABASES),
    ),
    "a directory server for a daemon outside": Case(
        main="alias_maps = ldap:/etc/postfix/x.cf\nsmtpd_sender_login_maps = ldap:/etc/postfix/x.cf\n",
        master=master("cleanup", "trivial-rewrite"),
        files={"/etc/postfix/x.cf": LDAP},
        lacks=("postfix.resolver", *NETWORK),
    ),
    "a directory server by its address": Case(
        main="transport_maps = ldap:/etc/postfix/x.cf\n",
        master=master("trivial-rewrite"),
        files={"/etc/postfix/x.cf": b"server_host = ldap://192.0.2.1:389 ldap://[2001:db8::1]\n"},
        lacks=("postfix.resolver", *NETWORK),
    ),
    "a directory server in main.cf": Case(
        main="canonical_maps = ldap:people\npeople_server_host = ldap.example.org\n",
        master=master("cleanup"),
        holds={"postfix.resolver": [""]},
    ),
    "a directory server that is localhost unless told": Case(
        main="canonical_maps = ldap:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"search_base = dc=example\n"},
        holds={"postfix.hosts": [""], "postfix.nss": [""]},
        lacks=("postfix.resolver",),
    ),
    "a table in a restriction class": Case(
        main="smtpd_restriction_classes = strict\nstrict = check_sender_access mysql:/etc/postfix/x.cf\n",
        master=master("smtpd"),
        files={"/etc/postfix/x.cf": b"hosts = unix:/run/db.sock\n"},
        holds={"postfix.databases": ["/run/db.sock"]},
    ),
    "PostgreSQL by URI": Case(
        main="transport_maps = pgsql:/etc/postfix/x.cf\n",
        master=master("trivial-rewrite"),
        files={
            "/etc/postfix/x.cf": b"hosts = postgresql://me:secret@db.example.org/mail?sslrootcert=%2Fetc%2Fdb.pem&a=b\n"
        },
        holds={"postfix.resolver": [""], "postfix.tls-databases": ["/etc/db.pem"]},
        lacks=("postfix.postgresql",),
    ),
    "tcp and socketmap": Case(
        main="transport_maps = tcp:tables.example.org:1234\ncanonical_maps = socketmap:inet:127.0.0.1:9998:x\n",
        master=master("trivial-rewrite", "cleanup"),
        holds={"postfix.resolver": [""], "postfix.hosts": [""]},
        lacks=("postfix.services",),
    ),
    "tcp at a named port": Case(
        main="transport_maps = tcp:127.0.0.1:tables\n",
        master=master("trivial-rewrite"),
        holds={"postfix.services": [""]},
        lacks=("postfix.resolver",),
    ),
    "MySQL takes localhost for its socket": Case(
        main="virtual_alias_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"user = x\n"},
        holds={"postfix.mysql": [""]},
        lacks=("postfix.resolver", *NETWORK, "postfix.mysql-fedora", "postfix.mysql-suse", "postfix.databases"),
    ),
    "MySQL on Fedora": Case(
        main="virtual_alias_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"hosts = inet:localhost:3306\n"},
        release=FEDORA,
        holds={"postfix.mysql-fedora": [""]},
        lacks=("postfix.mysql",),
    ),
    "MySQL on SUSE": Case(
        main="virtual_alias_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"hosts = 127.0.0.1 localhost\n"},
        release=SUSE,
        holds={"postfix.mysql-suse": [""]},
        lacks=("postfix.mysql",),
    ),
    "MySQL by address, with its files": Case(
        main="virtual_alias_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={
            "/etc/postfix/x.cf": b"hosts = 127.0.0.1\noption_file = /etc/my.cnf\ntls_CAfile = /etc/ca.pem\n"
            b"tls_CApath = /etc/ca/\n"
        },
        holds={
            "postfix.tls-databases": ["/etc/ca.pem", "/etc/my.cnf"],
            "postfix.tls-databases-capath": ["/etc/ca"],
        },
        lacks=(*DATABASES, "postfix.resolver", "postfix.hosts"),
    ),
    "MySQL with a socket and a host": Case(
        main="virtual_alias_maps = mysql:db\ndb_hosts = unix:/run/mysqld/mysqld.sock inet:db.example.org\n",
        master=master("cleanup"),
        holds={"postfix.databases": ["/run/mysqld/mysqld.sock"], "postfix.resolver": [""]},
        lacks=("postfix.mysql",),
    ),
    "sockets behind proxy:": Case(
        main="virtual_alias_maps = proxy:mysql:/etc/postfix/x.cf proxy:pgsql:/etc/postfix/x.cf\n",
        master=master("cleanup", "smtpd"),
        files={"/etc/postfix/x.cf": b"hosts = unix:/run/db.sock\noption_file = /etc/my.cnf\n"},
        lacks=(*DATABASES, "postfix.tls-databases", "postfix.tls-databases-capath"),
    ),
    "memcache and socketmap sockets": Case(
        main="canonical_maps = memcache:/etc/postfix/m.cf, socketmap:unix:/run/map.sock:name\n",
        master=master("cleanup"),
        files={"/etc/postfix/m.cf": b"memcache = unix:/run/memcached.sock\n"},
        holds={"postfix.databases": ["/run/map.sock", "/run/memcached.sock"]},
        lacks=("postfix.resolver", *NETWORK),
    ),
    "relative sockets are in the queue directory": Case(
        main="canonical_maps = memcache:/etc/postfix/m.cf, socketmap:unix:private/map:name\n",
        master=master("cleanup"),
        files={"/etc/postfix/m.cf": b"memcache = unix:private/memcached\n"},
        lacks=DATABASES,
    ),
    "PostgreSQL's directory of sockets": Case(
        main="canonical_maps = pgsql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"hosts = unix:/var/run/postgresql postgresql:///mail?host=/srv/pg /tmp/\n"},
        holds={"postfix.postgresql": ["/srv/pg", "/tmp", "/var/run/postgresql"]},
        lacks=("postfix.resolver",),
    ),
    "LDAP over a socket": Case(
        main="canonical_maps = ldap:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={
            "/etc/postfix/x.cf": b"server_host = ldapi://%2Fopt%2fldapi/ ldapi:///\ntls_ca_cert_file = /etc/ca.pem\n"
            b"tls_ca_cert_dir = /etc/ca\n"
        },
        holds={
            "postfix.ldapi": ["/opt/ldapi"],
            "postfix.ldapi-default": [""],
            "postfix.tls-databases": ["/etc/ca.pem"],
            "postfix.tls-databases-capath": ["/etc/ca"],
        },
        lacks=("postfix.resolver", *NETWORK),
    ),
    "the default of ldapi elsewhere is not known": Case(
        main="canonical_maps = ldap:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"server_host = ldapi:///\n"},
        release=ARCH,
        lacks=("postfix.ldapi", "postfix.ldapi-default"),
    ),
    # --- C libraries
    "musl has no modules": Case(
        main="virtual_alias_maps = unix:passwd.byname\n",
        master=master("smtpd", "smtp"),
        release=ALPINE,
        holds={
            "postfix.resolver": [""],
            "postfix.hosts": [""],
            "postfix.services": [""],
            "postfix.accounts": ["passwd"],
        },
        lacks=("postfix.nsswitch", "postfix.nss", "postfix.nss-accounts", "postfix.libgcc"),
    ),
    # --- Accounts
    "accounts": Case(
        main="local_recipient_maps = unix:passwd.byname $alias_maps\n"
        "smtpd_sender_login_maps = unionmap:{unix:group.byname,hash:/x}\n",
        master=master("smtpd"),
        holds={"postfix.accounts": ["group", "passwd"], "postfix.nss-accounts": [""]},
    ),
    "accounts behind proxy:": Case(
        main="virtual_alias_maps = proxy:unix:passwd.byname\n",
        master=master("smtpd", "cleanup"),
        lacks=("postfix.accounts", "postfix.nss-accounts"),
    ),
    "accounts of daemons outside": Case(
        main="mailbox_command_maps = unix:passwd.byname\nvirtual_uid_maps = unix:passwd.byname\n"
        "local_recipient_maps = unix:passwd.byname\nproxy_read_maps = unix:group.byname\n",
        master=master("smtp", "cleanup", "trivial-rewrite"),
        lacks=("postfix.accounts", "postfix.nss-accounts"),
    ),
    "accounts by -o": Case(
        main="smtpd_sender_login_maps = hash:/x\n",
        master=master(extra="587 inet n - y - - smtpd\n  -o { smtpd_sender_login_maps = unix:passwd.byname }\n"),
        holds={"postfix.accounts": ["passwd"]},
    ),
    "accounts by a service's own parameter": Case(
        main="local_recipient_maps =\n587_login_maps = unix:passwd.byname\n"
        "smtpd_sender_login_maps = ${{$service_name} == {587} ? {$587_login_maps} : {}}\n",
        master=master("smtpd", extra="587 inet n - y - - smtpd\n"),
        holds={"postfix.accounts": ["passwd"]},
    ),
    # --- TLS
    "CA directories": Case(
        main="smtp_tls_CApath = /etc/ssl/certs/\nlmtp_tls_CApath = /etc/l:/etc/m\nsmtpd_tls_CApath = /etc/d\n",
        master=master("smtp", "lmtp"),
        holds={"postfix.tls-capath": ["/etc/l", "/etc/m", "/etc/ssl/certs"]},
        lacks=("postfix.tls-system",),
    ),
    "CA directories of tlsproxy follow those of smtp and smtpd": Case(
        main="smtp_tls_CApath = /etc/c\nsmtpd_tls_CApath = /etc/d\n",
        master=master("tlsproxy"),
        holds={"postfix.tls-capath": ["/etc/c", "/etc/d"]},
    ),
    "a CA directory by -o": Case(
        master=master(extra="relay unix - - y - - smtp -o smtp_tls_CApath=/etc/relay\n"),
        holds={"postfix.tls-capath": ["/etc/relay"]},
    ),
    "a CA file that smtp hands over to tlsproxy, which has another one": Case(
        main="smtp_tls_connection_reuse = yes\nsmtp_tls_CAfile = /etc/main.pem\n",
        master=master("tlsproxy", extra="relay unix - - n - - smtp -o smtp_tls_CAfile=/etc/relay.pem\n"),
        holds={"postfix.tls-handed": ["/etc/relay.pem"]},
        lacks=("postfix.tls-capath",),
    ),
    "a CA directory that lmtp hands over to tlsproxy": Case(
        main="lmtp_tls_connection_reuse = YES\nlmtp_tls_CAfile = /etc/l.pem\nlmtp_tls_CApath = /etc/l\n"
        "smtp_tls_CAfile = /etc/l.pem\n",
        master=master("tlsproxy", "lmtp"),
        holds={"postfix.tls-handed": ["/etc/l.pem"], "postfix.tls-capath": ["/etc/l"]},
    ),
    "tlsproxy starts anew for a client that logs more": Case(
        main="smtp_tls_connection_reuse = yes\nsmtp_tls_CAfile = /etc/main.pem\n",
        master=master("tlsproxy", extra="relay unix - - y - - smtp -o smtp_tls_loglevel=1\n"),
        holds={"postfix.tls-handed": ["/etc/main.pem"]},
    ),
    "tlsproxy starts anew for lmtp, which logs by a parameter of its own": Case(
        main="lmtp_tls_connection_reuse = yes\nsmtp_tls_CAfile = /etc/main.pem\nlmtp_tls_CAfile = /etc/main.pem\n",
        master=master("tlsproxy", "lmtp"),
        holds={"postfix.tls-handed": ["/etc/main.pem"]},
    ),
    "a tlsproxy that is set up for lmtp": Case(
        main="lmtp_tls_connection_reuse = yes\nlmtp_tls_CAfile = /etc/l.pem\n"
        "tlsproxy_client_CAfile = $lmtp_tls_CAfile\ntlsproxy_client_loglevel_parameter = lmtp_tls_loglevel\n",
        master=master("tlsproxy", "lmtp"),
        lacks=("postfix.tls-handed",),
    ),
    "what smtp hands over as tlsproxy has it was read before": Case(
        main="smtp_tls_connection_reuse = yes\nsmtp_tls_CAfile = /etc/main.pem\nsmtp_tls_loglevel = 1\n",
        master=master("tlsproxy", "smtp", extra="relay unix - - y - - smtp -o smtp_tls_security_level=encrypt\n"),
        lacks=("postfix.tls-handed", "postfix.tls-capath"),
    ),
    "nothing is handed over to tlsproxy without reuse of connections": Case(
        main="smtp_tls_CAfile = /etc/main.pem\n",
        master=master("tlsproxy", extra="relay unix - - y - - smtp -o smtp_tls_CAfile=/etc/relay.pem\n"),
        lacks=("postfix.tls-handed", "postfix.tls-capath"),
    ),
    "a tlsproxy outside reads what it is handed over": Case(
        main="smtp_tls_connection_reuse = yes\n",
        master=master("smtp", extra="relay unix - - y - - smtp -o smtp_tls_CAfile=/etc/relay.pem\n"),
        lacks=("postfix.tls-handed",),
    ),
    "CA directories of nobody": Case(
        main="smtp_tls_CApath = etc/certs\nlmtp_tls_CApath =\nsmtpd_tls_CApath = /etc/d\n",
        master=master("smtp", "lmtp", "cleanup"),
        lacks=("postfix.tls-capath",),
    ),
    "the system's CAs on Debian": Case(
        main=TLS_SYSTEM,
        master=master("smtp"),
        holds={"postfix.tls-system": [""]},
        lacks=("postfix.tls-system-fedora", "postfix.tls-system-others"),
    ),
    "the system's CAs on Fedora": Case(
        main=TLS_SYSTEM,
        master=master("smtp"),
        release=FEDORA,
        holds={"postfix.tls-system-fedora": [""]},
        lacks=("postfix.tls-system", "postfix.tls-system-others"),
    ),
    "the system's CAs on Alpine": Case(
        main=TLS_SYSTEM, master=master("smtp"), release=ALPINE, holds={"postfix.tls-system-others": [""]}
    ),
    "the system's CAs on SUSE": Case(
        main=TLS_SYSTEM + "lmtp_tls_CApath = /x\n",
        master=master("lmtp"),
        release=SUSE,
        holds={"postfix.tls-system-others": [""]},
    ),
    "the system's CAs are added to others only": Case(
        main="tls_append_default_CA = yes\nsmtpd_tls_CAfile = /etc/x.pem\n",
        master=master("smtp"),
        lacks=("postfix.tls-system",),
    ),
    "trust anchors": Case(
        main="smtp_tls_trust_anchor_file = /etc/a.pem, /etc/b.pem etc/c.pem\nlmtp_tls_trust_anchor_file = /etc/l.pem\n"
        "smtp_tls_policy_maps = inline:{ {a.example = secure tafile=/etc/i.pem} }, hash:/etc/postfix/tls\n",
        master=master("smtp"),
        files={
            "/etc/postfix/tls": b"# tafile=/etc/c.pem\na.example\tsecure\n\n  tafile=/etc/h.pem  tafile=/etc/j.pem\n"
        },
        holds={"postfix.tls-trust-anchors": ["/etc/a.pem", "/etc/b.pem", "/etc/h.pem", "/etc/i.pem", "/etc/j.pem"]},
    ),
    "trust anchors of lmtp": Case(
        main="lmtp_tls_policy_maps = texthash:/etc/postfix/tls\nsmtp_tls_trust_anchor_file = /etc/a.pem\n",
        master=master("lmtp"),
        files={"/etc/postfix/tls": b"a.example secure tafile=/etc/h.pem\n"},
        holds={"postfix.tls-trust-anchors": ["/etc/h.pem"]},
    ),
    "no trust anchors": Case(
        main="smtp_tls_policy_maps = lmdb:/etc/postfix/tls, hash:/etc/postfix/missing\n",
        master=master("smtp"),
        files={"/etc/postfix/tls": b"a.example secure match=nexthop\n\xff\0\n"},
        lacks=("postfix.tls-trust-anchors",),
    ),
    # --- SASL
    "saslauthd": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": SASLAUTHD},
        holds={"postfix.saslauthd": ["/var/run/saslauthd/mux"]},
        lacks=("postfix.sasldb", "postfix.sasldb-elsewhere", "postfix.dovecot"),
    ),
    "saslauthd elsewhere": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/usr/lib/sasl/smtpd.conf": SASLAUTHD + b"saslauthd_path: /srv/saslauthd/mux\n"},
        holds={"postfix.saslauthd": ["/srv/saslauthd/mux"]},
    ),
    "saslauthd for another name, in another directory": Case(
        main=SASL + "cyrus_sasl_config_path = /srv/none:/srv/sasl/\n",
        master=master(extra="587 inet n - y - - smtpd -o smtpd_sasl_path=submission\n"),
        files={"/srv/sasl/submission.conf": SASLAUTHD},
        holds={"postfix.saslauthd": ["/var/run/saslauthd/mux"]},
    ),
    "saslauthd by -o": Case(
        master=master("smtpd", extra="587 inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes\n"),
        files={"/etc/sasl2/smtpd.conf": SASLAUTHD},
        release=FEDORA,
        holds={"postfix.saslauthd": ["/run/saslauthd/mux"]},
    ),
    "saslauthd on SUSE": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/sasl2/smtpd.conf": SASLAUTHD},
        release=SUSE,
        holds={"postfix.saslauthd": ["/run/sasl2/mux"]},
    ),
    "no authentication": Case(
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": SASLAUTHD},
        lacks=("postfix.saslauthd", "postfix.sasldb", "postfix.dovecot"),
    ),
    "sasldb": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": b"pwcheck_method: auxprop\nauxprop_plugin: sasldb\n"},
        holds={"postfix.sasldb": ["/etc/sasldb2"]},
        lacks=("postfix.saslauthd", "postfix.sasldb-elsewhere"),
    ),
    "sasldb is asked where nothing else is said": Case(
        main=SASL, master=master("smtpd"), holds={"postfix.sasldb": ["/etc/sasldb2"]}
    ),
    "sasldb on Fedora": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/sasl2/smtpd.conf": b"auxprop_plugin: sasldb\n", "/etc/sasl2/sasldb2": b"x"},
        release=FEDORA,
        holds={"postfix.sasldb-elsewhere": ["/etc/sasl2/sasldb2"]},
        lacks=("postfix.sasldb",),
    ),
    "passwords in a directory server": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: ldapdb\nldapdb_uri: ldapi:///\n"},
        holds={"postfix.ldapi-default": [""]},
        lacks=("postfix.sasldb", "postfix.saslauthd", "postfix.ldapi"),
    ),
    "passwords in an SQL database": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: sql\nsql_engine: mysql\nsql_hostnames: localhost\n"},
        holds={"postfix.sasl-sql": ["/run/mysqld/mysqld.sock"]},
        lacks=("postfix.sasldb", "postfix.saslauthd", *DATABASES),
    ),
    "passwords in an SQL database over the network": Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: sql\nsql_hostnames: 127.0.0.1\n"},
        lacks=("postfix.sasl-sql", *DATABASES),
    ),
    "Dovecot by a full path": Case(
        main=f"{SASL}smtpd_sasl_type = dovecot\nsmtpd_sasl_path = unix:/run/dovecot/auth\n",
        master=master("smtpd"),
        files={"/etc/postfix/sasl/smtpd.conf": SASLAUTHD},
        holds={"postfix.dovecot": ["/run/dovecot/auth"]},
        lacks=("postfix.saslauthd", "postfix.sasldb"),
    ),
    "Dovecot in the queue directory": Case(
        main=f"{SASL}smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n",
        master=master("smtpd"),
        lacks=("postfix.dovecot", "postfix.saslauthd", "postfix.sasldb"),
    ),
    # --- Other sockets
    "milters": Case(
        main="smtpd_milters = unix:/run/a.sock, { local:/run/b.sock, connect_timeout=3s } unix:c/d.sock\n"
        "non_smtpd_milters = unix:/run/n.sock\nsmtpd_milter_maps = hash:/etc/postfix/milters\n",
        master=master("smtpd"),
        files={"/etc/postfix/milters": b"192.0.2.0/24 unix:/run/m.sock\n"},
        holds={"postfix.milters": ["/run/a.sock", "/run/b.sock", "/run/m.sock"]},
    ),
    "milters of cleanup": Case(
        main="smtpd_milters = unix:/run/a.sock\nnon_smtpd_milters = unix:/run/n.sock\n",
        master=master("cleanup"),
        holds={"postfix.milters": ["/run/n.sock"]},
    ),
    "milters in the queue directory": Case(
        main="smtpd_milters = unix:opendkim/opendkim.sock\nnon_smtpd_milters = $smtpd_milters\n",
        master=master("smtpd", "cleanup"),
        lacks=("postfix.milters", "postfix.policy", "postfix.tlsrpt", "postfix.lmtp"),
    ),
    "policy services": Case(
        main="smtpd_restriction_classes = grey\ngrey = check_policy_service { unix:/run/grey, timeout=10s }\n"
        "smtpd_recipient_restrictions = check_policy_service unix:private/spf, check_policy_service unix:/run/p\n",
        master=master("smtpd"),
        holds={"postfix.policy": ["/run/grey", "/run/p"]},
    ),
    "policy services of a daemon outside": Case(
        main="smtpd_recipient_restrictions = check_policy_service unix:/run/p\n",
        master=master("cleanup", "smtp"),
        lacks=("postfix.policy",),
    ),
    "TLSRPT": Case(
        main="smtp_tlsrpt_enable = yes\nsmtp_tlsrpt_socket_name = /run/tlsrpt.sock\n",
        master=master("tlsproxy"),
        holds={"postfix.tlsrpt": ["/run/tlsrpt.sock"]},
    ),
    "TLSRPT that is off": Case(
        main="smtp_tlsrpt_socket_name = /run/tlsrpt.sock\n", master=master("smtp"), lacks=("postfix.tlsrpt",)
    ),
    "LMTP over a socket": Case(
        main="mailbox_transport = lmtp:unix:/run/dovecot/lmtp\nvirtual_transport = lmtp:unix:private/dovecot\n"
        "transport_maps = inline:{ a.example=lmtp:unix:/run/i }, hash:/etc/postfix/transport\n",
        master=master("lmtp"),
        files={"/etc/postfix/transport": b"b.example lmtp:unix:/run/t\nc.example smtp:[192.0.2.1]\n"},
        holds={"postfix.lmtp": ["/run/dovecot/lmtp", "/run/i", "/run/t"]},
    ),
    "LMTP by a daemon outside": Case(
        main="mailbox_transport = lmtp:unix:/run/dovecot/lmtp\n", master=master("smtp"), lacks=("postfix.lmtp",)
    ),
    "syslog": Case(
        master=master("cleanup"),
        holds={"postfix.syslog": [""], "postfix.random": [""], "postfix.localtime": [""], "postfix.present": [""]},
    ),
    "maillog_file": Case(
        main="maillog_file = /var/log/mail.log\n", master=master("cleanup"), lacks=("postfix.syslog",)
    ),
}

# Everything that a chrooted daemon of Postfix may need, and the rules that are about it.
ROWS = {
    "directories": ("postfix.resolver",),
    "resolv.conf": ("postfix.resolver",),
    "services": ("postfix.services",),
    "hosts, host.conf, gai.conf": ("postfix.hosts",),
    "nsswitch.conf": ("postfix.nsswitch",),
    "name service modules and their libraries": ("postfix.nss", "postfix.nss-accounts"),
    "libgcc_s": ("postfix.libgcc",),
    "sockets of name service modules": ("postfix.nss", "postfix.nss-accounts"),
    "passwd, group": ("postfix.accounts",),
    "localtime, zoneinfo": ("postfix.localtime", "postfix.present"),
    "CA directories": ("postfix.tls-capath",),
    "CA files that tlsproxy is handed over": ("postfix.tls-handed",),
    "the system's CA directory": ("postfix.tls-system", "postfix.tls-system-fedora", "postfix.tls-system-others"),
    "trust anchors": ("postfix.tls-trust-anchors",),
    "saslauthd": ("postfix.saslauthd",),
    "SQL servers of Cyrus SASL": ("postfix.sasl-sql",),
    "sasldb2": ("postfix.sasldb", "postfix.sasldb-elsewhere"),
    "Dovecot": ("postfix.dovecot",),
    "files of database clients": ("postfix.tls-databases", "postfix.tls-databases-capath"),
    "sockets of databases": (*DATABASES, "postfix.mysql-fedora", "postfix.mysql-suse"),
    "dev/log": ("postfix.syslog",),
    "dev/urandom, dev/random": ("postfix.random",),
    "milters, policy services, TLSRPT": ("postfix.milters", "postfix.policy", "postfix.tlsrpt"),
    "LMTP servers": ("postfix.lmtp",),
    "what is there already": ("postfix.present",),
}
# They hold wherever a daemon is chrooted, because they add nothing.
ALWAYS = {"postfix.random", "postfix.localtime", "postfix.present"}


@pytest.mark.parametrize("name", CASES)
def test_rules_hold_where_they_must_and_nowhere_else(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    result = {rule: sorted(values) for rule, values in caught(tmp_path, case).items()}
    assert {rule: result.get(rule) for rule in case.holds} == case.holds
    assert [rule for rule in case.lacks if rule in result] == []


def test_every_row_has_its_rules_and_every_rule_its_row() -> None:
    named = {name for names in ROWS.values() for name in names}
    assert named == {rule.id for rule in rules()}
    assert named >= {name for case in CASES.values() for name in (*case.holds, *case.lacks)}


@pytest.mark.parametrize("rule", sorted({name for names in ROWS.values() for name in names}))
def test_every_rule_is_seen_to_hold_and_to_fail(rule: str) -> None:
    assert any(rule in case.holds for case in CASES.values())
    assert rule in ALWAYS or any(rule in case.lacks for case in CASES.values())


def test_the_catches_of_a_rule_are_named_with_their_setting(tmp_path: Path) -> None:
    case = CASES["LDAP over a socket"]
    [held] = [held for held in found(tmp_path, case) if held.rule.id == "postfix.tls-databases"]
    assert isinstance(held, Holding)
    assert held.evidence.daemons == ("cleanup/unix",)
    assert held.evidence.value == "/etc/ca.pem"
    assert "ldap:/etc/postfix/x.cf" in str(held.evidence.setting)


def test_a_table_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    case = Case(
        main="canonical_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"rubbish\n"},
    )
    told = {held.rule.id: str(held.error) for held in found(tmp_path, case) if isinstance(held, Undecided)}
    reason = '/etc/postfix/x.cf: line 1: "rubbish" is not of the form name = value'
    assert told["postfix.databases"] == told["postfix.mysql"] == told["postfix.resolver"] == reason


@pytest.mark.parametrize("release", ['"12"', '"13"'])
def test_three_instances_of_debian_get_what_a_mail_server_needs(tmp_path: Path, release: str) -> None:
    """The chroot column as Debian ships it: submission, input and output with main.cf of the package."""
    services = master("smtpd", "smtp", "cleanup", "trivial-rewrite", "tlsproxy", "dnsblog", "lmtp", "verify", "flush")
    debian = "compatibility_level = 3.6\nsmtp_tls_CApath = /etc/ssl/certs\nsmtp_tls_security_level = may\n"
    alone = f"{debian}alias_maps = hash:/etc/aliases\ninet_interfaces = all\nmailbox_size_limit = 0\n"
    names = {"/etc/postfix": "", "/etc/postfix-in": "in", "/etc/postfix-out": "out"}
    files: dict[str, bytes] = {"/etc/os-release": f"ID=debian\nVERSION_ID={release}\n".encode()}
    for directory, name in names.items():
        extra = (
            f"queue_directory = /q/{name}\n"
            if name
            else "multi_instance_directories = /etc/postfix-in /etc/postfix-out\n"
        )
        files[f"{directory}/main.cf"] = (alone + extra).encode()
        files[f"{directory}/master.cf"] = services.encode()
    grow(tmp_path, {**GLIBC, **files})
    host = Host(root=TreeReader(tmp_path), run=None, cache=MemoryCache())
    instances = discover(host, Config(), rule_sets())
    assert len(instances) == 3
    facts = Facts(host)
    for instance in instances:
        ids = {held.rule.id for held in holding(rules(), instance, facts) if isinstance(held, Holding)}
        assert ids == {
            "postfix.resolver",
            "postfix.hosts",
            "postfix.services",
            "postfix.nsswitch",
            "postfix.nss",
            "postfix.libgcc",
            "postfix.tls-capath",
            "postfix.syslog",
            *ALWAYS,
        }


# --- What comes of them in a chroot -----------------------------------------------------------------------------


@contextmanager
def checking(root: Path, case: Case) -> Iterator[tuple[Task, Writer]]:
    """A task for the instance of a case, whose chroot is empty, and the writer for its repair."""
    queue: Tree = {"/var/spool/postfix": None, "/etc/resolv.conf": b"nameserver 192.0.2.1\n"}
    root.chmod(0o755)
    host = build(root, Case(**{**vars(case), "files": {**queue, **case.files}}))
    sets = rule_sets()
    yield Task(host=host, instances=discover(host, Config(), sets), rule_sets=sets), Writer(host.root)  # type: ignore[arg-type]  # a Root


def drifting(root: Path, case: Case) -> dict[str, Drift]:
    with checking(root, case) as (task, _):
        return {drift.entry.path: drift for drift in drifts(check(task))}


def test_a_copy_brings_the_directories_above_it(tmp_path: Path) -> None:
    found = drifting(tmp_path, Case(master=master("dnsblog")))
    assert found["/etc/resolv.conf"].kind is found["/etc"].kind is Kind.MISSING
    want = found["/etc"].entry.want
    assert want is not None
    assert want.mode == 0o755


def test_a_ca_directory_brings_hashed_names_and_a_policy_its_trust_anchors(tmp_path: Path) -> None:
    case = Case(
        main="smtp_tls_CApath = /etc/ca\nsmtp_tls_policy_maps = lmdb:/etc/postfix/tls\n",
        master=master("smtp"),
        files={
            "/etc/ca/0a1b2c3d.0": "ca.pem",
            "/etc/ca/ca.pem": b"certificate",
            "/etc/ca/0a1b2c3d.r0": b"list",
            "/etc/postfix/tls": b"a.example secure tafile=/etc/ta.pem\n",
            "/etc/ta.pem": b"anchor",
        },
    )
    found = drifting(tmp_path, case)
    assert {path for path, drift in found.items() if "tls" in drift.entry.rule.id and drift.entry.source} == {
        "/etc/ca/0a1b2c3d.0",
        "/etc/ca/0a1b2c3d.r0",
        "/etc/ta.pem",
    }


def test_a_socket_out_of_reach_is_a_warning_with_the_way_out(tmp_path: Path) -> None:
    case = Case(
        main="virtual_alias_maps = mysql:/etc/postfix/x.cf\n",
        master=master("cleanup"),
        files={"/etc/postfix/x.cf": b"hosts = unix:/run/mysqld/mysqld.sock\n"},
    )
    found = drifting(tmp_path, case)
    drift = found["/run/mysqld/mysqld.sock"]
    assert (drift.kind, drift.severity) == (Kind.UNREACHABLE, Severity.WARNING)
    assert drift.reason.endswith(
        "; put proxy: in front of the table, so that proxymap(8) connects outside the chroot, or use inet:127.0.0.1"
    )
    assert found["/dev/log"].severity is Severity.INFO


def test_a_socket_that_one_lookup_gets_along_without_may_be_all_that_another_has(tmp_path: Path) -> None:
    case = Case(
        main="virtual_alias_maps = unix:passwd.byname\n",
        master=master("smtpd"),
        files={
            "/etc/nsswitch.conf": b"passwd: files sss\nhosts: files dns\nservices: files sss\n",
            "/lib/x86_64-linux-gnu/libnss_sss.so.2": elf([]),
        },
    )
    drift = drifting(tmp_path, case)["/var/lib/sss/pipes/nss"]
    assert (drift.severity, drift.entry.rule.id) == (Severity.WARNING, "postfix.nss-accounts")
    assert drift.reason.endswith("have passwd looked up outside of it, in Postfix by proxy:unix:passwd.byname")


@needs_root
@pytest.mark.parametrize(
    ("release", "owner", "mode", "expected"),
    [
        (DEBIAN, 45, 0o640, (45, 0o640)),
        (DEBIAN, 45, 0o660, (45, 0o640)),
        (DEBIAN, 0, 0o640, (45, 0o600)),
        (DEBIAN, 45, 0o600, (45, 0o600)),
        (FEDORA, 89, 0o640, (89, 0o640)),
        (FEDORA, 0, 0o640, (89, 0o600)),
    ],
)
def test_passwords_are_for_the_group_that_may_read_them(
    tmp_path: Path, release: bytes, owner: int, mode: int, expected: tuple[int, int]
) -> None:
    case = Case(
        main=SASL,
        master=master("smtpd"),
        files={"/etc/sasldb2": b"secret", "/etc/group": b"root:x:0:\nsasl:x:45:\npostfix:x:89:\n"},
        release=release,
    )
    with checking(tmp_path, case) as (task, writer):
        os.chown(tmp_path / "etc/sasldb2", 0, owner)
        (tmp_path / "etc/sasldb2").chmod(mode)
        repair(task, writer, check(task))
        assert [drift.entry.path for drift in drifts(check(task))] == ["/dev/log"]
    copy = (tmp_path / "var/spool/postfix/etc/sasldb2").stat()
    assert (copy.st_uid, copy.st_gid, copy.st_mode & 0o7777) == (0, *expected)
