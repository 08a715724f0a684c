"""The command line as one types it: exit statuses, messages, formats."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chrootsync import __version__
from chrootsync.cli import app, main
from tests.unit.scenery import grow, snapshot

MAIN = b"compatibility_level = 3.6\nmulti_instance_enable = yes\nqueue_directory = /var/spool/%s\n%s"
MASTER = b"smtp unix - - y - - smtp\nsmtpd inet n - y - - smtpd\n"
RESOLVER = b"nameserver 192.0.2.1\n"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with two Postfix instances, whose chroots are in sync."""
    grow(
        tmp_path,
        {
            "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
            "/etc/resolv.conf": RESOLVER,
            "/etc/services": b"smtp 25/tcp\n",
            "/etc/hosts": b"127.0.0.1 localhost\n",
            "/etc/nsswitch.conf": b"hosts: files dns\n",
            "/etc/postfix/main.cf": MAIN % (b"postfix", b"multi_instance_directories = /etc/postfix-out\n"),
            "/etc/postfix/master.cf": MASTER,
            "/etc/postfix-out/main.cf": MAIN % (b"postfix-out", b"multi_instance_name = postfix-out\n"),
            "/etc/postfix-out/master.cf": MASTER,
            "/var/spool/postfix": None,
            "/var/spool/postfix-out": None,
        },
    )
    return tmp_path


@pytest.fixture
def filled(image: Path) -> Path:
    assert run("check", "--fix", "--rules", rules(image), "--root", str(image)).exit_code == 0
    return image


def rules(image: Path) -> str:
    """Local rules that leave out what a hand-made image cannot have: libraries."""
    directory = image.parent / f"{image.name}-rules"
    if not directory.exists():
        directory.mkdir(mode=0o755)
        (directory / "postfix-nss.toml").write_text("")
        (directory / "postfix-nss.toml").chmod(0o644)
    return str(directory)


def runner() -> CliRunner:
    """A runner that keeps the two streams apart, which click before 8.2 does only when it is told to."""
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(**({"mix_stderr": False} if old else {}))  # type: ignore[arg-type]  # the newer one has no such argument


def run(*arguments: str) -> Result:
    return runner().invoke(app, list(arguments), prog_name="chrootsync")


def check(image: Path, *arguments: str) -> Result:
    return run("check", *arguments, "--root", str(image), "--rules", rules(image))


def stale(image: Path) -> Path:
    path = image / "var/spool/postfix-out/etc/resolv.conf"
    path.write_bytes(b"nameserver 192.0.2.9\n")
    return path


# --- check ----------------------------------------------------------------------------------------------------------


def test_what_is_in_sync_takes_one_line_and_ends_0(filled: Path) -> None:
    result = check(filled)
    assert result.exit_code == 0
    assert result.stdout == f"2 instances, 10 entries in {filled}: in sync\n"
    assert check(filled, "-q").stdout == ""


def test_drift_ends_1_and_says_what_where_and_why(filled: Path) -> None:
    stale(filled)
    result = check(filled)
    assert result.exit_code == 1
    line, last = result.stdout.splitlines()
    where = "/var/spool/postfix-out/etc/resolv.conf"
    assert line.startswith(f"error differs postfix-out {where}: other contents than on the host, 21 bytes both (")
    assert last == f"2 instances, 10 entries in {filled}: 1 drifted (1 differs) in 1 instance"


def test_a_check_without_fix_changes_nothing(filled: Path) -> None:
    stale(filled)
    before = snapshot(filled)
    check(filled, "--diff", "-v")
    assert snapshot(filled) == before


def test_fix_repairs_and_ends_0_and_the_next_check_is_clean(filled: Path) -> None:
    path = stale(filled)
    result = check(filled, "--fix")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"2 instances, 10 entries in {filled}: 1 repaired"
    assert "note: this is an image: nothing runs in it, so nothing was reloaded" in result.stdout
    assert path.read_bytes() == RESOLVER
    assert check(filled).exit_code == 0


