"""``install`` and ``uninstall`` as one types them, on images that are made by hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import typer
import watchdog
from typer.testing import Result

import chrootsync
from chrootsync.cli import installing
from chrootsync.hooks import commands, plan, units
from chrootsync.hooks.items import Facts, Item, Mode
from chrootsync.hooks.plan import Action, Step
from chrootsync.hooks.table import SPEC, TARGETS
from chrootsync.model import ChrootsyncError, Code, Completed, RepairError
from chrootsync.root.settings import Settings
from tests.unit.scenery import grow
from tests.unit.test_cli import run

APT = "/etc/apt/apt.conf.d/99chrootsync"
HOOK = "/etc/chrootsync/hook"
UNITS = "/etc/systemd/system"
UNIT = "[Service]\nExecStart=/usr/sbin/postmulti -i %i -p start\n"
PACKAGE = os.path.dirname(os.path.abspath(chrootsync.__file__))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of a Debian with one instance elsewhere, on which chrootsync is at the place that runs these tests."""
    grow(
        tmp_path,
        {
            "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
            "/etc/resolv.conf": b"nameserver 192.0.2.1\n",
            "/etc/postfix/main.cf": b"compatibility_level = 3.6\nqueue_directory = /srv/spool\n",
            "/etc/postfix/master.cf": b"smtp unix - - y - - smtp\n",
            "/srv/spool": None,
            "/etc/systemd/system": None,
            "/usr/lib/systemd/systemd": b"",
            "/usr/lib/systemd/system/postfix.service": b"[Service]\nExecStart=/bin/true\n",
            "/usr/lib/systemd/system/postfix@.service": UNIT.encode(),
            "/usr/bin/apt-get": b"",
            "/usr/bin/dpkg": b"",
            "/etc/apt/apt.conf.d": None,
            sys.executable: b"",
            f"{PACKAGE}/__init__.py": b"",
        },
    )
    return tmp_path


def install(image: Path, *arguments: str) -> Result:
    return run("install", "--root", str(image), *arguments)


def uninstall(image: Path, *arguments: str) -> Result:
    return run("uninstall", "--root", str(image), *arguments)


def files(image: Path) -> Mapping[str, tuple[int, float, bytes | str]]:
    """All that is in an image, but for directories."""
    found: dict[str, tuple[int, float, bytes | str]] = {}
    for path in sorted(image.rglob("*")):
        if not path.is_symlink() and path.is_dir():
            continue
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes()
        found[f"/{path.relative_to(image)}"] = (status.st_mode & 0o7777, status.st_ino, content)
    return found


def test_auto_installs_what_the_host_has_use_for(image: Path) -> None:
    before = set(files(image))
    done = install(image, "auto")

    assert done.exit_code == 0, done.output
    written = set(files(image)) - before
    assert written == {
        HOOK,
        APT,
        "/etc/dpkg/dpkg.cfg.d/chrootsync",
        *(f"{UNITS}/chrootsync{name}" for name in (".service", ".timer", "-watch.service", "-requested.path")),
        f"{UNITS}/chrootsync-later.timer",
        f"{UNITS}/chrootsync.service.d/chrootsync.conf",
        f"{UNITS}/chrootsync-watch.service.d/chrootsync.conf",
        f"{UNITS}/timers.target.wants/chrootsync.timer",
        f"{UNITS}/paths.target.wants/chrootsync-requested.path",
        f"{UNITS}/multi-user.target.wants/chrootsync-watch.service",
        f"{UNITS}/postfix@.service.d/chrootsync.conf",
    }
    assert sorted(done.stdout.splitlines()) == sorted(f"written    {path}" for path in written)
    assert done.stderr == "chrootsync: this is an image: its units start when it boots\n"
    drop_in = (image / UNITS[1:] / "chrootsync.service.d/chrootsync.conf").read_text()
    assert drop_in.endswith("[Service]\nReadWritePaths=-/srv/spool\n")
    assert sys.executable in (image / HOOK[1:]).read_text()


