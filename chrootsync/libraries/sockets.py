"""What name service modules talk to, and what becomes of lookups where it cannot be reached inside a chroot."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

from chrootsync.libraries import nsswitch
from chrootsync.libraries.nsswitch import CONTINUE, RETURN, Lines, Service
from chrootsync.model.frozen import frozen

BUS = ((b"unix:path=/run/dbus/", "/run/dbus/system_bus_socket"),)
OLD_BUS = ((b"unix:path=/var/run/dbus/", "/var/run/dbus/system_bus_socket"),)


@frozen
class Talker:
    """A module that answers nothing without a daemon.

    ``builds`` are texts in the module's file with the socket that they stand for: the first that is found counts.
    Compilers split long texts, so that these are no longer than their first piece of 16 bytes where they lie in one.
    ``default`` is the socket where none is found; None: there is another module of that name, which needs no socket.
    ``statuses`` are what lookups come to where the socket cannot be reached.
    """

    builds: tuple[tuple[bytes, str], ...]
    default: str | None
    statuses: tuple[str, ...] = ("UNAVAIL",)


AVAHI = Talker(
    builds=((b"/var/run/avahi-d", "/var/run/avahi-daemon/socket"), (b"/run/avahi-daemo", "/run/avahi-daemon/socket")),
    default="/run/avahi-daemon/socket",
)
WINBIND = Talker(
    builds=((b"/var/run/samba/", "/var/run/samba/winbindd/pipe"), (b"/run/samba/", "/run/samba/winbindd/pipe")),
    default="/run/samba/winbindd/pipe",
    statuses=("UNAVAIL", "NOTFOUND"),  # libnss_wins gives the second
)

# From the modules' sources, and from what those of Debian 12 gave where no daemon ran.
TALKERS: Mapping[str, Talker] = {
    # Varlink since systemd 247, before that D-Bus.
    "resolve": Talker(
        builds=((b"/run/systemd/resolve/io", "/run/systemd/resolve/io.systemd.Resolve"), *BUS, *OLD_BUS),
        default="/run/systemd/resolve/io.systemd.Resolve",
    ),
    "mymachines": Talker(
        builds=((b"/run/systemd/machine/io", "/run/systemd/machine/io.systemd.Machine"), *BUS, *OLD_BUS),
        default="/run/systemd/machine/io.systemd.Machine",
    ),
    # Varlink since systemd 245; without any it still knows root and nobody.
    "systemd": Talker(
        builds=((b"/run/systemd/userdb/io", "/run/systemd/userdb/io.systemd.Multiplexer"), *BUS, *OLD_BUS),
        default="/run/systemd/userdb/io.systemd.Multiplexer",
        statuses=("UNAVAIL", "NOTFOUND"),
    ),
    **dict.fromkeys(("mdns", "mdns4", "mdns6", "mdns_minimal", "mdns4_minimal", "mdns6_minimal"), AVAHI),
    # Built with --enable-sss-default-nss-plugin, as Fedora's is, it gives NOTFOUND.
    "sss": Talker(builds=(), default="/var/lib/sss/pipes/nss", statuses=("UNAVAIL", "NOTFOUND")),
    "winbind": WINBIND,
    "wins": WINBIND,
    # nss-pam-ldapd; the older libnss-ldap talks to the LDAP server itself.
    "ldap": Talker(
        builds=((b"/var/run/nslcd/s", "/var/run/nslcd/socket"), (b"/run/nslcd/", "/run/nslcd/socket")), default=None
    ),
}

# Nobody else knows the accounts of a directory, and nobody but dns the names that resolved looks up.
DIRECTORIES = frozenset({"sss", "winbind", "ldap"})
ACCOUNTS = frozenset({"passwd", "group", "shadow", "gshadow", "initgroups"})


def socket_of(module: str, data: bytes) -> str | None:
    """The socket that a module talks to, from its name and its file; None where it talks to none."""
    talker = TALKERS.get(module)
    if talker is None:
        return None
    return next((path for text, path in talker.builds if text in data), talker.default)


@frozen
class Silent:
    """What a module without its socket means: whether lookups get along without it, and the way out."""

    falls_through: bool
    advice: str


def silent(module: str, databases: Sequence[str], lines: Lines, working: Container[str]) -> Silent:
    """What it means that a module answers nothing in ``databases``; ``working`` are the modules that need no socket.

    Where it matters in one of them, that one is told.
    """
    told = [_in_line(module, database, nsswitch.services(lines, database), working) for database in databases]
    return next((one for one in told if not one.falls_through), told[0])


def _in_line(module: str, database: str, services: Sequence[Service], working: Container[str]) -> Silent:
    """What it means for the lookups in one database."""
    index = next(index for index, service in enumerate(services) if service.module == module)
    able = [
        service.module if service.module in working and _stands_in(service.module, module, database) else None
        for service in services
    ]
    later = next((able[place] for place in _reached(services, index, working) if able[place]), None)
    if later:
        return Silent(falls_through=True, advice=f"lookups go on with {later}")
    library = f"libnss_{module}.so.2"
    earlier = next(filter(None, able[:index]), None)
    if earlier:
        return Silent(
            falls_through=True, advice=f"{library} answers nothing inside the chroot, but {earlier} is asked before it"
        )
    return Silent(falls_through=False, advice=_way_out(module, database, next(filter(None, able[index:]), None)))


def _stands_in(other: str, module: str, database: str) -> bool:
    """Whether a module can answer what matters of a database where another one is silent."""
    if module == "resolve":
        return other == "dns"
    return module not in DIRECTORIES or database.removesuffix("_compat") not in ACCOUNTS


def _reached(services: Sequence[Service], index: int, working: Container[str]) -> Iterator[int]:
    """The places that lookups come to behind the one at ``index``, as far as nobody has an answer."""
    for place, service in enumerate(services[index:-1], index):
        if any(_ends(service, status) for status in _statuses(service.module, working)):
            return
        yield place + 1


def _statuses(module: str, working: Container[str]) -> tuple[str, ...]:
    """What a lookup comes to at a module that has no answer; one that is not installed is as good as unavailable."""
    if module in working:
        return ("NOTFOUND",)
    return TALKERS[module].statuses if module in TALKERS else ("UNAVAIL",)


def _ends(service: Service, status: str) -> bool:
    action = service.action(status)
    return action == RETURN or (service.module not in TALKERS and status == "UNAVAIL" and action != CONTINUE)


def _way_out(module: str, database: str, behind: str | None) -> str:
    nothing = f"libnss_{module}.so.2 answers nothing inside the chroot"
    line = f"the {database} line of /etc/nsswitch.conf"
    if behind:
        return f"{nothing}; take the action in brackets that keeps lookups from {behind} out of {line}"
    database = database.removesuffix("_compat")
    if module in DIRECTORIES and database in ACCOUNTS:
        return f"{nothing}; have {database} looked up outside of it, in Postfix by proxy:unix:{database}.byname"
    return f"{nothing}; name {'dns' if database in {'hosts', 'networks'} else 'files'} behind it in {line}"
