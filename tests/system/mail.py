"""Three Postfix instances on one host, a name server and a place for their mail to go.

Mail enters at the submission instance, which hands it to the output instance, which looks up ``sink.test`` and delivers
there. All daemons that can be chrooted are.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .container import Container

LOG = "/var/log/mail.log"
SINK = "/var/tmp/sink"

# Not 127.0.0.1: without a resolv.conf the resolver asks there, and mail would go on.
NAME_SERVER = "127.0.0.5"
DEAD_NAME_SERVER = "127.0.0.9"
RESOLVER = f"nameserver {NAME_SERVER}\n"
STALE_RESOLVER = f"nameserver {DEAD_NAME_SERVER}\n"

# Holds an SMTP session open until it is stopped. $1 the port; $2 is made once the server has greeted. The client's name
# is not in /etc/hosts, so that the server loads modules that look elsewhere.
SESSION = """
import socket, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), source_address=("127.0.0.7", 0)) as connection:
    connection.recv(1000)
    open(sys.argv[2], "w").close()
    time.sleep(600)
"""
GREETED = "/var/tmp/greeted"

# Answers sink.test with 127.0.0.1; whatever else ends in .test has no address, all other names do not exist.
DNS_SERVER = f"""
import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(({NAME_SERVER!r}, 53))
while True:
    query, client = server.recvfrom(4096)
    end = query.index(0, 12) + 5
    name, kind = query[12:end - 4].lower(), query[end - 4:end - 2]
    answer = b""
    if name == b"\\4sink\\4test\\0" and kind == b"\\0\\1":
        answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\x7f\\0\\0\\1"
    status = b"\\x81\\x80" if name.endswith(b"\\4test\\0") else b"\\x81\\x83"
    counts = b"\\0\\1" + (b"\\0\\1" if answer else b"\\0\\0") + b"\\0\\0\\0\\0"
    server.sendto(query[:2] + status + counts + query[12:end] + answer, client)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postfix:
    """One instance: ``log`` is its name in the log, ``multi`` the one that postmulti and Debian 12's unit use."""

    config: str
    chroot: str
    log: str
    multi: str
    port: str

    @property
    def unit(self) -> str:
        return self.unit_on("bookworm")

    def unit_on(self, suite: str) -> str:
        """The unit that runs the instance; Debian 13 names it after the configuration directory."""
        if suite == "bookworm":
            return f"postfix@{self.multi}.service"
        suffix = self.config.removeprefix("/etc/postfix").replace("-", "@", 1)
        return f"postfix{suffix}.service"


SUBMISSION = Postfix(config="/etc/postfix", chroot="/var/spool/postfix", log="postfix", multi="-", port="587")
INPUT = Postfix(
    config="/etc/postfix-in", chroot="/var/spool/postfix-in", log="postfix-in", multi="postfix-in", port="25"
)
OUTPUT = Postfix(
    config="/etc/postfix-out", chroot="/var/spool/postfix-out", log="postfix-out", multi="postfix-out", port="10025"
)
INSTANCES = (SUBMISSION, INPUT, OUTPUT)

# Certificates are taken out because the package that Debian's main.cf takes them from is not installed.
COMMON = (
    "inet_interfaces=127.0.0.1",
    "inet_protocols=ipv4",
    "mydestination=",
    "smtpd_tls_cert_file=",
    "smtpd_tls_key_file=",
    "smtp_tls_CApath=/etc/ssl/certs",
    "smtp_tls_security_level=may",
    "compatibility_level=3.6",
    "alias_maps=",
    "mynetworks=127.0.0.0/8",
)


UNIT = """[Unit]
Before=postfix.service
[Service]
ExecStart={command}
[Install]
WantedBy=multi-user.target
"""

FILES = {
    "/etc/resolv.conf": RESOLVER,
    "/etc/systemd/system/test-dns.service": UNIT.format(command="/usr/bin/python3 /etc/test-dns.py"),
    "/etc/systemd/system/test-sink.service": UNIT.format(
        command=f"/usr/sbin/smtp-sink -u nobody -d {SINK}/mail. 127.0.0.1:2525 100"
    ),
    "/etc/test-dns.py": DNS_SERVER,
    # Without a socket in its chroot, a daemon cannot log any more once the logger was restarted.
    "/etc/rsyslog.d/postfix.conf": "".join(f"$AddUnixListenSocket {each.chroot}/dev/log\n" for each in INSTANCES),
}


