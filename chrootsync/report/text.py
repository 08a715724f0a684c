"""The sanitizer, and the words that the reports for people share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chrootsync.model import Kind, Remedy, Severity, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    from chrootsync.model import Drift, Finding, InstanceReport, Report, State
    from chrootsync.report import Options

    class Named(Protocol):
        """What is reported, with the names of users and groups by their numbers."""

        @property
        def owners(self) -> Mapping[int, str]: ...
        @property
        def groups(self) -> Mapping[int, str]: ...


# Printable to Python, yet nobody sees them: they make two names look alike.
_INVISIBLE = frozenset(
    [
        "\N{COMBINING GRAPHEME JOINER}",
        "\N{HANGUL CHOSEONG FILLER}",
        "\N{HANGUL JUNGSEONG FILLER}",
        "\N{HANGUL FILLER}",
        "\N{HALFWIDTH HANGUL FILLER}",
        "\N{KHMER VOWEL INHERENT AQ}",
        "\N{KHMER VOWEL INHERENT AA}",
        "\N{BRAILLE PATTERN BLANK}",
        *map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))),  # variation selectors
    ]
)


def clean(text: str) -> str:
    r"""Text from a file made safe to show: one line of printable characters, which UTF-8 can encode.

    Whatever is not printable (controls, line breaks, escape sequences, bidirectional and other format characters,
    separators but the space, private use, unassigned) becomes ``\xNN`` for each of its UTF-8 bytes; a surrogate escape
    becomes the byte that it stands for. So that this can be undone, a backslash before an ``x`` becomes ``\x5c``.
    """
    ambiguous = "\\x" in text
    if text.isascii() and text.isprintable() and not ambiguous:
        return text
    if ambiguous:
        return "\\x5cx".join(clean(part) for part in text.split("\\x"))
    return "".join(
        character if character.isprintable() and character not in _INVISIBLE else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in raw(character))


def raw(text: str) -> bytes:
    """The bytes that a text stands for, whatever surrogates it holds."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # not what fsdecode makes of a file name; JSON and TOML may hold it
        return text.encode("utf-8", "surrogatepass")


def lines(text: str) -> list[str]:
    """The lines of a command's output or of a difference, each of them clean."""
    return [clean(line.expandtabs()) for line in text.removesuffix("\n").split("\n")] if text else []


def plural(count: int, word: str) -> str:
    """A count with its noun."""
    if count == 1:
        return f"1 {word}"
    ending = word[-2:]
    return f"{count} {word[:-1]}ies" if ending[1:] == "y" and ending[0] not in "aeiou" else f"{count} {word}s"


def command_line(command: tuple[str, ...]) -> str:
    """A command as one would type it."""
    import shlex

    return clean(shlex.join(command))


# --- What is shown ----------------------------------------------------------------------------------------------


def shown(instance: InstanceReport, options: Options) -> list[Finding]:
    """The findings that people want to see, the worst first; what is merely information only when they ask for it."""
    order = list(Severity)
    chosen = [
        finding
        for finding in instance.findings
        if options.verbose or finding.outcome is not None or finding.drift.severity is not Severity.INFO
    ]
    return sorted(chosen, key=lambda finding: (_settled(finding), order.index(finding.drift.severity)))


def _settled(finding: Finding) -> bool:
    return finding.outcome is not None and finding.outcome.status is Status.REPAIRED


def location(drift: Drift) -> tuple[str, str]:
    """Where the drift is, as one would look for it from the root: the chroot, and the path inside it.

    What is not inside a chroot (the configuration of a bad instance, a library that nobody found) stands alone.
    """
    instance = drift.entry.instance
    if drift.kind is Kind.BAD_INSTANCE:
        return "", clean(instance.config or instance.chroot)
    path = drift.entry.path
    if not path.startswith("/"):
        return "", clean(path)
    return clean(instance.chroot.rstrip("/")), clean(path)


def reason(drift: Drift) -> str:
    """What is wrong, with the package that the source belongs to."""
    package = f" (package {clean(drift.package)})" if drift.package else ""
    return clean(drift.reason) + package


def outcome(finding: Finding) -> str:
    """What became of the finding, or nothing where nothing was tried."""
    if finding.outcome is None:
        return ""
    why = f": {clean(finding.outcome.reason)}" if finding.outcome.reason else ""
    return f"{finding.outcome.status}{why}"


def needs_hand(finding: Finding) -> bool:
    """Whether no repair helps, and somebody has to."""
    return finding.drift.remedy is Remedy.NONE and finding.drift.severity is not Severity.INFO


def end(finding: Finding, report: Report) -> str:
    """What became of the finding or, where nothing was tried, what a repair would do; a word or two."""
    if finding.outcome is not None:
        return str(finding.outcome.status)
    if needs_hand(finding):
        return "by hand"
    if finding.drift.remedy is Remedy.NONE:
        return "none"
    tried = finding.drift.remedy is not Remedy.RELOAD  # what became of a reload is told of the whole instance
    return "not tried" if report.fixed and tried else str(finding.drift.remedy)


