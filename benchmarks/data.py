"""Builds throw-away data sets: an image with three Postfix instances, whose chroots are in sync."""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass

from benchmarks.measure import Command, run

CHROOTS = {
    "postfix": "/var/spool/postfix",
    "postfix-in": "/var/spool/postfix-in",
    "postfix-out": "/var/spool/postfix-out",
}
FILES = 40  # in each chroot, certificates aside
BYTES = 11_000_000  # in each chroot: 33 MB in all three
CERTIFICATES = 144  # of Debian's ca-certificates, as a CApath has them

TAKEN = ("hosts", "host.conf", "gai.conf", "services", "passwd", "group", "os-release", "ld.so.cache")
LIBRARIES = ("libc.so.6", "libresolv.so.2", "libgcc_s.so.1", "libnss_hesiod.so.2", "libnss_compat.so.2")

MAIN_CF = """\
compatibility_level = 3.6
multi_instance_enable = yes
multi_instance_name = {name}
queue_directory = {chroot}
data_directory = /var/lib/{name}
mail_owner = postfix
smtpd_banner = $myhostname ESMTP $mail_name
myhostname = mail.example.org
mydestination = $myhostname, localhost.localdomain, localhost
smtp_tls_security_level = may
smtp_tls_session_cache_database = btree:${{data_directory}}/smtp_scache
"""

# The services that Debian enables, with its chroot column, and a submission service with parameters of its own.
MASTER_CF = """\
smtp       inet  n - y - - smtpd
submission inet  n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
pickup     unix  n - y 60 1 pickup
cleanup    unix  n - y - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - y 1000? 1 tlsmgr
rewrite    unix  - - y - - trivial-rewrite
bounce     unix  - - y - 0 bounce
defer      unix  - - y - 0 bounce
trace      unix  - - y - 0 bounce
verify     unix  - - y - 1 verify
flush      unix  n - y 1000? 0 flush
proxymap   unix  - - n - - proxymap
proxywrite unix  - - n - 1 proxymap
smtp       unix  - - y - - smtp
relay      unix  - - y - - smtp
  -o syslog_name=postfix/$service_name
showq      unix  n - y - - showq
error      unix  - - y - - error
retry      unix  - - y - - error
discard    unix  - - y - - discard
local      unix  - n n - - local
virtual    unix  - n n - - virtual
lmtp       unix  - - y - - lmtp
anvil      unix  - - y - 1 anvil
scache     unix  - - y - 1 scache
postlog    unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """An image that is in sync: ``pairs`` are sources with their copies, ``chroots`` the same by chroot, relative."""

    name: str
    root: str
    state: str
    pairs: tuple[tuple[str, str], ...]
    chroots: dict[str, tuple[str, ...]]
    size: int


def build(name: str, place: str, check: tuple[str, ...], *, certificates: bool = False) -> DataSet:
    """Make a data set in the empty directory ``place``; ``check`` is the command that compares and repairs."""
    root, state = f"{place}/root", f"{place}/state"
    _make_host(root, certificates=certificates)
    for one, chroot in CHROOTS.items():
        _configure(root, one, chroot, certificates=certificates)
    repair = Command(name="repair", steps=((*check, "--fix", "--quiet", "--root", root, "--state", state),))
    run(repair)  # now the chroots hold what the rules ask for; the rest is what somebody once put there
    _fill(root)
    run(repair)
    chroots = {chroot: tuple(_copies(root, chroot)) for chroot in CHROOTS.values()}
    pairs = tuple((root + path, root + chroot + path) for chroot, paths in chroots.items() for path in paths)
    size = sum(os.path.getsize(copy) for _, copy in pairs)
    return DataSet(name=name, root=root, state=state, pairs=pairs, chroots=chroots, size=size)


def _make_host(root: str, *, certificates: bool) -> None:
    """A host of this machine's own files, with a merged /usr."""
    os.makedirs(f"{root}/usr/lib", mode=0o755)
    os.symlink("usr/lib", f"{root}/lib")
    for name in TAKEN:
        _take(root, f"/etc/{name}")
    _write(root, "/etc/resolv.conf", b"nameserver 192.0.2.53\noptions trust-ad\n")
    _write(root, "/etc/nsswitch.conf", b"passwd: files\nhosts: files dns hesiod\nservices: files\n")
    for name in LIBRARIES:
        for path in glob.glob(f"/lib/*-linux-gnu*/{name}") + glob.glob(f"/lib64/{name}"):
            _take(root, path)
    for number in range(CERTIFICATES if certificates else 0):
        _write(root, f"/usr/share/ca-certificates/{number}.crt", os.urandom(900).hex().encode())
        _make_directory(root, "/etc/ssl/certs")
        os.symlink(f"../../../usr/share/ca-certificates/{number}.crt", f"{root}/etc/ssl/certs/{number:08x}.0")


def _configure(root: str, name: str, chroot: str, *, certificates: bool) -> None:
    text = MAIN_CF.format(name=name, chroot=chroot)
    if name == "postfix":
        text += "multi_instance_directories = /etc/postfix-in, /etc/postfix-out\n"
    if certificates:
        text += "smtp_tls_CApath = /etc/ssl/certs\n"
    _write(root, f"/etc/{name}/main.cf", text.encode())
    _write(root, f"/etc/{name}/master.cf", MASTER_CF.encode())
    _make_directory(root, chroot)


def _fill(root: str) -> None:
    """Bring each chroot to FILES files and BYTES bytes, with libraries as they occur: few large, many small."""
    for chroot in CHROOTS.values():
        present = [path for path in _copies(root, chroot) if not path.startswith("/etc/ssl/")]
        count = FILES - len(present)
        missing = BYTES - sum(os.path.getsize(root + chroot + path) for path in present)
        weights = [number**3 for number in range(1, count + 1)]
        for number, weight in enumerate(weights):
            path = f"/usr/lib/libfiller{number}.so.1"
            if not os.path.exists(root + path):
                _write(root, path, os.urandom(missing * weight // sum(weights)))
            _make_directory(root, os.path.dirname(chroot + path))
            shutil.copyfile(root + path, root + chroot + path)


def _copies(root: str, chroot: str) -> list[str]:
    """The files in a chroot, as paths absolute from it."""
    base = root + chroot
    found = (os.path.join(folder, name) for folder, _, names in os.walk(base) for name in names)
    return sorted(path.removeprefix(base) for path in found)


def _take(root: str, path: str) -> None:
    """Copy one of this machine's files, where it has it."""
    if os.path.exists(path):
        with open(path, "rb") as file:
            _write(root, path, file.read())


def _write(root: str, path: str, data: bytes) -> None:
    _make_directory(root, os.path.dirname(path))
    with open(root + path, "wb") as file:
        file.write(data)
    os.chmod(root + path, 0o644)


def _make_directory(root: str, path: str) -> None:
    """Make a directory and its parents with the mode that a host's have, whatever the umask is."""
    made = root
    for name in path.strip("/").split("/"):
        made = f"{made}/{name}"
        if not os.path.isdir(made):
            os.mkdir(made)
            os.chmod(made, 0o755)  # noqa: S103 -- as every directory of a host
