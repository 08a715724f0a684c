"""Data sets of mail: an image with three Postfix instances, whose chroots are in sync."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable, Mapping

from benchmarks.files import copies, make_directory, write
from benchmarks.measure import Command, run

CHROOTS = {
    "postfix": "/var/spool/postfix",
    "postfix-in": "/var/spool/postfix-in",
    "postfix-out": "/var/spool/postfix-out",
}
FILES = 40  # in each chroot, certificates aside
BYTES = 11_000_000  # in each chroot: 33 MB in all three
CERTIFICATES = 140  # of Debian's ca-certificates, as a CApath has them

DIRECTORIES = ("/etc/", "/lib/", "/usr/")  # of a chroot that copies are in; the rest belongs to the queue

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


def build(place: str, command: tuple[str, ...]) -> Mapping[str, str]:
    """Three instances of 40 files each; ``command`` is chrootsync, which makes the copies that are needed."""
    return _build(place, command, certificates=0)


def build_with_certificates(place: str, command: tuple[str, ...]) -> Mapping[str, str]:
    """The same with a CApath of another 140 files."""
    return _build(place, command, certificates=CERTIFICATES)


def _build(place: str, command: tuple[str, ...], *, certificates: int) -> Mapping[str, str]:
    root, state = f"{place}/root", f"{place}/state"
    _make_host(root, certificates=certificates)
    for one, chroot in CHROOTS.items():
        _configure(root, one, chroot, certificates=certificates)
    step = (*command, "check", "--fix", "--quiet", "--root", root, "--state", state)
    repair = Command(name="repair", steps=(step,))
    run(repair)  # now the chroots hold what the rules ask for; the rest is what somebody once put there
    fill(root, CHROOTS.values())
    run(repair)
    return CHROOTS


def _make_host(root: str, *, certificates: int) -> None:
    """A host of this machine's own files, with a merged /usr."""
    os.makedirs(f"{root}/usr/lib", mode=0o755)
    os.symlink("usr/lib", f"{root}/lib")
    for name in TAKEN:
        _take(root, f"/etc/{name}")
    write(f"{root}/etc/resolv.conf", b"nameserver 192.0.2.53\noptions trust-ad\n")
    write(f"{root}/etc/nsswitch.conf", b"passwd: files\nhosts: files dns hesiod\nservices: files\n")
    for name in LIBRARIES:
        for path in glob.glob(f"/lib/*-linux-gnu*/{name}") + glob.glob(f"/lib64/{name}"):
            _take(root, path)
    for number in range(certificates):
        write(f"{root}/usr/share/ca-certificates/{number}.crt", os.urandom(900).hex().encode())
        make_directory(f"{root}/etc/ssl/certs")
        os.symlink(f"../../../usr/share/ca-certificates/{number}.crt", f"{root}/etc/ssl/certs/{number:08x}.0")


def _configure(root: str, name: str, chroot: str, *, certificates: int) -> None:
    text = MAIN_CF.format(name=name, chroot=chroot)
    if name == "postfix":
        text += "multi_instance_directories = /etc/postfix-in, /etc/postfix-out\n"
    if certificates:
        text += "smtp_tls_CApath = /etc/ssl/certs\n"
    write(f"{root}/etc/{name}/main.cf", text.encode())
    write(f"{root}/etc/{name}/master.cf", MASTER_CF.encode())
    make_directory(root + chroot)


def fill(root: str, chroots: Iterable[str]) -> None:
    """Bring each chroot to FILES files and BYTES bytes, with libraries as they occur: few large, many small."""
    for chroot in chroots:
        found = copies(root + chroot)
        present = [path for path in found if path.startswith(DIRECTORIES) and not path.startswith("/etc/ssl/")]
        count = FILES - len(present)
        missing = BYTES - sum(os.path.getsize(root + chroot + path) for path in present)
        weights = [number**3 for number in range(1, count + 1)]
        for number, weight in enumerate(weights):
            path = f"/usr/lib/libfiller{number}.so.1"
            if not os.path.exists(root + path):
                write(root + path, os.urandom(missing * weight // sum(weights)))
            make_directory(os.path.dirname(root + chroot + path))
            shutil.copyfile(root + path, root + chroot + path)


def _take(root: str, path: str) -> None:
    """Copy one of this machine's files, where it has it."""
    if os.path.exists(path):
        with open(path, "rb") as file:
            write(root + path, file.read())
