"""What hooks do when they are called: the texts themselves are run, with stubs for what they would start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from chrootsync.hooks import marks, table, texts, units
from chrootsync.hooks.items import NAMES, Facts, Item, Mode
from chrootsync.hooks.marks import Author
from chrootsync.hooks.table import TARGETS

FACTS = Facts(interpreter="/opt/x/bin/python", chroots=("/var/spool/postfix", "/srv/a b"), places=("/usr/lib",))
DEBIAN_12 = "[Service]\nExecStart=/usr/sbin/postmulti -i %i -p start\n"
DEBIAN_13 = "[Service]\nEnvironment=MAIL_CONFIG=/etc/postfix-%I\nExecStart=postfix debian-systemd-start\n"
FEDORA = "[Service]\nExecStart=/usr/sbin/postfix start\n"
DUMMY = "[Service]\nExecStart=/bin/true\n"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


class Hook:
    """The hook script in a folder of its own, where everything that it calls is a stub that notes its call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.systemd = folder / "systemd"
        self.run_directory = folder / "run"
        self.apt = folder / "99chrootsync"
        self.interpreter = folder / "python"
        (folder / "bin").mkdir()
        self.stub(self.interpreter, 'pwd > "$0.pwd"; cat > "$0.stdin"; env > "$0.env"; echo "drift told"')
        self.stub(folder / "bin/logger", 'cat >> "$0.text"')
        self.stub(folder / "bin/systemctl", "true")

    @staticmethod
    def stub(path: Path, script: str, *, code: int = 0) -> None:
        path.write_text(f'#!/bin/sh\necho "$*" >> "$0.calls"\n{script}\nexit {code}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def logged(self) -> str:
        path = self.folder / "bin/logger.text"
        return path.read_text() if path.exists() else ""

    def text(self) -> str:
        text = texts.filled(texts.SCRIPT, str(self.interpreter))
        for what, instead in (
            ("/run/systemd/system", str(self.systemd)),
            ("/run/chrootsync", str(self.run_directory)),
            ("/etc/apt/apt.conf.d/99chrootsync", str(self.apt)),
            ("PATH=/usr/sbin", f"PATH={self.folder}/bin:/usr/sbin"),
            ("limit=60", "limit=1"),
            ("timeout -k 5", "timeout -k 1"),
        ):
            assert what in text
            text = text.replace(what, instead)
        return text

    def call(self, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        script = self.folder / "hook"
        script.write_text(self.text())
        return subprocess.run(
            ["sh", str(script), name],
            env={"PATH": "/usr/bin:/bin", **environment},
            input="for somebody else\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    return Hook(tmp_path)


def test_without_systemd_it_repairs_in_a_clean_environment(hook: Hook) -> None:
    done = hook.call("apt", PYTHONPATH="/evil", LD_PRELOAD="", HOME="/root", BASH_ENV="/evil")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hook.calls("python") == ["-I -m chrootsync check --fix --trigger apt --wait 30"]
    variables = {line.partition("=")[0] for line in (hook.folder / "python.env").read_text().splitlines()}
    assert variables - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "LC_ALL"}
    assert (hook.folder / "python.pwd").read_text() == "/\n"
    assert (hook.folder / "python.stdin").read_text() == ""
    assert hook.calls("bin/logger") == ["-t chrootsync"]
    assert hook.logged() == "drift told\n"


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 70])
def test_whatever_comes_of_the_repair_it_ends_0(hook: Hook, code: int) -> None:
    hook.stub(hook.interpreter, "echo told", code=code)

    assert hook.call("apt").returncode == 0
    assert hook.logged() == "told\n"


def test_a_missing_interpreter_is_told_and_fails_nothing(hook: Hook) -> None:
    hook.interpreter.unlink()

    assert hook.call("apt").returncode == 0
    assert "called by apt: cannot be run (status 127); install it again" in hook.logged()


def test_an_interpreter_that_crashes_is_told_and_fails_nothing(hook: Hook) -> None:
    hook.stub(hook.interpreter, "kill -SEGV $$")

    assert hook.call("apt").returncode == 0
    assert "called by apt: cannot be run (status 139)" in hook.logged()


@pytest.mark.parametrize("script", ["exec sleep 60", "trap '' TERM; sleep 60 & wait; wait"], ids=["plain", "stubborn"])
def test_a_repair_that_hangs_is_ended(hook: Hook, script: str) -> None:
    hook.stub(hook.interpreter, script)

    assert hook.call("apt").returncode == 0
    assert "called by apt: did not end within 1 seconds, and was ended" in hook.logged()


