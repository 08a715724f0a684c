"""Looks things up as a daemon does, in chroots and outside: a program of its own, which imports only Python's.

It reads plans (lines of JSON) from standard input, has each plan of a line carried out by a process of its own, all at
the same time, and prints a line of JSON. As a daemon of Postfix does, that process reads what the host has on its user,
enters the chroot and gives its rights away for good (chroot_uid in Postfix's sources); only then it looks things up,
each in a process of its own, so that one that crashes or hangs keeps no other back. Everything that it needs is loaded
before it enters a chroot, and nothing can be imported from then on.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pwd
import re
import resource
import select
import signal
import socket
import stat
import sys
import time
from binascii import crc32
from collections.abc import Callable, Mapping, Sequence

# Type checkers take this name for true. To import typing for it would be a sixth of this program's start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Lookup = Sequence[Any]
    Answer = dict[str, Any]

PLAN_LIMIT = 1 << 20
ANSWER_LIMIT = 1 << 14  # bytes of the answer of one lookup
PLAN_ANSWER_LIMIT = 1 << 16  # bytes of all answers to one plan
PATIENCE = 5.0  # seconds that a plan's process may take beyond its lookups
ANSWER = 3  # the descriptor to answer to
PLANS = 4  # the descriptor to read plans from, which no process that carries one out has
NEVER, LATE = -1, -2  # in place of a signal: it could not be begun, or did not end in time
TEXT_LIMIT = 300  # characters of a text
FILE_LIMIT = 1 << 16  # bytes of a file that is read here; libc reads its own as it likes
NAME = re.compile(r"(?!\d+(?:\.\d+)*$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
HASHED = re.compile(r"[0-9a-f]{8}\.(r?)[0-9]{1,6}")
HASHED_LIMIT = 5000
SHOWN = 3  # names that a text lists
CPU_SECONDS = 20
MEMORY = 1 << 30
CONNECT_SECONDS = 2.0
# Time limits of libc's resolver, resolv.conf(5): two seconds for each name server, each asked once.
RESOLVER_OPTIONS = "timeout:2 attempts:1"

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38  # prctl(2)
IN = 1
TYPES = {"A": 1, "NS": 2, "MX": 15}
HOST_NOT_FOUND, NO_RECOVERY, NO_DATA = 1, 3, 4  # h_errno, gethostbyname(3)
NO_LOAD_CONFIG = 0x80  # OPENSSL_init_crypto(3): openssl.cnf would be the chroot's

Said = tuple[int, bytes]
"""The signal that ended a process, or 0, NEVER or LATE, and what it said."""


class Refused(Exception):  # noqa: N818 -- a reason on its way out, and no error of the program
    """Why nothing was looked up, in one clause."""


# --- Before the chroot, and into it -------------------------------------------------------------------------------


class Libraries:
    """What is called of C libraries; they are found before the chroot, as they are for a daemon."""

    def __init__(self, *, certificates: bool) -> None:
        """Load libc, its resolver and, where certificates are to be read, OpenSSL's library."""
        self.libc = ctypes.CDLL(None)
        self.res_query = self._resolver()
        self.crypto = self._openssl() if certificates else None

    def _resolver(self) -> Any:
        """res_query(3), which glibc has in a library of its own before 2.34, and by another name."""
        for library in (None, "libresolv.so.2"):
            try:
                loaded = ctypes.CDLL(library)
            except OSError:
                continue
            for name in ("res_query", "__res_query"):
                if hasattr(loaded, name):
                    return getattr(loaded, name)
        return None

    def _openssl(self) -> ctypes.CDLL | None:
        for name in ("libcrypto.so.3", "libcrypto.so.1.1"):
            try:
                crypto = ctypes.CDLL(name)
            except OSError:
                continue
            crypto.OPENSSL_init_crypto(ctypes.c_uint64(NO_LOAD_CONFIG), None)
            crypto.BIO_new_mem_buf.restype = ctypes.c_void_p
            crypto.PEM_read_bio_X509_AUX.restype = ctypes.c_void_p
            crypto.X509_subject_name_hash.restype = ctypes.c_ulong
            return crypto
        return None

    def h_errno(self) -> int:
        """Why the last query of this thread had no answer."""
        location = getattr(self.libc, "__h_errno_location")  # written out, Python would make another name of it
        location.restype = ctypes.POINTER(ctypes.c_int)
        return int(location().contents.value)


def account(names: Sequence[str]) -> pwd.struct_passwd:
    """The first of these users that there is, as libc knows it: with that it has read the host's nsswitch.conf."""
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid == 0 or found.pw_gid == 0:
            raise Refused(f"the user {name} is root or in root's group, whose rights cannot be given away")
        return found
    raise Refused(f"there is no user {' or '.join(names)} on the host")


