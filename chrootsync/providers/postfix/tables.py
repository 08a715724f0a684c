"""Lookup tables as far as their text tells what a daemon needs after chroot: nothing is looked up in any of them.

Facts: DATABASE_README, postmap(1), ldap_table(5), mysql_table(5), pgsql_table(5), memcache_table(5); which daemon reads
which parameter is in the manual page of each.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Final

from chrootsync import distribution
from chrootsync.model import AbsentError, DoubtfulError, PathError, Reader, UnreadableError, UnsafeError
from chrootsync.providers.postfix import defaults, main_cf, sasl
from chrootsync.providers.postfix.main_cf import FileError, Parameters

Settings = Mapping[str, str]

# Their text stands beside the indexed file, or is all there is.
TEXTS: Final = ("btree", "cdb", "cidr", "dbm", "hash", "lmdb", "pcre", "regexp", "sdbm", "texthash")
# What they are called is all that there is to know: a database of accounts, or an endpoint.
_NAMED: Final = ("socketmap", "tcp", "unix")
# Clients of databases, and what they connect to where their configuration does not tell.
_CLIENTS: Final[Mapping[str, Settings]] = {
    "ldap": {"server_host": "localhost"},
    "memcache": {"memcache": "inet:localhost:11211"},
    "mongodb": {},
    "mysql": {"hosts": "localhost"},
    "pgsql": {"hosts": "localhost"},
    "sqlite": {},
}
_TABLE: Final = re.compile(rf"(?<![\w:])(?:{'|'.join((*_CLIENTS, *_NAMED, *TEXTS, sasl.TYPE))}):[^\s,{{}}]+")
# A compound table behind ``proxy:`` is opened by proxymap(8) with all that it is made of.
_PROXIED: Final = re.compile(r"(?<![\w:])proxy:\w+:\{(?:[^{}]|\{[^{}]*\})*\}")
_TEXT_LIMIT: Final = 16 << 20  # bytes
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"\s+(.*)', re.DOTALL)

# The parameters whose tables a program opens itself, as shell patterns.
_OPENED: Final[Mapping[str, str]] = {
    "cleanup": """canonical_maps sender_canonical_maps recipient_canonical_maps virtual_alias_maps sender_bcc_maps
        recipient_bcc_maps masquerade_exceptions header_checks mime_header_checks nested_header_checks body_checks
        milter_header_checks""",
    "flush": "fast_flush_domains",
    "lmtp": "lmtp_* debug_peer_list",
    "local": "alias_maps local_* mailbox_*_maps fallback_transport_maps",
    "postscreen": "postscreen_* mynetworks",
    "qmqpd": "qmqpd_* local_header_rewrite_clients",
    "smtp": "smtp_* debug_peer_list",
    "smtpd": f"""smtpd_* local_recipient_maps virtual_alias_maps virtual_alias_domains virtual_mailbox_maps
        virtual_mailbox_domains relay_recipient_maps relay_domains relay_clientcerts mydestination mynetworks
        canonical_maps sender_canonical_maps recipient_canonical_maps relocated_maps rbl_reply_maps
        local_header_rewrite_clients permit_mx_backup_networks debug_peer_list tls_server_sni_maps {sasl.PARAMETER}""",
    "tlsproxy": "tlsproxy_* tls_server_sni_maps",
    "trivial-rewrite": """transport_maps sender_dependent_*_maps relocated_maps virtual_alias_domains
        virtual_mailbox_domains relay_domains mydestination address_verify_*_maps""",
    "verify": "address_verify_map",
    "virtual": "virtual_mailbox_maps virtual_uid_maps virtual_gid_maps",
}


class Files:
    """Configuration files and texts of tables, each read once however many daemons and instances share it."""

    def __init__(self, root: Reader) -> None:
        """Read them from ``root``."""
        self.root = root
        self._known: dict[tuple[str, Callable[[str], Settings]], Settings | PathError] = {}

    @cached_property
    def lineage(self) -> frozenset[str]:
        """The IDs of the root's distribution and of those that it descends from."""
        return frozenset(distribution.lineage(defaults.os_release(self.root)))

    def read(self, path: str, parse: Callable[[str], Settings]) -> Settings:
        """What a file says; ``parse`` makes settings of its text.

        Raises PathError; UnsafeError where somebody else than root could have written it.
        """
        return self._once(path, parse, lambda: parse(os.fsdecode(self.root.read_trusted(path))))

    def entries(self, path: str) -> Settings:
        """The keys and values of a text table.

        Raises PathError; DoubtfulError where somebody else than root could have written it, as programs do that keep
        tables of their own.
        """
        return self._once(path, parse_text, lambda: self._entries(path))

    def _entries(self, path: str) -> Settings:
        try:
            return parse_text(os.fsdecode(self.root.read_trusted(path)))
        except UnsafeError as error:
            raise DoubtfulError(error, parse_text(os.fsdecode(self.root.read(path, limit=_TEXT_LIMIT)))) from None

    def _once(self, path: str, parse: Callable[[str], Settings], look: Callable[[], Settings]) -> Settings:
        key = path, parse
        if key not in self._known:
            try:
                self._known[key] = look()
            except FileError as error:
                self._known[key] = UnreadableError(path, str(error))
            except PathError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, PathError):
            raise known
        return known


