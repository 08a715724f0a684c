"""What is for systemd: the shipped units with the paths of this host in them, their drop-ins, and what enables them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from chrootsync import __version__, shipped
from chrootsync.hooks.items import Facts, Item, Mode
from chrootsync.model import ChrootsyncError
from chrootsync.root.settings import Settings

DIRECTORY = "/etc/systemd/system"
SERVICE = "chrootsync.service"
TIMER = "chrootsync.timer"
REQUESTS = "chrootsync-requested.path"
LATER = "chrootsync-later.timer"
OF_MODE = {
    Mode.WATCH: ("chrootsync-watch.service",),
    Mode.PATH: ("chrootsync.path", "chrootsync-request.service"),
    Mode.TIMER: (),
}
STARTED = {
    Mode.WATCH: (REQUESTS, TIMER, "chrootsync-watch.service"),
    Mode.PATH: (REQUESTS, TIMER, "chrootsync.path"),
    Mode.TIMER: (REQUESTS, TIMER),
}
"""What runs, or waits, in each mode."""

WRITABLE = "/var/spool"
"""What the shipped services may write to without being told."""

DROP_IN = "chrootsync.conf"
SHIPPED_INTERPRETER = "/usr/bin/python3 -I"
WANTED_BY = re.compile(r"^WantedBy=(\S+)$", re.MULTILINE)


def installed_mode(settings: Settings) -> Mode | None:
    """The mode that is installed, if any. Raises UnreadableError, UnsafeError."""
    for mode, names in OF_MODE.items():
        if any(settings.look(f"{DIRECTORY}/{name}") is not None for name in names):
            return mode
    # The last of what an installation writes: where it is missing, one was interrupted, whichever mode it was of.
    enabled = settings.look(f"{DIRECTORY}/timers.target.wants/{TIMER}")
    return Mode.TIMER if enabled is not None and enabled.target == f"{DIRECTORY}/{TIMER}" else None


def items(facts: Facts) -> tuple[Item, ...]:
    """The units of a mode, with drop-ins and links. Raises ChrootsyncError where the shipped ones are missing."""
    names = (SERVICE, TIMER, REQUESTS, LATER, *OF_MODE[facts.mode])
    units = {name: _unit(name, facts) for name in names}
    found = [Item(path=f"{DIRECTORY}/{name}", text=text) for name, text in units.items()]
    found += _drop_ins(names, facts)
    for name, text in units.items():
        wanted = WANTED_BY.search(text)
        if wanted is not None:
            found.append(Item(path=f"{DIRECTORY}/{wanted[1]}.wants/{name}", target=f"{DIRECTORY}/{name}"))
    return tuple(found)


def every_item(facts: Facts) -> tuple[Item, ...]:
    """What could have been written in any mode and at any time before."""
    everything = {
        item.path: item
        for mode in Mode
        for item in items(Facts(interpreter=facts.interpreter, mode=mode, chroots=("/nowhere",), places=("/nowhere",)))
    }
    return tuple(everything.values())


def postfix_items(facts: Facts) -> tuple[Item, ...]:
    """The drop-ins for the units of Postfix that are there."""
    return tuple(
        Item(
            path=f"{DIRECTORY}/{unit}.d/{DROP_IN}",
            text=_filled(_shipped(f"postfix.service.d/{DROP_IN}"), facts).replace(" -- INSTANCE", _instance(text)),
        )
        for unit, text in sorted(facts.postfix.items())
    )


def starts_postfix(text: str) -> bool:
    """Whether a unit of Postfix starts it: that of Debian 12 which stands for all instances starts nothing."""
    return any(
        re.search(r"post(fix|multi)|/master", command)
        for command in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    )


def _instance(text: str) -> str:
    """The instance that a unit starts, as systemd will put it in; nothing where it may be any."""
    if re.search(r"^Environment=MAIL_CONFIG=", text, re.MULTILINE):
        return " -- ${MAIL_CONFIG}"
    if re.search(r"^ExecStart=\S*postmulti -i %i ", text, re.MULTILINE):
        return " -- %i"
    return ""


def _unit(name: str, facts: Facts) -> str:
    text = _filled(_shipped(name), facts)
    if name in OF_MODE[Mode.WATCH]:
        # What runs all the time goes on with the code that it has read: another version is another text, and a restart.
        text = f"# For chrootsync {__version__}.\n{text}"
    return text


def _filled(text: str, facts: Facts) -> str:
    started = text.replace(f"={SHIPPED_INTERPRETER}", f"={_program(facts.interpreter)} -I")
    return started.replace(f" {SHIPPED_INTERPRETER}", f" {quoted(facts.interpreter, command=True)} -I")


def _program(path: str) -> str:
    """A path as the first word of a command, where systemd knows no variables, and refuses quotes and backslashes."""
    if re.search(r"[$\"'\\\x00-\x1f\x7f]", path) is None:
        return quoted(path, command=True)
    return f"/usr/bin/env {quoted(path, command=True)}"


def _shipped(name: str) -> str:
    path = os.path.join(shipped.directory("systemd"), name)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ChrootsyncError(f"{path}: {(error.strerror or str(error)).lower()}; install chrootsync again") from None


def _drop_ins(names: Iterable[str], facts: Facts) -> Iterator[Item]:
    elsewhere = [chroot for chroot in facts.chroots if not f"{chroot}/".startswith(f"{WRITABLE}/")]
    for name in names:
        if name == "chrootsync.path" and facts.places:
            lines = "".join(f"PathModified={quoted(place, listed=False)}\n" for place in facts.places)
            text = f"# Where changes matter on this host, besides /etc; install writes it anew.\n[Path]\n{lines}"
            yield Item(path=f"{DIRECTORY}/{name}.d/{DROP_IN}", text=text)
        elif (elsewhere or facts.devices) and name in (SERVICE, *OF_MODE[Mode.WATCH]):
            lines = "".join(f"ReadWritePaths=-{quoted(chroot)}\n" for chroot in elsewhere)
            lines += "CapabilityBoundingSet=CAP_MKNOD\n" if facts.devices else ""
            text = f"# What the instances of this host need besides; install writes it anew.\n[Service]\n{lines}"
            yield Item(path=f"{DIRECTORY}/{name}.d/{DROP_IN}", text=text)


def quoted(path: str, *, command: bool = False, listed: bool = True) -> str:
    r"""A path as unit files have it, systemd.syntax(7): specifiers and, in a ``command``, variables taken literally.

    A setting that is not ``listed``, as PathModified=, takes the rest of its line as it is.
    """
    text = path.replace("%", "%%")
    if not listed:
        return text
    if command:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w/.@:%$+,=~-]+", text, re.ASCII):
        return text
    escaped = "".join(_escaped(byte) for byte in text.encode("utf-8", "surrogateescape"))
    return f'"{escaped}"'


def _escaped(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
    return chr(byte) if plain else f"\\x{byte:02x}"