def enter(chroot: str | None, user: pwd.struct_passwd) -> None:
    """Enter the chroot, where there is one, and become ``user`` for good; nothing can be imported from here on."""
    os.initgroups(user.pw_name, user.pw_gid)
    for path in (sys.path, sys.meta_path, sys.path_hooks):
        path.clear()
    sys.path_importer_cache.clear()
    if chroot is not None:
        try:
            os.chroot(chroot)
        except OSError as error:
            raise Refused(f"the chroot cannot be entered: {reason(error)}") from None
    os.chdir("/")
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise Refused("the rights of root could not be given away")


def confine(libc: ctypes.CDLL) -> None:
    """Let no program gain rights, leave no core file, end with whoever started this, and stay small."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    libc.prctl(PR_SET_DUMPABLE, ctypes.c_ulong(0))
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_FSIZE: PLAN_LIMIT,
    }
    for limit, most in limits.items():
        try:
            resource.setrlimit(limit, (most, most))
        except (OSError, ValueError):
            continue  # systemd's filter of system calls takes setrlimit(2) away; the rest bounds well enough


# --- Lookups ------------------------------------------------------------------------------------------------------


def look_up_host(_: Libraries, name: str) -> Answer:
    """getaddrinfo(3). The name is given as bytes: for a text Python would import a module."""
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    addresses = sorted({str(one[4][0]) for one in found})
    return worked(", ".join(addresses))


def look_up_service(_: Libraries, name: str, protocol: str) -> Answer:
    """getservbyname(3)."""
    try:
        return worked(f"port {socket.getservbyname(name, protocol)}")
    except OSError:
        return failed("unknown service")


def look_up_user(_: Libraries, name: str) -> Answer:
    """getpwnam(3), as for a unix: table."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return failed("unknown user")
    return worked(f"uid {found.pw_uid}, gid {found.pw_gid}")


def look_up_dns(libraries: Libraries, name: str, kind: str) -> Answer:
    """res_query(3). What answer comes is of no account, since name servers rotate them: that one comes is."""
    asked = f"name servers: {', '.join(name_servers()) or 'none in /etc/resolv.conf'}"
    if libraries.res_query is None:
        return failed("libc has no res_query")
    answer = ctypes.create_string_buffer(4096)
    size = libraries.res_query(name.encode("ascii"), IN, TYPES[kind], answer, len(answer))
    if size >= 0:
        return worked(f"an answer ({asked})", "answer")
    why = libraries.h_errno()
    if why in (HOST_NOT_FOUND, NO_DATA):
        return worked(f"the answer that there is none ({asked})", "answer")
    if why == NO_RECOVERY:
        return failed(f"refused ({asked})", "refused")
    return failed(f"no answer, or the server's own lookup failed ({asked})", "no answer")


def name_servers() -> list[str]:
    """What resolv.conf names; nothing where it cannot be read, of which libc then says enough."""
    lines = [line.split() for line in head_of("/etc/resolv.conf").splitlines()]
    return [words[1][:50] for words in lines if len(words) > 1 and words[0] == "nameserver"][:SHOWN]


def look_up_time(_: Libraries, instant: int, when: str) -> Answer:
    """localtime(3); ``late`` where the daemon asks for its time zone only after chroot."""
    if when == "late":
        os.environ["TZ"] = ":/etc/./localtime"  # spelt otherwise, since libc reads no zone of the same name again
        time.tzset()
    return worked(time.strftime("%H:%M:%S %z (%Z)", time.localtime(instant)))


