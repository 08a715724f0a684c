"""SFTP-only users of sshd and a PHP-FPM pool in their chroots, set up by docs/services.md and tried for real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import image
from .book import chapter
from .container import Container
from .test_main_job import Run, check

CONFIG = "/etc/chrootsync/chrootsync.toml"
SFTP_BOOK = chapter("SFTP")
PHP_BOOK = chapter("PHP-FPM")
SETTINGS = SFTP_BOOK.settings[0] + PHP_BOOK.settings[0]

SFTP_CHROOT = "/srv/sftp"
KEY = "/root/.ssh/alice"
OPTIONS = ("-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", KEY)
LOG = "/var/log/auth.log"

POOL = "/srv/web/shop"
SOCKET = "/run/php/shop.sock"
UNIT = "php8.2-fpm.service"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1"

# Prints the listing of $1 as the server formats it, for clients that do not format it themselves; the rest of the
# arguments is a command that starts the SFTP protocol.
LIST = """
import re, struct, subprocess, sys

def ask(kind, *texts):
    body = struct.pack(">BI", kind, 3) + b"".join(struct.pack(">I", len(text)) + text for text in texts)
    server.stdin.write(struct.pack(">I", len(body)) + body)
    server.stdin.flush()
    return server.stdout.read(*struct.unpack(">I", server.stdout.read(4)))

with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
    ask(1)
    listing = ask(12, ask(11, sys.argv[1].encode())[9:])
print(*re.findall(r"[-d][-rwx]{9} [ -~]*", listing.decode("latin-1")), sep="\\n")
"""

# Asks a pool to run the script /www/ask.php for each question, in one process, and prints the answers as JSON; null
# where the process that had to answer crashed or failed.
CLIENT = """
import json, socket, struct, sys

def pair(name, value):
    return struct.pack(">II", len(name) | 1 << 31, len(value) | 1 << 31) + name.encode() + value.encode()

def record(kind, body):
    return struct.pack(">BBHHBx", 1, kind, 1, len(body), 0) + body

def ask(path, question):
    variables = {"SCRIPT_FILENAME": "/www/ask.php", "REQUEST_METHOD": "GET", "QUERY_STRING": question}
    parameters = b"".join(pair(*each) for each in variables.items())
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(path)
    client.sendall(record(1, struct.pack(">HB5x", 1, 0)) + record(4, parameters) + record(4, b"") + record(5, b""))
    said, output = b"".join(iter(lambda: client.recv(65536), b"")), b""
    while said:
        _, kind, _, size, padding = struct.unpack(">BBHHBx", said[:8])
        output += said[8 : 8 + size] if kind == 6 else b""
        said = said[8 + size + padding :]
    return json.loads(output.partition(b"\\r\\n\\r\\n")[2] or "null")

answers = {}
for question in sys.argv[2:]:
    try:
        answers[question] = ask(sys.argv[1], question)
    except ConnectionResetError:
        answers[question] = None
print(json.dumps(answers))
"""

# One function for each question; of an exception only the text is told.
SCRIPT = """<?php
[$name, $argument] = explode("=", $_SERVER["QUERY_STRING"] . "=");
$answers = [
    "host" => fn() => gethostbyname($argument),
    "service" => fn() => getservbyname("http", "tcp"),
    "protocol" => fn() => getprotobyname("icmp"),
    "zone" => fn() => (new DateTime("2026-07-01 12:00", new DateTimeZone($argument)))->format("c T"),
    "date" => fn() => date("Y", 0),
    "certificates" => fn() => array_map(fn($kind) => is_readable(openssl_get_cert_locations()["default_cert_$kind"]),
        ["file", "dir"]),
    "key" => fn() => (bool) openssl_pkey_new(),
    "random" => fn() => strlen((string) @file_get_contents("/dev/urandom", length: 4)),
    "user" => fn() => posix_getpwuid(posix_getuid())["name"] ?? null,
    "charset" => fn() => bin2hex((string) @iconv("UTF-8", "ISO-8859-1", "\\u{e9}")),
    "locale" => fn() => setlocale(LC_ALL, "C.UTF-8"),
    "process" => fn() => getmypid(),
    "setting" => fn() => ini_get($argument),
    "session" => fn() => session_start() && session_write_close() ? count(scandir("/sessions")) : 0,
    "tls" => fn() => is_resource(@stream_socket_client("tls://localhost:$argument", timeout: 10)),
];
try {
    $answer = $answers[$name]();
} catch (Throwable $error) {
    $answer = $error->getMessage();
}
echo json_encode($answer);
"""

# What scripts ask for, and the right answer, which an empty chroot does not give.
RIGHT: dict[str, Any] = {
    "host=testhost.test": "127.0.0.1",
    "service": 80,
    "protocol": 1,
    "zone=Europe/Berlin": "2026-07-01T12:00:00+02:00 CEST",
    "zone=America/Argentina/Ushuaia": "2026-07-01T12:00:00-03:00 -03",
    "date": "1970",
    "certificates": [True, True],
    "key": True,
    "random": 4,
    "user": "shop",
    "charset": "e9",
    "locale": "C.UTF-8",
}

# An authority of our own in /root/ca, and a server on port 4433 whose certificate it has signed.
AUTHORITY = """
mkdir -p /root/ca
cd /root/ca
openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=Test authority' -keyout ca.key -out ca.crt -days 30
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost \\
    -addext basicConstraints=critical,CA:FALSE -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -days 30