def test_a_repair_that_fails_ends_3(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chrootsync.root import kernel

    def broken(*_arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    path = stale(filled)
    monkeypatch.setattr(kernel, "rename", broken)
    result = check(filled, "--fix")
    assert result.exit_code == 3
    assert "failed: putting the new copy into place failed: no space left on device" in result.stdout
    assert path.read_bytes() == b"nameserver 192.0.2.9\n"


@pytest.mark.parametrize("name", ["out", "postfix-out", "/etc/postfix-out", "/etc/postfix-out/"])
def test_instances_answer_to_their_names(filled: Path, name: str) -> None:
    stale(filled)
    assert check(filled, "postfix").exit_code == 0
    result = check(filled, name)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("1 instance, 5 entries")


def test_an_unknown_instance_ends_2(filled: Path) -> None:
    result = check(filled, "outt")
    assert result.exit_code == 2
    assert result.stderr == "chrootsync: there is no instance 'outt' here; there is: postfix, postfix-out\n"


def test_differences_are_shown_when_asked_for(filled: Path) -> None:
    stale(filled)
    result = check(filled, "--diff")
    assert "-nameserver 192.0.2.9" in result.stdout
    assert "+nameserver 192.0.2.1" in result.stdout


def test_warnings_count_with_strict(filled: Path) -> None:
    master = filled / "etc/postfix-out/master.cf"
    master.write_bytes(MASTER.replace(b" y ", b" n "))
    stale(filled)
    assert check(filled).exit_code == 0
    assert check(filled, "--strict").exit_code == 1


def test_json_is_for_programs(filled: Path) -> None:
    stale(filled)
    result = check(filled, "--format", "json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["status"], report["version"]) == (1, "drift", __version__)
    (drift,) = [one for one in report["instances"][1]["drift"] if one["severity"] == "error"]
    assert (drift["kind"], drift["path"], drift["want"]["size"]) == ("differs", "/etc/resolv.conf", 21)


def test_errors_are_json_where_the_report_is(filled: Path) -> None:
    result = check(filled, "nobody", "--format", "json")
    assert result.exit_code == 2
    message = "there is no instance 'nobody' here; there is: postfix, postfix-out"
    assert json.loads(result.stdout) == {"schema": 1, "error": {"code": 2, "messages": [message]}}
    assert result.stderr == f"chrootsync: {message}\n"


def test_reports_are_written_beside(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("reports") / "report.json"
    assert check(filled, "-q", "--report", f"json={target}", "--report", f"plain={target}.txt").exit_code == 0
    assert json.loads(target.read_text())["status"] == "in-sync"
    assert Path(f"{target}.txt").read_text().endswith("in sync\n")
    assert sorted(path.name for path in target.parent.iterdir()) == ["report.json", "report.json.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "xml"], "--format xml: there is no such format; there is: table, plain, json"),
        (["--report", "json"], "--report json: must be FORMAT=FILE, as in json=/tmp/report.json"),
        (["--report", "xml=/x"], "--report xml=/x: there is no format 'xml'; there is: table, plain, json"),
        (["--root", "/nowhere"], "--root /nowhere: does not exist; name the directory of an unpacked image"),
        (["--config", "/nowhere.toml"], "--config /nowhere.toml: does not exist"),
        (["--rules", "/nowhere"], "--rules /nowhere: does not exist"),
    ],
)
def test_usage_errors_end_2(arguments: list[str], message: str) -> None:
    result = run("check", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--wait", "x"], "invalid value for '--wait': 'x' is not a valid float range; see {} check --help"),
        (["check", "--format"], "option '--format' requires an argument; see "),
        (["chek"], "no such command 'chek'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_ends_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chrootsync", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1)
    assert said.startswith(f"chrootsync: {message.format('chrootsync')}")
    monkeypatch.setattr(sys, "argv", ["chrootsync", *arguments, "--format=json"])
    with pytest.raises(SystemExit):
        main()


def test_an_unwritable_report_ends_3(filled: Path) -> None:
    result = check(filled, "--report", "json=/nowhere/report.json")
    message = "chrootsync: --report json=/nowhere/report.json: cannot be written: No such file or directory\n"
    assert (result.exit_code, result.stderr) == (3, message)


def test_an_empty_root_is_a_clear_answer(tmp_path: Path) -> None:
    result = run("check", "--root", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, f"no instance in {tmp_path} found: nothing to check\n")


def test_another_repair_ends_5(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "locks"
    locks.mkdir(mode=0o700)
    monkeypatch.setattr(sys.modules["chrootsync.cli.check"], "_lock_directory", lambda: str(locks))
    status = filled.stat()
    with (locks / f"{status.st_dev}-{status.st_ino}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = check(filled, "--fix", "--wait", "0.2")
    reason = "another repair of this root is under way and did not end within 0.2 seconds"
    assert result.exit_code == 5
    assert result.stderr == f"chrootsync: {reason}; try again, or wait longer with --wait\n"
    assert check(filled, "--fix").exit_code == 0


# --- Configuration and rules ------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "chrootsync.toml"


def test_a_static_instance_is_served(image: Path, config: Path) -> None:
    config.write_text('[[instance]]\nname = "jail"\nchroot = "/srv/jail"\nrules = ["jail"]\n')
    directory = Path(rules(image))
    (directory / "jail.toml").write_text(
        '[ruleset]\nservice = "jail"\ndescription = "for a test"\n'
        '[[rule]]\nid = "jail.hosts"\nwhy = "a test"\nfiles = ["/etc/hosts"]\n'
    )
    config.chmod(0o644)
    (directory / "jail.toml").chmod(0o644)
    grow(image, {"/srv/jail": None})
    result = check(image, "jail", "--config", str(config), "--fix")
    assert result.exit_code == 0, result.output
    assert (image / "srv/jail/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[instance]\n", "{config}: is not TOML"),
        ("[[instances]]\n", '{config}: instances: is not a known key; did you mean "instance"?'),
        (
            '[[instance]]\nname = "x"\nchroot = "/"\nrules = ["bind"]\n',
            "{config}: instance[0].chroot: must not be the root itself",
        ),
        (
            '[[instance]]\nname = "x"\nchroot = "/x"\nrules = ["bnid"]\n',
            '{config}: instance[0].rules[0]: is not a known rule set; did you mean "bind"?',
        ),
        (
            '[[instance]]\nname = "x"\nchroot = "x"\nrules = ["bind"]\n',
            "{config}: instance[0].chroot: must be absolute",
        ),
    ],
)
def test_mistakes_in_the_configuration_end_2(image: Path, config: Path, text: str, message: str) -> None:
    config.write_text(text)
    config.chmod(0o644)
    before = snapshot(image)
    result = check(image, "--fix", "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"chrootsync: {message.format(config=config)}")
    assert snapshot(image) == before


def test_a_chroot_that_is_a_link_to_the_root_ends_2(image: Path, config: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/")
    config.write_text(f'[[instance]]\nname = "x"\nchroot = "{link}"\nrules = ["bind"]\n')
    config.chmod(0o644)
    result = check(image, "--config", str(config))
    message = f"chrootsync: {config}: instance[0].chroot: {link} is the root itself by another name\n"
    assert (result.exit_code, result.stderr) == (2, message)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_configuration_that_others_can_write_ends_2(image: Path, config: Path, mode: int) -> None:
    config.write_text("")
    config.chmod(mode)
    result = check(image, "--config", str(config))
    assert result.exit_code == 2
    assert result.stderr == (
        f"chrootsync: the configuration cannot be used: {config}: "
        f"others can write to it (mode {mode:04o}); take that away (chmod go-w)\n"
    )


def test_rules_that_others_can_write_end_2(image: Path) -> None:
    path = Path(rules(image)) / "local.toml"
    path.write_text("")
    path.chmod(0o666)
    result = check(image)
    assert result.exit_code == 2
    assert "others can write to it (mode 0666)" in result.stderr


def test_rules_are_listed_checked_and_have_a_schema(image: Path) -> None:
    listed = run("rules", "list", "--rules", rules(image))
    assert listed.exit_code == 0
    assert "  postfix.resolver\n    holds  /etc/resolv.conf\n" in listed.stdout
    names = [one["name"] for one in json.loads(run("rules", "list", "--format", "json").stdout)["rule_sets"]]
    assert "postfix-resolver" in names
    checked = run("rules", "check", "--rules", rules(image))
    assert (checked.exit_code, checked.stdout.endswith(": no mistakes\n")) == (0, True)
    assert json.loads(run("rules", "schema").stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_mistake_of_the_rules_is_told_at_once(image: Path) -> None:
    path = Path(rules(image)) / "wrong.toml"
    path.write_text(
        '[ruleset]\nservice = "postfix"\ndescription = "x"\n'
        '[[rule]]\nid = "a"\nwhy = "b"\nfiles = ["etc/x"]\nfilse = []\n'
        '[[rule]]\nid = "a"\nwhy = "b"\nfiles = ["/etc/../x"]\n'
    )
    path.chmod(0o644)
    result = run("rules", "check", "--rules", rules(image))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert f"chrootsync: {path}: rule[0].files[0]: must be absolute" in lines
    assert len([line for line in lines if "rule[1]" in line]) >= 1
    assert len(lines) >= 3


# --- instances, the top, the end -------------------------------------------------------------------------------------


def test_instances_are_listed(image: Path) -> None:
    result = run("instances", "--root", str(image))
    assert result.exit_code == 0
    blocks = result.stdout.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["postfix", "postfix-out"]
    assert "  chroot      /var/spool/postfix-out\n" in result.stdout
    assert "  chrooted    smtp/unix, smtpd/inet\n" in result.stdout
    listed = json.loads(run("instances", "--root", str(image), "--format", "json").stdout)["instances"]
    assert [(one["name"], one["config"]) for one in listed] == [
        ("postfix", "/etc/postfix"),
        ("postfix-out", "/etc/postfix-out"),
    ]


def test_an_instance_that_cannot_be_served_ends_1(image: Path) -> None:
    (image / "etc/postfix-out/main.cf").unlink()
    result = run("instances", "--root", str(image))
    assert result.exit_code == 1
    assert "/etc/postfix-out/main.cf does not exist" in result.stdout


def test_an_instance_without_chrooted_services_is_said_to_need_nothing(image: Path) -> None:
    (image / "etc/postfix-out/master.cf").write_bytes(MASTER.replace(b" y ", b" n "))
    result = run("instances", "--root", str(image))
    assert "no service runs chrooted: this instance needs nothing" in result.stdout


def test_the_version() -> None:
    assert run("--version").stdout == f"chrootsync {__version__}\n"


def test_the_demonstration_runs_as_anybody() -> None:
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("in sync") == 2
    assert "8 repaired" in result.stdout or "repaired" in result.stdout
    root = result.stdout.split("--root ")[1].split()[0]
    assert not Path(root).exists()


def test_the_demonstration_can_be_kept() -> None:
    import shutil

    result = run("demo", "--keep")
    root = Path(result.stdout.split("The root is left in ")[1].split(". Play")[0])
    try:
        assert run("check", "--root", str(root)).exit_code == 0
    finally:
        shutil.rmtree(root)


def test_a_bug_ends_70_and_says_where_the_trace_is(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_task: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("chrootsync.pipeline.check", broken)
    result = check(filled)
    assert result.exit_code == 70
    message, _, rest = result.stderr.partition("; the full trace is in ")
    assert message == "chrootsync: this is a bug in chrootsync"
    trace = Path(rest.split(",")[0])
    assert "ZeroDivisionError" in trace.read_text()
    trace.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_130_and_leaves_nothing_half_done(filled: Path, number: signal.Signals) -> None:
    """The signal comes at the worst moment: when the first copy is about to be put into place."""
    stale(filled)
    before = snapshot(filled)
    program = (
        "import os, signal, sys\n"
        "from chrootsync.root import kernel\n"
        f"kernel.rename = lambda *arguments: os.kill(os.getpid(), {int(number)})\n"
        "sys.argv = ['chrootsync', *sys.argv[1:]]\n"
        "from chrootsync.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--fix", "--root", str(filled), "--rules", rules(filled)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "chrootsync: interrupted; nothing is left half-done\n")
    assert snapshot(filled) == before
