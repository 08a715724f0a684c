"""Every kind of drift that a state can tell, with its remedy and its reason."""

from __future__ import annotations

from typing import Any

import pytest

from chrootsync.compare import in_sync, judge
from chrootsync.model import Entry, FileType, Kind, OnConflict, Problem, Remedy, Severity, State
from tests.unit.scenery import instance, rule

FILE = State(type=FileType.FILE, mode=0o644, uid=0, gid=0, size=10)
DIRECTORY = State(type=FileType.DIRECTORY, mode=0o755, uid=0, gid=0)
LINK = State(type=FileType.LINK, uid=0, target="/here")
DEVICE = State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 9))
SOCKET = State(type=FileType.SOCKET)


def state(of: State, **changes: Any) -> State:
    fields = {name: getattr(of, name) for name in State.__slots__}
    return State(**{**fields, **changes})


def entry(want: State | None, have: State | None, same: bool | None = None, **fields: Any) -> Entry:
    default = {"instance": instance(), "rule": rule(), "path": "/etc/x", "source": "/etc/x", "because": "always"}
    return Entry(**{**default, **fields}, want=want, have=have, same=same)


@pytest.mark.parametrize(
    ("want", "have", "same"),
    [
        (FILE, FILE, True),
        (DIRECTORY, DIRECTORY, None),
        (LINK, state(LINK, mode=0o777, gid=0), None),
        (DEVICE, DEVICE, None),
        (SOCKET, state(SOCKET, mode=0o600, uid=7), None),
        (state(FILE, uid=None, gid=None, mode=None), state(FILE, uid=7, gid=7, mode=0o600), True),
    ],
)
def test_what_is_as_wanted_is_no_drift(want: State, have: State, same: bool | None) -> None:
    assert judge(entry(want, have, same)) is None
    assert in_sync(entry(want, have, same))


@pytest.mark.parametrize(
    ("want", "have", "same", "kind", "remedy", "reason"),
    [
        (FILE, None, None, Kind.MISSING, Remedy.COPY, "this file is not in the chroot"),
        (DIRECTORY, None, None, Kind.MISSING, Remedy.CREATE, "this directory is not in the chroot"),
        (FILE, LINK, None, Kind.TYPE, Remedy.REPLACE, "a link stands where a file should"),
        (FILE, state(FILE, size=7), None, Kind.DIFFERS, Remedy.COPY, "7 bytes here, 10 on the host"),
        (FILE, FILE, False, Kind.DIFFERS, Remedy.COPY, "other contents than on the host, 10 bytes both"),
        (FILE, state(FILE, mode=0o600), True, Kind.METADATA, Remedy.REPLACE, "mode 0600, not 0644"),
        (
            FILE,
            state(FILE, mode=0o666, uid=5, gid=6),
            True,
            Kind.METADATA,
            Remedy.REPLACE,
            "mode 0666, not 0644, owner 5, not 0, group 6, not 0",
        ),
        (FILE, state(FILE, extended=("an ACL",)), True, Kind.METADATA, Remedy.REPLACE, "has an ACL"),
        (
            FILE,
            state(FILE, mode=0o600, extended=("an ACL", "file capabilities")),
            True,
            Kind.METADATA,
            Remedy.REPLACE,
            "mode 0600, not 0644, has an ACL, has file capabilities",
        ),
        (LINK, state(LINK, target="/there"), None, Kind.DIFFERS, Remedy.REPLACE, "points to /there, not to /here"),
        (DEVICE, state(DEVICE, device=(1, 3)), None, Kind.DIFFERS, Remedy.REPLACE, "is device 1:3, not 1:9"),
    ],
)
def test_drift(want: State, have: State | None, same: bool | None, kind: Kind, remedy: Remedy, reason: str) -> None:
    drift = judge(entry(want, have, same))
    assert drift is not None
    assert (drift.kind, drift.remedy, drift.reason, drift.severity) == (kind, remedy, reason, Severity.ERROR)


@pytest.mark.parametrize(
    ("have", "what"),
    [(None, "no socket is there"), (FILE, "a file stands where a socket should")],
)
def test_a_socket_that_is_not_there_is_a_warning_with_the_way_out(have: State | None, what: str) -> None:
    drift = judge(entry(SOCKET, have))
    assert drift is not None
    assert (drift.kind, drift.severity, drift.remedy) == (Kind.UNREACHABLE, Severity.WARNING, Remedy.NONE)
    assert drift.reason == f"{what}; let its service listen inside the chroot, a socket cannot be copied"


def test_a_problem_comes_before_any_comparison() -> None:
    drift = judge(entry(FILE, None, problem=Problem(kind=Kind.UNSAFE, reason="it is a trap")))
    assert drift is not None
    assert (drift.kind, drift.remedy, drift.reason) == (Kind.UNSAFE, Remedy.NONE, "it is a trap")


def test_a_rule_that_keeps_conflicts_reports_them_and_has_no_remedy() -> None:
    kept = rule(on_conflict=OnConflict.KEEP)
    drift = judge(entry(FILE, FILE, same=False, rule=kept))
    assert drift is not None
    assert (drift.kind, drift.remedy) == (Kind.DIFFERS, Remedy.NONE)
    assert drift.reason == "other contents than on the host, 10 bytes both; kept as its rule says"


def test_the_severity_is_the_entrys_then_the_rules_then_the_kinds() -> None:
    assert (one := judge(entry(FILE, None))) is not None
    assert one.severity is Severity.ERROR
    assert (one := judge(entry(FILE, None, rule=rule(severity=Severity.INFO)))) is not None
    assert one.severity is Severity.INFO
    weighed = entry(FILE, None, rule=rule(severity=Severity.INFO), severity=Severity.WARNING)
    assert (one := judge(weighed)) is not None
    assert one.severity is Severity.WARNING
