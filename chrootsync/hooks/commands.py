"""The commands around an installation on the live host: systemd learns of units, rpm gets its package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chrootsync.hooks import units
from chrootsync.hooks.items import Facts, Mode
from chrootsync.hooks.plan import Action, Step
from chrootsync.hooks.table import SPEC, Target
from chrootsync.model import ChrootsyncError, Runner

SYSTEMCTL = "/usr/bin/systemctl"
RUNNING = "/run/systemd/system"
"""There while systemd is the first process, sd_booted(3)."""

PACKAGE = "chrootsync-hook"
TIMEOUT = 120.0

# rpmbuild wants a folder for what it makes. What is in it goes, whatever came of it. All that the package needs is
# /bin/sh, which no package owns where rpm is a guest.
BUILD = f"""
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
rpmbuild -bb --quiet --define "_topdir $folder" {SPEC} || exit
rpm -U --nodeps --replacepkgs --oldpackage "$folder"/RPMS/*/*.rpm
"""


def before_removal(run: Runner, targets: Sequence[Target], steps: Sequence[Step], *, booted: bool) -> None:
    """Stop the units that are about to be removed, and remove rpm's package. Raises ChrootsyncError."""
    going = {step.path for step in steps if step.action is Action.REMOVE}
    stopped = [
        name for mode in Mode for name in (*units.STARTED[mode], units.LATER) if f"{units.DIRECTORY}/{name}" in going
    ]
    if stopped and booted:
        _do(run, (SYSTEMCTL, "stop", *dict.fromkeys(stopped)))
    if SPEC in going and any(target.name == "rpm" for target in targets) and _has_package(run):
        _do(run, ("/usr/bin/rpm", "-e", PACKAGE))


def after(run: Runner, facts: Facts | None, targets: Sequence[Target], steps: Sequence[Step], *, booted: bool) -> None:
    """Make what was written count and start what has to run; without ``facts`` it was removed.

    Raises ChrootsyncError.
    """
    names = {target.name for target in targets}
    if booted and any(step.changes and step.path.startswith(f"{units.DIRECTORY}/") for step in steps):
        _do(run, (SYSTEMCTL, "daemon-reload"))
    if facts is None:
        return
    if booted and "systemd" in names:
        for command in _starts(facts.mode, steps):
            _do(run, command)
    if "rpm" in names and (any(step.changes and step.path == SPEC for step in steps) or not _has_package(run)):
        _do(run, ("/bin/sh", "-c", BUILD))


def _starts(mode: Mode, steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """What brings units to life: those that changed anew."""
    changed = [step.path for step in steps if step.changes]
    for name in units.STARTED[mode]:
        own = (f"{units.DIRECTORY}/{name}", f"{units.DIRECTORY}/{name}.d/")
        anew = any(path == own[0] or path.startswith(own[1]) for path in changed)
        yield (SYSTEMCTL, "restart" if anew else "start", name)


def _has_package(run: Runner) -> bool:
    return run.run(("/usr/bin/rpm", "-q", PACKAGE), timeout=TIMEOUT).code == 0


def _do(run: Runner, command: Sequence[str]) -> None:
    done = run.run(command, timeout=TIMEOUT)
    if done.code == 0:
        return
    what = " ".join(command) if command[0] != "/bin/sh" else f"building and installing {PACKAGE} by rpmbuild and rpm"
    how = f"ended with status {done.code}" if done.code is not None else f"did not end within {TIMEOUT:.0f} seconds"
    said = done.output.strip().splitlines()
    raise ChrootsyncError(
        f"{what} {how}{f': {said[-1].strip()}' if said else ''}; the files are in place, run install again"
    )