class Tables(Mapping[str, Settings]):
    """Lookup tables by the name that parameters give them, ``type:name``; each is read when it is asked for.

    Of a database it is the client's configuration, of an account or network table its ``name``, of a text its keys and
    values, of ``sasl`` the settings of Cyrus SASL that count. Texts are there whoever asks, because what is looked up
    by one daemon is carried out by another; all others only for a program that opens them. What is missing on the host
    is not in here. Asking raises UnreadableError, and UnsafeError for what somebody else could have written: of a text
    it is a DoubtfulError, which tells what it says.
    """

    def __init__(self, files: Files, parameters: Parameters, program: str) -> None:
        """The tables of a ``program`` that sees these parameters."""
        self._files = files
        self._parameters = parameters
        self._program = program

    def __getitem__(self, table: str) -> Settings:
        kind, _, name = table.partition(":")
        if kind not in TEXTS and table not in self._opened:
            raise KeyError(table)
        try:
            if kind in TEXTS:
                return self._files.entries(name)
            if kind == sasl.TYPE:
                return sasl.settings(self._files.root, self._files.lineage, self._files.read, self._parameters, name)
            return {"name": name} if kind in _NAMED else self._client(kind, name)
        except AbsentError:
            raise KeyError(table) from None

    def __iter__(self) -> Iterator[str]:
        return (table for table in self._opened if table in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _client(self, kind: str, name: str) -> Settings:
        """The configuration of a database's client: a file, or parameters of main.cf that begin with its name."""
        if name.startswith("/"):
            values = self._files.read(name, main_cf.parse)
        else:
            prefix = f"{name}_"
            own = [key for key in self._parameters if key.startswith(prefix)]
            values = {key.removeprefix(prefix): self._parameters[key] for key in own}
            if not own:
                raise AbsentError(name, "is no table that main.cf knows")
        # Paths of sockets in URIs have their slashes encoded.
        return {**_CLIENTS[kind], **{key: re.sub("(?i)%2f", "/", value) for key, value in values.items() if value}}

    @cached_property
    def _opened(self) -> Mapping[str, None]:
        """The tables that the program opens itself: not those behind ``proxy:``."""
        values = dict(self._parameters.items())
        names = set(_names(_OPENED.get(self._program, ""), values))
        if self._program == "smtpd":
            names.update(values.get("smtpd_restriction_classes", "").replace(",", " ").split())
        found = (
            _TABLE.findall(_PROXIED.sub("", value)) for name, value in values.items() if name in names and ":" in value
        )
        return dict.fromkeys(table for tables in found for table in tables)


def opens(program: str) -> str:
    """What programs have in common that open the same tables, so that they can share them."""
    return program if program in _OPENED else ""


def parse_text(text: str) -> dict[str, str]:
    """The keys and values of a table's source, as postmap(1) reads it; of two equal keys the first counts."""
    entries: dict[str, str] = {}
    for _, line in main_cf.logical_lines(text):
        quoted = _QUOTED.fullmatch(line) if line[0] == '"' else None
        entry = quoted.groups() if quoted else line.split(None, 1)
        if len(entry) == 2:
            entries.setdefault(entry[0], entry[1].strip())
    return entries


def _names(patterns: str, values: Mapping[str, str]) -> Iterator[str]:
    for pattern in patterns.split():
        if "*" in pattern:
            yield from fnmatch.filter(values, pattern)
        else:
            yield pattern