systemd-run --quiet --unit=tls-server openssl s_server -quiet -accept 4433 -cert /root/ca/server.crt \\
    -key /root/ca/server.key
cp ca.crt /usr/local/share/ca-certificates/test-authority.crt
update-ca-certificates
"""

DISTRUST = """
rm -f /usr/local/share/ca-certificates/test-authority.crt
update-ca-certificates --fresh
systemctl stop tls-server.service
"""

# A name server on an address of its own, which knows nothing but its own zone.
NAME_SERVER = """
ip address add 127.0.0.53/8 dev lo
cat > /etc/bind/named.conf.options <<'EOF'
options { directory "/var/cache/bind"; listen-on { 127.0.0.53; }; listen-on-v6 { none; }; recursion no; };
EOF
cat > /etc/bind/named.conf.local <<'EOF'
zone "example.test" { type primary; file "/etc/bind/db.example"; };
EOF
cat > /etc/bind/db.example <<'EOF'
$TTL 60
@ IN SOA localhost. root.localhost. ( 1 3600 600 86400 60 )
@ IN NS localhost.
www IN A 192.0.2.1
EOF
systemctl restart named.service
"""


@pytest.fixture(scope="module")
def host(chrootsync: tuple[Path, ...], base: Path) -> Iterator[Container]:
    """A freshly booted Debian 12 with OpenSSH, PHP-FPM and chrootsync, whose instances are those of the book."""
    with Container([*chrootsync, image.services(base), base]) as container:
        container.write(CONFIG, SETTINGS)
        container.write("/etc/resolv.conf", "nameserver 127.0.0.9\n")
        yield container


def drift(run: Run) -> dict[str, str]:
    """The kind of each drift of the one instance that was checked, by path; mere information left out."""
    [found] = run.report["instances"]
    return {each["path"]: each["kind"] for each in found["drift"] if each["severity"] != "info"}


def reload(run: Run) -> Mapping[str, Any]:
    """What became of the reload of the one instance that was checked."""
    [found] = run.report["instances"]
    assert isinstance(found["reload"], dict)
    return found["reload"]


def same(container: Container, path: str, chroot: str) -> bool:
    """Whether a copy holds what the host's file holds."""
    return container.run(["cmp", "-s", path, chroot + path], check=False).returncode == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sftp:
    """The confined users of a container; ``first`` is what a check said of the empty chroot, ``numbers`` a listing."""

    container: Container
    first: Run
    numbers: str


def session(container: Container, commands: str) -> str:
    """What alice sees who gives commands to sftp."""
    return container.run(["sftp", "-b", "-", *OPTIONS, "alice@127.0.0.1"], input=commands).stdout


def listing(container: Container) -> str:
    """The server's own listing of what alice has."""
    server = ["ssh", *OPTIONS, "-s", "alice@127.0.0.1", "sftp"]
    return container.run(["python3", "-c", LIST, "/alice", *server]).stdout


