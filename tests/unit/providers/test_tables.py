"""What lookup tables and Cyrus SASL's configuration say, and to which daemons."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrootsync.model import Config, Daemon, DoubtfulError, Host, UnreadableError, UnsafeError
from chrootsync.providers.postfix import discover, sasl
from chrootsync.providers.postfix.tables import parse_text
from tests.unit.scenery import Tree, grow
from tests.unit.tree_reader import MemoryCache, TreeReader


class Counting(TreeReader):
    """A root that counts what is read of configuration files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.trusted: list[str] = []

    def read_trusted(self, path: str) -> bytes:
        self.trusted.append(path)
        return super().read_trusted(path)


def daemons(reader: TreeReader) -> dict[str, Daemon]:
    [instance] = discover(Host(root=reader, run=None, cache=MemoryCache()), Config(), [])
    assert instance.problem is None
    return {daemon.name: daemon for daemon in instance.daemons}


def smtpd(root: Path, main: str, files: Tree | None = None) -> Daemon:
    """An smtpd that sees this main.cf."""
    master = b"smtp inet n - y - - smtpd\n"
    grow(root, {"/etc/postfix/main.cf": main.encode(), "/etc/postfix/master.cf": master, **(files or {})})
    return daemons(Counting(root))["smtp/inet"]


def test_clients_of_databases(tmp_path: Path) -> None:
    found = smtpd(
        tmp_path,
        "virtual_alias_maps = mysql:/etc/x.cf, proxy:mysql:/etc/y.cf\nrelay_domains = ldap:people pgsql:nobody\n"
        "people_server_host = ldap://$host ldapi://%2Frun%2fldapi/\nhost = h.example.org\n",
        {"/etc/x.cf": b"# mine\nhosts = a\n  b\nuser =\nquery = SELECT '%s' $x\n", "/etc/y.cf": b"hosts = c\n"},
    )
    assert found.tables["mysql:/etc/x.cf"] == {"hosts": "a  b", "query": "SELECT '%s' $x"}
    assert found.tables["ldap:people"] == {"server_host": "ldap://h.example.org ldapi:///run/ldapi/"}
    assert "mysql:/etc/y.cf" not in found.tables
    assert "pgsql:nobody" not in found.tables
    assert sorted(found.tables) == ["ldap:people", "mysql:/etc/x.cf", "sasl:smtpd"]
    assert len(found.tables) == 3


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ("ldap", {"server_host": "localhost"}),
        ("mysql", {"hosts": "localhost"}),
        ("pgsql", {"hosts": "localhost"}),
        ("memcache", {"memcache": "inet:localhost:11211"}),
        ("sqlite", {}),
        ("mongodb", {}),
    ],
)
def test_clients_have_defaults(tmp_path: Path, table: str, settings: dict[str, str]) -> None:
    found = smtpd(tmp_path, f"relay_domains = {table}:/etc/x.cf\n", {"/etc/x.cf": b"timeout = 3\n"})
    assert found.tables[f"{table}:/etc/x.cf"] == {**settings, "timeout": "3"}


def test_compound_tables_behind_proxy_are_opened_by_somebody_else(tmp_path: Path) -> None:
    found = smtpd(
        tmp_path,
        "virtual_alias_maps = proxy:pipemap:{ unionmap:{unix:passwd.byname,hash:/x}, unix:group.byname }\n"
        "relay_domains = pipemap:{unix:group.byname, proxy:unix:passwd.byname}\n",
    )
    assert sorted(found.tables) == ["sasl:smtpd", "unix:group.byname"]


def test_tables_without_a_configuration_are_what_they_are_called(tmp_path: Path) -> None:
    main = "relay_domains = unix:passwd.byname pipemap:{tcp:h:1,socketmap:unix:/x:y}\n"
    found = smtpd(tmp_path, main)
    assert [found.tables[table] for table in ("unix:passwd.byname", "tcp:h:1", "socketmap:unix:/x:y")] == [
        {"name": "passwd.byname"},
        {"name": "h:1"},
        {"name": "unix:/x:y"},
    ]