def look_up_socket(_: Libraries, path: str) -> Answer:
    """Connect to a socket, and hang up at once; whether it is one of streams or of datagrams is tried."""
    mode = os.stat(path).st_mode
    if not stat.S_ISSOCK(mode):
        return failed("is no socket")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.settimeout(CONNECT_SECONDS)
            try:
                client.connect(path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:  # that says that it is of another kind
                    raise
                continue
            return worked("somebody answers")
    return failed("is a socket of an unknown kind")


def look_up_certificates(libraries: Libraries, directory: str) -> Answer:
    """A CApath: whether each hashed name is a certificate with that hash, as SSL_CTX_load_verify_dir(3) wants it."""
    names = sorted(name for name in os.listdir(directory) if HASHED.fullmatch(name))[:HASHED_LIMIT]
    wrong = [(name, why) for name in names if (why := _wrong(libraries, directory, name)) is not None]
    key = f"{len(names)} {crc32(chr(0).join(names).encode()):08x} {crc32(repr(wrong).encode()):08x}"
    if not names:
        return failed("no hashed name is in it")
    if not wrong:
        unchecked = "" if libraries.crypto is not None else ", which nothing on this host can check"
        return worked(f"{len(names)} hashed names{unchecked}", key)
    told = ", ".join(f"{name} ({why})" for name, why in wrong[:SHOWN])
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return failed(f"{len(wrong)} of {len(names)} hashed names are of no use: {told}{more}", key)


def _wrong(libraries: Libraries, directory: str, name: str) -> str | None:
    """What is wrong with a hashed name; None for nothing. Of a revocation list it is only seen that it can be read."""
    try:
        data = contents(f"{directory}/{name}")
    except OSError as error:
        return reason(error)
    revocations = HASHED.fullmatch(name)
    if libraries.crypto is None or (revocations is not None and revocations[1]):
        return None if data else "empty"
    there = subject_hash(libraries.crypto, data)
    if there is None:
        return "not a certificate"
    return None if f"{there:08x}" == name[:8] else f"its hash is {there:08x}"


def subject_hash(crypto: ctypes.CDLL, data: bytes) -> int | None:
    """The hash of a certificate's subject, X509_NAME_hash(3); None for what is no certificate in PEM."""
    buffer = ctypes.c_void_p(crypto.BIO_new_mem_buf(data, len(data)))
    address = crypto.PEM_read_bio_X509_AUX(buffer, None, None, None)
    crypto.BIO_free(buffer)
    if address is None:
        return None
    certificate = ctypes.c_void_p(address)
    found = int(crypto.X509_subject_name_hash(certificate))
    crypto.X509_free(certificate)
    return found


def contents(path: str) -> bytes:
    """The beginning of a regular file; nothing else blocks or answers."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        return os.read(fd, FILE_LIMIT)
    finally:
        os.close(fd)


def head_of(path: str) -> str:
    """The beginning of a text file; nothing where it cannot be read."""
    try:
        return contents(path).decode("ascii", "replace")
    except OSError:
        return ""


def names_of_hosts(text: str, most: int) -> list[str]:
    """The first name of each line of a hosts(5) text, without those that mean this host in every one."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and NAME.fullmatch(words[1]) and not words[1].startswith(("localhost", "ip6-")):
            found.setdefault(words[1])
    return list(found)[:most]


KINDS: Mapping[str, Callable[..., Answer]] = {
    "host": look_up_host,
    "service": look_up_service,
    "user": look_up_user,
    "dns": look_up_dns,
    "time": look_up_time,
    "socket": look_up_socket,
    "certificates": look_up_certificates,
}


def worked(text: str, key: str | None = None) -> Answer:
    """An answer; ``key`` is what is compared where that is not the text."""
    return {"worked": True, "text": text[:TEXT_LIMIT], "key": text[:TEXT_LIMIT] if key is None else key}


def failed(text: str, key: str | None = None) -> Answer:
    """Why there is no answer."""
    return {**worked(text, key), "worked": False}


def reason(error: OSError) -> str:
    """What the system says of an error, as a clause."""
    return (error.strerror or str(error)).lower()[:TEXT_LIMIT]


def look_up(libraries: Libraries, lookup: Lookup) -> Answer:
    """The answer to one lookup."""
    kind, *arguments = lookup
    try:
        return KINDS[kind](libraries, *arguments)
    except OSError as error:
        return failed(reason(error))
    except (UnicodeError, ValueError) as error:
        return failed(f"cannot be looked up: {error}")


# --- Each in a process of its own ---------------------------------------------------------------------------------


def gather(libc: ctypes.CDLL, works: Sequence[Callable[[], bytes]], deadline: float, limit: int) -> list[Said]:
    """What processes say that work at the same time until ``deadline`` (of the monotonic clock), at most so much."""
    said: list[Said] = [(NEVER, b"")] * len(works)
    running: dict[int, tuple[int, int, bytearray]] = {}
    poll = select.poll()
    try:
        for index, work in enumerate(works):
            reader, pid = start(libc, work)
            running[reader] = (index, pid, bytearray())
            poll.register(reader, select.POLLIN)
        while running and (left := deadline - time.monotonic()) > 0:
            for reader, _ in poll.poll(left * 1000):
                index, pid, text = running[reader]
                chunk = os.read(reader, ANSWER_LIMIT)
                text += chunk
                if not chunk or len(text) > limit:
                    poll.unregister(reader)
                    del running[reader]
                    os.close(reader)
                    said[index] = end(pid, bytes(text), limit)
    except OSError:
        pass  # what is said tells what was never begun
    finally:
        for reader, (index, pid, _) in running.items():
            os.kill(pid, signal.SIGKILL)
            os.close(reader)
            os.waitpid(pid, 0)
            said[index] = (LATE, b"")
    return said


def start(libc: ctypes.CDLL, work: Callable[[], bytes]) -> tuple[int, int]:
    """Begin some work; a descriptor to read from what it says, and the number of its process.

    It has no other descriptor than the one to say it: what others say can neither be read nor written by it.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        try:
            os.dup2(writer, ANSWER)
            os.closerange(ANSWER + 1, 1 << 16)
            libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
            if os.getppid() != parent:  # it ended before it could be told so
                os._exit(0)
            say(work())
        finally:
            os._exit(0)
    os.close(writer)
    return reader, pid


def say(data: bytes) -> None:
    """Write all of it, to whoever started this."""
    while data:
        data = data[os.write(ANSWER, data) :]


def end(pid: int, said: bytes, limit: int) -> Said:
    """How a process ended that has nothing more to say; one that says too much is killed."""
    if len(said) > limit:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return signal.SIGKILL, b""
    _, status = os.waitpid(pid, 0)  # it has closed its end, so that it ends now
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), said


def look_up_all(libraries: Libraries, lookups: Sequence[Lookup], deadline: float) -> list[Answer]:
    """The answers to all lookups, which are done at the same time, until ``deadline`` (of the monotonic clock)."""
    began = time.monotonic()
    works = [lambda lookup=lookup: json.dumps(look_up(libraries, lookup)).encode() for lookup in lookups]
    said = gather(libraries.libc, works, deadline, ANSWER_LIMIT)
    late = f"no answer within {time.monotonic() - began:.0f} seconds"
    return [answer_of(number, text, late) for number, text in said]


def answer_of(number: int, said: bytes, late: str) -> Answer:
    """What a process said, or how it ended without a word."""
    if number == NEVER:
        return failed("was not tried: no process could be started")
    if number == LATE:
        return failed(late, "late")
    if number:
        return failed(f"crashed: killed by signal {number} ({signal.strsignal(number)})", f"signal {number}")
    try:
        return dict(json.loads(said))
    except ValueError:
        return failed("ended without an answer")


# --- The program --------------------------------------------------------------------------------------------------


def carry_out(libraries: Libraries, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Do as a plan says: the answers to its lookups, and to those of further names that the hosts file has."""
    lookups = list(plan["lookups"])
    deadline = time.monotonic() + plan["seconds"]
    signal.alarm(int(plan["seconds"]) + 5)  # ends this, whatever else fails to
    os.environ["RES_OPTIONS"] = RESOLVER_OPTIONS
    time.tzset()
    enter(plan["chroot"], account(plan["users"]))
    confine(libraries.libc)
    known = [arguments[0] for kind, *arguments in lookups if kind == "host"]
    names = names_of_hosts(head_of("/etc/hosts"), plan["names"])
    names = [name for name in names if name not in known]
    answers = look_up_all(libraries, [*lookups, *(["host", name] for name in names)], deadline)
    return {"answers": answers, "names": names}


def tell(libraries: Libraries, plan: Mapping[str, Any]) -> bytes:
    """What a plan came to, as a line of JSON."""
    try:
        said = carry_out(libraries, plan)
    except Refused as refused:
        said = {"error": str(refused)}
    except OSError as error:
        said = {"error": f"could not be begun: {reason(error)}"}
    return json.dumps(said).encode()


def main() -> None:
    """Read plans, have each carried out by a process of its own, and print how each ended, and what it said.

    This process enters no chroot, and what those say who did is no more to it than so many bytes. So the next plans
    find it as the first ones did.
    """
    os.dup2(1, ANSWER)
    os.dup2(0, PLANS)
    os.closerange(PLANS + 1, 1 << 16)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in range(ANSWER):
        os.dup2(nowhere, fd)
    os.close(nowhere)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    while line := heard():
        say(carried_out(json.loads(line)) + b"\n")


def heard() -> bytes:
    """The next line of plans; nothing where there is none any more. Whoever asks waits for the answer to one."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < PLAN_LIMIT:
        chunk = os.read(PLANS, 1 << 16)
        if not chunk:
            break
        line += chunk
    return bytes(line)


def carried_out(plans: Sequence[Mapping[str, Any]]) -> bytes:
    """How the processes of some plans ended, and what they said, as JSON."""
    libraries = Libraries(certificates=any(kind == "certificates" for plan in plans for kind, *_ in plan["lookups"]))
    seconds = max(plan["seconds"] for plan in plans) + PATIENCE
    signal.alarm(int(seconds) + 1)
    works = [lambda plan=plan: tell(libraries, plan) for plan in plans]
    said = gather(libraries.libc, works, time.monotonic() + seconds, PLAN_ANSWER_LIMIT)
    signal.alarm(0)
    return json.dumps([[number, readable(text)] for number, text in said]).encode()


def readable(said: bytes) -> str:
    """What a process said, if it may be a line of JSON: nothing else is handed on, nor may grow by being quoted."""
    text = said.decode("ascii", "replace")
    return text if said.isascii() and text.isprintable() else ""


if __name__ == "__main__":
    main()
