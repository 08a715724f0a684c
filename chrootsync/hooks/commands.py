"""The commands around an installation on the live host: systemd learns of units, rpm gets its package."""

from __future__ import annotations

import os
from collections.abc import Sequence

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
INSTALL_AGAIN = "the files are in place, run install again"

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
    every = [name for mode in Mode for name in (*units.STARTED[mode], units.LATER, units.SERVICE)]
    stopped = [name for name in every if f"{units.DIRECTORY}/{name}" in going]
    if stopped and booted:
        _do(run, (SYSTEMCTL, "stop", *dict.fromkeys(stopped)), "nothing was changed; mend that, and try again")
    if SPEC in going and any(target.name == "rpm" for target in targets) and _has_package(run):
        _do(run, ("/usr/bin/rpm", "-e", PACKAGE), "no file was changed; mend that, and try again")


def after_install(run: Runner, facts: Facts, targets: Sequence[Target], steps: Sequence[Step], *, booted: bool) -> None:
    """Make what was written count, and start what has to run; an earlier call that was interrupted is made up for.

    Raises ChrootsyncError.
    """
    names = {target.name for target in targets}
    if booted and "systemd" in names:
        anew = [name for name in units.STARTED[facts.mode] if _changed(name, steps) or _is_outdated(run, name)]
        _reload(run)
        _forget_failures(run, steps)
        for name in units.STARTED[facts.mode]:
            _do(run, (SYSTEMCTL, "restart" if name in anew else "start", name), INSTALL_AGAIN)
    elif booted and "postfix" in names:
        _reload(run)
    if "rpm" in names and (any(step.changes and step.path == SPEC for step in steps) or not _has_package(run)):
        _do(run, ("/bin/sh", "-c", BUILD), INSTALL_AGAIN)


def after_removal(run: Runner, targets: Sequence[Target], steps: Sequence[Step], *, booted: bool) -> None:
    """Let systemd forget what was removed. Raises ChrootsyncError."""
    if booted and {"systemd", "postfix"} & {target.name for target in targets}:
        _do(run, (SYSTEMCTL, "daemon-reload"), "the files are gone, systemd does not know yet; try again")
        _forget_failures(run, steps)


def _changed(name: str, steps: Sequence[Step]) -> bool:
    own = (f"{units.DIRECTORY}/{name}", f"{units.DIRECTORY}/{name}.d/")
    return any(step.changes and (step.path == own[0] or step.path.startswith(own[1])) for step in steps)


def _is_outdated(run: Runner, name: str) -> bool:
    """Whether systemd has yet to read what an earlier call wrote."""
    done = run.run((SYSTEMCTL, "show", "--property=NeedDaemonReload", "--value", name), timeout=TIMEOUT)
    return done.output.strip() == "yes"


def _reload(run: Runner) -> None:
    _do(run, (SYSTEMCTL, "daemon-reload"), INSTALL_AGAIN)


def _forget_failures(run: Runner, steps: Sequence[Step]) -> None:
    """Where a unit that is gone had failed, systemd would list it for ever; that it knows none is no failure."""
    gone = [os.path.basename(step.path) for step in steps if step.action is Action.REMOVE]
    for name in gone:
        if os.path.splitext(name)[1] in (".service", ".timer", ".path"):
            run.run((SYSTEMCTL, "reset-failed", name), timeout=TIMEOUT)


def _has_package(run: Runner) -> bool:
    return run.run(("/usr/bin/rpm", "-q", PACKAGE), timeout=TIMEOUT).code == 0


def _do(run: Runner, command: Sequence[str], way_out: str) -> None:
    done = run.run(command, timeout=TIMEOUT)
    if done.code == 0:
        return
    what = " ".join(command) if command[0] != "/bin/sh" else f"building and installing {PACKAGE} by rpmbuild and rpm"
    how = f"ended with status {done.code}" if done.code is not None else f"did not end within {TIMEOUT:.0f} seconds"
    said = done.output.strip().splitlines()
    raise ChrootsyncError(f"{what} {how}{f': {said[-1].strip()}' if said else ''}; {way_out}")
