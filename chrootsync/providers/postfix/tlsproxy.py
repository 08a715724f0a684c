"""tlsproxy(8) as a client: what smtp(8) and lmtp(8) hand over to it, and it has not read before chroot.

Facts: tlsproxy(8), smtp_tls_connection_reuse in postconf(5). It reads its own CA file before chroot; for a client whose
settings are not the same it starts TLS anew, after chroot, and reads what that client names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chrootsync.model import Daemon
from chrootsync.model.frozen import replace

FILES: Final = "tlsproxy_handed_CAfile"
DIRECTORIES: Final = "tlsproxy_handed_CApath"
"""No parameters of Postfix: they name what is handed over, for rules to look at."""

_CLIENTS: Final = ("smtp", "lmtp")
# What has to be equal, with the CA file and directory first.
_COMPARED: Final = (
    *("CAfile", "CApath", "cert_file", "chain_files", "dcert_file", "dkey_file", "eccert_file", "eckey_file"),
    *("fingerprint_digest", "key_file", "loglevel", "scert_verifydepth"),
)

_Handed = tuple[str, ...]


def with_handed(daemons: Iterable[Daemon]) -> tuple[Daemon, ...]:
    """The services of an instance; each chrooted tlsproxy(8) with what others hand over to it."""
    daemons = tuple(daemons)
    return tuple(_proxy(one, daemons) if one.chrooted and one.program == "tlsproxy" else one for one in daemons)


def _proxy(proxy: Daemon, daemons: Iterable[Daemon]) -> Daemon:
    own = _own(proxy.parameters)
    handed = [one for one in _handed(daemons) if one != own]
    if not handed:
        return proxy
    files, directories = (dict.fromkeys(one[place] for one in handed if one[place]) for place in (1, 2))
    added = {FILES: " ".join(files), DIRECTORIES: ":".join(directories)}
    return replace(proxy, parameters={**dict(proxy.parameters.items()), **added})


def _own(parameters: Mapping[str, str]) -> _Handed:
    """What tlsproxy(8) has set up before chroot; its own parameters are those of smtp(8) where nobody sets them."""
    logged = parameters.get("tlsproxy_client_loglevel_parameter") or "smtp_tls_loglevel"
    smtp = ((name, parameters.get(f"smtp_tls_{name}", "")) for name in _COMPARED)
    return logged, *(parameters.get(f"tlsproxy_client_{name}", default) for name, default in smtp)


def _handed(daemons: Iterable[Daemon]) -> Iterator[_Handed]:
    """What each client hands over that has its connections made by tlsproxy(8)."""
    for daemon in daemons:
        prefix, values = f"{daemon.program}_tls", daemon.parameters
        if daemon.program in _CLIENTS and values.get(f"{prefix}_connection_reuse", "").lower() == "yes":
            yield f"{prefix}_loglevel", *(values.get(f"{prefix}_{name}", "") for name in _COMPARED)
