"""Holds the parsers of main.cf and master.cf against what the real postconf(1) makes of the same files.

A plain library: :data:`RUN_POSTCONF` is what runs beside Postfix, everything else needs neither root nor Postfix.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrootsync.providers.postfix import main_cf, master_cf
from chrootsync.providers.postfix.expansion import ExpansionError, compatibility_level
from chrootsync.providers.postfix.main_cf import FileError, Parameters

HAND_WRITTEN = Path(__file__).parent.parent / "cases" / "postfix"

# Reads {"name": [main.cf, master.cf]}, writes {"name": [[exit status, output] of -x, -M and -P -x]}, and the defaults
# under "". Files get an old time: postconf waits until a file that has just been written has cooled down. There are
# threads because it sleeps a second before it ends with an error.
RUN_POSTCONF = """
import concurrent.futures, json, os, subprocess, sys, tempfile

def postconf(directory, *options):
    done = subprocess.run(["postconf", "-c", directory, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return [done.returncode, done.stdout.decode("utf-8", "surrogateescape")]

results = {"": [postconf("/dev/null", "-d")]}
with tempfile.TemporaryDirectory() as top:
    for name, texts in json.load(sys.stdin).items():
        directory = os.path.join(top, name)
        os.mkdir(directory)
        for file, text in zip(("main.cf", "master.cf"), texts):
            path = os.path.join(directory, file)
            with open(path, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
            os.utime(path, (0, 0))
        results[name] = [(directory, *options) for options in (["-x"], ["-M"], ["-P", "-x"])]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for name in set(results) - {""}:
            results[name] = [pool.submit(postconf, *run) for run in results[name]]
    results = {name: [run if name == "" else run.result() for run in runs] for name, runs in results.items()}
json.dump(results, sys.stdout)
"""

# Worked out from the network, or another number in each run.
_COMPUTED = ("mynetworks", "mydomain", "myhostname", "process_id", "config_directory")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The two files of one instance."""

    name: str
    main: str
    master: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one run of postconf ended with and printed."""

    code: int
    output: str


def hand_written_configurations() -> list[Case]:
    """The configurations below ``tests/cases/postfix``."""
    return [
        Case(name=directory.name, main=_text(directory / "main.cf"), master=_text(directory / "master.cf"))
        for directory in sorted(HAND_WRITTEN.iterdir())
    ]


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def settings(output: str) -> dict[str, str]:
    """The ``name = value`` lines that postconf printed; it prints one space for any white space."""
    pairs = (line.partition(" =") for line in output.split("\n"))
    return {name: value.removeprefix(" ") for name, equals, value in pairs if equals}


def _printed(value: str) -> str:
    """A value as postconf prints it."""
    return " ".join(word for word in re.split(r"[ \t\r\n]+", value) if word)


def compare(case: Case, answers: Sequence[Answer], defaults: Mapping[str, str]) -> list[str]:
    """The differences between ours and what ``postconf`` answered to -x, -M and -P -x; none is agreement."""
    expanded, services, overrides = answers
    try:
        ours = main_cf.parse(case.main)
        master = master_cf.parse(case.master)
    except FileError as error:
        accepted = not expanded.code and not services.code
        return [f"{case.name}: postconf accepts what is refused here: {error}"] if accepted else []
    shown = settings(expanded.output)
    computed = {name: shown[name] for name in _COMPUTED if name in shown}
    parameters = Parameters(ours, computed, defaults)
    differences = list(_compare_parameters(parameters, expanded, defaults))
    if not expanded.code:
        differences += _compare_services(master, services)
        differences += _compare_overrides(parameters, master, overrides)
    return [f"{case.name}: {difference}" for difference in differences]


def _compare_parameters(parameters: Parameters, answer: Answer, defaults: Mapping[str, str]) -> Iterator[str]:
    if answer.code:
        # It also looks at names that nothing but themselves refers to.
        if not any(_failures(parameters, parameters)):
            yield f"postconf -x ends with {answer.code} where all is accepted here"
        return
    for failure in _failures(parameters, defaults):
        yield f"postconf -x accepts what is refused here: {failure}"
    for name, value in settings(answer.output).items():
        # Services add defaults of their own, such as smtp_destination_rate_delay.
        if name in parameters and (mine := _printed(parameters[name])) != value:
            yield f"{name} is {mine!r} here, {value!r} for postconf"


def _failures(parameters: Parameters, names: Iterable[str]) -> Iterator[str]:
    try:
        compatibility_level(parameters.expanded("compatibility_level"))
    except ExpansionError as error:
        yield str(error)
    for name in names:
        try:
            parameters.expanded(name)
        except ExpansionError as error:
            yield str(error)


def _compare_services(services: Sequence[master_cf.Service], answer: Answer) -> Iterator[str]:
    if answer.code:
        yield "postconf -M refuses what is accepted here"
        return
    theirs = answer.output.split("\n")[:-1]
    ours = [render(service) for service in services]
    if len(ours) != len(theirs):
        yield f"there are {len(ours)} services here, {len(theirs)} for postconf"
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            yield f"{mine!r} here, {other!r} for postconf"


def _compare_overrides(parameters: Parameters, services: Sequence[master_cf.Service], answer: Answer) -> Iterator[str]:
    ours = {}
    try:
        for service in services:
            seen = parameters.overlaid(service.overrides, {"service_name": service.name})
            for name in service.overrides:
                ours[f"{service.name}/{service.type}/{name}"] = _printed(seen.expanded(name))
    except ExpansionError as error:
        if not answer.code:
            yield f"postconf -P -x accepts what is refused here: {error}"
        return
    if answer.code:
        yield "postconf -P -x refuses what is accepted here"
    elif ours != (theirs := settings(answer.output)):
        yield f"overrides are {ours} here, {theirs} for postconf"


def render(service: master_cf.Service) -> str:
    """A service as ``postconf -M`` prints it."""
    line = ""
    columns = (
        *(service.name, service.type, service.private, service.unprivileged),
        *(service.chroot, service.wakeup, service.maxproc, service.command),
    )
    for start, text in zip((0, 11, 17, 25, 33, 41, 49, 57), columns, strict=True):
        line = f"{line} ".ljust(start) + text if line else text
    arguments = iter(service.arguments)
    for argument in arguments:
        line += f" {argument}"
        if argument == "-o":
            line += f" {_in_braces(next(arguments))}"
        elif not argument.startswith("-") or argument == "--":
            break
    # The argument that ends the options never gets its braces back.
    return " ".join((line, *map(_in_braces, arguments)))


def _in_braces(argument: str) -> str:
    return f"{{{argument}}}" if any(blank in argument for blank in " \t\r\n") else argument


# --- Generated configurations -----------------------------------------------------------------------------------

_KNOWN = (
    "virtual_alias_maps", "smtp_tls_CApath", "transport_maps", "relay_domains", "smtpd_milters", "header_checks",
    "mydestination", "canonical_maps", "smtpd_client_restrictions", "smtpd_sasl_path", "relayhost", "queue_directory",
    "smtpd_banner", "virtual_mailbox_base", "smtpd_recipient_restrictions", "smtp_bind_address", "syslog_name",
)  # fmt: skip
_OWN = ("u0", "u1", "Under_Score", "UPPER", "u9")
_SPACES = ("", "", " ", "  ", "\t", " \t ")
_WORDS = ("hash:/etc/x", "a", "B", "10", "9", "3.10", "/srv/$$x", "permit,", "a:b?c", "(x)", "[::1]:25", "é", "=", "#n")
_FAULTS = ("${", "$", "$ x", "${a b}", "${{a} = {b}}", "${x?{a}b}", "${{a}", "${}", "$()", "${{1} == {1} x}", "${a!}")
_OPERATORS = ("==", "!=", "<", "<=", ">=", ">")
_LEVELS = ("0", "1", "2", "3.6", "3.9", "3.10", "3.6.1")


def generated_configurations(seed: int, count: int) -> list[Case]:
    """Configurations that stress the syntax, the same ones for the same seed; about one in six is faulty."""
    chance = random.Random(seed)  # noqa: S311 - for variety, not for secrets
    return [
        Case(
            name=f"generated-{seed}-{number}",
            main=_main(chance, faulty=chance.random() < 0.1),
            master=_master(chance, faulty=chance.random() < 0.08),
        )
        for number in range(count)
    ]


def _main(chance: random.Random, *, faulty: bool) -> str:
    lines = [" orphan = continues nothing\n"] if chance.random() < 0.1 else []
    names: list[str] = []
    for name in chance.sample(_OWN + _KNOWN, 12):
        # Mostly to names before this one, so that loops are rare and not always found.
        known = names if chance.random() < 0.98 else [*names, name]
        value = " ".join(_value(chance, known, 3) for _ in range(chance.randint(0, 4)))
        lines.append(_line(chance, name, value))
        names.append(name)
    lines.append(_line(chance, "compatibility_level", chance.choice(_LEVELS)))
    if faulty:
        fault = chance.choice(
            (*(f"relayhost = {fault}\n" for fault in _FAULTS), "novalue\n", "= x\n", "two names = x\n")
        )
        lines.append(chance.choice((fault, fault, "compatibility_level = later\n", "u0=$relayhost\nrelayhost=$u0\n")))
    return "".join(lines)


def _line(chance: random.Random, name: str, value: str) -> str:
    """A setting, perhaps over several lines, perhaps with comments between them."""
    text = f"{name}{chance.choice(_SPACES)}={chance.choice(_SPACES)}{value}"
    words = text.split(" ")
    for position in range(1, len(words)):
        if chance.random() < 0.15:
            between = chance.choice(("", "", "# comment\n", "\n", "   # indented comment\n", " \t\n", "\f\n"))
            words[position] = f"\n{between}{chance.choice((' ', ' ', chr(9)))}{words[position]}"
    ending = chance.choice(("\n", "\n", "\n", " \n", "\r\n", "\n\n", "\n#\n"))
    return " ".join(words) + ending


def _value(chance: random.Random, names: Sequence[str], depth: int) -> str:
    """One word of a value."""
    space: Callable[[], str] = lambda: chance.choice(_SPACES)  # noqa: E731 - shorter than what it stands for
    name = chance.choice((*names, "no_such_name", "mail_owner", "data_directory", "compatibility_level"))
    if depth == 0 or (kind := chance.randrange(10)) < 3:
        return chance.choice(_WORDS)
    inner = _value(chance, names, depth - 1)
    other = _value(chance, names, depth - 1)
    bare = inner if depth == 1 else "bare"
    return (
        f"${name}",
        f"${{{space()}{name}{space()}}}",
        f"$({name})",
        f"${{{name}{space()}?{bare}}}",
        f"${{{name}:{space()}{bare}}}",
        f"${{{name}{space()}?{space()}{{{inner}}}{space()}:{space()}{{{other}}}{space()}}}",
        f"${{{space()}{{{inner}}}{space()}{chance.choice(_OPERATORS)}{space()}{{{other}}}{space()}?{{{bare}}}:{{{other}}}}}",
        f"${{{{$compatibility_level}}{space()}{chance.choice(_OPERATORS)}level{space()}{{{chance.choice(_LEVELS)}}}}}",
    )[kind - 3 if kind < 10 else chance.randrange(8)]


def _master(chance: random.Random, *, faulty: bool) -> str:
    lines = ["# service type  private unpriv  chroot  wakeup  maxproc command + args\n"]
    names = [
        "smtp",
        "[::1]:10025",
        "127.0.0.1:25",
        "sub-mission",
        "x_y.z",
        "retry",
        "lmtp",
        "2525",
        "very-long-service-name",
    ]
    for name in chance.sample(names, chance.randint(0, len(names))):
        columns = [
            name,
            chance.choice(("inet", "unix", "fifo", "pass", "unix-dgram")),
            *(chance.choice("yn-") for _ in range(3)),
            chance.choice(("-", "60", "1000?", "0", "-?", "?")),
            chance.choice(("-", "0", "1", "100")),
            chance.choice(("smtpd", "smtp", "pipe", "lmtp", "local")),
        ]
        line = chance.choice((" ", "\t", "   ", " \t")).join(columns)
        for argument in _arguments(chance):
            line += chance.choice((" ", "\n\t", "\n  # comment\n  ", "\n\n  ", "  \n#\n\t")) + argument
        lines.append(line + chance.choice(("\n", "\n\n", "\r\n", " \n")))
    if faulty:
        lines.append(
            chance.choice(
                (
                    "smtp inet n - y - -\n",
                    "smtp udp n - y - - smtpd\n",
                    "smtp inet x - y - - smtpd\n",
                    "smtp inet n - yes - - smtpd\n",
                    "smtp inet n - y 1m - smtpd\n",
                    "smtp inet n - y - -1 smtpd\n",
                    "smtp\n",
                )
            )
        )
    return "".join(lines)


def _arguments(chance: random.Random) -> Iterator[str]:
    names = ["syslog_name", "smtpd_milters", "smtp_tls_CApath", "relayhost", "u0"]
    for _ in range(chance.randint(0, 4)):
        name = chance.choice(names)
        value = chance.choice(("", "a", "$mail_owner", "${relayhost?{yes}:{no}}", "x=y", "$service_name/$$", "{a b}"))
        # postconf would split at each further "o", which no daemon does.
        joined = " " if "o" in name + value else ""
        yield chance.choice(
            (
                f"-o {name}={value}",
                f"-o{joined}{name}={value}",
                f"-vo {name}={value}",
                f"-o {{ {name} = {value} and more }}",
                f"-o {{{name}={value}}}",
                f"-o {{\n   {name} =\n     {value} }}",
                "-v",
                "-vv",
            )
        )
    if chance.random() < 0.4:
        yield chance.choice(("flags=DRhu", "{ two words }", "--"))
        yield from chance.sample(
            ("user=vmail", "argv=/bin/x", "{ three more words }", "{one}", "-o", "${user}", "--"), 4
        )
