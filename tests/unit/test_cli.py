"""The command line as one types it: exit statuses, messages, formats."""

from __future__ import annotations

import errno
import fcntl
import importlib
import inspect
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from chrootsync import __version__, report
from chrootsync.cli import main
from chrootsync.cli.application import application
from chrootsync.model import LockedError
from chrootsync.report.verdict import findings
from tests.unit.report.report_samples import REPORTS
from tests.unit.scenery import grow, snapshot

showing = importlib.import_module("chrootsync.cli.progress")

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
    return runner().invoke(application(), list(arguments), prog_name="chrootsync")


def check(image: Path, *arguments: str) -> Result:
    return run("check", *arguments, "--root", str(image), "--rules", rules(image))


def stale(image: Path) -> Path:
    path = image / "var/spool/postfix-out/etc/resolv.conf"
    path.write_bytes(b"nameserver 192.0.2.9\n")
    return path


# --- check ----------------------------------------------------------------------------------------------------------


def test_trust_stat_finds_the_same_and_needs_a_place_to_remember(filled: Path) -> None:
    state = str(filled.parent / f"{filled.name}-state")
    for _ in range(2):
        assert check(filled, "--trust-stat", "--state", state).exit_code == 0
    stale(filled)
    assert check(filled, "--trust-stat", "--state", state).exit_code == 1
    assert check(filled, "--trust-stat", "--state", state, "out").exit_code == 1
    assert check(filled, "--trust-stat", "--state", state, "--fix").exit_code == 0
    refused = check(filled, "--trust-stat")
    assert refused.exit_code == 2
    needs = "--trust-stat: needs a place to remember what was compared; name one with --state"
    assert refused.stderr == f"chrootsync: {needs}\n"


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
        (["--format", "xml"], f"--format xml: there is no such format; there is: {', '.join(report.FORMATS)}"),
        (["--report", "json"], "--report json: must be FORMAT=FILE, as in json=/tmp/report.json"),
        (["--report", "xml=/x"], f"--report xml=/x: there is no format 'xml'; there is: {', '.join(report.FORMATS)}"),
        (["--root", "/nowhere"], "--root /nowhere: does not exist; name the directory of an unpacked image"),
        (["--config", "/nowhere.toml"], "--config /nowhere.toml: does not exist"),
        (["--rules", "/nowhere"], "--rules /nowhere: does not exist"),
        (
            ["--trigger", "a b"],
            "--trigger: must be a name of at most 64 letters, digits and any of . _ @ : -",
        ),
    ],
)
def test_usage_errors_end_2(arguments: list[str], message: str) -> None:
    result = run("check", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: {message}\n")


@pytest.mark.parametrize("what", ["--rules", "a rule file", "--config"])
def test_a_link_to_nothing_is_refused(filled: Path, tmp_path: Path, what: str) -> None:
    """What it was to bring would be missing, and with --fix its copies would go."""
    place = tmp_path / ("rules" if what != "--config" else "chrootsync.toml")
    if what == "a rule file":
        place.mkdir(mode=0o755)
    dangling = place / "local.toml" if what == "a rule file" else place
    dangling.symlink_to("/nowhere")
    result = run("check", "--root", str(filled), "--config" if what == "--config" else "--rules", str(place))
    told = {
        "--rules": f"--rules {place}: does not exist",
        "a rule file": f"{dangling}: is a link to nothing; mend what it leads to, or remove it",
        "--config": f"--config {place}: does not exist",
    }
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: {told[what]}\n")


def test_the_usual_places_may_be_missing_and_not_links_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chrootsync.cli.setup.LOCAL_RULES", str(tmp_path / "rules.d"))
    monkeypatch.setattr("chrootsync.cli.setup.CONFIG", str(tmp_path / "chrootsync.toml"))
    assert run("instances").exit_code in (0, 1)
    for name in ("rules.d", "chrootsync.toml"):
        (tmp_path / name).symlink_to("/nowhere")
        result = run("instances")
        told = f"{tmp_path}/{name}: is a link to nothing; mend what it leads to, or remove it"
        assert (result.exit_code, result.stderr) == (2, f"chrootsync: {told}\n")
        (tmp_path / name).unlink()


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


# --- Where reports go ----------------------------------------------------------------------------------------------


def test_a_report_that_cannot_be_kept_ends_3_and_the_run_is_shown_all_the_same(
    filled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path_factory.mktemp("reports") / "report.json"
    stale(filled)
    monkeypatch.setattr(sys.modules["chrootsync.cli.output"].os, "replace", full)
    result = check(filled, "--report", f"json={target}")
    message = f"chrootsync: --report json={target}: cannot be written: no space left on device (make room there)\n"
    assert (result.exit_code, result.stderr) == (3, message)
    assert "1 drifted (1 differs)" in result.stdout
    assert list(target.parent.iterdir()) == []
    shown = check(filled, "--report", f"json={target}", "--format", "json")
    assert json.loads(shown.stdout)["status"] == "drift"


def test_a_device_is_written_to_and_stays(filled: Path) -> None:
    before = os.stat("/dev/null")
    assert check(filled, "--report", "json=/dev/null").exit_code == 0
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_a_fifo_is_written_to_and_stays(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    fifo = tmp_path_factory.mktemp("reports") / "fifo"
    os.mkfifo(fifo)
    read = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert check(filled, "--report", f"json={fifo}").exit_code == 0
        assert json.loads(os.read(read, 1 << 16))["status"] == "in-sync"
    finally:
        os.close(read)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_a_link_stays_and_what_it_leads_to_is_replaced(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("reports")
    (place / "link").symlink_to("other")
    (place / "other").symlink_to(place / "report")
    for text in (None, "old"):  # nothing is there yet; an older report is
        if text is not None:
            (place / "report").write_text(text)
        assert check(filled, "--report", f"json={place}/link").exit_code == 0
        assert json.loads((place / "report").read_text())["status"] == "in-sync"
    assert (os.readlink(place / "link"), os.readlink(place / "other")) == ("other", str(place / "report"))
    assert sorted(path.name for path in place.iterdir()) == ["link", "other", "report"]


def test_a_report_can_go_to_standard_output(filled: Path) -> None:
    done = process("check", "-q", *places(filled), "--report", "json=/dev/stdout")
    assert (done.returncode, json.loads(done.stdout)["status"], done.stderr) == (0, "in-sync", "")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("{place}", "is a directory; name a file in it"),
        ("{place}/new/", "is a directory; name a file in it"),
        ("{place}/socket", "is a socket; name a file"),
        ("{place}/none/report", "there is no directory {place}/none"),
        ("{place}/loop", "too many links"),
    ],
)
def test_a_report_that_can_go_nowhere_ends_2_before_anything_is_repaired(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, file: str, reason: str
) -> None:
    place = tmp_path_factory.mktemp("reports")
    (place / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place / "socket"))
        stale(filled)
        before = snapshot(filled)
        request = f"json={file.format(place=place)}"
        result = check(filled, "--fix", "--report", request)
    message = f"chrootsync: --report {request}: {reason.format(place=place)}\n"
    assert (result.exit_code, result.stderr) == (2, message)
    assert snapshot(filled) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_report_to_a_block_device_ends_2(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    device = tmp_path_factory.mktemp("reports") / "device"
    try:
        os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(240, 0))
    except PermissionError:
        pytest.skip("no devices may be made here")
    result = check(filled, "--report", f"json={device}")
    message = f"chrootsync: --report json={device}: is a block device; name a file\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_two_reports_to_one_file_end_2(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("reports")
    (place / "link").symlink_to("report")
    result = check(filled, "--report", f"json={place}/report", "--report", f"plain={place}/link")
    message = f"chrootsync: --report plain={place}/link: another report goes to this file already\n"
    assert (result.exit_code, result.stderr) == (2, message)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
@pytest.mark.parametrize("what", ["link", "FIFO"])
def test_a_link_or_fifo_of_somebody_else_ends_2(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, what: str
) -> None:
    place = tmp_path_factory.mktemp("reports")
    (place / "victim").write_text("precious")
    trap = place / "trap"
    if what == "link":
        trap.symlink_to("victim")
    else:
        os.mkfifo(trap)
    os.chown(trap, 12345, 12345, follow_symlinks=False)
    result = check(filled, "--report", f"json={trap}")
    reason = f"is a {what} that belongs to user 12345; remove it, or name another file"
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: --report json={trap}: {reason}\n")
    assert (place / "victim").read_text() == "precious"


# --- Streams that are full, closed, gone, or of few letters ----------------------------------------------------------


def places(image: Path) -> list[str]:
    return ["--root", str(image), "--rules", rules(image)]


def process(*arguments: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own; ``shell`` holds redirections of a shell."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "chrootsync", *arguments]
    everything = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(command, capture_output=True, encoding="latin-1", check=False, env=everything, timeout=60)


@pytest.mark.parametrize(
    ("shell", "reason"),
    [("> /dev/full", "no space left on device (make room there)"), (">&-", "standard output is closed")],
)
@pytest.mark.parametrize(
    ("verb", "what", "code"),
    [
        (["check"], "the report", 3),
        (["check", "--format", "json"], "the report", 3),
        (["check", "drifted"], "the report", 1),
        (["instances"], "the report", 3),
        (["rules", "list"], "the report", 3),
        (["rules", "check"], "the report", 3),
        (["rules", "schema"], "the report", 3),
        (["demo"], "the report", 3),
        (["--help"], "the help", 3),
        (["check", "--help"], "the help", 3),
        (["--version"], "the help", 3),
    ],
)
def test_output_that_cannot_be_written_is_one_sentence(
    filled: Path, verb: list[str], what: str, code: int, shell: str, reason: str
) -> None:
    arguments = [*verb, *(places(filled) if verb[0] == "check" and "--help" not in verb else [])]
    if verb[0] == "instances":
        arguments += ["--root", str(filled)]
    if "drifted" in arguments:
        arguments.remove("drifted")
        stale(filled)
    done = process(*arguments, shell=shell)
    assert (done.returncode, done.stderr) == (code, f"chrootsync: cannot write {what}: {reason}\n")


def test_nothing_can_be_said_to_nobody(filled: Path) -> None:
    stale(filled)
    for shell in ("> /dev/full 2> /dev/full", ">&- 2>&-", "<&- >&- 2>&-"):
        assert process("check", *places(filled), shell=shell).returncode == 1
        assert process("check", "nobody", *places(filled), shell=shell).returncode == 2


@pytest.mark.parametrize(("drifted", "code"), [(True, 1), (False, 0)])
def test_a_reader_who_went_away_changes_neither_status_nor_reports(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, drifted: bool, code: int
) -> None:
    target = tmp_path_factory.mktemp("reports") / "report.json"
    if drifted:
        stale(filled)
    arguments = ["check", *places(filled), "--report", f"json={target}"]
    assert gone(*arguments) == (code, "")
    assert json.loads(target.read_text())["status"] == ("drift" if drifted else "in-sync")
    assert gone("--help") == (0, "")


def gone(*arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a process whose standard output nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "chrootsync", *arguments]
    cwd = Path(__file__).parents[2]
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd)
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("style", ["plain", "table", "json"])
def test_any_name_can_be_told_in_any_locale(tmp_path: Path, style: str) -> None:
    image = tmp_path / "im\N{CJK UNIFIED IDEOGRAPH-6F22}ge"
    (image / "etc").mkdir(parents=True)
    for encoding in ("latin-1", "ascii"):
        arguments = ["check", "--root", str(image), "--format", style]
        done = process(*arguments, PYTHONIOENCODING=f"{encoding}:strict", PYTHONUTF8="1")
        assert (done.returncode, done.stderr) == (0, "")
        assert "im\\u6f22ge" in done.stdout
        wrong = process("check", "--root", f"{image}/none", PYTHONIOENCODING=f"{encoding}:strict", PYTHONUTF8="1")
        assert wrong.returncode == 2
        assert "im\\u6f22ge/none: does not exist" in wrong.stderr


def test_as_many_files_as_the_hard_limit_allows_can_be_open() -> None:
    program = (
        "import resource; from chrootsync.cli import streams; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "streams.prepare(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    cwd = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=cwd)
    assert done.stdout == "(512, 512)\n"


# --- Places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--root", "--rules", "--state", "--config"])
def test_an_empty_place_ends_2(option: str) -> None:
    result = run("check", option, "")
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: {option}: must not be empty\n")
    assert run("instances", option, "").exit_code == 2


def test_every_empty_place_is_told_at_once() -> None:
    result = run("check", "--root", "", "--state", "")
    assert result.stderr == "chrootsync: --root: must not be empty\nchrootsync: --state: must not be empty\n"
    assert run("rules", "check", "--rules", "").stderr == "chrootsync: --rules: must not be empty\n"


@pytest.mark.parametrize("option", ["--root", "--rules", "--state", "--config", "--report"])
def test_a_relative_place_in_a_directory_that_is_gone_ends_2(tmp_path: Path, option: str) -> None:
    directory = tmp_path / "gone"
    value = "json=here" if option == "--report" else "here"
    command = f'mkdir "$0"; cd "$0"; rmdir "$0"; exec "$1" -m chrootsync check {option} {value}'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = ["sh", "-c", command, str(directory), sys.executable]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    reason = "the working directory that it is relative to does not exist any more; name an absolute path"
    assert (done.returncode, done.stderr) == (2, f"chrootsync: {option} here: {reason}\n")


def test_rules_that_are_no_directory_end_2(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text("")
    result = run("rules", "check", "--rules", str(file))
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: --rules {file}: is not a directory\n")


def test_a_state_directory_that_would_not_be_used_ends_2(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    for name, reason in {
        "file": "is not a directory",
        "file/below": "cannot be used: not a directory",
        "open": "others can write to it (mode 0777); take that away (chmod go-w)",
        "link": "is a link; name the directory that it leads to",
    }.items():
        result = check(filled, "--state", str(tmp_path / name))
        assert (result.exit_code, result.stderr) == (2, f"chrootsync: --state {tmp_path / name}: {reason}\n")
    assert check(filled, "--state", str(tmp_path / "absent")).exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_somebody_else_ends_2(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("state")
    os.chown(state, 12345, 12345)
    result = check(filled, "--state", str(state))
    reason = "belongs to user 12345, who could change what is remembered"
    assert (result.exit_code, result.stderr) == (2, f"chrootsync: --state {state}: {reason}\n")


@pytest.mark.parametrize("below", ["", "/state"])
def test_no_chroot_of_an_image_overlaps_with_the_state_directory(filled: Path, below: str) -> None:
    state = filled / f"var/spool/postfix-out{below}"
    state.mkdir(exist_ok=True)
    result = check(filled, "--state", str(state), "--format", "json")
    first, second = json.loads(result.stdout)["instances"]
    assert (result.exit_code, first["status"], second["status"]) == (1, "in-sync", "drift")
    (drift,) = second["drift"]
    assert drift["kind"] in ("bad-instance", "unsafe")
    assert f"/var/spool/postfix-out{below}" in drift["reason"]
    beside = filled.parent / f"{filled.name}-state"
    assert check(filled, "--state", str(beside)).exit_code == 0


@pytest.mark.parametrize("value", ["nan", "NaN", "-nan"])
def test_waiting_takes_a_number(filled: Path, value: str) -> None:
    result = check(filled, "--fix", f"--wait={value}")
    assert (result.exit_code, result.stderr) == (2, "chrootsync: --wait nan: must be a number of seconds\n")
    assert check(filled, "--fix", "--wait", "inf").exit_code == 0


# --- Progress --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_after_a_while_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(showing, "PATIENCE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(showing, "FRAME", 0.05)
    with showing.progress(quiet=False) as shown:
        shown.say("repairing post\x1bfix[red]")
        deadline = time.monotonic() + 30
        while "repairing post\\x1bfix[red]" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # one large file is compared
    assert "repairing post\\x1bfix[red]" in terminal.getvalue()
    said = len(terminal.getvalue())
    time.sleep(0.3)
    assert len(terminal.getvalue()) == said


@pytest.mark.parametrize("kind", ["dumb", None])
def test_a_terminal_that_cannot_clear_a_line_shows_no_progress(
    monkeypatch: pytest.MonkeyPatch, kind: str | None
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.delenv("TERM", raising=False) if kind is None else monkeypatch.setenv("TERM", kind)
    before = threading.active_count()
    with showing.progress(quiet=False):
        assert threading.active_count() == before


def test_progress_takes_one_line_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(showing, "PATIENCE", 0.01)
    monkeypatch.setattr(showing, "FRAME", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    with showing.progress(quiet=False) as shown:
        shown.say("x" * 500)
        deadline = time.monotonic() + 30
        while "x" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    frames = terminal.getvalue().split("\r")
    assert max(len(frame) for frame in frames) <= 79 + len(showing.REST)
    assert frames[-2:] == [showing.REST, ""]


def test_progress_counts_entries() -> None:
    shown = showing.Progress()
    entry = findings(REPORTS["drift"])[0].drift.entry
    shown.seen(entry)
    shown.seen(entry)
    assert shown.doing == f"comparing {entry.instance.name}, 2 entries so far"
    shown.say("repairing")
    assert shown.doing == "repairing"


def test_progress_of_what_is_quick_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    before = threading.active_count()

    def quick(*, quiet: bool) -> None:
        with showing.progress(quiet=quiet) as shown:
            shown.say("comparing")
            assert threading.active_count() == before + (not quiet)
            raise ZeroDivisionError

    for quiet in (False, True):
        with pytest.raises(ZeroDivisionError):
            quick(quiet=quiet)
        deadline = time.monotonic() + 30
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before
    assert terminal.getvalue() == ""


# --- The rest of check -----------------------------------------------------------------------------------------------


def test_an_empty_root_is_a_clear_answer(tmp_path: Path) -> None:
    result = run("check", "--root", str(tmp_path))
    message = "no system is in there, neither etc nor usr; name the directory that the image was unpacked to"
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"chrootsync: --root {tmp_path}: {message}\n"


def test_another_repair_ends_5(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "locks"
    locks.mkdir(mode=0o700)
    monkeypatch.setattr("chrootsync.cli.fix.root_lock", lambda _stage: (str(locks), "one.lock"))
    with (locks / "one.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = check(filled, "--fix", "--wait", "0.2")
    reason = "another repair of this root is under way and did not end within 0.2 seconds"
    assert result.exit_code == 5
    assert result.stderr == f"chrootsync: {reason}; try again, or wait longer with --wait\n"
    assert check(filled, "--fix").exit_code == 0


def test_what_waited_and_could_not_be_repaired_after_all_is_said(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look, once nothing has to wait any more, finds another repair under way."""
    checking, looks = sys.modules["chrootsync.cli.check"], 0
    real = vars(checking)["_pass"]

    def look(*arguments: object, **named: object) -> object:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise LockedError("another repair is at work; try again")
        return real(*arguments, **named)

    monkeypatch.setattr(checking, "_pass", look)
    monkeypatch.setattr(checking, "waits", lambda _report: True)
    monkeypatch.setattr("chrootsync.cli.fix.wait_for_packages", lambda *_: True)
    result = check(filled, "--fix")
    assert "note: what waits was not repaired: another repair is at work; try again\n" in result.stdout


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
    result = run("check", "--config", str(config), "--rules", rules(image))
    message = f"chrootsync: {config}: instance[0].chroot: {link} is the root itself by another name\n"
    assert (result.exit_code, result.stderr) == (2, message)


def test_chroots_of_an_image_are_looked_for_in_it(image: Path, config: Path, tmp_path: Path) -> None:
    """What the live host has at the same path is nobody's business."""
    link = tmp_path / "link"
    link.symlink_to("/")
    config.write_text(f'[[instance]]\nname = "x"\nchroot = "{link}"\nrules = ["jail"]\n')
    directory = Path(rules(image))
    (directory / "jail.toml").write_text(
        '[ruleset]\nservice = "jail"\ndescription = "for a test"\n'
        '[[rule]]\nid = "jail.hosts"\nwhy = "a test"\nfiles = ["/etc/hosts"]\n'
    )
    for path in (config, directory / "jail.toml"):
        path.chmod(0o644)
    grow(image, {str(link): None})
    assert check(image, "x", "--config", str(config), "--fix").exit_code == 0
    assert (image / str(link)[1:] / "etc/hosts").exists()
    config.write_text('[[instance]]\nname = "x"\nchroot = "/self"\nrules = ["jail"]\n')
    (image / "self").symlink_to("/")
    result = check(image, "x", "--config", str(config))
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("error bad-instance x ") or result.stdout.startswith("error unsafe x ")


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
    reason = "others can write to it (mode 0666); take that away (chmod go-w)"
    assert result.stderr == f"chrootsync: the rules cannot be used: {path}: {reason}\n"


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


def test_what_is_listed_for_programs_keeps_to_the_schema(image: Path) -> None:
    import jsonschema  # type: ignore[import-untyped]  # it ships no types, and stubs would be one more thing to install

    schema = json.loads(Path(report.__file__).with_name("schema.json").read_text("utf-8"))
    for arguments in (["instances", "--root", str(image)], ["rules", "list"], ["check", "--root", str(image)]):
        made = run(*arguments, "--format", "json")
        jsonschema.Draft202012Validator(schema).validate(json.loads(made.stdout))


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
    newest = result.stdout.splitlines()[-2]
    assert re.search(r"manual +postfix-submission, postfix-in, postfix-out +\d+ repaired", newest)
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


def test_under_systemd_the_trace_of_a_bug_is_in_the_journal(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_task: object) -> None:
        raise ZeroDivisionError("\n<0>forged")

    monkeypatch.setenv("INVOCATION_ID", "0123456789abcdef")
    monkeypatch.setattr("chrootsync.pipeline.check", broken)
    result = check(filled)
    assert result.exit_code == 70
    lines = result.stderr.splitlines()
    assert lines[-1] == "chrootsync: this is a bug in chrootsync; the full trace is above, please report it"
    assert "chrootsync: ZeroDivisionError: " in lines
    assert all(line.startswith("chrootsync: ") for line in lines)


def test_an_automatic_run_logs_lines_instead_of_a_report(filled: Path) -> None:
    """Nothing is reloaded in an image, which is a note; whoever names a format gets it."""
    stale(filled)
    assert check(filled, "--trigger", "apt").stdout.startswith("drift instance=postfix-out kinds=")
    assert check(filled, "--trigger", "apt", "--format", "json").stdout.startswith("{")
    assert check(filled, "--trigger", "apt", "--quiet").stdout == ""
    repaired, note = check(filled, "--fix", "--trigger", "apt").stdout.splitlines()
    assert repaired.startswith("repaired instance=postfix-out kinds=")
    assert " trigger=apt reload=none duration=" in repaired
    assert note.startswith('note trigger=apt reason="this is an image')
    assert check(filled, "--trigger", "apt").stdout.startswith("in-sync instances=2 entries=")


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
