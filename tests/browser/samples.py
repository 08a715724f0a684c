"""Reports for the browser: a night with everything in it, and far too much of everything."""

from __future__ import annotations

from chrootsync.model import (
    Answer,
    Finding,
    InstanceReport,
    Kind,
    Lookup,
    Outcome,
    Probe,
    Reload,
    Remedy,
    Report,
    Severity,
    StaleProcess,
    Status,
)
from chrootsync.model.memory import Change, Repair
from chrootsync.report import Options
from chrootsync.report.history import History
from tests.unit.report.report_samples import (
    DIFFS,
    IN,
    NEW,
    NSS,
    OLD,
    OUT,
    PRESENT,
    SUBMISSION,
    file,
    finding,
    instance,
    lost_library,
    report,
    stale_resolver,
    wrong_mode,
)

BEGAN = 1_760_000_000.0
DAY = 86_400.0
RELOAD = ("/usr/sbin/postfix", "-c", "/etc/postfix-out", "reload")
MODULE = "/lib/x86_64-linux-gnu/libnss_dns.so.2"


def certificates(count: int) -> tuple[Finding, ...]:
    """So many copies that are gone from one directory: a bundle."""
    return tuple(
        finding(
            Kind.MISSING,
            SUBMISSION,
            f"/etc/ssl/certs/{number:08x}.0",
            "missing",
            rule=PRESENT,
            source=f"/etc/ssl/certs/{number:08x}.0",
            remedy=Remedy.CREATE,
            package="ca-certificates",
        )
        for number in range(count)
    )


def night() -> Report:
    """A repair after which a lookup that had worked fails, and a process goes on using the old library."""
    done, full = Outcome(status=Status.REPAIRED), Outcome(status=Status.FAILED, reason="no space left on device")
    lookups = (
        same("getaddrinfo localhost", "127.0.0.1"),
        same("getservbyname smtp tcp", "25"),
        same("local time", "UTC+0200"),
        Lookup(
            what="getaddrinfo mx.example.net",
            answer=Answer.FAILS_INSIDE,
            inside="Temporary failure in name resolution",
            outside="192.0.2.25, 2001:db8::25",
            worked_inside=False,
            worked_outside=True,
            advice="the chroot lacks a module that nsswitch.conf names: chrootsync explain postfix-out",
            matters=True,
        ),
        Lookup(
            what="CApath /etc/ssl/certs",
            answer=Answer.DIFFERS,
            inside="139 certificates",
            outside="142 certificates",
            worked_inside=True,
            worked_outside=True,
        ),
    )
    process = StaleProcess(
        pid=4711,
        daemon="smtp",
        began=BEGAN - 3600,
        uses=(MODULE,),
        why="still uses 1 file that was replaced; it ends within max_idle",
    )
    stale = finding(
        Kind.STALE_PROCESS,
        OUT,
        MODULE,
        "smtp (4711) still uses it",
        rule=NSS,
        severity=Severity.WARNING,
        remedy=Remedy.RELOAD,
    )
    out = InstanceReport(
        instance=OUT,
        entries=46,
        findings=(stale_resolver(outcome=done), wrong_mode(outcome=done), lost_library(OUT, outcome=full), stale),
        reload=Reload(
            needed=True,
            done=True,
            command=RELOAD,
            output="postfix/postfix-script: refreshing the Postfix mail system\n",
            seen=("the master (pid 812) lives", "1 stale process is finishing", "the log shows no fatal line"),
        ),
        probe=Probe(lookups=lookups, lost=("getaddrinfo mx.example.net",), duration=0.4),
        stale=(process,),
    )
    return report(
        InstanceReport(instance=SUBMISSION, entries=180, findings=certificates(142)),
        InstanceReport(instance=IN, entries=42, findings=(), probe=Probe(lookups=lookups[:3])),
        out,
        fixed=True,
        notes=(
            "postfix-out: a lookup worked before this repair and fails now; take it back with: chrootsync rollback 14",
        ),
    )


def same(what: str, answer: str) -> Lookup:
    """A lookup that gives inside what it gives outside."""
    return Lookup(what=what, answer=Answer.SAME, inside=answer, outside=answer, worked_inside=True, worked_outside=True)


def past(count: int = 5) -> History:
    """Repairs of the last days; the third newest was taken back."""
    repairs = [_repair(number, undoes=number - 1 if number == count - 1 else None) for number in range(count, 0, -1)]
    return History(root="/", repairs=repairs, local=str)


def _repair(number: int, undoes: int | None) -> Repair:
    change = Change(
        instance=OUT.name,
        chroot=OUT.chroot,
        path="/etc/resolv.conf",
        source="/etc/resolv.conf",
        rule="postfix.resolver",
        kind=Kind.OUTDATED,
        package=None,
        before=file(sha256=OLD),
        after=file(sha256=NEW),
        outcome=Outcome(status=Status.REPAIRED),
        kept=True,
    )
    return Repair(
        id=number + 9,
        began=BEGAN - (6 - number) * DAY,
        trigger="manual" if undoes else "chrootsync-watch.service",
        version="0.1.0",
        undoes=undoes + 9 if undoes else None,
        changes=(change,),
        reloads={OUT.name: Reload(needed=True, done=True)},
    )


def everything() -> Options:
    """All that a caller may add to a report."""
    return Options(diffs=DIFFS, history=past())


def crowd(instances: int, files: int) -> Report:
    """Many instances, each with many files that drifted; every tenth has no drift."""
    found = []
    for number in range(instances):
        where = instance(f"postfix-{number:04}")
        drift = tuple(
            finding(
                Kind.OUTDATED if file_number % 3 else Kind.MISSING,
                where,
                f"/etc/{file_number:03}/services",
                f"{file_number} bytes here, {file_number + 1} on the host",
                source=f"/etc/{file_number:03}/services",
                remedy=Remedy.COPY,
            )
            for file_number in range(files)
        )
        found.append(InstanceReport(instance=where, entries=files + 5, findings=drift if number % 10 else ()))
    return report(*found)
