"""Which lookups prove that an instance's chroot holds what its daemons need; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from chrootsync.model import Instance
from chrootsync.model.frozen import frozen, replace
from chrootsync.probe.child import names_of_hosts
from chrootsync.probe.needs import Need

MOST_NAMES = 8  # of each hosts file
MOST_PORTS = 16
MOST_SOCKETS = 32

# Whom daemons become where no parameter tells; the first that there is. Others than Postfix have no fixed user.
_USERS: Mapping[str, tuple[str, ...]] = {
    "bind": ("bind", "named"),
    "php-fpm": ("www-data", "apache", "http", "nginx", "wwwrun"),
}
_NOBODY = "nobody"

_PORT = re.compile(r"(?=[\w.+-]*[A-Za-z])[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", re.ASCII)
_DOMAIN = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", re.ASCII)
_HOPS = ("relayhost", "default_transport", "relay_transport", "content_filter", "smtp_fallback_relay")
_NEXT_HOP = re.compile(r"(?:^|[\s,:])(?P<host>\[[\w.-]+\]|[\w.-]+)(?::(?P<port>[\w.+-]+))?(?=$|[\s,])")
_ENDPOINTS = ("smtpd_milters", "non_smtpd_milters")
_INET = re.compile(r"\binet:(?:\[[^\]\s]+\]|[^\s,:{}]+):(?P<port>[\w.+-]+)")
_RELATIVE = re.compile(r"(?:^|[\s,{])(?:unix|local):(?P<path>[^/\s,}][^\s,}]*)")
_POLICY = re.compile(r"\bcheck_policy_service[\s,{]+unix:(?P<path>[^/\s,}][^\s,}]*)")

_RESTRICTIONS = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
    "smtpd_etrn_restrictions",
)


@frozen
class Item:
    """One lookup: as one would write it down, and as the child is told it, inside and outside.

    ``fails`` and ``differs`` tell whether it matters that it fails inside and works outside, and that both work and
    differ. ``advice`` is what to do then, in one clause.
    """

    what: str
    inside: tuple[str | int, ...]
    outside: tuple[str | int, ...]
    fails: bool = True
    differs: bool = True
    advice: str | None = None


@frozen
class Plan:
    """What is looked up as whom; ``names`` is how many further names of the chroot's hosts file are, at most."""

    chroot: str
    users: tuple[str, ...]
    items: tuple[Item, ...]
    names: int
    name_advice: str


def plan(instance: Instance, need: Need, hosts: str, *, now: float, dns: bool) -> Plan:
    """The lookups of an instance; ``hosts`` is the host's hosts file, ``now`` the instant to show as a local time.

    Without ``dns`` no name server is asked on purpose.
    """
    advice = f"chrootsync check {instance.name} tells which copy is missing, stale or unreadable"
    items: list[Item] = []
    named = "/etc/hosts" in need.files
    if named:
        names = ["localhost", *names_of_hosts(hosts, MOST_NAMES)]
        items += [host(name, advice) for name in names]
        # Some name servers give other addresses each time.
        items += [
            replace(host(name, advice), differs=False) for name in _far_names(instance) if dns and name not in names
        ]
    if dns and "/etc/resolv.conf" in need.files:
        items += [_query(name, kind, advice) for name, kind in ((".", "NS"), *_relays(instance))]
    if "/etc/services" in need.files:
        items += [_both(f"getservbyname {port}/tcp", ("service", port, "tcp"), advice) for port in _ports(instance)]
    if "/etc/passwd" in need.files:
        items.append(_both("getpwnam root", ("user", "root"), advice))
    items += _times(instance, need, int(now))
    items += _sockets(instance, need)
    for inside, outside in sorted(need.certificates.items()):
        items.append(
            Item(
                what=f"CApath {inside}",
                inside=("certificates", inside),
                outside=("certificates", outside),
                advice=advice,
            )
        )
    return Plan(
        chroot=instance.chroot,
        users=_users(instance),
        items=tuple(items),
        names=MOST_NAMES if named else 0,
        name_advice=advice,
    )


def host(name: str, advice: str) -> Item:
    """The lookup of a host name."""
    return _both(f"getaddrinfo {name}", ("host", name), advice)


def _both(what: str, lookup: tuple[str | int, ...], advice: str) -> Item:
    return Item(what=what, inside=lookup, outside=lookup, advice=advice)


def _query(name: str, kind: str, advice: str) -> Item:
    lookup = ("dns", name, kind)
    return Item(what=f"DNS {name} {kind}", inside=lookup, outside=lookup, differs=False, advice=advice)


