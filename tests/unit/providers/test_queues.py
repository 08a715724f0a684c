"""What ``postqueue -j`` prints, as Postfix prints it and as nobody should: its contents come from anywhere."""

from __future__ import annotations

import json
import string
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model.queues import Queues
from chrootsync.process import LINE_LIMIT
from chrootsync.providers.postfix.queues import MOST_RETRIES, QUEUES, Reader

# As Postfix 3.7 and 3.10 said them, taken from their programs and from real queues.
NAME_ERRORS = (
    "Host or domain name not found. Name service error for name=sink.test type=A: Host not found, try again",
    "Host or domain name not found. Name service error for name=x.test type=MX: Host not found, try again",
    "Name service error for name=x.test type=MX: Malformed or unexpected name server reply",
    "Name service error for x..test: invalid host or domain name",
    "Name service initialization failure",
    "unable to look up host sink.test: Temporary failure in name resolution",
    "sink.test: host not found",
    "TLSA lookup error for mx.x.test:25",
    "delivery temporarily suspended: Host or domain name not found. Name service error for name=a type=A: x",
    "delivery temporarily suspended: unable to look up host a: Temporary failure in name resolution",
)
OTHERS = (
    "connect to sink.test[127.0.0.1]:2525: Connection refused",
    "host mx.test[192.0.2.1] said: 450 4.1.8 <a@b.test>: Sender address rejected: Domain not found",
    "host mx.test[192.0.2.1] said: 450 Host or domain name not found. Name service error for name=b.test type=A: x",
    "host mx.test[192.0.2.1] refused to talk to me: 421 unable to look up host you",
    "delivery temporarily suspended: host mx.test[192.0.2.1] said: Name service error for name=b type=A: x",
    "mail transport unavailable",
    "mx.test: host not found, they said",
    "",
)


def message(queue: str = "deferred", number: str = "06EC3460", arrived: int = 1_795_421_786, *reasons: str) -> bytes:
    recipients = [{"address": f"r{index}@example.test", "delay_reason": why} for index, why in enumerate(reasons)]
    made = {
        "queue_name": queue,
        "queue_id": number,
        "arrival_time": arrived,
        "message_size": 427,
        "forced_expire": False,
        "sender": "s@submission.test",
        "recipients": recipients or [{"address": "r@example.test"}],
    }
    return json.dumps(made, ensure_ascii=False).encode()


def read(*lines: bytes, problem: str | None = None) -> Queues:
    reader = Reader()
    for line in lines:
        reader.see(line)
    return reader.queues(problem)


def test_nothing_waits_where_nothing_is_printed() -> None:
    assert read() == Queues(counts=dict.fromkeys(QUEUES, 0))


def test_messages_are_counted_by_their_queue() -> None:
    lines = [message(queue) for queue in ("active", "hold", "deferred", "hold", "incoming", "maildrop", "hold")]
    found = read(*lines)
    assert found.counts == {"active": 1, "incoming": 1, "deferred": 1, "hold": 3, "maildrop": 1}
    assert found.problem is None


def test_the_oldest_deferred_message_is_the_one_that_arrived_first() -> None:
    found = read(message("deferred", "A1B2C3", 300), message("deferred", "A1B2C4", 200), message("hold", "A1B2C5", 100))
    assert found.oldest_deferred == 200


@pytest.mark.parametrize("reason", NAME_ERRORS)
def test_what_could_not_be_looked_up_is_a_name_error(reason: str) -> None:
    found = read(message("deferred", "06EC3460", 1, "connect to x: Connection refused", reason))
    assert (found.name_errors, found.retries) == (1, ("06EC3460",))


@pytest.mark.parametrize("reason", OTHERS)
def test_what_others_said_is_none(reason: str) -> None:
    found = read(message("deferred", "06EC3460", 1, reason))
    assert (found.counts["deferred"], found.name_errors, found.retries) == (1, 0, ())


def test_only_deferred_messages_are_retried() -> None:
    found = read(*(message(queue, "06EC3460", 1, NAME_ERRORS[0]) for queue in QUEUES if queue != "deferred"))
    assert (found.name_errors, found.retries) == (0, ())