def test_a_table_belongs_to_who_opens_it_and_a_text_to_all(tmp_path: Path) -> None:
    master = "".join(f"{name} unix - - y - - {name}\n" for name in ("smtpd", "cleanup", "smtp", "local", "mine"))
    main = (
        "alias_maps = unix:a\nrecipient_bcc_maps = unix:b\nsmtp_sasl_password_maps = unix:c\n"
        "smtpd_sender_login_maps = unix:d\nvirtual_alias_maps = unix:e\nsmtpd_restriction_classes = grey, x\n"
        "grey = check_client_access unix:f\nwhite = check_client_access unix:g\nrelay_domains = hash:/etc/t\n"
        "local_recipient_maps =\n"
    )
    grow(
        tmp_path,
        {"/etc/postfix/main.cf": main.encode(), "/etc/postfix/master.cf": master.encode(), "/etc/t": b"key value\n"},
    )
    found = daemons(Counting(tmp_path))
    names = {
        name: "".join(sorted(table[-1] for table in daemon.tables if table.startswith("unix:")))
        for name, daemon in found.items()
    }
    assert names == {"smtpd/unix": "def", "cleanup/unix": "be", "smtp/unix": "c", "local/unix": "a", "mine/unix": ""}
    assert {str(daemon.tables["hash:/etc/t"]) for daemon in found.values()} == {"{'key': 'value'}"}


def test_overrides_count(tmp_path: Path) -> None:
    master = b"smtp inet n - y - - smtpd\n587 inet n - y - - smtpd -o smtpd_sender_login_maps=unix:own\n"
    grow(tmp_path, {"/etc/postfix/main.cf": b"", "/etc/postfix/master.cf": master})
    found = daemons(Counting(tmp_path))
    assert "unix:own" in found["587/inet"].tables
    assert "unix:own" not in found["smtp/inet"].tables


def test_files_are_read_once_and_not_before_they_are_asked_for(tmp_path: Path) -> None:
    master = (
        b"smtp inet n - y - - smtpd\n587 inet n - y - - smtpd -o relay_clientcerts=\ncleanup unix - - y - - cleanup\n"
    )
    grow(
        tmp_path,
        {
            "/etc/postfix/main.cf": b"virtual_alias_maps = mysql:/etc/x.cf\ntransport_maps = lmdb:/etc/none\n",
            "/etc/postfix/master.cf": master,
            "/etc/x.cf": b"hosts = a\n",
        },
    )
    reader = Counting(tmp_path)
    found = daemons(reader)
    assert "/etc/x.cf" not in reader.trusted
    for daemon in [*found.values(), *found.values()]:
        assert daemon.tables["mysql:/etc/x.cf"]["hosts"] == "a"
        assert "lmdb:/etc/none" not in daemon.tables
    assert reader.trusted.count("/etc/x.cf") == reader.trusted.count("/etc/none") == 1


def test_daemons_with_the_same_tables_share_them(tmp_path: Path) -> None:
    master = b"a unix - - y - - smtp\nb unix - - y - - smtp\nc unix - - y - - error\nd unix - - y - - bounce\n"
    grow(tmp_path, {"/etc/postfix/main.cf": b"", "/etc/postfix/master.cf": master})
    a, b, c, d = daemons(Counting(tmp_path)).values()
    assert a.tables is b.tables
    assert c.tables is d.tables is not a.tables


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    found = smtpd(
        tmp_path,
        "relay_domains = ldap:/etc/bad.cf ldap:/etc/fifo.cf ldap:/etc/huge.cf ldap:/etc\n",
        {"/etc/bad.cf": b"a = b\n\nno setting\n", "/etc/fifo.cf": 0o644, "/etc/huge.cf": b""},
    )
    os.truncate(tmp_path / "etc/huge.cf", (16 << 20) + 1)
    for path, reason in {
        "/etc/bad.cf": 'line 3: "no setting" is not of the form name = value',
        "/etc/fifo.cf": "",
        "/etc/huge.cf": "",
        "/etc": "",
    }.items():
        with pytest.raises(UnreadableError) as error:
            found.tables[f"ldap:{path}"]
        assert error.value.path == path
        assert error.value.reason == reason or (not reason and error.value.reason)


