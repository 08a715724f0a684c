"""What ``install`` and ``uninstall`` do: find out about the host, compare with what is there, carry it out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import chrootsync
from chrootsync import libraries
from chrootsync.cli import streams
from chrootsync.cli.setup import Places, Scene, scene
from chrootsync.cli.streams import Ended
from chrootsync.hooks import commands, plan, units
from chrootsync.hooks.items import Facts, Mode
from chrootsync.hooks.marks import marked
from chrootsync.hooks.plan import Action, Step
from chrootsync.hooks.table import SPEC, TARGETS, Target
from chrootsync.model import AbsentError, ChrootsyncError, Code, ConfigError, FileType, PathError, Presence, Reader
from chrootsync.process import LiveRunner
from chrootsync.root import Root
from chrootsync.root.settings import Settings

AUTO = "auto"
UNITS = (units.DIRECTORY, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
POSTFIX = ("postfix.service", "postfix@.service")
TIMEOUT = 60.0

# Prints where the interpreter finds chrootsync, where it looks for modules, and the files that chrootsync depends on.
WHERE = """
import os, re, sys
from importlib import metadata
import chrootsync
print(os.path.abspath(chrootsync.__file__), *sys.path, sep=chr(10))
seen, left = set(), ["chrootsync"]
while left:
    try:
        found = metadata.distribution(left.pop())
    except metadata.PackageNotFoundError:
        continue
    required = {re.match(r"[\\w.-]+", one)[0] for one in found.requires or () if "extra ==" not in one}
    left += required - seen
    seen |= required
    files = {str(found.locate_file(one)) for one in found.files or () if one.suffix in (".py", ".so", ".pyc")}
    print(*sorted(files | {os.path.dirname(one) for one in files}), sep=chr(10))
