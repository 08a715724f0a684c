"""Reports for the tests: one of each sort that a run can come to."""

from __future__ import annotations

from dataclasses import replace

from chrootsync.model import (
    Answer,
    Drift,
    Entry,
    FileType,
    Finding,
    Instance,
    InstanceReport,
    Kind,
    Lookup,
    Outcome,
    Probe,
    Reload,
    Remedy,
    Report,
    Retry,
    Rule,
    Severity,
    StaleProcess,
    State,
    Status,
)

RESOLVER = Rule(
    id="postfix.resolver",
    why="smtp(8), lmtp(8) and smtpd(8) read it after chroot; a stale one defers mail",
    origin="rules/postfix.toml",
)
NSS = Rule(
    id="postfix.nss",
    why="modules that the host's nsswitch.conf names and that libc has not built in",
    origin="rules/postfix.toml",
)
DEVICES = Rule(id="postfix.devices", why="OpenSSL seeds itself from it", origin="rules/postfix.toml")
PRESENT = Rule(
    id="postfix.present",
    why="what postfix check compares with the host",
    origin="rules/postfix.toml",
)
NONE = Rule(id="instance", why="", origin="")

OLD = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
NEW = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def instance(name: str, **changes: object) -> Instance:
    base = Instance(
        name=name,
        service="postfix",
        provider="postfix",
        chroot=f"/var/spool/{name}",
        found="multi_instance_directories of /etc/postfix/main.cf",
        config=f"/etc/{name}",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # replace() checks at run time


SUBMISSION, IN, OUT = (instance(f"postfix-{role}") for role in ("submission", "in", "out"))


def file(mode: int = 0o644, size: int | None = 95, sha256: str | None = NEW, uid: int = 0) -> State:
    return State(type=FileType.FILE, mode=mode, uid=uid, gid=uid, size=size, sha256=sha256)


def finding(
    kind: Kind,
    where: Instance,
    path: str,
    reason: str,
    *,
    rule: Rule = RESOLVER,
    source: str | None = None,
    severity: Severity = Severity.ERROR,
    remedy: Remedy = Remedy.NONE,
    package: str | None = None,
    want: State | None = None,
    have: State | None = None,
    because: str = "smtp/unix (smtp) runs chrooted",
    outcome: Outcome | None = None,
) -> Finding:
    entry = Entry(instance=where, rule=rule, path=path, source=source, because=because, want=want, have=have)
    drift = Drift(kind=kind, severity=severity, remedy=remedy, reason=reason, entry=entry, package=package)
    return Finding(drift=drift, outcome=outcome)


def report(*instances: InstanceReport, fixed: bool = False, root: str = "/", notes: tuple[str, ...] = ()) -> Report:
    return Report(
        generated=1_760_000_000.25,
        duration=0.0674,
        version="0.1.0",
        root=root,
        instances=instances,
        fixed=fixed,
        owners={0: "root", 33: "www-data"},
        groups={0: "root"},
        notes=notes,
    )


def clean_instances(*names: Instance) -> tuple[InstanceReport, ...]:
    return tuple(InstanceReport(instance=name, entries=42, findings=()) for name in names)


def stale_resolver(where: Instance = OUT, outcome: Outcome | None = None) -> Finding:
    return finding(
        Kind.DIFFERS,
        where,
        "/etc/resolv.conf",
        "size differs: 120 bytes instead of 95",
        source="/etc/resolv.conf",
        remedy=Remedy.COPY,
        want=file(),
        have=file(size=120, sha256=OLD),
        outcome=outcome,
    )


def lost_library(where: Instance = IN, name: str = "libnss_dns.so.2", outcome: Outcome | None = None) -> Finding:
    path = f"/lib/x86_64-linux-gnu/{name}"
    return finding(
        Kind.MISSING,
        where,
        path,
        "missing",
        rule=NSS,
        source=f"/usr{path}",
        remedy=Remedy.CREATE,
        package="libc6",
        want=file(size=31_032),
        because=f"{name} ← nsswitch.conf hosts",
        outcome=outcome,
    )


def wrong_mode(where: Instance = OUT, outcome: Outcome | None = None) -> Finding:
    return finding(
        Kind.METADATA,
        where,
        "/etc/services",
        "mode is 0600 instead of 0644, owner is www-data instead of root",
        rule=PRESENT,
        source="/etc/services",
        remedy=Remedy.REPLACE,
        package="netbase",
        want=file(size=12_813),
        have=file(0o600, size=12_813, uid=33),
        outcome=outcome,
    )


def _in_sync() -> Report:
    return report(*clean_instances(SUBMISSION, IN, OUT))


def _unchrooted() -> Report:
    idle = instance("postfix", chrooted=False)
    relay = instance("postfix-relay", chrooted=False)
    return report(
        InstanceReport(instance=idle, entries=0, findings=()),
        InstanceReport(instance=relay, entries=7, findings=()),
        *clean_instances(OUT),
    )


def _warnings() -> Report:
    hosts = finding(
        Kind.DIFFERS,
        OUT,
        "/etc/hosts",
        "contents differ",
        rule=PRESENT,
        source="/etc/hosts",
        severity=Severity.WARNING,
        remedy=Remedy.COPY,
    )
    info = finding(
        Kind.UNREACHABLE,
        OUT,
        "/run/systemd/resolve/io.systemd.Resolve",
        "no socket is there; lookups fall through to dns",
        severity=Severity.INFO,
    )
    return report(*clean_instances(IN), InstanceReport(instance=OUT, entries=42, findings=(info, hosts)))


def _drift() -> Report:
    """Every kind once; a new kind needs its example here."""
    broken = instance("postfix-relay", problem="cannot be read")
    submission = (
        finding(
            Kind.TYPE,
            SUBMISSION,
            "/dev/urandom",
            "a file stands where a character device 1:9 should",
            rule=DEVICES,
            remedy=Remedy.REPLACE,
            want=State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 9)),
            have=file(size=0, sha256=None),
        ),
        finding(
            Kind.UNREACHABLE,
            SUBMISSION,
            "/var/run/saslauthd/mux",
            "no socket is there: smtpd cannot check passwords; bind-mount /var/run/saslauthd into the chroot",
            rule=replace(RESOLVER, id="postfix.sasl", why="smtpd(8) asks saslauthd(8) for passwords"),
            source="/var/run/saslauthd/mux",
            severity=Severity.WARNING,
        ),
        finding(
            Kind.UNREADABLE,
            SUBMISSION,
            "/etc/ssl/private",
            "permission denied: run as root",
            rule=PRESENT,
            source="/etc/ssl/private",
        ),
    )
    inside = (
        lost_library(),
        finding(
            Kind.UNRESOLVED,
            IN,
            "libcap.so.2",
            "not found where the loader looks",
            rule=NSS,
            because="libcap.so.2 ← libnss_systemd.so.2 ← nsswitch.conf passwd",
        ),
        finding(
            Kind.UNSAFE,
            IN,
            "/usr/share/zoneinfo",
            "others can write to /var/spool/postfix-in/usr/share: chmod o-w it",
            rule=PRESENT,
            source="/usr/share/zoneinfo",
        ),
    )
    out = (
        stale_resolver(),
        wrong_mode(),
        finding(
            Kind.ORPHAN,
            OUT,
            "/etc/ssl/certs/1001acf7.0",
            "the host has no such file any more",
            rule=replace(RESOLVER, id="postfix.capath", why="smtp(8) verifies servers by it"),
            severity=Severity.WARNING,
            remedy=Remedy.REMOVE,
            have=file(),
        ),
        finding(
            Kind.BAD_SOURCE,
            OUT,
            "/etc/hosts",
            "the source /etc/hosts is empty; the copy is kept",
            source="/etc/hosts",
            have=file(),
        ),
    )
    remembered = (
        finding(
            Kind.OUTDATED,
            OUT,
            "/etc/services",
            "12813 bytes here, 12849 on the host; the host's side has changed",
            remedy=Remedy.COPY,
            source="/etc/services",
            have=file(),
        ),
        finding(
            Kind.MODIFIED,
            OUT,
            "/etc/host.conf",
            "18 bytes here, 9 on the host; this was not written by chrootsync",
            remedy=Remedy.COPY,
            source="/etc/host.conf",
            have=file(),
        ),
        finding(
            Kind.CONTESTED,
            OUT,
            "/etc/localtime",
            "repaired 3 times while its source stayed the same: something else keeps changing it; find out what, then "
            "check --fix --force",
            source="/etc/localtime",
            severity=Severity.WARNING,
            have=file(),
        ),
        finding(
            Kind.HELD,
            OUT,
            "/etc/nsswitch.conf",
            "repair 12 was rolled back here; held until the source changes, or until 2026-11-30; check --fix --force "
            "releases it",
            source="/etc/nsswitch.conf",
            severity=Severity.WARNING,
            have=file(),
        ),
    )
    stale = finding(
        Kind.STALE_PROCESS,
        OUT,
        "/lib/x86_64-linux-gnu/libnss_dns.so.2",
        "smtp (pid 4711) still uses it as it was before it was replaced",
        rule=NSS,
        severity=Severity.WARNING,
        remedy=Remedy.RELOAD,
    )
    bad = finding(Kind.BAD_INSTANCE, broken, "/", "main.cf line 12: cannot be read: permission denied", rule=NONE)
    return report(
        InstanceReport(instance=SUBMISSION, entries=38, findings=submission),
        InstanceReport(instance=IN, entries=42, findings=inside),
        InstanceReport(instance=OUT, entries=46, findings=(*out, *remembered, stale), reload=Reload(needed=True)),
        InstanceReport(instance=broken, entries=0, findings=(bad,)),
        notes=("/etc/postfix/main.cf: multi_instance_enable is no: postmulti serves none of the instances",),
    )