BUNDLE: Final = 8
"""Where more findings than this are alike, people are shown the first ones only."""


def likeness(finding: Finding) -> tuple[object, ...]:
    """What two findings of one bundle share: all but the file's name, and the package."""
    drift = finding.drift
    directory = drift.entry.path.rpartition("/")[0]
    said = drift.entry.path if drift.kind is Kind.STALE_PROCESS else drift.reason  # each names its own process
    return (drift.kind, drift.severity, drift.entry.rule.id, directory, said, finding.outcome)


def details(finding: Finding, report: Report, options: Options) -> Iterator[tuple[str, str]]:
    """What -v adds to a drift, as pairs of a label and a text; its difference, where there is one, comes apart."""
    if options.verbose:
        yield from facts(finding, report)


def facts(finding: Finding, report: Report) -> Iterator[tuple[str, str]]:
    """All that is known of a drift beside what is wrong, as pairs of a label and a text."""
    entry = finding.drift.entry
    yield "rule", f"{clean(entry.rule.id)} ({clean(entry.rule.origin)})" if entry.rule.origin else clean(entry.rule.id)
    if entry.because:
        yield "because", clean(entry.because)
    if entry.source is not None:
        yield "source", clean(entry.source)
    if entry.want is not None:
        yield "want", state(entry.want, finding.drift, report)
    if entry.have is not None:
        yield "have", state(entry.have, finding.drift, report)


def difference(finding: Finding, options: Options) -> list[str]:
    """The unified difference of a drift, where the caller made one."""
    entry = finding.drift.entry
    return lines(options.diffs.get((entry.instance.name, entry.path), ""))


def state(what: State, drift: Drift, report: Report) -> str:
    """A state in one line: ``file 0644 root:root, 120 bytes, sha256 1a2b3c4d5e6f``."""
    head = str(what.type)
    if what.device is not None:
        head += f" {what.device[0]}:{what.device[1]}"
    if what.mode is not None:
        head += f" {mode(what.mode)}"
    if what.uid is not None or what.gid is not None:
        head += f" {owner(what.uid, report) or 'any'}:{group(what.gid, report) or 'any'}"
    parts = [head]
    if what.target is not None:
        parts.append(f"to {clean(what.target)}")
    if what.size is not None:
        parts.append(plural(what.size, "byte"))
    if what.sha256 is not None and public(drift.entry.want, drift.entry.have):
        parts.append(f"sha256 {what.sha256[:12]}")
    return ", ".join(parts)


def mode(bits: int) -> str:
    """Permission bits as chmod(1) takes them."""
    return f"{bits:04o}"


def owner(uid: int | None, named: Named) -> str | None:
    """The name of an owner, or the number where it has none."""
    return None if uid is None else clean(named.owners.get(uid, str(uid)))


def group(gid: int | None, named: Named) -> str | None:
    """The name of a group, or the number where it has none."""
    return None if gid is None else clean(named.groups.get(gid, str(gid)))


def public(*sides: State | None) -> bool:
    """Whether everybody may read all sides, so that a checksum tells nobody what he could not read himself."""
    return all(side is None or (side.mode or 0) & 0o004 for side in sides)


def reload_line(instance: InstanceReport, report: Report) -> str | None:
    """One sentence on the reload of an instance, or None where there is nothing to say."""
    reload = instance.reload
    name = clean(instance.instance.name)
    why = f": {clean(reload.error)}" if reload.error else ""
    if reload.pending:
        return f"{name}: reload pending{why}"
    if reload.error is not None and reload.done:
        return f"{name}: reloaded, and in trouble{why}"
    if reload.error is not None:
        return f"{name}: reload failed{why}"
    if reload.done:
        return f"{name}: reloaded"
    if reload.needed and report.fixed:
        return f"{name}: not reloaded" + (f"; do it with: {command_line(reload.command)}" if reload.command else "")
    return None


def reload_output(instance: InstanceReport, options: Options) -> list[str]:
    """What was made sure of after the reload, and what it printed: where it went wrong, or when more is asked for."""
    reload = instance.reload
    if not options.verbose and reload.error is None:
        return []
    return [*map(clean, reload.seen), *lines(reload.output)]


def retry_line(instance: InstanceReport) -> str | None:
    """One sentence on deferred mail of an instance that was to be retried, or None where there is nothing to say."""
    retry = instance.retry
    if retry is None:
        return None
    said = f"{clean(instance.instance.name)}: {plural(retry.tried, 'message')} deferred by name errors retried"
    if retry.left:
        said += f", {retry.left} left to their own time"
    return said + (f": {clean(retry.error)}" if retry.error is not None else "")


def instance_line(instance: InstanceReport) -> str:
    """One sentence on an instance, for those who want to know what was looked at."""
    what = instance.instance
    needs = plural(instance.entries, "entry")
    if not what.chrooted:
        needs += ", no chrooted service: " + (
            "only what is there is kept fresh" if instance.entries else "needs nothing"
        )
    return f"{clean(what.name)}: {clean(what.chroot)}, {needs}"