"""
LIBRARY = "libc.so.6"  # where it lies, name service modules lie


def install(where: Places, targets: Sequence[str], mode: Mode | None, *, dry_run: bool) -> None:
    """Install targets and print what was done. Raises ChrootsyncError, and Ended where files are not ours."""
    with scene(where) as stage, Settings(stage.root) as settings:
        chosen = _chosen(settings, targets)
        _refuse_without_rights(stage.root, dry_run=dry_run)
        unfit = _unfit(stage.root, settings)
        if unfit is not None and not dry_run:
            raise unfit
        facts = _facts(stage, mode or units.installed_mode(settings) or Mode.WATCH)
        _check_units(chosen, facts)
        steps = plan.installing(settings, chosen, facts)
        _carry_out(stage.root, settings, chosen, facts, steps, dry_run=dry_run)
        _advise(settings, stage.root, chosen)
        if unfit is not None:
            raise unfit


def uninstall(where: Places, targets: Sequence[str], *, dry_run: bool) -> None:
    """Uninstall targets and print what was done. Raises ChrootsyncError, and Ended where something stays."""
    root = _open(where)
    try:
        with Settings(root) as settings:
            chosen = _chosen(settings, targets, removing=True)
            _refuse_without_rights(root, dry_run=dry_run)
            facts = Facts(interpreter=_interpreter(), drop_ins=tuple(_drop_ins(root)))
            steps = plan.uninstalling(settings, chosen, facts)
            _carry_out(root, settings, chosen, None, steps, dry_run=dry_run)
    finally:
        root.close()


# --- What is to be done -------------------------------------------------------------------------------------------


def _open(where: Places) -> Root:
    try:
        return Root(where.root)
    except PathError as error:
        raise ConfigError(f"--root {where.root}: {error.reason}; name the directory of an unpacked image") from None


def _chosen(settings: Settings, names: Sequence[str], *, removing: bool = False) -> list[Target]:
    """The targets that are named, each once, in the order of the table. Raises ConfigError."""
    unknown = [name for name in dict.fromkeys(names) if name not in TARGETS and name != AUTO]
    if unknown:
        there = ", ".join((*TARGETS, AUTO))
        raise ConfigError(*(f"there is no target {name!r}; there is: {there}" for name in unknown))
    has = [target.name for target in TARGETS.values() if removing or any(map(settings.exists, target.paths))]
    wanted = {*names, *(has if AUTO in names else ())}
    return [target for target in TARGETS.values() if target.name in wanted]


def _refuse_without_rights(root: Root, *, dry_run: bool) -> None:
    if root.live and not dry_run and os.geteuid() != 0:
        raise ChrootsyncError("units and hooks are root's: run this as root, or look at them with --dry-run")


def _interpreter() -> str:
    """The interpreter that runs this: of a virtual environment its own name, by which it finds its packages."""
    if not sys.executable:
        raise ChrootsyncError("the Python that runs this does not know its own path; start it by an absolute one")
    return os.path.abspath(sys.executable)


def _unfit(root: Root, settings: Settings) -> ChrootsyncError | None:
    """Why root must not run this very code: others can change it, or it is not there. None where it may."""
    package = os.path.dirname(os.path.abspath(chrootsync.__file__))
    needed = (_interpreter(), package)
    try:
        others = _imported_from(package) if root.live else []
    except ChrootsyncError as error:
        return error
    for path in (*needed, *_modules(package), *others):
        try:
            settings.vet(path)
        except AbsentError as error:
            if path in needed:
                return error if root.live else _elsewhere(root, path)
        except PathError as error:
            return ChrootsyncError(
                f"what root is to run could be changed by others: {error.path}: {error.reason.partition(';')[0]}; "
                "install chrootsync where only root can write (make install)"
            )
    return None


def _imported_from(package: str) -> list[str]:
    """Where units and hooks will import modules from, which is not where this process does. Raises ChrootsyncError."""
    command = (_interpreter(), "-I", "-c", WHERE)
    done = LiveRunner().run(command, timeout=TIMEOUT)
    lines = done.output.splitlines()
    if done.code != 0 or not lines or os.path.dirname(lines[0]) != package:
        raise ChrootsyncError(
            f"{_interpreter()} -I, as units and hooks call it, does not find the chrootsync that this is ({package}); "
            "install it into that Python's own packages, not by PYTHONPATH or for one user"
        )
    return [line for line in lines[1:] if line]


def _elsewhere(root: Root, path: str) -> ChrootsyncError:
    return ChrootsyncError(
        f"{path}: is not in {root.path}; install chrootsync there at the same path (make install DESTDIR=...), "
        "or run its own: chroot DIR chrootsync install"
    )


def _modules(package: str) -> Iterator[str]:
    """All that is in the package."""
    for folder, folders, files in os.walk(package):
        yield from (os.path.join(folder, name) for name in (*folders, *files))


def _facts(stage: Scene, mode: Mode) -> Facts:
    root = stage.root
    return Facts(
        interpreter=_interpreter(),
        mode=mode,
        chroots=tuple(sorted({one.chroot for one in stage.instances if one.chroot.startswith("/")})),
        places=tuple(_places(root)),
        devices=_needs_devices(stage),
        postfix=dict(_postfix(root)),
        drop_ins=tuple(_drop_ins(root)),
    )


def _needs_devices(stage: Scene) -> bool:
    """Whether a rule that holds for an instance may ask for device nodes."""
    used = {name for instance in stage.instances for name in instance.rule_sets}
    return any(
        rule.devices and rule.presence is Presence.REQUIRED
        for one in stage.rule_sets
        if one.name in used
        for rule in one.rules
    )


def _places(root: Root) -> Iterator[str]:
    """The directories that a path unit watches besides /etc: of what resolv.conf leads to, and of the modules."""
    found = []
    with suppress(PathError):
        found.append(root.resolve("/etc/resolv.conf"))
    with suppress(PathError):
        found += [root.resolve(path) for name, path in libraries.locations(root, [LIBRARY]).items() if name == LIBRARY]
    yield from dict.fromkeys(os.path.dirname(path) for path in found if os.path.dirname(path) != "/etc")


def _postfix(root: Reader) -> Iterator[tuple[str, str]]:
    """The units that start Postfix, and their texts."""
    for unit in POSTFIX:
        for directory in UNITS:
            with suppress(PathError):
                text = root.read(f"{directory}/{unit}").decode("utf-8", "replace")
                if units.starts_postfix(text):
                    yield unit, text
                break


def _drop_ins(root: Reader) -> Iterator[str]:
    """Our drop-ins for units of Postfix, whatever these are called."""
    with suppress(PathError):
        for name, kind in root.names(units.DIRECTORY):
            if kind is FileType.DIRECTORY and name.startswith("postfix") and name.endswith(".service.d"):
                yield f"{units.DIRECTORY}/{name}/{units.DROP_IN}"


def _check_units(chosen: Sequence[Target], facts: Facts) -> None:
    if any(target.name == "postfix" for target in chosen) and not facts.postfix:
        raise ChrootsyncError(f"no unit that starts Postfix is there ({' or '.join(POSTFIX)}); leave out postfix")


# --- Doing it -----------------------------------------------------------------------------------------------------


def _carry_out(
    root: Root,
    settings: Settings,
    targets: Sequence[Target],
    facts: Facts | None,
    steps: Sequence[Step],
    *,
    dry_run: bool,
) -> None:
    refused = [step for step in steps if step.action is Action.REFUSE]
    if dry_run:
        streams.write("".join(_shown(step) for step in steps) or "nothing to do\n")
    elif not (refused and facts is not None):
        _apply(root, settings, targets, facts, steps)
    if refused:
        streams.tell(f"{step.path}: {step.reason}" for step in refused)
        raise Ended(Code.FAILED)


def _apply(
    root: Root, settings: Settings, targets: Sequence[Target], facts: Facts | None, steps: Sequence[Step]
) -> None:
    run = LiveRunner() if root.live else None
    booted = run is not None and settings.exists(commands.RUNNING)
    done: list[Step] = []
    try:
        if run is not None:
            commands.before_removal(run, targets, steps, booted=booted)
        done.extend(plan.apply(settings, steps))
        if run is not None and facts is not None:
            commands.after_install(run, facts, targets, steps, booted=booted)
        elif run is not None:
            commands.after_removal(run, targets, steps, booted=booted)
    finally:
        # Last, for whoever reads it may have gone; and whatever happened, for what was done is there.
        streams.write("".join(f"{step.action.value:9}  {step.path}\n" for step in done))


def _shown(step: Step) -> str:
    """What a dry run says of a step."""
    words = {Action.WRITE: "to be written", Action.UPDATE: "to be updated", Action.REMOVE: "to be removed"}
    what = words.get(step.action, step.action.value)
    if step.action not in (Action.WRITE, Action.UPDATE):
        return f"--- {step.path}: {what}\n"
    if step.item.target is not None:
        return f"--- {step.path}: {what}: a link to {step.item.target}\n"
    text = marked(step.item.text, step.item.comment).decode("utf-8", "backslashreplace")
    return f"--- {step.path}: {what}, mode {step.item.mode:04o}\n{text}\n"


def _advise(settings: Settings, root: Root, targets: Sequence[Target]) -> None:
    """Say what is still to be done by hand."""
    for target in targets:
        if target.needs is not None and not any(map(settings.exists, target.needs[0])):
            streams.tell([f"{target.name} does not call its hook yet: {target.needs[1]}"])
        if target.name == "rpm" and not root.live:
            streams.tell([f"rpm calls no hook yet: build {SPEC} with rpmbuild -bb, and install that there"])
    if not root.live and any(target.name == "systemd" for target in targets):
        streams.tell(["this is an image: its units start when it boots"])
