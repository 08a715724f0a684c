r"""What ``postqueue -j`` prints: a JSON object a line for each message, as postqueue(1), JSON OBJECT FORMAT, has it.

Senders, recipients and what other mail servers said are in it, written by anybody: of all that only queue names, ids,
times, and the beginnings of reasons are looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from chrootsync.model.queues import Queues

QUEUES: Final = ("active", "incoming", "deferred", "hold", "maildrop")
"""The queues that showq(8) lists."""

MOST_RETRIES: Final = 1000
"""So many ids are remembered; each costs a process to have its message tried again."""

_DOWN: Final = "mail system is down"
"""What postqueue(1) says where nobody answers, and where only root may look at the files themselves."""

_ID: Final = re.compile(r"[0-9A-Za-z]{5,64}")  # both forms of postconf(5), enable_long_queue_ids

# What Postfix's DNS client, smtp(8) and lmtp(8) say where a name could not be looked up (dns_lookup.c, smtp_addr.c,
# smtp_tls_policy.c); qmgr(8) puts words of its own in front of the messages that it did not even try. What another
# server said begins with "host NAME said: ", and is no lookup of ours, whatever it says.
_NAME_ERROR: Final = re.compile(
    r"(?:delivery temporarily suspended: )?"
    r"(?:(?:Host or domain name not found\. )?Name service (?:error for |initialization failure)"
    r"|unable to look up host |\S+: host not found$|TLSA lookup error for )"
)

# Of a line that was cut off, because a message may have any number of recipients. In a string of JSON a quotation mark
# has a backslash before it, so that no address can pass for a member.
_HEAD: Final = re.compile(
    rb'\{"queue_name": "(?P<queue>[a-z]+)", "queue_id": "(?P<id>[0-9A-Za-z]+)", "arrival_time": (?P<time>[0-9]{1,15}),'
)
_REASON: Final = re.compile(rb'"delay_reason": "((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class _Message:
    queue: str
    id: str
    arrived: float
    name_error: bool


class Reader:
    """Counts messages line by line, and keeps none of them; implements QueueReader."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._counts: Counter[str] = Counter()
        self._oldest: float | None = None
        self._name_errors = 0
        self._retries: list[str] = []
        self._odd = 0

    def see(self, line: bytes) -> None:
        """Count a message."""
        if not line.strip():
            return
        message = _message(line)
        if message is None:
            self._odd += 1
            return
        self._counts[message.queue] += 1
        if message.queue != "deferred":
            return
        self._oldest = message.arrived if self._oldest is None else min(self._oldest, message.arrived)
        if message.name_error:
            self._name_errors += 1
            if len(self._retries) < MOST_RETRIES:
                self._retries.append(message.id)

    def queues(self, problem: str | None) -> Queues:
        """What was counted; of lines that are no message the problem tells, too."""
        if problem is None and self._odd:
            problem = f"{self._odd} of the lines that postqueue printed are no messages"
        return Queues(
            counts={name: self._counts[name] for name in QUEUES} if problem is None or self._counts else {},
            oldest_deferred=self._oldest,
            name_errors=self._name_errors,
            retries=tuple(self._retries),
            problem=problem,
            down=problem is not None and _DOWN in problem,
        )


def _message(line: bytes) -> _Message | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return _cut(line)
    if not isinstance(found, dict):
        return None
    queue, number, arrived = (found.get(key) for key in ("queue_name", "queue_id", "arrival_time"))
    if queue not in QUEUES or not isinstance(number, str) or not _ID.fullmatch(number):
        return None
    if not isinstance(arrived, int) or isinstance(arrived, bool) or not 0 <= arrived < 10**15:
        return None
    return _Message(queue, number, float(arrived), any(map(_is_name_error, _reasons(found))))


def _reasons(message: dict[str, object]) -> Iterator[str]:
    recipients = message.get("recipients")
    for recipient in recipients if isinstance(recipients, list) else ():
        reason = recipient.get("delay_reason") if isinstance(recipient, dict) else None
        if isinstance(reason, str):
            yield reason


def _cut(line: bytes) -> _Message | None:
    """A message of which only the beginning is there."""
    head = _HEAD.match(line)
    if head is None:
        return None
    queue, number = head["queue"].decode(), head["id"].decode()
    if queue not in QUEUES or not _ID.fullmatch(number):
        return None
    reasons = (found[1].decode("utf-8", "replace") for found in _REASON.finditer(line))
    return _Message(queue, number, float(head["time"]), any(map(_is_name_error, reasons)))


def _is_name_error(reason: str) -> bool:
    return _NAME_ERROR.match(reason) is not None