def _repaired() -> Report:
    done = Outcome(status=Status.REPAIRED)
    command = ("/usr/sbin/postfix", "-c", "/etc/postfix-in", "reload")
    pending = Reload(
        needed=True,
        pending=True,
        command=command,
        error="/etc/postfix-in/main.cf was changed after the last reload: reload it when you are done",
    )
    reloaded = Reload(needed=True, done=True, command=command, output="postfix/postfix-script: refreshing\n")
    return report(
        InstanceReport(instance=SUBMISSION, entries=38, findings=()),
        InstanceReport(instance=IN, entries=42, findings=(lost_library(outcome=done),), reload=pending),
        InstanceReport(
            instance=OUT,
            entries=46,
            findings=(stale_resolver(outcome=done), wrong_mode(outcome=done)),
            reload=reloaded,
        ),
        fixed=True,
    )


def _failed() -> Report:
    full = Outcome(status=Status.FAILED, reason="no space left on device; nothing was changed")
    unknown = Outcome(status=Status.UNKNOWN, reason="the directory could not be synced")
    skipped = Outcome(status=Status.SKIPPED, reason="the source changed meanwhile")
    reload = Reload(
        needed=True,
        command=("/usr/sbin/postfix", "-c", "/etc/postfix-out", "reload"),
        error="exit status 1",
        output="postfix: fatal: parameter inet_interfaces: no local interface found for 192.0.2.1\n",
    )
    manual = Reload(needed=True, command=("/usr/sbin/postfix", "-c", "/etc/postfix-submission", "reload"))
    return report(
        InstanceReport(
            instance=SUBMISSION,
            entries=38,
            findings=(stale_resolver(SUBMISSION, Outcome(status=Status.REPAIRED)),),
            reload=manual,
        ),
        InstanceReport(
            instance=IN,
            entries=42,
            findings=(lost_library(outcome=full), stale_resolver(IN, skipped), stale_resolver(IN)),
        ),
        InstanceReport(instance=OUT, entries=46, findings=(wrong_mode(outcome=unknown),), reload=reload),
        fixed=True,
        root="/srv/image",
    )