def _users(instance: Instance) -> tuple[str, ...]:
    """Whom its daemons become after chroot."""
    owner = next((one.parameters.get("mail_owner") for one in instance.daemons), None)
    return (owner,) if owner else (*_USERS.get(instance.service, ()), _NOBODY)


def _times(instance: Instance, need: Need, now: int) -> Iterator[Item]:
    """The local time. A daemon of Postfix has asked for its time zone before chroot; then it is cosmetic."""
    early, late = ("time", now, "early"), ("time", now, "late")
    if instance.provider == "postfix" and instance.chrooted:
        yield Item(what="localtime", inside=early, outside=early, fails=False, differs=False)
    elif "/etc/localtime" in need.files:
        yield Item(what="localtime", inside=late, outside=late, fails=False, differs=False)


def _values(instance: Instance, names: Sequence[str]) -> Iterator[str]:
    """What chrooted daemons have set, each value once."""
    told = set()
    for daemon in instance.daemons:
        for name in names if daemon.chrooted else ():
            value = daemon.parameters.get(name, "")
            if value and value not in told:
                told.add(value)
                yield value


def _relays(instance: Instance) -> list[tuple[str, str]]:
    """The names that mail is handed on to: those in brackets have an address, others a mail exchanger (smtp(8))."""
    found: dict[tuple[str, str], None] = {}
    for value in _values(instance, ("relayhost",)):
        for hop in _NEXT_HOP.finditer(value):
            name = hop["host"].strip("[]")
            if _DOMAIN.fullmatch(name):
                found[(name, "A" if hop["host"].startswith("[") else "MX")] = None
    return list(found)[:MOST_PORTS]


def _far_names(instance: Instance) -> list[str]:
    """Names that no hosts file need have, so that all modules of nsswitch.conf are asked."""
    own = [value for value in _values(instance, ("myhostname",)) if _DOMAIN.fullmatch(value)]
    return [*own, *(name for name, kind in _relays(instance) if kind == "A")]


def _ports(instance: Instance) -> list[str]:
    """The names of ports in use: smtp, those of master.cf, and those in destinations."""
    names = ["smtp"]
    for daemon in instance.daemons:
        endpoint, _, kind = daemon.name.rpartition("/")
        if kind == "inet":
            names.append(endpoint.rpartition(":")[2])
    for value in _values(instance, _HOPS):
        names += [hop["port"] for hop in _NEXT_HOP.finditer(value) if hop["port"]]
    for value in _values(instance, _ENDPOINTS):
        names += [endpoint["port"] for endpoint in _INET.finditer(value)]
    return [name for name in dict.fromkeys(names) if _PORT.fullmatch(name)][:MOST_PORTS]


def _sockets(instance: Instance, need: Need) -> Iterator[Item]:
    """The sockets that rules name, and those in the queue directory, which no rule need look for."""
    for one in sorted(need.sockets.values(), key=lambda one: one.path)[:MOST_SOCKETS]:
        yield Item(
            what=f"socket {one.path}",
            inside=("socket", one.path),
            outside=("socket", one.path),
            fails=one.matters,
            differs=False,
            advice=one.advice or "let its service listen inside the chroot, a socket cannot be copied",
        )
    root = instance.chroot.rstrip("/")
    for path in sorted(_relative_sockets(instance))[:MOST_SOCKETS]:
        yield Item(
            what=f"socket {path}",
            inside=("socket", f"/{path}"),
            outside=("socket", f"{root}/{path}"),
            differs=False,
            advice="see whether its service runs, and who may connect to it",
        )


def _relative_sockets(instance: Instance) -> set[str]:
    """Sockets that parameters name relative to the queue directory."""
    found = {hit["path"] for value in _values(instance, _ENDPOINTS) for hit in _RELATIVE.finditer(value)}
    for daemon in instance.daemons:
        if not (daemon.chrooted and daemon.program == "smtpd"):
            continue
        for name in _RESTRICTIONS:
            found |= {hit["path"] for hit in _POLICY.finditer(daemon.parameters.get(name, ""))}
        path = daemon.parameters.get("smtpd_sasl_path", "")
        enabled = daemon.parameters.get("smtpd_sasl_auth_enable", "").lower() == "yes"
        if enabled and daemon.parameters.get("smtpd_sasl_type") == "dovecot" and not re.match(r"/|inet:|unix:/", path):
            found.add(path.removeprefix("unix:"))
    return {path for path in found if path}