class Live(Counting):
    """A root in which trust matters, as on a live host."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.live = True


def written_by_others(root: Path, table: str, text: bytes) -> Daemon:
    """An smtpd that opens a table in a file that everybody can write to."""
    grow(
        root,
        {
            "/etc/postfix/main.cf": f"relay_domains = {table}\n".encode(),
            "/etc/postfix/master.cf": b"smtp inet n - y - - smtpd\n",
            "/etc/table": text,
        },
    )
    root.chmod(0o755)
    (root / "etc/table").chmod(0o666)
    return daemons(Live(root))["smtp/inet"]


def test_what_others_could_have_written_is_told_and_not_read(tmp_path: Path) -> None:
    found = written_by_others(tmp_path, "ldap:/etc/table", b"server_host = a\n")
    with pytest.raises(UnsafeError, match="others can write to it") as error:
        found.tables["ldap:/etc/table"]
    assert not isinstance(error.value, DoubtfulError)


def test_of_a_text_that_others_could_have_written_it_is_told_what_it_says(tmp_path: Path) -> None:
    found = written_by_others(tmp_path, "hash:/etc/table", b"a.example lmtp:[127.0.0.1]:24\n")
    for _ in range(2):
        with pytest.raises(DoubtfulError, match="others can write to it") as error:
            found.tables["hash:/etc/table"]
        assert error.value.settings == {"a.example": "lmtp:[127.0.0.1]:24"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\n# c d\n\n  e\n", {"a": "b  e"}),
        ("a\tb  c \na other\nonly\n", {"a": "b  c"}),
        ('"a b" c\n"d e\n" f\n', {"a b": "c", '"d': "e", '"': "f"}),
        ("a: b, c\n", {"a:": "b, c"}),
        ("/^x$/i tafile=/y\nif /z/\nendif\n", {"/^x$/i": "tafile=/y", "if": "/z/"}),
        (" starts with space\n", {}),
        (os.fsdecode(b"\xff\0 \xfe\0x\n\0\0\0"), {os.fsdecode(b"\xff\0"): os.fsdecode(b"\xfe\0x")}),
        ("", {}),
    ],
)
def test_texts_are_read_as_postmap_does(text: str, expected: dict[str, str]) -> None:
    assert parse_text(text) == expected


def test_the_path_of_a_program(tmp_path: Path) -> None:
    master = b"a unix - - y - - smtp\nb unix - - n - - /opt/x/filter -v\n"
    main = b"daemon_directory = /usr/libexec/postfix\n"
    grow(tmp_path, {"/etc/postfix/main.cf": main, "/etc/postfix/master.cf": master})
    commands = [daemon.command for daemon in daemons(Counting(tmp_path)).values()]
    assert commands == ["/usr/libexec/postfix/smtp", "/opt/x/filter"]


# --- Cyrus SASL -------------------------------------------------------------------------------------------------

DEBIAN = {"/etc/os-release": b"ID=debian\n"}


@pytest.mark.parametrize(
    ("main", "files", "expected"),
    [
        ("", DEBIAN, {"sasldb_path": "/etc/sasldb2"}),
        (
            "",
            {
                **DEBIAN,
                "/etc/postfix/sasl/smtpd.conf": b"# x\npwcheck_method:saslauthd \n",
                "/usr/lib/sasl/smtpd.conf": b"log_level: 7\n",
            },
            {"pwcheck_method": "saslauthd", "saslauthd_path": "/var/run/saslauthd/mux"},
        ),
        (
            "smtpd_sasl_path = mail\n",
            {**DEBIAN, "/etc/postfix/sasl/smtpd.conf": b"a: b\n", "/usr/lib/sasl/mail.conf": b"auxprop_plugin: sql\n"},
            {"auxprop_plugin": "sql", "sql_socket": "/run/mysqld/mysqld.sock"},
        ),
        (
            "",
            {**DEBIAN, "/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: sql\nsql_engine: PgSQL\n"},
            {"auxprop_plugin": "sql", "sql_engine": "PgSQL", "sql_socket": "/var/run/postgresql/.s.PGSQL.5432"},
        ),
        (
            "",
            {"/etc/sasl2/smtpd.conf": b"auxprop_plugin: sql\nsql_engine: pgsql\nsql_hostnames: a.example, /srv/pg/\n"},
            {
                "auxprop_plugin": "sql",
                "sql_engine": "pgsql",
                "sql_hostnames": "a.example, /srv/pg/",
                "sql_socket": "/srv/pg/.s.PGSQL.5432",
            },
        ),
        (
            "",
            {
                **DEBIAN,
                "/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: sql\nsql_hostnames: 127.0.0.1\nsql_socket: /x\n",
            },
            {"auxprop_plugin": "sql", "sql_hostnames": "127.0.0.1"},
        ),
        (
            "",
            {
                "/etc/os-release": b"ID=fedora\n",
                "/etc/sasl2/smtpd.conf": b"sql_select: x\nsql_hostnames: LocalHost:3306\n",
            },
            {
                "sasldb_path": "/etc/sasldb2",
                "sql_hostnames": "LocalHost:3306",
                "sql_select": "x",
                "sql_socket": "/var/lib/mysql/mysql.sock",
            },
        ),
        (
            "",
            {"/etc/os-release": b"ID=opensuse-leap\nID_LIKE=suse\n", "/etc/sasl2/smtpd.conf": b"auxprop_plugin: sql\n"},
            {"auxprop_plugin": "sql", "sql_socket": "/run/mysql/mysql.sock"},
        ),
        (
            "",
            {**DEBIAN, "/etc/postfix/sasl/smtpd.conf": b"auxprop_plugin: sql\nsql_engine: sqlite\n"},
            {"auxprop_plugin": "sql", "sql_engine": "sqlite"},
        ),
        (
            "cyrus_sasl_config_path = /a/:relative:/b\n",
            {**DEBIAN, "/b/smtpd.conf": b"pwcheck_method: auxprop saslauthd\nsasldb_path: /srv/db\n"},
            {
                "pwcheck_method": "auxprop saslauthd",
                "saslauthd_path": "/var/run/saslauthd/mux",
                "sasldb_path": "/srv/db",
            },
        ),
        (
            "",
            {**DEBIAN, "/etc/postfix/sasl/smtpd.conf": b"saslauthd_path: /x\nauxprop_plugin: ldapdb\n"},
            {"auxprop_plugin": "ldapdb"},
        ),
        (
            "",
            {"/etc/os-release": b"ID=fedora\n", "/etc/sasl2/smtpd.conf": b"pwcheck_method: saslauthd\n"},
            {"pwcheck_method": "saslauthd", "saslauthd_path": "/run/saslauthd/mux"},
        ),
    ],
)
def test_the_settings_that_count(tmp_path: Path, main: str, files: Tree, expected: dict[str, str]) -> None:
    found = smtpd(tmp_path, main, files)
    assert found.tables[found.parameters[sasl.PARAMETER]] == expected


def test_each_instance_has_its_own_directory(tmp_path: Path) -> None:
    master = b"smtp inet n - y - - smtpd\n"
    grow(
        tmp_path,
        {
            **DEBIAN,
            "/etc/postfix/main.cf": b"multi_instance_directories = /etc/postfix-in\n",
            "/etc/postfix/master.cf": master,
            "/etc/postfix/sasl/smtpd.conf": b"pwcheck_method: saslauthd\n",
            "/etc/postfix-in/main.cf": b"queue_directory = /q\n",
            "/etc/postfix-in/master.cf": master,
            "/etc/postfix-in/sasl/smtpd.conf": b"auxprop_plugin: sql\n",
        },
    )
    host = Host(root=Counting(tmp_path), run=None, cache=MemoryCache())
    found = [instance.daemons[0].tables["sasl:smtpd"] for instance in discover(host, Config(), [])]
    assert [dict(one).get("saslauthd_path") for one in found] == ["/var/run/saslauthd/mux", None]
