"""What lookups inside chroots came to, as people, programs and logs are told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chrootsync.model import Answer, Code, Instance, InstanceReport, Lookup, Probe, Report
from chrootsync.report import Options, journal, plain, probe, table
from chrootsync.report.verdict import exit_code, summary

from .report_samples import IN, OUT, SUBMISSION

SAME = Lookup(
    what="getaddrinfo localhost",
    answer=Answer.SAME,
    inside="127.0.0.1",
    outside="127.0.0.1",
    worked_inside=True,
    worked_outside=True,
)
IN_VAIN = replace(
    SAME, what="DNS . NS", inside="no answer", outside="no answer", worked_inside=False, worked_outside=False
)
FAILS = replace(
    SAME,
    what="getservbyname smtp/tcp",
    answer=Answer.FAILS_INSIDE,
    inside="unknown service",
    outside="port 25",
    worked_inside=False,
    advice="chrootsync check postfix-out tells which copy is missing, stale or unreadable",
    matters=True,
)
DIFFERS = replace(
    SAME,
    what="getaddrinfo mx.example",
    answer=Answer.DIFFERS,
    inside="192.0.2.1",
    outside="192.0.2.2, 2001:db8:0:0:ffff:ffff:ffff:1, 2001:db8:0:0:ffff:ffff:ffff:2",
    advice="chrootsync check postfix-out tells which copy is missing, stale or unreadable",
    matters=True,
)
LOG = replace(
    FAILS, what="socket /dev/log", inside="no such file or directory", outside="somebody answers", matters=False
)

TABLE_80 = """\
postfix-out  /var/spool/postfix-out
  same          getaddrinfo localhost   127.0.0.1
  same          DNS . NS                no answer
                it fails outside, too
  fails inside  getservbyname smtp/tcp  inside:  unknown service
                                        outside: port 25
                chrootsync check postfix-out tells which copy is missing, stale
                or unreadable
  differs       getaddrinfo mx.example  inside:  192.0.2.1
                                        outside: 192.0.2.2,
                                                 2001:db8:0:0:ffff:ffff:ffff:1,
                                                 2001:db8:0:0:ffff:ffff:ffff:2
                chrootsync check postfix-out tells which copy is missing, stale
                or unreadable
  fails inside  socket /dev/log         inside:  no such file or directory
                                        outside: somebody answers
                daemons get along with that

postfix-in  /var/spool/postfix-in
  its daemons look nothing up inside the chroot

postfix-submission  /var/spool/postfix-submission
  nothing was looked up inside the chroot: the chroot cannot be entered: no such
  file or directory

