"""Discovers Postfix instances from main.cf and master.cf, as postmulti(1) and master(8) would; nothing of them is run.

Facts: postmulti(1), postmulti-wrapper and MULTI_INSTANCE_README, master(5), postconf(5).
"""

from __future__ import annotations

import itertools
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from chrootsync.model import (
    AbsentError,
    Config,
    Control,
    Daemon,
    Host,
    Instance,
    PathError,
    Reader,
    RuleSet,
    UnsafeError,
)
from chrootsync.model.frozen import frozen, replace
from chrootsync.providers.postfix import defaults, main_cf, master_cf, sasl, tlsproxy
from chrootsync.providers.postfix.expansion import ExpansionError, compatibility_level
from chrootsync.providers.postfix.main_cf import FileError, Parameters
from chrootsync.providers.postfix.tables import Files, Tables, opens

_SYSLOG_FILES: Final = ("/var/log/mail.log", "/var/log/maillog", "/var/log/mail")
_UNIT_DIRECTORIES: Final = ("/usr/lib/systemd/system", "/lib/systemd/system")


class _Broken(Exception):  # noqa: N818 - a value on its way to Instance.problem, and no error of the program
    """Why an instance cannot be served: one sentence."""


@frozen
class _Context:
    """What all instances of one discovery share.

    ``default`` is the default instance's configuration directory, ``several`` whether it names others; ``files`` are
    those of lookup tables. ``compiled`` are the defaults: what an instance does not change of them is expanded once.
    """

    host: Host
    files: Files
    compiled: Parameters
    rule_sets: tuple[str, ...]
    default: str
    several: bool = False


def discover(host: Host, config: Config, rule_sets: Iterable[RuleSet]) -> list[Instance]:
    """The default instance and those that its multi_instance_directories name; none where there is no main.cf."""
    context = _Context(
        host=host,
        files=Files(host.root),
        compiled=Parameters(),
        rule_sets=tuple(rule_set.name for rule_set in rule_sets if rule_set.service == "postfix"),
        default=posixpath.normpath(config.postfix),
    )
    try:
        settings = _main_cf(host.root, context.default)
        context = replace(context, compiled=Parameters(defaults.load(host)))
        others = _other_directories(context, settings)
    except AbsentError:
        return []
    except _Broken as broken:
        problem = f"{broken}; until then other instances are not discovered, because this file names them"
        return [_broken(context, context.default, problem)]
    if not others:
        return [_instance(context, context.default, settings)]
    context = replace(context, several=True)
    instances = [_instance(context, context.default, settings), *_secondary(context, others)]
    return _distinct(host.root, instances)


def _main_cf(root: Reader, directory: str) -> dict[str, str]:
    """What an instance's main.cf sets. Raises AbsentError, _Broken."""
    path = f"{directory}/main.cf"
    try:
        return main_cf.parse(os.fsdecode(root.read_trusted(path)))
    except FileError as error:
        raise _Broken(f"{path}: {error}: correct it") from None
    except AbsentError:
        raise
    except PathError as error:
        raise _Broken(_told(error)) from None


def _told(error: PathError) -> str:
    """What keeps a file from being used, and what to do; an UnsafeError says that itself."""
    return str(error) if isinstance(error, UnsafeError) else f"{error}: make it readable"


def _other_directories(context: _Context, settings: Mapping[str, str]) -> list[str]:
    """The configuration directories of the other instances, as they are written. Raises _Broken."""
    try:
        value = _layers(context, context.default, settings).expanded("multi_instance_directories")
    except ExpansionError as error:
        raise _Broken(f"{context.default}/main.cf: {error}: correct it") from None
    return value.replace(",", " ").split()


def _secondary(context: _Context, directories: list[str]) -> Iterator[Instance]:
    """The instances in ``directories``; what is listed twice is served once, and reported."""
    root = context.host.root
    where = f"multi_instance_directories in {context.default}/main.cf"
    seen = {_canonical(root, context.default)}
    for listed in directories:
        directory = posixpath.normpath(listed)
        if not directory.startswith("/"):
            yield _broken(context, directory, f'{where} names "{listed}": name an absolute path')
            continue
        canonical = _canonical(root, directory)
        if canonical in seen:
            yield _broken(context, directory, f"{where} names {listed} although it is there already: take it out")
        else:
            seen.add(canonical)
            try:
                yield _instance(context, directory, _main_cf(root, directory))
            except AbsentError:
                problem = f"{directory}/main.cf does not exist: create it, or take the directory out of {where}"
                yield _broken(context, directory, problem)
            except _Broken as broken:
                yield _broken(context, directory, str(broken))


