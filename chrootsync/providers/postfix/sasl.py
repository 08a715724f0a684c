"""Cyrus SASL as smtpd(8) uses it: the settings of its configuration file that count after chroot.

Facts: SASL_README, cyrus_sasl_config_path in postconf(5), the options page of Cyrus SASL; the search path of Debian is
in its patch of Postfix, others have Cyrus SASL's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from chrootsync.model import AbsentError, PathError, Reader

TYPE: Final = "sasl"
PARAMETER: Final = "smtpd_sasl_configuration"
"""No parameter of Postfix: it names the configuration as parameters name tables, so that rules can look into it."""
LAYER: Final[Mapping[str, str]] = {PARAMETER: f"{TYPE}:$smtpd_sasl_path"}

_SETTING: Final = re.compile(r"\s*([A-Za-z]\w*)\s*:\s*(.*?)\s*")

_Read = Callable[[str, Callable[[str], Mapping[str, str]]], Mapping[str, str]]


def settings(
    root: Reader, names: frozenset[str], read: _Read, parameters: Mapping[str, str], service: str
) -> Mapping[str, str]:
    """What is set for ``service`` (the name of its file without ``.conf``), and what counts where nothing is.

    ``names`` are those of the distribution and of its forebears.
    ``saslauthd_path`` is there only where passwords are checked by saslauthd, ``sasldb_path`` only where sasldb is one
    of the places that they may come from, ``sql_socket``, which nobody can set, only where one is an SQL server that is
    reached through it. Raises UnreadableError, UnsafeError.
    """
    written = _first(read, [f"{directory}/{service}.conf" for directory in _directories(parameters, names)])
    found = dict(written)
    methods = written.get("pwcheck_method", "auxprop").lower().split()
    plugins = written.get("auxprop_plugin", "").lower().split()
    if "saslauthd" in methods:
        found.setdefault("saslauthd_path", _socket(names))
    else:
        found.pop("saslauthd_path", None)
    if "sasldb" in plugins or (not plugins and "auxprop" in methods):
        found.setdefault("sasldb_path", _database(root, names))
    else:
        found.pop("sasldb_path", None)
    found.pop("sql_socket", None)
    if "sql" in plugins or (not plugins and "auxprop" in methods and "sql_select" in written):
        found |= _sql_socket(written, names)
    return found


def _first(read: _Read, paths: list[str]) -> Mapping[str, str]:
    """What the first file says that exists, as Cyrus SASL searches."""
    for path in paths:
        try:
            return read(path, parse)
        except AbsentError:
            continue
    return {}


def _directories(parameters: Mapping[str, str], names: frozenset[str]) -> Iterator[str]:
    set_path = parameters.get("cyrus_sasl_config_path", "")
    if set_path:
        path = set_path
    elif names & {"debian", "ubuntu"}:
        path = f"{parameters.get('config_directory', '/etc/postfix')}/sasl:/usr/lib/sasl"
    else:
        path = "/usr/lib64/sasl2:/usr/lib/sasl2:/etc/sasl2"
    return (directory.rstrip("/") for directory in path.split(":") if directory.startswith("/"))


def _socket(names: frozenset[str]) -> str:
    """Where saslauthd listens, as each distribution has compiled it in."""
    if names & {"fedora", "rhel"}:
        return "/run/saslauthd/mux"
    return "/run/sasl2/mux" if names & {"suse", "opensuse"} else "/var/run/saslauthd/mux"


def _database(root: Reader, names: frozenset[str]) -> str:
    """Where sasldb keeps its passwords; Fedora moved it."""
    if names & {"fedora", "rhel"}:
        try:
            return root.resolve("/etc/sasl2/sasldb2")
        except PathError:
            pass
    return "/etc/sasldb2"


def _sql_socket(written: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    """The socket of an SQL server on this host; nothing where it is reached over the network, or is a mere file."""
    engine = written.get("sql_engine", "mysql").lower()
    hosts = [host.partition(":")[0] for host in written.get("sql_hostnames", "").replace(",", " ").split()]
    if engine == "mysql" and (not hosts or "localhost" in map(str.lower, hosts)):
        return {"sql_socket": _mysql(names)}
    directories = hosts or [_postgresql(names)]
    directory = next((host for host in directories if host.startswith("/")), None)
    if engine == "pgsql" and directory is not None:
        return {"sql_socket": f"{directory.rstrip('/')}/.s.PGSQL.5432"}
    return {}


def _mysql(names: frozenset[str]) -> str:
    """Where the client library of MySQL looks for the server of this host."""
    if names & {"fedora", "rhel"}:
        return "/var/lib/mysql/mysql.sock"
    return "/run/mysql/mysql.sock" if names & {"suse", "opensuse"} else "/run/mysqld/mysqld.sock"


def _postgresql(names: frozenset[str]) -> str:
    """Where that of PostgreSQL does."""
    return "/var/run/postgresql" if names & {"debian", "ubuntu", "fedora", "rhel"} else "/run/postgresql"


def parse(text: str) -> dict[str, str]:
    """The ``name: value`` lines of a configuration file of Cyrus SASL; of two equal names the last counts."""
    found = {}
    for line in text.split("\n"):
        match = _SETTING.fullmatch(line)
        if match:
            found[match[1].lower()] = match[2]
    return found