note: something is to be said
3 instances, 5 lookups: 2 same, 1 fails inside, 1 differs, 1 not the same, but
daemons get along with that, 1 instance not probed
"""

PLAIN = """\
same postfix-out getaddrinfo localhost: 127.0.0.1; outside: 127.0.0.1
same postfix-out DNS . NS: no answer; outside: no answer; it fails outside, too
fails-inside postfix-out getservbyname smtp/tcp: unknown service; outside: port 25; \
chrootsync check postfix-out tells which copy is missing, stale or unreadable
differs postfix-out getaddrinfo mx.example: 192.0.2.1; \
outside: 192.0.2.2, 2001:db8:0:0:ffff:ffff:ffff:1, 2001:db8:0:0:ffff:ffff:ffff:2; \
chrootsync check postfix-out tells which copy is missing, stale or unreadable
fails-inside postfix-out socket /dev/log: no such file or directory; outside: somebody answers; \
daemons get along with that
postfix-in: its daemons look nothing up inside the chroot
postfix-submission: nothing was looked up inside the chroot: the chroot cannot be entered: no such file or directory
note: something is to be said
3 instances, 5 lookups: 2 same, 1 fails inside, 1 differs, 1 not the same, but daemons get along with that, \
1 instance not probed
"""


def seen(what: Instance, found: Probe | None) -> InstanceReport:
    return InstanceReport(instance=what, entries=3, findings=(), probe=found)


def report(*instances: InstanceReport, notes: tuple[str, ...] = ()) -> Report:
    return Report(
        generated=1_700_000_000.0,
        duration=0.25,
        version="1.0",
        root="/",
        instances=instances,
        fixed=False,
        notes=notes,
    )


WHOLE = report(
    seen(OUT, Probe(lookups=(SAME, IN_VAIN, FAILS, DIFFERS, LOG), asked=True)),
    seen(IN, Probe(asked=True)),
    seen(SUBMISSION, Probe(error="the chroot cannot be entered: no such file or directory", asked=True)),
    notes=("something is to be said",),
)
HOSTILE = "a\n<3>b\x1b[31m\u202ec\udcff"
CLEAN = "a\\x0a<3>b\\x1b[31m\\xe2\\x80\\xaec\\xff"


def test_the_table_at_80_columns() -> None:
    assert probe.table(WHOLE, 80) == TABLE_80


def test_a_wide_table_has_the_answers_side_by_side() -> None:
    lines = probe.table(WHOLE, 200).splitlines()

    assert lines[1].split() == ["VERDICT", "LOOKUP", "INSIDE", "OUTSIDE"]
    at = {word: lines[1].index(word) for word in ("VERDICT", "LOOKUP", "INSIDE", "OUTSIDE")}
    row = next(line for line in lines if "getservbyname" in line)
    assert row.index("fails inside") == at["VERDICT"]
    assert row.index("getservbyname smtp/tcp") == at["LOOKUP"]
    assert row.index("unknown service") == at["INSIDE"]
    assert row.index("port 25") == at["OUTSIDE"]


@pytest.mark.parametrize("width", [1, 60, 80, 132, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = replace(FAILS, what="socket /" + "x" * 300, inside="y " * 200, outside="z" * 300)
    whole = report(seen(OUT, Probe(lookups=(long, SAME))))

    assert max(map(len, probe.table(whole, width).splitlines())) <= max(width, 60)


def test_plain() -> None:
    assert probe.plain(WHOLE) == PLAIN


def test_json() -> None:
    document = json.loads(probe.as_json(WHOLE))

    assert document["generated"] == "2023-11-14T22:13:20Z"
    assert [one["failed"] for one in document["instances"]] == [True, False, True]
    assert document["instances"][0]["probe"]["lookups"][2] == {
        "what": "getservbyname smtp/tcp",
        "answer": "fails-inside",
        "inside": "unknown service",
        "outside": "port 25",
        "worked_inside": False,
        "worked_outside": True,
        "advice": "chrootsync check postfix-out tells which copy is missing, stale or unreadable",
        "matters": True,
    }


def test_answers_are_cleaned_everywhere() -> None:
    hostile = replace(FAILS, what=HOSTILE, inside=HOSTILE, outside=HOSTILE, advice=HOSTILE)
    whole = report(seen(OUT, Probe(lookups=(hostile,), asked=True)), seen(IN, Probe(error=HOSTILE, asked=True)))
    logged = journal.render(journal.lines(whole, "test"), levels=False)
    shown = [probe.table(whole, 200), probe.plain(whole), logged, plain.render(whole, Options())]

    for text in (*shown, table.render(whole, Options(width=200))):
        assert CLEAN in text
        assert "<3>" not in {line[:3] for line in text.splitlines()}
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (None, Code.OK),
        (Probe(lookups=(SAME, IN_VAIN, LOG), asked=True), Code.OK),
        (Probe(lookups=(SAME, FAILS), asked=True), Code.FAILED),
        (Probe(lookups=(SAME, DIFFERS), asked=True), Code.FAILED),
        (Probe(error="no", asked=True), Code.FAILED),
        (Probe(lookups=(SAME, FAILS)), Code.OK),
        (Probe(error="no"), Code.OK),
        (Probe(lookups=(SAME, FAILS), lost=(FAILS.what,)), Code.FAILED),
    ],
)
def test_what_was_asked_for_or_lost_counts(found: Probe | None, code: int) -> None:
    whole = report(seen(OUT, found))

    assert exit_code(whole) == code
    assert ("lookups fail in postfix-out" in summary(whole)) == (code == Code.FAILED)


def test_a_check_tells_what_fails_and_what_was_lost() -> None:
    lost = replace(FAILS, advice="take the repair back with: chrootsync rollback 7")
    whole = report(
        seen(OUT, Probe(lookups=(SAME, lost, DIFFERS, LOG), lost=(lost.what,))),
        seen(IN, Probe(lookups=(SAME, SAME, IN_VAIN))),
        seen(SUBMISSION, Probe(lookups=(SAME,))),
    )
    sentences = [
        (
            "postfix-out: getservbyname smtp/tcp worked inside the chroot before this repair and fails now: "
            "unknown service; outside: port 25; take the repair back with: chrootsync rollback 7"
        ),
        (
            "postfix-out: getaddrinfo mx.example differs inside the chroot: 192.0.2.1; "
            "outside: 192.0.2.2, 2001:db8:0:0:ffff:ffff:ffff:1, 2001:db8:0:0:ffff:ffff:ffff:2; "
            "chrootsync check postfix-out tells which copy is missing, stale or unreadable"
        ),
        "postfix-in: 3 lookups give inside the chroot what they give outside (1 fails in both)",
        "postfix-submission: 1 lookup gives inside the chroot what it gives outside",
    ]

    assert plain.render(whole, Options()).splitlines()[:-1] == sentences
    assert table.render(whole, Options(width=80)).splitlines()[:-1] == sentences


def test_the_log_has_a_line_for_each_lookup_that_fails() -> None:
    lost = replace(FAILS, advice="take the repair back with: chrootsync rollback 7")
    whole = report(
        seen(OUT, Probe(lookups=(SAME, lost, DIFFERS, LOG), lost=(lost.what,))), seen(IN, Probe(error="no chroot"))
    )

    lines = journal.render(journal.lines(whole, "watch"), levels=True).splitlines()

    assert lines == [
        (
            '<3>probe instance=postfix-out lookup="getservbyname smtp/tcp" answer=lost trigger=watch '
            'inside="unknown service" outside="port 25" reason="take the repair back with: chrootsync rollback 7"'
        ),
        (
            '<4>probe instance=postfix-out lookup="getaddrinfo mx.example" answer=differs trigger=watch '
            'inside=192.0.2.1 outside="192.0.2.2, 2001:db8:0:0:ffff:ffff:ffff:1, 2001:db8:0:0:ffff:ffff:ffff:2" '
            'reason="chrootsync check postfix-out tells which copy is missing, stale or unreadable"'
        ),
        '<4>probe instance=postfix-in answer=none trigger=watch reason="no chroot"',
    ]
