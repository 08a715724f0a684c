"""How three real instances are, held against what Postfix's own commands say, and deferred mail that is retried."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .container import Container
from .mail import INPUT, INSTANCES, OUTPUT, STALE_RESOLVER, SUBMISSION, Mail, Postfix
from .test_main_job import check

QUEUES = ("active", "incoming", "deferred", "hold", "maildrop")
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
STORY = "/var/tmp/repair.txt"
UNKNOWN, REFUSED, HELD = "unknown@example.test", "refused@example.test", "held@example.test"


def status(container: Container, *arguments: str, code: int = 0, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """What ``chrootsync status`` says of each instance, by its configuration directory."""
    command = [*before, "chrootsync", "status", "--format", "json", *arguments]
    done = container.run(command, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {one["config"]: one for one in json.loads(done.stdout)["instances"]}


def text(container: Container, *before: str) -> str:
    return container.run([*before, "chrootsync", "status"], check=False).stdout


def table(container: Container) -> str:
    return container.run(["env", "COLUMNS=80", "chrootsync", "status", "--format", "table"], check=False).stdout


def listed(container: Container, instance: Postfix) -> list[dict[str, Any]]:
    """What postqueue itself prints."""
    lines = container.run(["postqueue", "-c", instance.config, "-j"]).stdout.splitlines()
    return [json.loads(line) for line in lines]


def counted(container: Container, instance: Postfix) -> dict[str, int]:
    found = Counter(message["queue_name"] for message in listed(container, instance))
    return {name: found[name] for name in QUEUES}


def reload(mail: Mail, instance: Postfix) -> None:
    start = mail.mark()
    mail.container.run(["postfix", "-c", instance.config, "reload"])
    mail.wait(rf" {instance.log}/master\[\d+\]: reload -- version", start)


def defer(mail: Mail, recipient: str, why: str) -> str:
    """Send a mail that the output instance defers; its number there."""
    start = mail.mark()
    mail.send(recipient)
    mail.wait(rf"postfix-out/smtp\[.*to=<{recipient}>.*status=deferred .*{why}", start, timeout=60)
    # The log has it a moment before the message lies in the queue of the deferred.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for message in listed(mail.container, OUTPUT):
            if message["queue_name"] == "deferred" and message["recipients"][0]["address"] == recipient:
                return str(message["queue_id"])
        time.sleep(0.1)
    pytest.fail(f"{recipient} was not deferred")


@pytest.fixture(scope="module")
def waiting(mail: Mail) -> Iterator[dict[str, str]]:
    """The output instance with deferred mail: by a dead name server, by nobody who listens, and one on hold."""
    container = mail.container
    check(container, "--fix", code=0)
    onward = container.run(["postconf", "-c", OUTPUT.config, "-h", "relayhost"]).stdout.strip()
    container.run(["postconf", "-c", OUTPUT.config, "-e", "relayhost=[127.0.0.1]:1"])
    reload(mail, OUTPUT)
    numbers = {REFUSED: defer(mail, REFUSED, "Connection refused")}
    container.run(["postconf", "-c", OUTPUT.config, "-e", f"relayhost={onward}"])
    container.write(f"{OUTPUT.chroot}/etc/resolv.conf", STALE_RESOLVER)
    reload(mail, OUTPUT)
    for recipient in (UNKNOWN, HELD):
        numbers[recipient] = defer(mail, recipient, "Name service error for name=sink.test")
    container.run(["postsuper", "-c", OUTPUT.config, "-h", numbers[HELD]])
    yield numbers
    container.run(["postsuper", "-c", OUTPUT.config, "-d", "ALL"])


def test_instances_that_are_well(mail: Mail) -> None:
    check(mail.container, "--fix", code=0)
    found = status(mail.container)
    assert list(found) == [instance.config for instance in INSTANCES]
    roles = [found[instance.config]["role"] for instance in (SUBMISSION, INPUT, OUTPUT)]
    assert roles == ["submission", "input", "output"]
    for instance in INSTANCES:
        one = found[instance.config]
        assert one["chroot"] == instance.chroot
        assert one["running"]["running"] is True
        assert one["running"]["pid"] == mail.master(instance)
        assert one["running"]["since"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        assert one["queues"]["counts"] == dict.fromkeys(QUEUES, 0)
        assert (one["status"], one["reload_pending"]) == ("in-sync", False)
        assert one["last_repair"]["trigger"] == "manual"


def test_messages_are_counted_as_postfix_counts_them(mail: Mail, waiting: dict[str, str]) -> None:
    container = mail.container
    found = status(container, code=1)
    one = found[OUTPUT.config]
    assert one["queues"]["counts"] == {**dict.fromkeys(QUEUES, 0), "deferred": 2, "hold": 1}
    for instance in INSTANCES:
        assert found[instance.config]["queues"]["counts"] == counted(container, instance)
    assert one["queues"]["name_errors"] == 1
    arrived = {message["queue_id"]: message["arrival_time"] for message in listed(container, OUTPUT)}
    oldest = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(arrived[waiting[REFUSED]]))
    assert one["queues"]["oldest_deferred"] == oldest
    assert one["by_kind"] == {"outdated": 1} or one["by_kind"] == {"differs": 1}
    assert "in 3 Requests" in container.run(["postqueue", "-c", OUTPUT.config, "-p"]).stdout
    assert "deferred 2, hold 1, maildrop 0; oldest deferred since " in text(container)


def test_nobody_sees_whether_they_run_and_what_waits(mail: Mail, waiting: dict[str, str]) -> None:
    assert waiting
    found = status(mail.container, code=1, before=NOBODY)
    one = found[OUTPUT.config]
    assert one["running"] == {"running": True, "pid": None, "since": None}
    assert one["queues"]["counts"] == counted(mail.container, OUTPUT)
    assert one["last_repair"] is None
    assert "last repair unknown" in text(mail.container, *NOBODY)


def test_an_instance_that_is_down(mail: Mail, waiting: dict[str, str]) -> None:
    container = mail.container
    master = mail.master(OUTPUT)
    container.run(["postfix", "-c", OUTPUT.config, "stop"])
    # Copies of a message, where none stays long while Postfix runs.
    number = waiting[UNKNOWN]
    copies = [f"{queue}/{number}{digit}" for queue, digit in (("active", 0), ("incoming", 1), ("incoming", 2))]
    for copy in copies:
        container.shell('cd "$1"; cp -p "$(find deferred -name "$2")" "$3"', OUTPUT.chroot, number, copy)
    try:
        one = status(container, code=1)[OUTPUT.config]
        expected = counted(container, OUTPUT)
        said = text(container)
        for_nobody = status(container, code=1, before=NOBODY)[OUTPUT.config]
        # Left behind by a crash, with a number that another process has got since.
        container.write(f"{OUTPUT.chroot}/pid/master.pid", "1\n")
        again = status(container, code=1)[OUTPUT.config]
    finally:
        container.shell('cd "$1"; shift; rm -f "$@"', OUTPUT.chroot, *copies)
        container.run(["postfix", "-c", OUTPUT.config, "start"])
    down = {"running": False, "pid": None, "since": None}
    assert one["running"] == again["running"] == down
    assert one["queues"]["counts"] == expected
    assert expected == {"active": 1, "incoming": 2, "deferred": 2, "hold": 1, "maildrop": 0}
    assert "postfix-out: output; not running; " in said
    assert for_nobody["running"] == down
    assert for_nobody["queues"]["counts"] == {}
    assert "mail system is down" in for_nobody["queues"]["problem"]
    assert mail.running(OUTPUT)
    assert mail.master(OUTPUT) != master


def test_flush_retries_what_could_not_be_looked_up_and_nothing_else(
    mail: Mail, waiting: dict[str, str], artifacts: Path
) -> None:
    container = mail.container
    story = artifacts / "repair"
    story.mkdir(exist_ok=True)
    (story / "1-status-before.txt").write_text(table(container))
    start = mail.mark()
    fixed = check(container, "--fix", "--flush", "--probe", "-v", "--report", f"table={STORY}", code=0)
    (story / "2-repair.txt").write_text(container.read(STORY))

    assert fixed.reloaded() == [OUTPUT]
    assert fixed.instance(OUTPUT)["retry"] == {"tried": 1, "left": 0, "error": None}
    assert fixed.instance(INPUT)["retry"] is None
    mail.wait(rf"postfix-out/smtp\[.*to=<{UNKNOWN}>.*status=sent", start, timeout=30)
    mail.settle(start)
    assert mail.delivered(UNKNOWN) == 1
    assert (mail.delivered(REFUSED), mail.delivered(HELD)) == (0, 0)
    assert f": {waiting[REFUSED]}: from=" not in mail.log(start)
    (story / "3-mail.log").write_text(mail.log(start))
    (story / "4-status-after.txt").write_text(table(container))
    one = status(container)[OUTPUT.config]
    assert one["queues"]["counts"] == {**dict.fromkeys(QUEUES, 0), "deferred": 1, "hold": 1}
    assert one["queues"]["name_errors"] == 0
    probe = fixed.instance(OUTPUT)["probe"]
    assert {lookup["answer"] for lookup in probe["lookups"]} == {"same"}
    assert len(fixed.instance(OUTPUT)["reload"]["seen"]) == 3


def test_flush_without_a_repair_retries_nothing(mail: Mail, waiting: dict[str, str]) -> None:
    assert waiting
    fixed = check(mail.container, "--fix", "--flush", code=0)
    assert [fixed.instance(instance)["retry"] for instance in INSTANCES] == [None, None, None]
