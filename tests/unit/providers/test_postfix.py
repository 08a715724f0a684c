"""Which instances of Postfix are found, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from chrootsync.model import Completed, Config, Host, Instance, RuleSet, UnreadableError, UnsafeError
from chrootsync.providers.postfix import defaults, discover
from tests.unit.tree_reader import MemoryCache, TreeReader, plant

MASTER = "smtp inet n - y - - smtpd\nlocal unix - n n - - local\n"
RULE_SETS = [
    RuleSet(name=name, service=service, description="", origin="", rules=())
    for name, service in (("a", "postfix"), ("b", "other"), ("c", "postfix"))
]
OUT = "/etc/postfix/main.cf", "multi_instance_directories = /etc/postfix-out\n"


class Postconf:
    """A Runner that answers ``postconf -d``."""

    def __init__(self, output: str = "queue_directory = /compiled/in\nempty =\n", code: int | None = 0) -> None:
        self.output = output
        self.code = code
        self.commands: list[tuple[str, ...]] = []

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert timeout > 0
        self.commands.append(tuple(command))
        if self.code is None:
            raise UnreadableError(command[0], "cannot be started")
        return Completed(code=self.code, output=self.output)

    def started(self, pid: int, child: str | None) -> float | None:
        raise NotImplementedError(pid, child)


class Distrustful(TreeReader):
    """A root in which one file could have been written by somebody else."""

    suspect = ""

    def read_trusted(self, path: str) -> bytes:
        if path == self.suspect:
            raise UnsafeError(path, "somebody else could have written it")
        return super().read_trusted(path)


def found(root: Path, files: Mapping[str, str], suspect: str = "") -> list[Instance]:
    """What is discovered in an image with these files; a master.cf stands beside each main.cf that has none."""
    texts = {path.replace("main.cf", "master.cf"): MASTER for path in files if path.endswith("main.cf")} | dict(files)
    plant(root, {path: text.encode() for path, text in texts.items() if text != "-"})
    reader = Distrustful(root)
    reader.suspect = suspect
    return discover(Host(root=reader, run=None, cache=MemoryCache()), Config(), RULE_SETS)


def problems(instances: list[Instance]) -> dict[str, str | None]:
    return {instance.name: instance.problem for instance in instances}


def test_without_postfix_there_is_nothing(tmp_path: Path) -> None:
    assert found(tmp_path, {}) == []


def test_the_default_instance(tmp_path: Path) -> None:
    [instance] = found(
        tmp_path,
        {
            "/etc/postfix/main.cf": "",
            "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
            "/usr/lib/postfix/libpostfix-global.so": "ELF\0mail_version\x003.7.11\0",
        },
    )
    assert (instance.name, instance.service, instance.provider) == ("postfix", "postfix", "postfix")
    assert instance.chroot == "/var/spool/postfix"
    assert instance.found == "default instance, /etc/postfix/main.cf"
    assert instance.config == "/etc/postfix"
    assert instance.aliases == ("/etc/postfix", "-")
    assert instance.rule_sets == ("a", "c")
    assert instance.version == "3.7.11"
    assert instance.problem is None
    assert instance.enabled
    assert instance.chrooted
    assert [(each.name, each.program, each.chrooted) for each in instance.daemons] == [
        ("smtp/inet", "smtpd", True),
        ("local/unix", "local", False),
    ]
    assert instance.control.reload == ("/usr/sbin/postfix", "-c", "/etc/postfix", "reload")
    assert instance.control.running == ("/usr/sbin/postfix", "-c", "/etc/postfix", "status")
    assert instance.control.watched == ("/etc/postfix/main.cf", "/etc/postfix/master.cf")
    assert instance.control.pid_file == "/var/spool/postfix/pid/master.pid"
    assert instance.control.unit is None


@pytest.mark.parametrize(
    ("main", "shared"),
    [
        ("", True),
        ("debugger_command = PATH=/bin; ddd $daemon_directory/$process_name $process_id & sleep 5\n", True),
        ("syslog_name = postfix/$service_name\n", False),
    ],
)
def test_services_share_what_they_do_not_have_of_their_own(tmp_path: Path, main: str, shared: bool) -> None:
    """The second is in the main.cf that Postfix comes with; a thousand parameters for each service are dear."""
    [instance] = found(tmp_path, {"/etc/postfix/main.cf": main})
    assert (len({id(one.parameters) for one in instance.daemons}) == 1) == shared


@pytest.mark.parametrize(
    ("main", "logs", "names"),
    [
        ("", ("/var/log/mail.log", "/var/log/maillog", "/var/log/mail"), ("postfix-out",)),
        ("maillog_file = /var/log/postfix.log\n", ("/var/log/postfix.log",), ("postfix-out",)),
    ],
)
def test_where_an_instance_logs(tmp_path: Path, main: str, logs: tuple[str, ...], names: tuple[str, ...]) -> None:
    services = MASTER + "465 inet n - y - - smtpd -o syslog_name=smtps\n"
    own = "multi_instance_name = postfix-out\nsyslog_name = ${multi_instance_name?{$multi_instance_name}:{postfix}}\n"
    [instance] = found(tmp_path, {"/etc/postfix/main.cf": own + main, "/etc/postfix/master.cf": services})
    assert instance.control.logs == logs
    assert instance.control.log_names == (*names, "smtps")
    assert instance.control.master == "master"


@pytest.mark.parametrize(("level", "chrooted"), [("", True), ("0", True), ("1", False), ("3.6", False), ("10", False)])
def test_the_default_of_the_chroot_column(tmp_path: Path, level: str, *, chrooted: bool) -> None:
    main = f"compatibility_level = {level}\n" if level else ""
    [instance] = found(
        tmp_path, {"/etc/postfix/main.cf": main, "/etc/postfix/master.cf": "smtp inet n - - - - smtpd\n"}
    )
    assert instance.chrooted is chrooted


def test_daemons_see_their_own_parameters(tmp_path: Path) -> None:
    [instance] = found(
        tmp_path,
        {
            "/etc/postfix/main.cf": "smtpd_milters = unix:$base/m\nbase = a\nsmtp_tls_CApath = $config_directory/ca\n",
            "/etc/postfix/master.cf": MASTER
            + "465 inet n - y - - smtpd -o base=b -o syslog_name=postfix/$service_name\nlmtp unix - - y - - lmtp\n",
        },
    )
    smtpd, local, own, lmtp = instance.daemons
    assert smtpd.parameters["smtpd_milters"] == "unix:a/m"
    assert own.parameters["smtpd_milters"] == "unix:b/m"
    assert own.parameters["syslog_name"] == "postfix/465"
    assert lmtp.parameters["smtp_tls_CApath"] == "/etc/postfix/ca"
    assert lmtp.parameters["tlsproxy_client_CApath"] == "/etc/postfix/ca"
    assert lmtp.parameters["virtual_alias_maps"] == ""
    assert smtpd.parameters is local.parameters is lmtp.parameters


def test_a_service_name_in_main_cf_is_the_daemons_own(tmp_path: Path) -> None:
    [instance] = found(tmp_path, {"/etc/postfix/main.cf": "syslog_name = $process_name:$service_name\n"})
    assert [each.parameters["syslog_name"] for each in instance.daemons] == ["smtpd:smtp", "local:local"]


def test_of_two_services_with_one_name_the_last_counts(tmp_path: Path) -> None:
    master = "smtp inet n - y - - smtpd\nsmtp inet n - n - - postscreen\n"
    [instance] = found(tmp_path, {"/etc/postfix/main.cf": "", "/etc/postfix/master.cf": master})
    assert [(each.program, each.chrooted) for each in instance.daemons] == [("postscreen", False)]


def test_several_instances(tmp_path: Path) -> None:
    instances = found(
        tmp_path,
        {
            "/etc/postfix/main.cf": "base = /etc\nmulti_instance_directories = $base/postfix-out,/srv/in/\t,\n",
            "/etc/postfix-out/main.cf": "multi_instance_name = postfix-mx\nqueue_directory = /q/out\n"
            "multi_instance_enable = YES\n",
            "/srv/in/main.cf": "queue_directory = /q/in\nprocess_id_directory = run\n",
        },
    )
    assert [(each.name, each.config, each.chroot, each.enabled, each.aliases) for each in instances] == [
        ("postfix", "/etc/postfix", "/var/spool/postfix", False, ("/etc/postfix", "-")),
        ("postfix-mx", "/etc/postfix-out", "/q/out", True, ("/etc/postfix-out", "mx")),
        ("in", "/srv/in", "/q/in", False, ("/srv/in",)),
    ]
    assert set(problems(instances).values()) == {None}
    assert instances[1].found == "multi_instance_directories in /etc/postfix/main.cf"
    assert instances[2].control.pid_file == "/q/in/run/master.pid"


TWICE = (
    "multi_instance_directories in /etc/postfix/main.cf names /etc/postfix-out although it is there already: "
    "take it out"
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"/etc/postfix/main.cf": "a = b\nrubbish\n"},
            {
                "postfix": '/etc/postfix/main.cf: line 2: "rubbish" is not of the form name = value: correct it; until '
                "then other instances are not discovered, because this file names them"
            },
        ),
        (
            {"/etc/postfix/main.cf": "multi_instance_directories = ${x\n"},
            {
                "postfix": "/etc/postfix/main.cf: the value of multi_instance_directories cannot be expanded: "
                '"${x" lacks its closing brace: correct it; until then other instances are not discovered, because '
                "this file names them"
            },
        ),
        (
            {"/etc/postfix/main.cf": "relayhost = $relayhost\n"},
            {
                "postfix": "/etc/postfix/main.cf: the value of relayhost cannot be expanded: it refers to itself "
                "(relayhost → relayhost): correct it"
            },
        ),
        (
            {"/etc/postfix/main.cf": "compatibility_level = new\n"},
            {"postfix": '/etc/postfix/main.cf: the compatibility level "new" is not of the form 3.6: correct it'},
        ),
        ({"/etc/postfix/main.cf": "unused = $unused\n"}, {"postfix": None}),
        (
            {"/etc/postfix/main.cf": "queue_directory = spool\n"},
            {"postfix": '/etc/postfix/main.cf: queue_directory is "spool": set an absolute path'},
        ),
        (
            {"/etc/postfix/main.cf": "", "/etc/postfix/master.cf": "-"},
            {"postfix": "/etc/postfix/master.cf does not exist: Postfix cannot start without it, restore it"},
        ),
        (
            {"/etc/postfix/main.cf": "", "/etc/postfix/master.cf": "smtp\n"},
            {"postfix": "/etc/postfix/master.cf: line 1: a service has 8 fields, not 1: correct it"},
        ),
        (
            {"/etc/postfix/main.cf": "", "/etc/postfix/master.cf": "smtp inet n - y - - smtpd -o relayhost=$\n"},
            {
                "postfix": "/etc/postfix/master.cf: service smtp/inet: the value of relayhost cannot be expanded: "
                '"$" has a "$" without a parameter name (a plain "$" is "$$"): correct it'
            },
        ),
        (
            {OUT[0]: OUT[1]},
            {
                "postfix": None,
                "postfix-out": "/etc/postfix-out/main.cf does not exist: create it, or take the directory out of "
                "multi_instance_directories in /etc/postfix/main.cf",
            },
        ),
        (
            {OUT[0]: OUT[1], "/etc/postfix-out/main.cf": "rubbish\n"},
            {
                "postfix": None,
                "postfix-out": '/etc/postfix-out/main.cf: line 1: "rubbish" is not of the form name = value: '
                "correct it",
            },
        ),
        (
            {
                OUT[0]: "rubbish = ${\nrelayhost = $rubbish\n" + OUT[1],
                "/etc/postfix-out/main.cf": "queue_directory = /q\n",
            },
            {
                "postfix": "/etc/postfix/main.cf: the value of relayhost cannot be expanded: "
                '"${" lacks its closing brace: correct it',
                "postfix-out": None,
            },
        ),
        (
            {OUT[0]: OUT[1], "/etc/postfix-out/main.cf": ""},
            {
                "postfix": None,
                "postfix-out": "/etc/postfix-out/main.cf: queue_directory is /var/spool/postfix, which is that of "
                "postfix too: give it one of its own",
            },
        ),
        (
            {
                OUT[0]: OUT[1].replace("\n", " /etc/postfix-out// /etc/postfix-out relative\n"),
                "/etc/postfix-out/main.cf": "queue_directory = /q\n",
            },
            {
                "postfix": None,
                "postfix-out": None,
                "/etc/postfix-out": TWICE.replace("out although", "out// although"),
                "/etc/postfix-out#2": TWICE,
                "relative": 'multi_instance_directories in /etc/postfix/main.cf names "relative": '
                "name an absolute path",
            },
        ),
    ],
)
def test_broken_instances_do_not_hide_others(
    tmp_path: Path, files: dict[str, str], expected: dict[str, str | None]
) -> None:
    assert problems(found(tmp_path, files)) == expected


@pytest.mark.parametrize("suspect", ["/etc/postfix-out/main.cf", "/etc/postfix-out/master.cf"])
def test_untrusted_files_are_a_problem(tmp_path: Path, suspect: str) -> None:
    files = {OUT[0]: OUT[1], "/etc/postfix-out/main.cf": "queue_directory = /q\n"}
    assert problems(found(tmp_path, files, suspect)) == {
        "postfix": None,
        "postfix-out": f"{suspect}: somebody else could have written it",
    }


def test_instances_with_one_name_stay_apart(tmp_path: Path) -> None:
    instances = found(
        tmp_path,
        {
            "/etc/postfix/main.cf": "multi_instance_directories = /a/x /b/x\n",
            "/a/x/main.cf": "queue_directory = /q/a\n",
            "/b/x/main.cf": "queue_directory = /q/b\n",
        },
    )
    assert [(each.name, each.chroot, each.problem) for each in instances[1:]] == [
        ("x", "/q/a", None),
        ("/b/x", "/q/b", None),
    ]


DEBIAN_12 = "ExecStart=/usr/sbin/postmulti -i %i -p start\n"
DEBIAN_13 = "ExecStart=/usr/sbin/postfix -c /etc/postfix-%i start\n"
NAMED = "multi_instance_name = postfix-in\nqueue_directory = /q\n"


@pytest.mark.parametrize(
    ("template", "service", "units"),
    [
        (DEBIAN_12, "", ["postfix@-.service", "postfix@postfix-in.service", None]),
        (DEBIAN_13, "x", ["postfix.service", "postfix@out.service", None]),
        ("", "x", [None, None, None]),
    ],
)
def test_units_of_several_instances(tmp_path: Path, template: str, service: str, units: list[str | None]) -> None:
    directory = "/usr/lib/systemd/system"
    instances = found(
        tmp_path,
        {
            "/etc/postfix/main.cf": "multi_instance_directories = /etc/postfix-out, /srv/x\n",
            "/etc/postfix-out/main.cf": NAMED,
            "/srv/x/main.cf": "queue_directory = /r\n",
            f"{directory}/postfix@.service": template or "-",
            f"{directory}/postfix.service": service or "-",
        },
    )
    assert [instance.control.unit for instance in instances] == units


def test_the_unit_of_a_single_instance(tmp_path: Path) -> None:
    [instance] = found(tmp_path, {"/etc/postfix/main.cf": "", "/lib/systemd/system/postfix.service": "x"})
    assert instance.control.unit == "postfix.service"


# --- Defaults ---------------------------------------------------------------------------------------------------


def live(root: Path, run: Postconf, cache: MemoryCache) -> dict[str, str]:
    return dict(defaults.load(Host(root=TreeReader(root), run=run, cache=cache)))


def test_a_live_host_is_asked_once(tmp_path: Path) -> None:
    plant(tmp_path, {"/usr/sbin/postconf": b"program"})
    run = Postconf("postconf: warning: open /dev/null/master.cf: x\nqueue_directory = /q\nempty =\nprocess_id = 7\n")
    cache = MemoryCache()
    assert live(tmp_path, run, cache) == {"queue_directory": "/q", "empty": ""}
    assert live(tmp_path, run, cache) == {"queue_directory": "/q", "empty": ""}
    assert run.commands == [("/usr/sbin/postconf", "-c", "/dev/null", "-d")]


def test_another_program_is_asked_again(tmp_path: Path) -> None:
    run, cache = Postconf(), MemoryCache()
    for contents in (b"program", b"another program"):
        plant(tmp_path, {"/usr/sbin/postconf": contents})
        live(tmp_path, run, cache)
    assert len(run.commands) == 2


@pytest.mark.parametrize("run", [Postconf(code=1), Postconf(code=None), Postconf(output="?")])
def test_the_table_stands_in_where_postconf_fails(tmp_path: Path, run: Postconf) -> None:
    plant(tmp_path, {"/usr/sbin/postconf": b"program"})
    assert live(tmp_path, run, MemoryCache())["queue_directory"] == "/var/spool/postfix"


def test_the_table_stands_in_where_there_is_no_postconf(tmp_path: Path) -> None:
    host = Host(root=TreeReader(tmp_path), run=Postconf(), cache=MemoryCache())
    assert defaults.load(host)["queue_directory"] == "/var/spool/postfix"


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ({}, ("/usr/libexec/postfix", "/usr/sbin", "postdrop", None)),
        ({"ID": "debian", "VERSION_ID": "13"}, ("/usr/lib/postfix/sbin", "/usr/sbin", "postdrop", None)),
        ({"ID": "debian"}, ("/usr/lib/postfix/sbin", "/usr/sbin", "postdrop", None)),
        ({"ID": "mint", "ID_LIKE": "ubuntu debian"}, ("/usr/lib/postfix/sbin", "/usr/sbin", "postdrop", None)),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, ("/usr/libexec/postfix", "/usr/sbin", "postdrop", None)),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, ("/usr/lib/postfix/bin", "/usr/sbin", "maildrop", None)),
        ({"ID": "arch"}, ("/usr/lib/postfix/bin", "/usr/bin", "postdrop", None)),
        ({"ID": "alpine", "VERSION_ID": "3.22"}, ("/usr/libexec/postfix", "/usr/sbin", "postdrop", None)),
    ],
)
def test_distributions(release: dict[str, str], expected: tuple[str | None, ...]) -> None:
    table = defaults.table(release)
    names = ("daemon_directory", "command_directory", "setgid_group", "mail_version")
    assert tuple(table.get(name) for name in names) == expected