def test_devices_that_an_instance_needs_may_be_made(image: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rules = tmp_path_factory.mktemp("rules")
    (rules / "random.toml").write_text('[[override]]\nid = "postfix.random"\npresence = "required"\n')
    done = install(image, "systemd", "--rules", str(rules))

    assert done.exit_code == 0, done.output
    for unit in ("chrootsync.service", "chrootsync-watch.service"):
        drop_in = (image / UNITS[1:] / f"{unit}.d/chrootsync.conf").read_text()
        assert drop_in.endswith("[Service]\nReadWritePaths=-/srv/spool\nCapabilityBoundingSet=CAP_MKNOD\n")


def test_a_second_time_nothing_is_written(image: Path) -> None:
    install(image, "auto")
    before = files(image)
    done = install(image, "auto")

    assert done.exit_code == 0
    assert files(image) == before
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"unchanged"}


def test_uninstall_removes_exactly_what_was_written(image: Path) -> None:
    (image / "etc/apt/apt.conf.d/99other").write_text("")
    before = files(image)
    (image / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    directories = {path for path in image.rglob("*") if path.is_dir()}
    install(image, "auto")
    done = uninstall(image, "auto")

    assert done.exit_code == 0
    assert files(image) == before
    assert {path for path in image.rglob("*") if path.is_dir()} == directories
    assert not (image / "etc/chrootsync").exists()
    assert uninstall(image, "auto").stdout == ""


def test_a_unit_of_somebody_else_stays_enabled(image: Path) -> None:
    """As a package of a distribution brings and enables it."""
    link = image / UNITS[1:] / "timers.target.wants/chrootsync.timer"
    link.parent.mkdir()
    link.symlink_to("/usr/lib/systemd/system/chrootsync.timer")
    done = uninstall(image, "auto")
    assert (done.exit_code, done.output) == (0, "")
    assert link.is_symlink()

    install(image, "systemd")
    assert os.readlink(link) == f"{UNITS}/chrootsync.timer"
    uninstall(image, "systemd")
    assert not link.parent.exists()


def test_another_version_is_another_watcher(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher goes on with the code that it has read at its start: after an upgrade it has to be started anew."""
    install(image, "systemd")
    monkeypatch.setattr(units, "__version__", "99.0")
    done = install(image, "systemd")
    changed = [line for line in done.stdout.splitlines() if not line.startswith("unchanged")]
    assert changed == [f"updated    {UNITS}/chrootsync-watch.service"]


def test_what_was_done_before_a_failure_is_told(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads that the disk is full wants to know what is there by now; the next call does the rest."""
    write = Settings.write

    def full(self: Settings, path: str, data: bytes, mode: int) -> None:
        if path == APT:
            raise RepairError(path, "writing it failed: no space left on device")
        write(self, path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr(Settings, "write", full)
        done = install(image, "apt", "dpkg")
    assert done.exit_code == Code.FAILED
    assert done.stdout == f"written    {HOOK}\n"
    assert done.stderr == f"chrootsync: {APT}: writing it failed: no space left on device\n"
    again = install(image, "apt", "dpkg")
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["unchanged", "written", "written"]


def test_another_mode_takes_away_what_the_one_before_needed(image: Path) -> None:
    install(image, "systemd")
    done = install(image, "systemd", "--mode", "path")

    assert done.exit_code == 0
    assert f"removed    {UNITS}/chrootsync-watch.service" in done.stdout.splitlines()
    assert f"removed    {UNITS}/multi-user.target.wants/chrootsync-watch.service" in done.stdout.splitlines()
    assert (image / UNITS[1:] / "paths.target.wants/chrootsync.path").is_symlink()
    assert not (image / UNITS[1:] / "chrootsync-watch.service.d").exists()
    install(image, "systemd", "--mode", "timer")
    assert not list(image.rglob("chrootsync.path*"))


@pytest.mark.parametrize("mode", Mode)
def test_without_a_mode_it_stays_as_it_is(image: Path, mode: Mode) -> None:
    """As after an upgrade, or where a chroot was added: the messages that ask for that name no mode."""
    install(image, "systemd", "--mode", mode.value)
    before = files(image)
    assert {line.split()[0] for line in install(image, "systemd").stdout.splitlines()} == {"unchanged"}
    assert files(image) == before


def test_a_chroot_that_is_gone_is_written_to_no_more(image: Path) -> None:
    install(image, "systemd")
    (image / "etc/postfix/main.cf").write_text("compatibility_level = 3.6\n")
    done = install(image, "systemd")

    assert f"removed    {UNITS}/chrootsync.service.d/chrootsync.conf" in done.stdout.splitlines()
    assert "unchanged  /etc/systemd/system/chrootsync.service" in done.stdout.splitlines()


def test_the_hook_stays_while_another_target_calls_it(image: Path) -> None:
    install(image, "apt", "dpkg")
    assert uninstall(image, "apt").stdout == f"removed    {APT}\n"
    assert (image / HOOK[1:]).exists()
    assert uninstall(image, "dpkg").stdout == f"removed    /etc/dpkg/dpkg.cfg.d/chrootsync\nremoved    {HOOK}\n"


def test_a_dry_run_shows_all_and_changes_nothing(image: Path) -> None:
    before = files(image)
    done = install(image, "systemd", "apt", "--dry-run")

    assert done.exit_code == 0
    assert files(image) == before
    mark = "Written by chrootsync install, and removed by chrootsync uninstall. Rest of this file: sha256 "
    assert f"--- {APT}: to be written, mode 0644\n// {mark}" in done.stdout
    assert 'DPkg::Post-Invoke {"if [ -x /etc/chrootsync/hook ]' in done.stdout
    link = f"{UNITS}/timers.target.wants/chrootsync.timer"
    assert f"--- {link}: to be written: a link to {UNITS}/chrootsync.timer\n" in done.stdout
    install(image, "systemd", "apt")
    before = files(image)
    gone = uninstall(image, "auto", "--dry-run")
    assert f"--- {APT}: to be removed\n" in gone.stdout
    assert files(image) == before


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("APT::Get::Assume-Yes no;\n"),
    "a link": lambda path: path.symlink_to("/dev/null"),
    "a directory": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_others_wrote_is_never_overwritten_and_then_nothing_is(image: Path, kind: str) -> None:
    FOREIGN[kind](image / APT[1:])
    before = sorted(image.rglob("*"))
    done = install(image, "auto")

    assert done.exit_code == Code.FAILED
    way = "move it away, and what you need of it to a drop-in"
    assert done.stderr.splitlines()[0] == f"chrootsync: {APT}: was not written by chrootsync; {way}"
    assert done.stdout == ""
    assert sorted(image.rglob("*")) == before


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_what_somebody_edited_is_his(image: Path, mode: int) -> None:
    install(image, "apt")
    path = image / APT[1:]
    path.chmod(mode)
    with path.open("a") as file:
        file.write("# mine\n")
    before = files(image)

    done = install(image, "apt")
    assert done.exit_code == Code.FAILED
    way = "move it away, and what you need of it to a drop-in"
    assert done.stderr == f"chrootsync: {APT}: was edited since chrootsync wrote it; {way}\n"
    assert files(image) == before

    gone = uninstall(image, "auto")
    assert gone.exit_code == Code.FAILED
    assert gone.stderr == f"chrootsync: {APT}: was edited since chrootsync wrote it, and stays; remove it by hand\n"
    assert path.exists()
    assert not (image / HOOK[1:]).exists()


def test_a_unit_that_is_masked_stays_so(image: Path) -> None:
    (image / UNITS[1:] / "chrootsync-watch.service").symlink_to("/dev/null")
    done = install(image, "systemd")
    assert done.exit_code == Code.FAILED
    assert f"{UNITS}/chrootsync-watch.service: was not written by chrootsync" in done.stderr


def test_a_file_whose_mode_was_changed_is_written_anew(image: Path) -> None:
    install(image, "apt")
    (image / HOOK[1:]).chmod(0o777)
    done = install(image, "apt")
    assert f"updated    {HOOK}" in done.stdout.splitlines()
    assert (image / HOOK[1:]).stat().st_mode & 0o777 == 0o755


def test_the_umask_changes_nothing(image: Path) -> None:
    before = os.umask(0o077)
    try:
        install(image, "dpkg")
    finally:
        os.umask(before)
    assert (image / HOOK[1:]).stat().st_mode & 0o777 == 0o755
    assert (image / "etc/dpkg/dpkg.cfg.d").stat().st_mode & 0o777 == 0o755
    assert (image / "etc/dpkg/dpkg.cfg.d/chrootsync").stat().st_mode & 0o777 == 0o644


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [sys.executable, PACKAGE, f"{PACKAGE}/__init__.py", "/etc/apt/apt.conf.d"])
def test_code_and_places_that_others_can_write_to_are_refused(image: Path, path: str) -> None:
    (image / path[1:]).chmod(0o777)
    done = install(image, "apt")

    assert done.exit_code == Code.FAILED
    assert path in done.stderr
    assert "others can write to" in done.stderr
    if path.startswith(PACKAGE):
        assert done.stderr.endswith("; install chrootsync where only root can write (make install)\n")
    assert not (image / APT[1:]).exists()


def test_what_is_imported_is_looked_at_file_by_file() -> None:
    """A directory that only root can write to may hold a module that others can, from a careless copy."""
    found = installing._imported_from(PACKAGE)
    assert {typer.__file__, os.path.dirname(typer.__file__), watchdog.__file__} <= set(found)
    assert os.path.dirname(os.path.dirname(typer.__file__)) in found


def test_a_dry_run_shows_all_and_then_what_would_be_refused(image: Path) -> None:
    (image / PACKAGE[1:]).chmod(0o777)
    done = install(image, "apt", "--dry-run")
    assert done.exit_code == Code.FAILED
    assert "DPkg::Post-Invoke" in done.stdout
    told = done.stderr.splitlines()[-1]
    way = "install chrootsync where only root can write (make install)"
    reason = "others can write to it (mode 0777)"
    assert told == f"chrootsync: what root is to run could be changed by others: {PACKAGE}: {reason}; {way}"


def test_an_image_without_chrootsync_is_refused(image: Path) -> None:
    (image / sys.executable[1:]).unlink()
    done = install(image, "apt")
    assert done.exit_code == Code.FAILED
    assert done.stderr == (
        f"chrootsync: {sys.executable}: is not in {image}; install chrootsync there at the same path "
        "(make install DESTDIR=...), or run its own: chroot DIR chrootsync install\n"
    )


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_an_unknown_target_is_told_with_the_known_ones(image: Path, verb: str) -> None:
    done = run(verb, "--root", str(image), "apt", "systemed")
    assert done.exit_code == Code.USAGE
    assert done.stderr.startswith("chrootsync: there is no target 'systemed'; there is: systemd, postfix, apt")


def test_a_link_out_of_the_image_is_followed_inside(image: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    grow(image, {"/usr/etc/apt.conf.d": None, str(outside): None})
    (image / "etc/apt/apt.conf.d").rmdir()
    (image / "etc/apt/apt.conf.d").symlink_to(outside)
    assert install(image, "apt").exit_code == 0
    assert list(outside.iterdir()) == []
    assert (image / str(outside)[1:] / "99chrootsync").exists()


def test_without_a_unit_of_postfix_there_is_nothing_to_add_to(image: Path) -> None:
    (image / "usr/lib/systemd/system/postfix@.service").unlink()
    done = install(image, "postfix")
    assert done.exit_code == Code.FAILED
    units = "postfix.service or postfix@.service"
    reason = f"no unit that starts Postfix is there ({units}); leave out postfix"
    assert done.stderr == f"chrootsync: {reason}\n"


def test_the_live_host_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("uninstall", "apt")
    assert done.exit_code == Code.FAILED
    reason = "units and hooks are root's: run this as root, or look at them with --dry-run"
    assert done.stderr == f"chrootsync: {reason}\n"


def test_a_python_that_does_not_know_itself_is_refused(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    done = install(image, "apt")
    assert done.exit_code == Code.FAILED
    reason = "the Python that runs this does not know its own path; start it by an absolute one"
    assert done.stderr == f"chrootsync: {reason}\n"


def test_a_python_that_would_not_find_this_chrootsync_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is written in a dry run, which is refused all the same."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    done = run("install", "apt", "--dry-run")
    assert done.exit_code == Code.FAILED
    assert done.stderr.splitlines()[-1] == (
        f"chrootsync: {other} -I, as units and hooks call it, does not find the chrootsync that this is ({PACKAGE}); "
        "install it into that Python's own packages, not by PYTHONPATH or for one user"
    )


def test_what_is_still_to_be_done_by_hand_is_said(image: Path) -> None:
    done = install(image, "rpm", "dnf")
    said = done.stderr.splitlines()
    assert f"chrootsync: rpm calls no hook yet: build {SPEC} with rpmbuild -bb, and install that there" in said
    plugins = "install python3-dnf-plugin-post-transaction-actions (dnf 4) or libdnf5-plugin-actions (dnf 5)"
    assert f"chrootsync: dnf does not call its hook yet: {plugins}" in said


def test_a_dry_run_with_nothing_to_do_says_so(image: Path) -> None:
    assert uninstall(image, "apt", "--dry-run").stdout == "nothing to do\n"


def test_a_dry_run_says_what_is_to_be_updated(image: Path) -> None:
    install(image, "apt")
    (image / APT[1:]).chmod(0o600)
    assert f"--- {APT}: to be updated, mode 0644\n" in install(image, "apt", "--dry-run").stdout


# --- Commands on the live host ------------------------------------------------------------------------------------


class Recorder:
    """A runner that notes commands; those that begin with one of ``failing`` end with 1.

    ``unread`` are the units whose files systemd has yet to read again.
    """

    def __init__(self, *failing: tuple[str, ...], unread: Sequence[str] = ()) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.failing = failing
        self.unread = unread

    def run(self, command: Sequence[str], *, timeout: float) -> Completed:
        assert timeout > 0
        if tuple(command[1:4]) == ("show", "--property=NeedDaemonReload", "--value"):
            return Completed(code=0, output="yes\n" if command[4] in self.unread else "no\n")
        self.commands.append(tuple(command))
        failed = any(tuple(command[: len(start)]) == start for start in self.failing)
        return Completed(code=1 if failed else 0, output="it is broken\n" if failed else "")

    def started(self, pid: int, child: str | None) -> float | None:  # noqa: ARG002 -- of the protocol
        return None


def step(path: str, action: Action = Action.WRITE) -> Step:
    return Step(item=Item(path=path), action=action)


SYSTEMD = [TARGETS["systemd"]]


def test_systemd_is_told_of_what_changed_and_starts_it() -> None:
    run = Recorder()
    steps = [step(f"{UNITS}/chrootsync-watch.service"), step(f"{UNITS}/chrootsync.timer", Action.KEEP)]
    commands.after_install(run, Facts(interpreter="/x"), SYSTEMD, steps, booted=True)
    assert [" ".join(command[1:]) for command in run.commands] == [
        "daemon-reload",
        "start chrootsync-requested.path",
        "start chrootsync.timer",
        "restart chrootsync-watch.service",
    ]


def test_where_nothing_changed_units_are_merely_started() -> None:
    run = Recorder()
    commands.after_install(run, Facts(interpreter="/x", mode=Mode.TIMER), SYSTEMD, [], booted=True)
    assert [command[1] for command in run.commands] == ["daemon-reload", "start", "start"]


def test_what_an_interrupted_call_has_written_is_read_and_restarted() -> None:
    run = Recorder(unread=["chrootsync-watch.service"])
    steps = [step(f"{UNITS}/chrootsync-watch.service", Action.KEEP)]
    commands.after_install(run, Facts(interpreter="/x"), SYSTEMD, steps, booted=True)
    assert [" ".join(command[1:]) for command in run.commands] == [
        "daemon-reload",
        "start chrootsync-requested.path",
        "start chrootsync.timer",
        "restart chrootsync-watch.service",
    ]
    drop_in = Recorder()
    commands.after_install(drop_in, Facts(interpreter="/x"), [TARGETS["postfix"]], [], booted=True)
    assert [command[1:] for command in drop_in.commands] == [("daemon-reload",)]


def test_without_a_running_systemd_nothing_is_started() -> None:
    run = Recorder()
    commands.after_install(run, Facts(interpreter="/x"), SYSTEMD, [step(f"{UNITS}/chrootsync.timer")], booted=False)
    assert run.commands == []


def test_units_are_stopped_before_they_go() -> None:
    run = Recorder()
    steps = [step(f"{UNITS}/{name}", Action.REMOVE) for name in ("chrootsync-watch.service", "chrootsync.timer")]
    commands.before_removal(run, SYSTEMD, steps, booted=True)
    commands.after_removal(run, SYSTEMD, steps, booted=True)
    stop, reload, *forget = run.commands
    assert stop[1] == "stop"
    assert set(stop[2:]) == {"chrootsync-watch.service", "chrootsync.timer"}
    assert reload[1:] == ("daemon-reload",)
    assert [command[1:] for command in forget] == [
        ("reset-failed", "chrootsync-watch.service"),
        ("reset-failed", "chrootsync.timer"),
    ]


def test_units_that_cannot_be_stopped_stay() -> None:
    run = Recorder(("/usr/bin/systemctl", "stop"))
    with pytest.raises(ChrootsyncError) as error:
        commands.before_removal(run, SYSTEMD, [step(f"{UNITS}/chrootsync.timer", Action.REMOVE)], booted=True)
    what = "/usr/bin/systemctl stop chrootsync.timer ended with status 1: it is broken"
    assert str(error.value) == f"{what}; nothing was changed; mend that, and try again"


def test_what_cannot_be_removed_is_told_with_what_was_done() -> None:
    with pytest.raises(ChrootsyncError) as error:
        commands.before_removal(
            Recorder(("/usr/bin/rpm", "-e")), [TARGETS["rpm"]], [step(SPEC, Action.REMOVE)], booted=False
        )
    what = "/usr/bin/rpm -e chrootsync-hook ended with status 1: it is broken"
    assert str(error.value) == f"{what}; no file was changed; mend that, and try again"
    run = Recorder(("/usr/bin/systemctl", "daemon-reload"))
    with pytest.raises(ChrootsyncError) as error:
        commands.after_removal(run, SYSTEMD, [], booted=True)
    what = "/usr/bin/systemctl daemon-reload ended with status 1: it is broken"
    assert str(error.value) == f"{what}; the files are gone, systemd does not know yet; try again"


def test_a_command_that_fails_is_one_sentence() -> None:
    run = Recorder(("/usr/bin/systemctl", "daemon-reload"))
    with pytest.raises(ChrootsyncError) as error:
        commands.after_install(run, Facts(interpreter="/x"), SYSTEMD, [step(f"{UNITS}/chrootsync.timer")], booted=True)
    expected = (
        "/usr/bin/systemctl daemon-reload ended with status 1: it is broken; the files are in place, run install again"
    )
    assert str(error.value) == expected


def test_a_package_that_cannot_be_built_is_one_sentence() -> None:
    rpm = [TARGETS["rpm"]]
    with pytest.raises(ChrootsyncError) as error:
        commands.after_install(Recorder(("/bin/sh",)), Facts(interpreter="/x"), rpm, [step(SPEC)], booted=False)
    what = "building and installing chrootsync-hook by rpmbuild and rpm ended with status 1: it is broken"
    assert str(error.value) == f"{what}; the files are in place, run install again"


def test_the_package_of_rpm_is_built_once_and_taken_away_again() -> None:
    rpm = [TARGETS["rpm"]]
    fresh = Recorder()
    commands.after_install(fresh, Facts(interpreter="/x"), rpm, [step(SPEC)], booted=False)
    assert [command[0] for command in fresh.commands] == ["/bin/sh"]
    again = Recorder()
    commands.after_install(again, Facts(interpreter="/x"), rpm, [step(SPEC, Action.KEEP)], booted=False)
    assert again.commands == [("/usr/bin/rpm", "-q", "chrootsync-hook")]
    gone = Recorder()
    commands.before_removal(gone, rpm, [step(SPEC, Action.REMOVE)], booted=False)
    assert gone.commands[-1] == ("/usr/bin/rpm", "-e", "chrootsync-hook")


def test_steps_know_what_changes() -> None:
    assert [action for action in Action if plan.Step(item=Item(path="/x"), action=action).changes] == [
        Action.WRITE,
        Action.UPDATE,
        Action.REMOVE,
    ]