def lookup(what: str, inside: str, outside: str, answer: Answer = Answer.SAME, advice: str | None = None) -> Lookup:
    """A lookup that worked outside."""
    return Lookup(
        what=what,
        answer=answer,
        inside=inside,
        outside=outside,
        worked_inside=answer is not Answer.FAILS_INSIDE,
        worked_outside=True,
        advice=advice,
        matters=answer is Answer.FAILS_INSIDE,
    )


def _proved() -> Report:
    """What was looked up inside, who still uses what was replaced, and what was made sure of after a reload."""
    localhost = lookup("getaddrinfo localhost", "127.0.0.1, ::1", "127.0.0.1, ::1")
    service = lookup(
        "getservbyname smtp/tcp",
        "no such service",
        "port 25",
        Answer.FAILS_INSIDE,
        "see what chrootsync explain /etc/services says",
    )
    zone = lookup("localtime", "UTC", "CET", Answer.DIFFERS, "see what chrootsync explain /etc/localtime says")
    process = StaleProcess(
        pid=4711,
        daemon="smtp",
        began=1_759_900_000.0,
        uses=("/lib/x86_64-linux-gnu/libnss_dns.so.2", "/etc/odd-\udcff"),
        why="it has mapped libraries that were replaced",
    )
    command = ("/usr/sbin/postfix", "-c", "/etc/postfix-out", "reload")
    seen = ("the master lives (pid 812)", "1 of 3 stale processes is finishing its job")
    reloaded = Reload(needed=True, done=True, command=command, seen=seen)
    done = Outcome(status=Status.REPAIRED)
    return report(
        InstanceReport(
            instance=SUBMISSION, entries=38, findings=(), probe=Probe(lookups=(localhost,), duration=0.0312)
        ),
        InstanceReport(
            instance=IN,
            entries=42,
            findings=(),
            probe=Probe(error="the lookup getaddrinfo localhost ended by SIGBUS", asked=True, duration=0.02),
        ),
        InstanceReport(
            instance=OUT,
            entries=46,
            findings=(lost_library(OUT, outcome=done),),
            reload=reloaded,
            probe=Probe(lookups=(localhost, service, zone), lost=(service.what,), duration=0.05),
            stale=(process,),
            retry=Retry(tried=12, left=3),
        ),
        fixed=True,
    )