def _distinct(root: Reader, instances: list[Instance]) -> list[Instance]:
    """Report what shares a queue directory with an instance before it, and give each instance a name of its own."""
    queues: dict[str, Instance] = {}
    names: set[str] = set()
    result: list[Instance] = []
    for instance in instances:
        problem = instance.problem
        if instance.chroot:
            first = queues.setdefault(_canonical(root, instance.chroot), instance)
            if first is not instance and problem is None:
                problem = (
                    f"{instance.config}/main.cf: queue_directory is {instance.chroot}, which is that of {first.name} "
                    "too: give it one of its own"
                )
        name = _unused(instance, names)
        names.add(name)
        aliases = instance.aliases if name == instance.name else ()
        result.append(replace(instance, name=name, aliases=aliases, problem=problem))
    return result


def _unused(instance: Instance, names: set[str]) -> str:
    """A name that is not in ``names``: the instance's own, its directory, or that with a number."""
    wanted = (instance.name, instance.config or instance.name)
    numbered = (f"{wanted[1]}#{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain(wanted, numbered) if name not in names)


def _instance(context: _Context, directory: str, settings: Mapping[str, str]) -> Instance:
    """An instance whose main.cf could be read; with its ``problem`` where the rest does not hold."""
    parameters = _layers(context, directory, settings)
    queue = ""
    daemons: tuple[Daemon, ...] = ()
    problem = None
    try:
        _validate(parameters, settings, context.compiled)
        queue = parameters.expanded("queue_directory")
        if queue.startswith("/"):
            daemons = _daemons(context, directory, parameters, settings)
        else:
            problem = f'{directory}/main.cf: queue_directory is "{queue}": set an absolute path'
    except ExpansionError as error:
        problem = f"{directory}/main.cf: {error}: correct it"
    except _Broken as broken:
        problem = str(broken)
    if problem is not None:
        return replace(_broken(context, directory, problem), chroot=queue if queue.startswith("/") else "")
    own_name = parameters.get("multi_instance_name", "")
    name = own_name or _name(context, directory)
    return Instance(
        name=name,
        service="postfix",
        provider="postfix",
        chroot=queue,
        found=_found(context, directory),
        config=directory,
        aliases=_aliases(context, directory, name),
        rule_sets=context.rule_sets,
        chrooted=any(daemon.chrooted for daemon in daemons),
        # Postfix asks for multi_instance_enable only where there are several instances.
        enabled=not context.several or parameters.get("multi_instance_enable", "").lower() == "yes",
        daemons=daemons,
        version=parameters.get("mail_version") or None,
        control=_control(context, directory, own_name, parameters, daemons),
    )


def _broken(context: _Context, directory: str, problem: str) -> Instance:
    """An instance that cannot be served."""
    name = _name(context, directory)
    return Instance(
        name=name,
        service="postfix",
        provider="postfix",
        chroot="",
        found=_found(context, directory),
        config=directory,
        aliases=_aliases(context, directory, name),
        rule_sets=context.rule_sets,
        problem=problem,
    )


def _name(context: _Context, directory: str) -> str:
    """The name of an instance that has no multi_instance_name."""
    return "postfix" if directory == context.default else posixpath.basename(directory) or directory


def _aliases(context: _Context, directory: str, name: str) -> tuple[str, ...]:
    """Other names that an administrator would use."""
    aliases = [directory]
    if name.startswith("postfix-"):
        aliases.append(name.removeprefix("postfix-"))
    if directory == context.default:
        aliases.append("-")
    return tuple(alias for alias in aliases if alias and alias != name)


def _found(context: _Context, directory: str) -> str:
    if directory == context.default:
        return f"default instance, {directory}/main.cf"
    return f"multi_instance_directories in {context.default}/main.cf"


def _layers(context: _Context, directory: str, settings: Mapping[str, str]) -> Parameters:
    """The parameters of an instance: main.cf, what follows from where it is, what is compiled in."""
    return context.compiled.overlaid(settings, {"config_directory": directory, **sasl.LAYER})


def _validate(parameters: Parameters, settings: Mapping[str, str], compiled: Mapping[str, str]) -> None:
    """Expand what is set explicitly: defaults are sound, so that this finds each value that Postfix would refuse.

    Names that Postfix does not know are left out: it looks at them only where a known one refers to them.
    Raises ExpansionError.
    """
    for name, value in settings.items():
        if "$" in value and name in compiled:
            parameters.expanded(name)
    compatibility_level(parameters.expanded("compatibility_level", "0"))


def _master_cf(root: Reader, path: str) -> list[master_cf.Service]:
    """The services that an instance's master.cf names. Raises _Broken."""
    try:
        return master_cf.parse(os.fsdecode(root.read_trusted(path)))
    except AbsentError:
        raise _Broken(f"{path} does not exist: Postfix cannot start without it, restore it") from None
    except FileError as error:
        raise _Broken(f"{path}: {error}: correct it") from None
    except PathError as error:
        raise _Broken(_told(error)) from None


def _daemons(
    context: _Context, directory: str, parameters: Parameters, settings: Mapping[str, str]
) -> tuple[Daemon, ...]:
    """The services of master.cf; of two with the same name and type the last counts, as for master(8).

    Raises ExpansionError, _Broken.
    """
    path = f"{directory}/master.cf"
    services = _master_cf(context.host.root, path)
    implied = compatibility_level(parameters.expanded("compatibility_level", "0")) < (1, 0, 0)
    # Most services have no parameters of their own and share one mapping, so that each value is expanded once.
    # The debugger's command, which is no matter of the chroot, has such names in the main.cf that Postfix comes with.
    values = [value for name, value in settings.items() if name != "debugger_command"]
    personal = any("service_name" in value or "process_name" in value for value in values)
    daemon_directory = parameters.get("daemon_directory", "")
    tables: dict[tuple[int, str], Tables] = {}
    daemons = {}
    for service in services:
        name = f"{service.name}/{service.type}"
        program = posixpath.basename(service.command)
        seen = parameters
        if service.overrides or personal:
            seen = parameters.overlaid(service.overrides, {"service_name": service.name, "process_name": program})
            try:
                _validate(seen, service.overrides, context.compiled)
            except ExpansionError as error:
                raise _Broken(f"{path}: service {name}: {error}: correct it") from None
        chrooted = service.chroot == "y" or (service.chroot == "-" and implied)
        daemons[name] = Daemon(
            name=name,
            program=program,
            chrooted=chrooted,
            parameters=seen,
            # Shared where they are the same; the daemons hold the parameters, so that no id comes twice.
            tables=tables.setdefault((id(seen), opens(program)), Tables(context.files, seen, program)),
            command=posixpath.join(daemon_directory, service.command),
        )
    return tlsproxy.with_handed(daemons.values())


def _control(
    context: _Context, directory: str, own_name: str, parameters: Parameters, daemons: Iterable[Daemon]
) -> Control:
    """How this instance alone is reloaded, asked for and found."""
    commands = parameters.get("command_directory", "")
    postfix = (f"{commands}/postfix", "-c", directory)
    postqueue = (f"{commands}/postqueue", "-c", directory)
    process_ids = posixpath.join(parameters["queue_directory"], parameters.get("process_id_directory", "pid"))
    return Control(
        reload=(*postfix, "reload"),
        running=(*postfix, "status"),
        unit=_unit(context, directory, own_name),
        watched=(f"{directory}/main.cf", f"{directory}/master.cf"),
        pid_file=f"{process_ids}/master.pid",
        # qmgr(8) lives as long as its master lets it, and a reload starts it anew.
        reborn="qmgr",
        master="master",
        logs=_logs(parameters),
        log_names=_log_names(parameters, daemons),
        queue=(*postqueue, "-j"),
        retry=(*postqueue, "-i"),
    )


def _logs(parameters: Parameters) -> tuple[str, ...]:
    """The files that an instance logs to: its own (MAILLOG_README), or those that syslog has for mail."""
    own = parameters.get("maillog_file", "")
    return (own,) if own.startswith("/") else _SYSLOG_FILES


def _log_names(parameters: Parameters, daemons: Iterable[Daemon]) -> tuple[str, ...]:
    """What stands before the names of an instance's programs in its log (syslog_name in postconf(5))."""
    shared = {id(one.parameters): one.parameters for one in daemons}
    names = (settings.get("syslog_name", "") for settings in (parameters, *shared.values()))
    return tuple(name for name in dict.fromkeys(names) if name)


def _unit(context: _Context, directory: str, own_name: str) -> str | None:
    """The systemd unit that runs this instance and no other, where that can be told.

    Debian up to 12 has ``postfix@NAME``, where NAME is what postmulti(1) calls the instance; from 13 on it has
    ``postfix`` for the default instance and ``postfix@X`` for /etc/postfix-X. Elsewhere one unit runs all instances.
    """
    template = _unit_file(context.host.root, "postfix@.service")
    if template is not None and "-i %i" in template:
        if directory == context.default:
            return f"postfix@{own_name or '-'}.service"
        return f"postfix@{own_name}.service" if own_name else None
    if template is not None and directory != context.default:
        other = directory.removeprefix(f"{context.default}-")
        return f"postfix@{other}.service" if other != directory and "/" not in other else None
    if template is None and context.several:
        return None
    return "postfix.service" if template or _unit_file(context.host.root, "postfix.service") else None


def _unit_file(root: Reader, name: str) -> str | None:
    """The text of a unit file that a package installed."""
    for directory in _UNIT_DIRECTORIES:
        try:
            return root.read(f"{directory}/{name}").decode("utf-8", "replace")
        except PathError:
            continue
    return None


def _canonical(root: Reader, path: str) -> str:
    """A path without links, as far as it exists."""
    path = posixpath.normpath(path)
    try:
        return root.resolve(path)
    except PathError:
        return path
