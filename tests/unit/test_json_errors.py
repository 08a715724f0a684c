"""Errors with ``--format json``: one JSON object on standard output, sentences on standard error, the same status."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from chrootsync.cli import main
from chrootsync.cli.application import VERBS
from tests.unit.test_cli import check, filled, image, plain_environment, process, rules, run, stale

__all__ = ["filled", "image", "plain_environment"]  # fixtures

JSON = ("--format", "json")
WRONG_USE: dict[str, Sequence[str]] = {
    "check": ["check", "nobody"],
    "explain": ["explain", "etc/hosts"],
    "history": ["history", "7"],
    "instances": ["instances"],
    "probe": ["probe"],
    "rollback": ["rollback"],
    "rules": ["rules", "list"],
    "status": ["status", "--interval", "5"],
}
"""For each verb that has formats, arguments with which something else is wrong than the command line's form."""


def error(text: str) -> tuple[int, list[str]]:
    """The status and the sentences of the one object that a text is."""
    document = json.loads(text)
    assert set(document) == {"schema", "error"}
    assert document["schema"] == 1
    assert set(document["error"]) == {"code", "messages"}
    return document["error"]["code"], document["error"]["messages"]


def told(messages: Sequence[str]) -> str:
    return "".join(f"chrootsync: {message}\n" for message in messages)


def test_every_verb_with_formats_is_tried_here() -> None:
    def has_formats(verb: str) -> bool:
        shown = run(verb, *(["list"] if verb == "rules" else []), "--help").stdout
        return "--format" in shown

    assert {verb for verb in VERBS if has_formats(verb)} == set(WRONG_USE)


@pytest.mark.parametrize("verb", WRONG_USE)
def test_whatever_is_wrong_is_json(verb: str) -> None:
    """A place that is none is wrong with each; it is told before anything else is looked at."""
    place = "--rules" if verb == "rules" else "--root"
    result = run(*WRONG_USE[verb], place, "", *JSON)
    code, messages = error(result.stdout)
    assert result.exit_code == code == 2
    assert messages
    assert result.stderr == told(messages)


@pytest.mark.parametrize("verb", WRONG_USE)
@pytest.mark.parametrize("option", [["--format=json"], ["--format", "json"]])
def test_a_command_line_of_the_wrong_form_is_json(
    verb: str, option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [verb, "list"] if verb == "rules" else [verb]
    monkeypatch.setattr(sys, "argv", ["chrootsync", *names, *option, "--no-such-option"])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    message = f"no such option: --no-such-option; see chrootsync {' '.join(names)} --help"
    assert (end.value.code, error(said.out), said.err) == (2, (2, [message]), told([message]))


def test_every_mistake_of_a_file_is_a_message(image: Path) -> None:
    path = Path(rules(image)) / "local.toml"
    path.write_text("[ruleset]\nservice = 1\n[[rule]]\nid = 2\n")
    path.chmod(0o644)
    result = check(image, *JSON)
    code, messages = error(result.stdout)
    assert result.exit_code == code == 2
    assert len(messages) > 2
    assert all(message.startswith(f"{path}: ") for message in messages)
    assert result.stderr == told(messages)


def test_what_failed_is_json(filled: Path) -> None:
    """Status 3: without a place for it, nothing of an image is remembered."""
    result = run("history", "--root", str(filled), *JSON)
    message = "of an image nothing is remembered without --state; name the directory that repairs used"
    assert (result.exit_code, error(result.stdout), result.stderr) == (3, (3, [message]), told([message]))


def test_a_report_that_cannot_be_kept_leaves_one_object(
    filled: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report itself comes out; why the other could not be written stands on standard error."""

    def full(_source: str, _target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path_factory.mktemp("reports") / "report.xml"
    monkeypatch.setattr(sys.modules["chrootsync.cli.output"].os, "replace", full)
    result = check(filled, *JSON, "--report", f"junit={target}")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["status"] == "in-sync"
    assert result.stderr == told(
        [f"--report junit={target}: cannot be written: no space left on device (make room there)"]
    )


def test_a_reload_that_is_pending_is_no_error_but_a_report(filled: Path) -> None:
    """Status 4 says how a repair ended, which the report tells; nothing of it is an error."""
    stale(filled)
    result = check(filled, "--fix", *JSON)
    assert (result.exit_code, json.loads(result.stdout)["status"], result.stderr) == (0, "repaired", "")


def test_another_repair_is_json(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locks").mkdir(mode=0o700)
    monkeypatch.setattr("chrootsync.cli.fix.root_lock", lambda _stage: (str(tmp_path / "locks"), "one.lock"))
    with (tmp_path / "locks/one.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = check(filled, "--fix", *JSON)
    reason = "another repair of this root is under way and did not end within 0 seconds"
    message = f"{reason}; try again, or wait longer with --wait"
    assert (result.exit_code, error(result.stdout), result.stderr) == (5, (5, [message]), told([message]))


def test_a_bug_is_json(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "1")  # the trace goes to standard error
    monkeypatch.setattr("chrootsync.pipeline.check", lambda _task: 1 // 0)
    result = check(filled, *JSON)
    message = "this is a bug in chrootsync; the full trace is above, please report it"
    assert (result.exit_code, error(result.stdout)) == (70, (70, [message]))
    assert result.stderr.endswith(told([message]))


def test_an_interrupt_is_json(filled: Path) -> None:
    stale(filled)
    program = (
        "import os, signal, sys\n"
        "from chrootsync.root import kernel\n"
        f"kernel.rename = lambda *arguments: os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "sys.argv = ['chrootsync', *sys.argv[1:]]\n"
        "from chrootsync.cli import main\n"
        "main()\n"
    )
    arguments = ["check", "--fix", "--root", str(filled), "--rules", rules(filled), *JSON]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    message = "interrupted; nothing is left half-done"
    assert (done.returncode, error(done.stdout), done.stderr) == (130, (130, [message]), told([message]))


def test_where_nothing_can_be_printed_the_sentence_and_the_status_stay(filled: Path) -> None:
    done = process("check", "nobody", "--root", str(filled), *JSON, shell="> /dev/full")  # noqa: S604 -- a word of our own
    message = "there is no instance 'nobody' here; there is: postfix, postfix-out"
    assert (done.returncode, done.stderr) == (2, told([message]))


def test_hostile_text_in_an_error_is_harmless(filled: Path) -> None:
    result = check(filled, "\x1b[2J\n::error::\u202e", *JSON)
    code, (message,) = error(result.stdout)
    assert code == 2
    assert message == ("there is no instance '\\x5cx1b[2J\\n::error::\\u202e' here; there is: postfix, postfix-out")
    assert result.stderr == told([message])