def setup(suite: str = "bookworm") -> str:
    """The script that sets up all of this on a host of ``suite`` that has Postfix and is not booted."""
    commands: list[list[str]] = [["postmulti", "-e", "init"]]
    commands += [["postmulti", "-e", "create", "-I", each.multi, "-G", "mta"] for each in (INPUT, OUTPUT)]
    for each in INSTANCES:
        postconf = ["postconf", "-c", each.config]
        onward = "[sink.test]:2525" if each is OUTPUT else f"[127.0.0.1]:{OUTPUT.port}"
        # A new instance has its network services switched off.
        own = [f"myhostname={each.log}.test", f"relayhost={onward}", "master_service_disable="]
        commands += [
            [*postconf, "-e", *COMMON, *own],
            [*postconf, "-MX", "smtp/inet"],
            [*postconf, "-M", f"{each.port}/inet={each.port} inet n - y - - smtpd"],
            ["mkdir", "-p", f"{each.chroot}/dev"],
        ]
    commands += [["postmulti", "-e", "enable", "-i", each.multi] for each in (INPUT, OUTPUT)]
    if suite != "bookworm":  # where a generator starts whatever postmulti enabled
        commands.append(["systemctl", "enable", *(each.unit_on(suite) for each in (INPUT, OUTPUT))])
    for path, text in FILES.items():
        commands.append(["sh", "-c", 'printf %s "$2" > "$1"', "sh", path, text])
    commands.append(["install", "-d", "-o", "nobody", SINK])
    commands.append(["systemctl", "enable", "test-dns.service", "test-sink.service"])
    return "\n".join(map(shlex.join, commands))


class Mail:
    """The mail system of a container whose layers hold what :func:`setup` writes."""

    def __init__(self, container: Container) -> None:
        self.container = container

    def mark(self) -> int:
        """The place in the log from which on a test looks at it."""
        return int(self.container.run(["stat", "-c", "%s", LOG]).stdout)

    def log(self, start: int) -> str:
        """What was logged behind a mark."""
        return (self.container.root / LOG.lstrip("/")).read_bytes()[start:].decode(errors="replace")

    def wait(self, pattern: str, start: int, *, timeout: float = 20) -> str:
        """Wait for a line in the log behind a mark."""
        return self.container.wait_for(pattern, LOG, start=start, timeout=timeout)

    def settle(self, start: int) -> None:
        """Wait until all that was under way has been logged; ``start`` is any mark."""
        time.sleep(0.3)  # master notices a signal when its event loop comes round
        marker = f"settled-{time.monotonic_ns()}"
        self.container.run(["logger", "-p", "mail.info", marker])
        self.wait(marker, start)

    def reloads(self, start: int) -> list[str]:
        """The instances (by their names in the log) whose master was reloaded behind a mark, in order."""
        return re.findall(r" (\S+)/master\[\d+\]: reload -- version", self.log(start))

    def send(self, recipient: str) -> None:
        """Hand a mail to the submission instance."""
        text = f"Subject: test\nTo: {recipient}\n\nHello\n"
        self.container.run(["sendmail", "-f", "sender@submission.test", recipient], input=text)

    def delivered(self, recipient: str) -> int:
        """How many mails for a recipient the sink has received."""
        found = self.container.shell(f'grep -rliF -- "$1" {SINK} || true', recipient)
        return len(found.splitlines())

    def running(self, instance: Postfix) -> bool:
        """Whether the instance's master runs."""
        return self.container.run(["postfix", "-c", instance.config, "status"], check=False).returncode == 0

    @contextmanager
    def session(self, instance: Postfix) -> Iterator[int]:
        """An SMTP session that goes on; gives the number of its smtpd(8), as the container counts."""
        self.container.run(["rm", "-f", GREETED])
        python = ["/usr/bin/python3", "-I", "-c", SESSION, instance.port, GREETED]
        self.container.run(["systemd-run", "--quiet", "--collect", "--unit=test-session", *python])
        try:
            self.container.shell('for i in $(seq 600); do test -e "$1" && exit 0; sleep 0.05; done; exit 1', GREETED)
            yield int(self.container.run(["pgrep", "-n", "-P", str(self.master(instance)), "-x", "smtpd"]).stdout)
        finally:
            self.container.run(["systemctl", "stop", "test-session.service"], check=False)

    def flush(self, instance: Postfix) -> None:
        """Start a queue run."""
        self.container.run(["postqueue", "-c", instance.config, "-f"])

    def master(self, instance: Postfix) -> int:
        """The process number of the instance's master, as the container counts."""
        return int(self.container.read(f"{instance.chroot}/pid/master.pid"))