def test_long_ids_are_known() -> None:
    assert read(message("deferred", "4Yg1Zx3Bqkz1Zf9", 1, NAME_ERRORS[0])).retries == ("4Yg1Zx3Bqkz1Zf9",)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b"[]",
        b'"active"',
        b"{}",
        b"[" * 100_000,
        b'{"queue_name": "active"}',
        b"\xff\xfe",
        b"postqueue: warning: something",
        message("elsewhere"),
        message("deferred", "-f"),
        message("deferred", "../../etc"),
        message("deferred", "06EC3460; reboot"),
        message("deferred", ""),
        message("deferred", "A" * 65),
        message("deferred", "06EC3460\n"),
        message("deferred", "06EC3460", -1),
        message("deferred", "06EC3460", 10**15),
        message("deferred").replace(b"1795421786", b"true"),
        message("deferred").replace(b"1795421786", b"1e300"),
        message("deferred").replace(b"1795421786", b"NaN"),
        message("deferred").replace(b"1795421786", b"9" * 5000),
        message("deferred").replace(b'"deferred"', b'["deferred"]'),
        message("deferred").replace(b'"06EC3460"', b"7"),
    ],
    ids=lambda line: repr(line[:40]),
)
def test_what_is_no_message_is_told_and_counts_for_nothing(line: bytes) -> None:
    found = read(line, message("active"))
    assert found.counts == {**dict.fromkeys(QUEUES, 0), "active": 1}
    assert found.problem == "1 of the lines that postqueue printed are no messages"


@pytest.mark.parametrize("recipients", ['"x"', "null", "[null]", '[{"delay_reason": 7}]', "[[]]", "{}"])
def test_odd_recipients_do_not_keep_a_message_from_being_counted(recipients: str) -> None:
    line = message().replace(b'[{"address": "r@example.test"}]', recipients.encode())
    found = read(line)
    assert (found.counts["deferred"], found.name_errors, found.problem) == (1, 0, None)


def test_a_line_that_was_cut_off_is_counted_by_its_beginning() -> None:
    many = [f"{NAME_ERRORS[0]} {number}" for number in range(20_000)]
    line = message("deferred", "06EC3460", 77, *many)
    assert len(line) > LINE_LIMIT
    found = read(line[:LINE_LIMIT])
    assert found == Queues(
        counts={**dict.fromkeys(QUEUES, 0), "deferred": 1},
        oldest_deferred=77.0,
        name_errors=1,
        retries=("06EC3460",),
    )


def test_an_address_cannot_pass_for_a_reason_in_a_line_that_was_cut_off() -> None:
    forged = f'x", "delay_reason": "{NAME_ERRORS[0]}"@example.test'
    line = message().replace(b"s@submission.test", json.dumps(forged)[1:-1].encode())
    assert json.loads(line)["sender"] == forged
    assert read(line).name_errors == 0
    found = read(line[:-20])
    assert (found.counts["deferred"], found.name_errors) == (1, 0)


def test_a_cut_line_of_an_unknown_queue_or_with_an_odd_id_is_no_message() -> None:
    assert read(message("elsewhere")[:-5]).problem is not None
    assert read(message("deferred", "A" * 70)[:-5]).problem is not None


def test_of_very_many_only_the_first_ids_are_kept() -> None:
    reader = Reader()
    tracemalloc.start()
    try:
        for number in range(5_000):
            reader.see(message("deferred", f"{number:08X}", 5, NAME_ERRORS[0]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    found = reader.queues(None)
    assert (found.counts["deferred"], found.name_errors, len(found.retries)) == (5_000, 5_000, MOST_RETRIES)
    assert found.retries[0] == "00000000"
    assert peak < 1 << 19


def test_where_nobody_answers_nothing_is_known() -> None:
    said = "postqueue: fatal: Queue report unavailable - mail system is down (Connect to the Postfix showq service: x)"
    assert read(problem=said) == Queues(problem=said, down=True)
    assert read(problem="it crashed") == Queues(problem="it crashed")


def test_what_was_counted_before_it_went_wrong_is_kept() -> None:
    found = read(message("hold"), problem="it did not end in time")
    assert (found.counts["hold"], found.problem, found.down) == (1, "it did not end in time", False)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["queue_name", "queue_id", "arrival_time", "recipients", "sender"])
values: st.SearchStrategy[Any] = anything | st.sampled_from(
    [*QUEUES, "06EC3460", 5, [{"delay_reason": NAME_ERRORS[0]}]]
)


@given(st.lists(st.dictionaries(keys, values).map(json.dumps).map(str.encode) | st.binary(), max_size=5))
def test_whatever_is_printed_is_survived(lines: list[bytes]) -> None:
    found = read(*lines)
    assert sum(found.counts.values()) <= len(lines)
    assert all(set(number) <= set(string.ascii_letters + string.digits) for number in found.retries)