def test_without_a_logger_it_repairs_and_nobody_waits_for_what_it_leaves_behind(hook: Hook) -> None:
    (hook.folder / "bin/logger").unlink()
    hook.stub(hook.interpreter, "echo drift told; echo trouble >&2; sleep 60 &")
    tools = hook.folder / "tools"
    tools.mkdir()
    for name in ("timeout", "env", "sleep", "sh", "mkdir", "rm", "mv"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    text = hook.text().replace(f"PATH={hook.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"PATH={tools}")
    done = subprocess.run(["sh", "-c", text, "hook", "apt"], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(hook.calls("python")) == 1


def test_under_systemd_it_starts_the_service_and_says_who_asked(hook: Hook) -> None:
    hook.systemd.mkdir()

    assert hook.call("networkmanager").returncode == 0
    assert hook.calls("bin/systemctl") == ["--no-block --quiet start chrootsync.service"]
    assert hook.calls("python") == []
    assert [path.name for path in hook.run_directory.iterdir()] == ["requested"]
    assert (hook.run_directory / "requested").read_text() == "TRIGGER=networkmanager\n"
    assert hook.run_directory.stat().st_mode & 0o777 == 0o700


def test_where_the_service_cannot_be_started_it_repairs(hook: Hook) -> None:
    hook.systemd.mkdir()
    hook.stub(hook.folder / "bin/systemctl", "echo no such unit >&2", code=5)

    done = hook.call("apt")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hook.calls("python") == ["-I -m chrootsync check --fix --trigger apt --wait 30"]
    assert list(hook.run_directory.iterdir()) == []


@pytest.mark.parametrize("there", [False, True], ids=["dpkg alone", "apt too"])
@pytest.mark.parametrize("locked", [False, True], ids=["dpkg -i", "by apt"])
def test_within_apt_only_the_last_hook_repairs(hook: Hook, *, there: bool, locked: bool) -> None:
    if there:
        hook.apt.touch()
    environment = {"DPKG_FRONTEND_LOCKED": "true"} if locked else {}

    assert hook.call("dpkg", **environment).returncode == 0
    assert bool(hook.calls("python")) is not (there and locked)


@pytest.mark.parametrize("name", ["it's a $HOME; python", "a=b"])
def test_an_interpreter_with_an_odd_path_is_called_all_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "a=b").mkdir()
    hook = Hook(tmp_path / "a=b")
    hook.interpreter = tmp_path / "a=b" / name
    hook.stub(hook.interpreter, "")

    assert hook.call("apt").returncode == 0
    assert hook.calls(hook.interpreter.name) == ["-I -m chrootsync check --fix --trigger apt --wait 30"]


# --- The hooks that call it ---------------------------------------------------------------------------------------


def called(tmp_path: Path, text: str, *arguments: str, shell: str = "sh", **environment: str) -> list[str]:
    """The calls of the hook that a shell text makes; it ends 0 whether the hook is there or not."""
    stub = tmp_path / "stub"
    script = tmp_path / "script"
    script.write_text(texts.filled(text, "/x").replace(texts.HOOK, str(stub)))
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    command = [*((shell, "sh") if shell == "busybox" else (shell,)), str(script), *arguments]
    found: list[str] = []
    for code in (0, 1, None):
        Path(f"{stub}.calls").unlink(missing_ok=True)
        stub.unlink(missing_ok=True)
        if code is not None:
            Hook.stub(stub, "", code=code)
        done = subprocess.run(
            command, env=variables, input="/etc/x\n", capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        if code == 1:
            calls = Path(f"{stub}.calls")
            found = calls.read_text().splitlines() if calls.exists() else []
    return found


@pytest.mark.parametrize(
    ("text", "arguments", "calls"),
    [
        (texts.APK, ["post-commit"], ["apk"]),
        (texts.APK, ["pre-commit"], []),
        (texts.RESOLVCONF, [], ["resolvconf"]),
        (texts.NETWORKMANAGER, ["eth0", "up"], ["networkmanager"]),
        (texts.NETWORKMANAGER, ["none", "connectivity-change"], ["networkmanager"]),
        (texts.NETWORKMANAGER, ["eth0", "pre-up"], []),
        (texts.CA_CERTIFICATES, [], ["ca-certificates"]),
    ],
)
def test_scripts_call_the_hook_when_it_matters(
    tmp_path: Path, text: str, arguments: list[str], calls: list[str]
) -> None:
    assert called(tmp_path, text, *arguments) == calls


@pytest.mark.parametrize(("interface", "calls"), [("eth0", ["ifupdown"]), ("lo", [])])
def test_ifupdown_calls_it_for_all_but_the_loopback(tmp_path: Path, interface: str, calls: list[str]) -> None:
    assert called(tmp_path, texts.IFUPDOWN, IFACE=interface) == calls


@pytest.mark.parametrize(("reason", "calls"), [("BOUND", ["dhclient"]), ("RENEW6", ["dhclient"]), ("PREINIT", [])])
def test_dhclient_script_goes_on_after_it(tmp_path: Path, reason: str, calls: list[str]) -> None:
    (tmp_path / "went-on").unlink(missing_ok=True)
    text = f"{texts.DHCLIENT}\ntouch {tmp_path}/went-on\n"
    assert called(tmp_path, text, reason=reason) == calls
    assert (tmp_path / "went-on").exists()


FRAMES = (
    "PLUGINBEGIN\n\n\0",
    'COMMITBEGIN\ncontent-length:14\n\n{\n  "steps": 1}\0',
    'COMMITEND\n\n{"COMMITEND": 1}\0',
    "PLUGINEND\n\n\0",
    "_DISCONNECT\n\n\0",
)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_plugin_of_zypper_answers_each_frame_and_calls_the_hook_once(tmp_path: Path, shell: str) -> None:
    stub = tmp_path / "stub"
    Hook.stub(stub, "echo noise; echo noise >&2", code=1)
    script = tmp_path / "plugin"
    script.write_text(texts.filled(texts.ZYPPER, "/x").replace(texts.HOOK, str(stub)))
    command = [*((shell, "sh") if shell == "busybox" else (shell,)), str(script)]
    plugin = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert plugin.stdin is not None
    assert plugin.stdout is not None
    for frame in FRAMES:
        plugin.stdin.write(frame.encode())
        plugin.stdin.flush()
        assert plugin.stdout.read(6) == b"ACK\n\n\0"  # zypper goes on only after the answer
        assert Path(f"{stub}.calls").exists() is (FRAMES.index(frame) >= 2)
    rest, errors = plugin.communicate(timeout=30)
    assert (plugin.returncode, rest, errors) == (0, b"", b"")
    assert Path(f"{stub}.calls").read_text() == "zypper\n"


def test_the_plugin_of_zypper_ends_with_its_input(tmp_path: Path) -> None:
    script = tmp_path / "plugin"
    script.write_text(texts.filled(texts.ZYPPER, "/x"))
    done = subprocess.run(["sh", str(script)], input=b"PLUGINBEGIN\n\n\0", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"ACK\n\n\0")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_is_sound(tmp_path: Path, shell: str) -> None:
    for item in [table.hook(FACTS), *(item for target in TARGETS.values() for item in target.files)]:
        if item.text.startswith("#!/bin/sh") or item.path.startswith("/etc/dhcp"):
            script = tmp_path / "script"
            script.write_bytes(marks.marked(item.text, item.comment))
            subprocess.run(
                [*((shell, "sh") if shell == "busybox" else (shell,)), "-n", str(script)], check=True, timeout=30
            )


# --- The table ----------------------------------------------------------------------------------------------------


def test_the_targets_are_those_that_the_help_names() -> None:
    assert tuple(TARGETS) == NAMES


def test_what_is_called_can_be_executed_and_nothing_else() -> None:
    for target in TARGETS.values():
        for item in target.items(FACTS):
            executed = item.text.startswith("#!")
            assert item.mode == (0o755 if executed else 0o644), item.path


def test_no_placeholder_is_left() -> None:
    facts = Facts(interpreter="/opt/x/bin/python", postfix={"postfix@.service": DEBIAN_12})
    for mode in Mode:
        for target in TARGETS.values():
            for item in (table.hook(facts), *target.items(Facts(interpreter=facts.interpreter, mode=mode))):
                assert "@HOOK@" not in item.text
                assert "@INTERPRETER@" not in item.text
                assert "/usr/bin/python3" not in item.text


# --- Marks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\nb\n", "#!/bin/sh\nexit 0\n", "", "no newline"])
@pytest.mark.parametrize("comment", ["#", "//"])
def test_a_file_is_ours_until_it_is_edited(text: str, comment: str) -> None:
    data = marks.marked(text, comment)
    assert marks.author(data) is Author.OURS
    assert data.startswith(b"#!") is text.startswith("#!")
    assert marks.author(data + b"more\n") is Author.EDITED
    assert marks.author(b"before\n" + data) is Author.EDITED
    assert marks.author(text.encode()) is Author.FOREIGN


# --- Units --------------------------------------------------------------------------------------------------------


def by_path(items: tuple[Item, ...]) -> dict[str, Item]:
    return {item.path.removeprefix(f"{units.DIRECTORY}/"): item for item in items}


@pytest.mark.parametrize("mode", list(Mode))
def test_each_mode_has_the_service_the_timer_and_what_starts_them(mode: Mode) -> None:
    found = by_path(units.items(Facts(interpreter="/opt/x/bin/python", mode=mode)))

    assert {"chrootsync.service", "chrootsync.timer", "chrootsync-requested.path"} <= set(found)
    assert ("chrootsync-watch.service" in found) is (mode is Mode.WATCH)
    assert ("chrootsync.path" in found) is (mode is Mode.PATH)
    links = {path: item.target for path, item in found.items() if item.target is not None}
    enabled = {path.rpartition("/")[2] for path in links}
    assert enabled == set(units.STARTED[mode])
    assert links["timers.target.wants/chrootsync.timer"] == "/etc/systemd/system/chrootsync.timer"
    assert "ExecStart=/opt/x/bin/python -I -m chrootsync check --fix" in found["chrootsync.service"].text


def test_chroots_elsewhere_can_be_written_to() -> None:
    found = by_path(units.items(FACTS))
    for unit in ("chrootsync.service", "chrootsync-watch.service"):
        text = found[f"{unit}.d/chrootsync.conf"].text
        assert [line for line in text.splitlines() if line.startswith("ReadWrite")] == ['ReadWritePaths=-"/srv/a b"']
    assert not any(path.endswith(".conf") for path in by_path(units.items(Facts(interpreter="/x"))))


def test_devices_can_be_made_where_an_instance_needs_any() -> None:
    found = by_path(units.items(Facts(interpreter="/x", devices=True)))
    for unit in ("chrootsync.service", "chrootsync-watch.service"):
        assert "CAP_MKNOD" not in found[unit].text.split("CapabilityBoundingSet=")[1].split("\n")[0]
        assert found[f"{unit}.d/chrootsync.conf"].text.endswith("[Service]\nCapabilityBoundingSet=CAP_MKNOD\n")


def test_a_path_unit_watches_what_is_there() -> None:
    facts = Facts(interpreter="/x", mode=Mode.PATH, places=("/run/systemd/resolve", "/usr/lib/a b%c"))
    text = by_path(units.items(facts))["chrootsync.path.d/chrootsync.conf"].text
    assert text.endswith("[Path]\nPathModified=/run/systemd/resolve\nPathModified=/usr/lib/a b%%c\n")


@pytest.mark.parametrize(("unit", "argument"), [(DEBIAN_12, " -- %i"), (DEBIAN_13, " -- ${MAIL_CONFIG}"), (FEDORA, "")])
def test_a_unit_of_postfix_gets_its_own_instance_in_sync(unit: str, argument: str) -> None:
    [item] = units.postfix_items(Facts(interpreter="/opt/x/bin/python", postfix={"postfix@.service": unit}))

    assert item.path == "/etc/systemd/system/postfix@.service.d/chrootsync.conf"
    [line] = [line for line in item.text.splitlines() if line.startswith("ExecStartPre=")]
    assert line.startswith("ExecStartPre=-+/usr/bin/timeout -k 5 30 ")
    assert line.endswith(f"/opt/x/bin/python -I -m chrootsync check --fix --trigger postfix --wait 20{argument}")


def test_the_unit_that_stands_for_all_instances_starts_nothing() -> None:
    assert [units.starts_postfix(text) for text in (DEBIAN_12, DEBIAN_13, FEDORA, DUMMY)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/var/spool/postfix", "/var/spool/postfix"),
        ("/srv/100%", "/srv/100%%"),
        ('/srv/a "b" \\c', r'"/srv/a \x22b\x22 \x5cc"'),
        ("/srv/ä\n", r'"/srv/\xc3\xa4\x0a"'),
    ],
)
def test_paths_are_quoted_as_systemd_reads_them(path: str, written: str) -> None:
    assert units.quoted(path) == written
    assert units.quoted("/a$b", command=True) == "/a$$b"


@pytest.mark.parametrize(
    ("path", "program", "argument"),
    [
        ("/opt/x/bin/python", "/opt/x/bin/python", "/opt/x/bin/python"),
        ("/opt/a b%/python", '"/opt/a b%%/python"', '"/opt/a b%%/python"'),
        ("/opt/a$b/python", "/usr/bin/env /opt/a$$b/python", "/opt/a$$b/python"),
        ('/opt/a"b/python', r'/usr/bin/env "/opt/a\x22b/python"', r'"/opt/a\x22b/python"'),
        ("/opt/it's/python", '/usr/bin/env "/opt/it\'s/python"', '"/opt/it\'s/python"'),
    ],
)
def test_an_interpreter_is_written_as_systemd_reads_it(path: str, program: str, argument: str) -> None:
    """As the first word of a command it knows no variables, and refuses quotes: systemd.service(5)."""
    facts = Facts(interpreter=path, postfix={"postfix@.service": DEBIAN_12})
    service = by_path(units.items(facts))["chrootsync.service"].text
    assert f"\nExecStart={program} -I -m chrootsync check " in service
    [drop_in] = units.postfix_items(facts)
    assert f" -t chrootsync {argument} -I -m chrootsync check " in drop_in.text


def test_the_hook_is_where_root_alone_can_write() -> None:
    assert os.path.dirname(texts.HOOK) == "/etc/chrootsync"