@pytest.fixture(scope="module")
def confined(host: Container) -> Sftp:
    """Alice, confined by all that the book tells to do."""
    prepare, add_user, fill = SFTP_BOOK.commands
    host.shell(prepare)
    host.shell(add_user)
    host.shell(f"mkdir -p -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
    host.run(["cp", f"{KEY}.pub", "/etc/ssh/authorized_keys.d/alice"])
    session(host, "put /etc/hostname\n")
    numbers = session(host, "ls -l\n")
    first = check(host, "sftp", code=1)
    host.shell(fill)
    return Sftp(container=host, first=first, numbers=numbers)


@pytest.fixture
def sftp(confined: Sftp) -> Sftp:
    """Start from a chroot that is in sync, whatever a test before has left behind."""
    confined.container.write(CONFIG, SETTINGS)
    check(confined.container, "--fix", "sftp", code=0)
    return confined


def test_the_first_fix_brings_what_a_confined_session_opens(confined: Sftp) -> None:
    assert drift(confined.first) == {
        "/etc": "missing",
        "/etc/group": "missing",
        "/etc/localtime": "missing",
        "/etc/passwd": "missing",
    }
    assert drift(check(confined.container, "sftp", code=0)) == {}


def test_a_confined_user_sees_names_in_place_of_numbers(sftp: Sftp) -> None:
    assert re.search(r"\s\d+\s+\d+\s.*\shostname$", sftp.numbers, re.MULTILINE)
    assert re.search(r"\salice\s+sftponly\s.*\shostname$", session(sftp.container, "ls -l\n"), re.MULTILINE)


def test_transfers_are_logged_through_the_socket_inside(sftp: Sftp) -> None:
    container = sftp.container
    session(container, "put /etc/hostname logged\n")
    line = container.wait_for('internal-sftp.*close "/alice/logged"', LOG)
    assert "written 9" in line

    container.run(["mv", f"{SFTP_CHROOT}/dev/log", f"{SFTP_CHROOT}/dev/away"])
    try:
        told = check(container, "sftp", code=0)
    finally:
        container.run(["mv", f"{SFTP_CHROOT}/dev/away", f"{SFTP_CHROOT}/dev/log"])

    assert drift(told) == {"/dev/log": "unreachable"}
    [found] = told.report["instances"][0]["drift"]
    assert found["severity"] == "warning", "sftp.conf asks for a log of transfers"
    assert found["rule"] == "sshd.transfer-log"


def test_times_are_those_of_the_host_after_a_fix(sftp: Sftp) -> None:
    container = sftp.container
    container.run(["ln", "-sf", "/usr/share/zoneinfo/Asia/Tokyo", "/etc/localtime"])
    session(container, "put /etc/hostname fresh\n")
    written = container.run(["stat", "-c", "%Y", f"{SFTP_CHROOT}/alice/fresh"]).stdout.strip()
    there = container.run(["date", "-d", f"@{written}", "+%b %e %H:%M"], env={"TZ": "Asia/Tokyo"}).stdout.strip()

    named = check(container, "sftp", code=1)
    before = listing(container)
    check(container, "--fix", "sftp", code=0)

    assert drift(named) == {"/etc/localtime": "outdated"}
    assert re.search(r"\salice\s.*\sfresh$", before, re.MULTILINE)
    assert f"{there} fresh" not in before
    assert f"{there} fresh" in listing(container)


def test_a_new_account_is_outdated_and_then_known_without_its_password(sftp: Sftp) -> None:
    container = sftp.container
    container.shell(SFTP_BOOK.commands[1].replace("alice", "bob"))
    secret = container.run(["openssl", "passwd", "-6", "secret"]).stdout.strip()
    container.shell('sed -i "s|^bob:x:|bob:$1:|" /etc/passwd', secret)

    named = check(container, "sftp", code=1)
    check(container, "--fix", "sftp", code=0)
    copy = container.read(f"{SFTP_CHROOT}/etc/passwd")

    assert drift(named) == {"/etc/passwd": "outdated"}
    assert secret in container.read("/etc/passwd")
    assert re.search("^bob:x:", copy, re.MULTILINE)
    assert "$6$" not in copy
    assert re.search(r"\sbob\s+sftponly\s.*\s/bob$", session(container, "ls -l /\n"), re.MULTILINE)


def test_a_short_passwd_made_by_hand_is_left_alone_where_names_shall_stay_private(sftp: Sftp) -> None:
    container = sftp.container
    short = "alice:x:1000:1000::/:/usr/sbin/nologin\n"
    container.write(CONFIG, SETTINGS.replace(', "sshd-accounts"', ""))
    container.write(f"{SFTP_CHROOT}/etc/passwd", short)

    check(container, "--fix", "sftp", code=0)

    assert container.read(f"{SFTP_CHROOT}/etc/passwd") == short


@dataclass(frozen=True, kw_only=True, slots=True)
class Shop:
    """A container's pool; ``first`` is what a check said of the empty chroot, ``before`` what scripts saw there."""

    container: Container
    first: Run
    before: Mapping[str, Any]

    def ask(self, question: str) -> Any:
        """What a script answers."""
        return answers(self.container, question)[question]

    def by(self, process: int, question: str) -> Any:
        """What a script answers in a process that was there before; another one may have begun when it was busy."""
        for _ in range(20):
            said = answers(self.container, question, "process")
            if said["process"] == process:
                return said[question]
        raise AssertionError(f"process {process} is not there any more")

    def reloads(self) -> int:
        """How often systemd has reloaded PHP-FPM so far."""
        self.container.run(["journalctl", "--sync"])
        log = self.container.run(["journalctl", f"--unit={UNIT}", "--output=cat", "--no-pager"]).stdout
        return log.count(f"Reloaded {UNIT}")


def answers(container: Container, *questions: str) -> Mapping[str, Any]:
    """What scripts of the pool answer."""
    said = json.loads(container.run(["python3", "-c", CLIENT, SOCKET, *questions]).stdout)
    assert isinstance(said, dict)
    return said


@pytest.fixture(scope="module")
def moved_in(host: Container) -> Shop:
    """A pool, set up by all that the book tells to do."""
    prepare, fill = PHP_BOOK.commands
    host.shell(prepare)
    host.write(f"{POOL}/www/ask.php", SCRIPT)
    host.run(["systemctl", "restart", UNIT])
    before = answers(host, *RIGHT)
    first = check(host, "shop", code=1)
    host.shell(fill)
    return Shop(container=host, first=first, before=before)


@pytest.fixture
def shop(moved_in: Shop) -> Shop:
    """Start from a pool that is in sync, whatever a test before has left behind."""
    moved_in.container.write(CONFIG, SETTINGS)
    check(moved_in.container, "--fix", "shop", code=0)
    return moved_in


def test_the_first_fix_fills_the_pool_with_all_that_rules_name(moved_in: Shop) -> None:
    found = moved_in.first.report["instances"][0]["drift"]
    rules = {each["rule"] for each in found if each["kind"] == "missing"}

    assert {each["kind"] for each in found if each["severity"] == "error"} == {"missing"}
    assert {
        *("php-fpm.resolver", "php-fpm.hosts", "php-fpm.services", "php-fpm.lookups", "php-fpm.libgcc"),
        *("php-fpm.zones", "php-fpm.localtime", "php-fpm.ca-bundle", "php-fpm.ca-directory"),
        *("php-fpm.openssl-conf", "php-fpm.openssl-links", "php-fpm.devices"),
        *("php-fpm.accounts", "php-fpm.charsets", "php-fpm.locales"),
    } == rules
    assert check(moved_in.container, "shop", code=0).report["status"] == "in-sync"


@pytest.mark.parametrize("question", RIGHT)
def test_scripts_get_answers_that_an_empty_chroot_does_not_give(shop: Shop, question: str) -> None:
    assert shop.before[question] != RIGHT[question]
    assert shop.ask(question) == RIGHT[question]


def test_the_settings_of_the_book_are_in_force(shop: Shop) -> None:
    told = shop.container.run(["php-fpm8.2", "-tt"]).stderr

    assert re.search(r"process_control_timeout = 10s", told)
    assert re.search(rf"chroot = {POOL}$", told, re.MULTILINE)
    assert shop.ask("setting=opcache.validate_root") == "1"
    assert shop.ask("setting=session.save_path") == "/sessions"


def test_scripts_write_where_the_book_lets_them(shop: Shop) -> None:
    assert shop.ask("session") >= 3, "a session beside . and .."


def test_a_changed_hosts_is_seen_by_the_same_process_without_a_reload(shop: Shop) -> None:
    container, question = shop.container, "host=new.example.test"
    process, reloads = shop.ask("process"), shop.reloads()
    container.shell("echo '192.0.2.9 new.example.test' >> /etc/hosts")

    named = check(container, "shop", code=1)
    assert shop.ask(question) == "new.example.test"
    fixed = check(container, "--fix", "shop", code=0)

    assert drift(named) == {"/etc/hosts": "outdated"}
    assert not reload(fixed)["needed"]
    assert shop.by(process, question) == "192.0.2.9"
    assert shop.reloads() == reloads


def test_a_changed_resolver_is_asked_by_the_same_process_without_a_reload(shop: Shop) -> None:
    container, question = shop.container, "host=www.example.test"
    container.shell(NAME_SERVER)
    process = shop.ask("process")
    assert shop.ask(question) == "www.example.test"
    container.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")
    assert shop.ask(question) == "www.example.test", "its own copy is what counts"

    fixed = check(container, "--fix", "shop", code=0)

    assert drift(fixed) == {"/etc/resolv.conf": "outdated"}
    assert not reload(fixed)["needed"]
    assert shop.by(process, question) == "192.0.2.1"


def test_a_changed_library_reloads_the_pool(shop: Shop) -> None:
    container = shop.container
    process, reloads = shop.ask("process"), shop.reloads()
    # Appended bytes are part of no segment: the library is another, and works.
    container.shell('cp -p "$1" /root/library; cp -p "$1" "$1.new"; echo >> "$1.new"; mv "$1.new" "$1"', LIBRARY)
    try:
        named = check(container, "shop", code=1)
        fixed = check(container, "--fix", "shop", code=0)

        kinds = [each["kind"] for each in named.report["instances"][0]["drift"] if each["severity"] != "info"]
        assert kinds[0] == "outdated"
        assert set(kinds[1:]) == {"stale-process"}, "each worker that still maps the old one"
        assert reload(fixed)["command"] == ["/usr/bin/systemctl", "reload", UNIT]
        assert reload(fixed)["done"]
        assert shop.reloads() == reloads + 1
        assert shop.ask("process") != process
    finally:
        container.run(["mv", "/root/library", LIBRARY])


def test_an_authority_is_trusted_inside_after_a_fix_and_distrusted_after_the_next(shop: Shop) -> None:
    container, question = shop.container, "tls=4433"
    container.shell(AUTHORITY)
    try:
        before = shop.ask(question)
        added = check(container, "--fix", "shop", code=0)
        trusted = shop.ask(question)
        container.shell(DISTRUST.replace("systemctl stop", "systemctl status"))
        dropped = check(container, "--fix", "shop", code=0)
        after = shop.ask(question)
    finally:
        container.shell(DISTRUST, check=False)

    [hashed] = [path for path, kind in drift(added).items() if kind == "missing"]
    assert re.fullmatch(r"/etc/ssl/certs/[0-9a-f]{8}\.0", hashed)
    assert drift(added)["/etc/ssl/certs/ca-certificates.crt"] == "outdated"
    assert (before, trusted, after) == (False, True, False)
    assert drift(dropped)[hashed] == "orphan"
    assert not container.exists(POOL + hashed)


def test_a_second_fix_writes_and_reloads_nothing(shop: Shop) -> None:
    listing = ["find", POOL, "-path", f"{POOL}/sessions", "-prune", "-o", "-printf", "%p %i %C@\\n"]
    before, reloads = shop.container.run(listing).stdout, shop.reloads()

    check(shop.container, "--fix", "shop", code=0)

    assert before.count("\n") > 500
    assert shop.container.run(listing).stdout == before
    assert shop.reloads() == reloads


def test_a_rule_set_of_ones_own_adds_what_an_extension_needs(shop: Shop) -> None:
    container, limits = shop.container, "/etc/ImageMagick-6/policy.xml"
    container.write("/etc/chrootsync/rules.d/shop.toml", PHP_BOOK.settings[1])
    container.write(limits, "<policymap/>\n")
    container.write(CONFIG, SETTINGS.replace('"php-fpm-charsets"]', '"php-fpm-charsets", "shop"]'))
    try:
        fixed = check(container, "--fix", "shop", code=0)
        assert drift(fixed) == {"/etc/ImageMagick-6": "missing", limits: "missing"}
        assert same(container, limits, POOL)
    finally:
        container.run(["rm", "/etc/chrootsync/rules.d/shop.toml"])


def test_a_pool_that_does_not_run_is_repaired_and_not_started(shop: Shop) -> None:
    container = shop.container
    container.run(["systemctl", "stop", UNIT])
    try:
        container.run(["rm", POOL + "/etc/services"])
        fixed = check(container, "--fix", "shop", code=0)

        assert not reload(fixed)["needed"]
        assert same(container, "/etc/services", POOL)
        assert container.run(["systemctl", "is-active", UNIT], check=False).stdout == "inactive\n"
    finally:
        container.run(["systemctl", "start", UNIT])