def _hostile() -> Report:
    evil = instance("[bold]out\x1b[31m", chroot="/srv/\u202egpj.exe", config="/etc/\udcff")
    paths = (
        "/etc/\x1b]0;owned\x07\x1b[2Jname",
        "/etc/new\nline error missing fake /etc/fake: gone",
        "/etc/[red]markup[/red] :skull:",
        "/etc/bidi\u202e\u2066txt.exe",
        "/etc/latin1-\udce9\udcff",
        "/etc/backslash\\x41 and \\ alone",
        "/etc/zero\u200bwidth\ufeff and \u2028 separators",
        "/etc/ünïcode-漢字-is-fine",
        "/etc/::error file=x::y",
        "/etc/" + "a-long-name-that-does-not-fit-on-a-line-" * 4,
    )
    rule = replace(RESOLVER, id="evil\x1b[0m", why="why\r\nnot [link=http://x]here[/link]", origin="")
    found = tuple(
        finding(
            Kind.DIFFERS,
            evil,
            path,
            f"contents of {path} differ",
            rule=rule,
            source=path,
            remedy=Remedy.COPY,
            package="pack\tage",
            outcome=Outcome(status=Status.FAILED, reason="bad\x00 \x9b1m"),
        )
        for path in paths
    )
    reload = Reload(needed=True, error="\x1b[1mfatal[/]", output="one\x1b[2J\ntwo\u2029\n", command=("a b", "\x7f"))
    looked = lookup("getaddrinfo ::error::\x1b[1m", "<3>|]]>", "##[error]\n", Answer.FAILS_INSIDE, "<b>{0}[x](1)")
    stale = StaleProcess(pid=1, daemon="smtp\n::error", began=0.0, uses=(paths[0],), why="\u202ewhy")
    return report(
        InstanceReport(
            instance=evil,
            entries=10,
            findings=found,
            reload=reload,
            probe=Probe(lookups=(looked,), lost=(looked.what,), error="\x00"),
            stale=(stale,),
            retry=Retry(error="\r\n"),
        ),
        fixed=True,
        root="/srv/\x85root",
        notes=("[blink]note\x1b[5m",),
    )


REPORTS = {
    "in-sync": _in_sync(),
    "unchrooted": _unchrooted(),
    "warnings": _warnings(),
    "drift": _drift(),
    "repaired": _repaired(),
    "failed": _failed(),
    "proved": _proved(),
    "hostile": _hostile(),
    "nothing": report(root="/srv/image"),
}
DIFFS = {
    ("postfix-out", "/etc/resolv.conf"): "--- /etc/resolv.conf\n+++ /var/spool/postfix-out/etc/resolv.conf\n"
    "@@ -1 +1 @@\n-nameserver 192.0.2.53\n+nameserver 127.0.0.53\n",
}
COMPARED = {
    "postfix-in": ("/etc/hosts", "/etc/resolv.conf", "/etc/services"),
    "postfix-out": ("/etc/hosts", "/etc/resolv.conf", "/etc/services"),
}
