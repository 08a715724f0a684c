"""Builds what a verb works on: the host, the rules, the instances, and what is remembered."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from chrootsync import __version__, providers, shipped
from chrootsync.model import (
    AbsentError,
    Config,
    ConfigError,
    FileType,
    Host,
    Instance,
    PathError,
    RuleSet,
    clause,
)
from chrootsync.model.frozen import frozen
from chrootsync.process import LiveRunner
from chrootsync.root import Root
from chrootsync.rules import packed
from chrootsync.state import Store

CONFIG = "/etc/chrootsync/chrootsync.toml"
LOCAL_RULES = "/etc/chrootsync/rules.d"
STATE = "/var/lib/chrootsync"
RULES = "rules"
"""What the rules that were read are kept as."""


@frozen
class Places:
    """Where a verb looks, as absolute paths; None means the usual place, which with an image means nowhere."""

    root: str = "/"
    config: str | None = None
    rules: str | None = None
    state: str | None = None


def places(*, root: str = "/", config: str | None = None, rules: str | None = None, state: str | None = None) -> Places:
    """The places that the options name. Raises ConfigError with every mistake."""
    named = {"--root": root, "--config": config, "--rules": rules, "--state": state}
    made: dict[str, str | None] = {}
    problems: list[str] = []
    for option, path in named.items():
        try:
            made[option] = None if path is None else absolute(option, path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return Places(root=made["--root"] or "/", config=made["--config"], rules=made["--rules"], state=made["--state"])


def absolute(option: str, path: str) -> str:
    """The absolute path that an option names. Raises ConfigError."""
    if not path:
        raise ConfigError(f"{option}: must not be empty")
    try:
        return os.path.abspath(path)
    except OSError:
        gone = "the working directory that it is relative to does not exist any more"
        raise ConfigError(f"{option} {path}: {gone}; name an absolute path") from None


@frozen
class News:
    """Rules that had to be parsed, packed, and what tells the texts that they came from."""

    fingerprint: str
    value: object


@frozen
class Scene:
    """Everything that a run needs; ``instances`` are those that were asked for."""

    root: Root
    host: Host
    config: Config
    rule_sets: tuple[RuleSet, ...]
    instances: tuple[Instance, ...]
    store: Store


@contextmanager
def scene(places: Places, names: Sequence[str] = (), opening: Callable[[str], Root] = Root) -> Iterator[Scene]:
    """Read configuration and rules, open the root and discover the instances; ``opening`` opens the live host's.

    Raises ConfigError for what is wrong with any of them, and where ``names`` are not to be found.
    """
    if places.state is not None:
        _check_state(places.state)
    live = opening("/")
    root = live if os.path.realpath(places.root) == "/" else _open_root(places.root)
    try:
        store = Store(places.state or (STATE if root.live else None))
        rule_sets, news = read_rules(live, places, store, image=not root.live)
        config = read_config(live, places, rule_sets, image=not root.live)
        host = Host(root=root, run=LiveRunner() if root.live else None, cache=store)
        instances = providers.discover_all(host, config, rule_sets)
        if not (instances or root.live):
            _refuse_no_system(root)
        if news is not None:
            _keep(store, news, root, instances)
        yield Scene(
            root=root,
            host=host,
            config=config,
            rule_sets=rule_sets,
            instances=select(instances, names),
            store=store,
        )
    finally:
        root.close()
        if root is not live:
            live.close()


def _open_root(path: str) -> Root:
    name_one = "name the directory of an unpacked image"
    try:
        root = Root(path)
    except PathError as error:
        if os.path.exists(path) and not os.path.isdir(path):
            raise ConfigError(f"--root {path}: is not a directory; unpack or mount the image, and name that") from None
        reason = "is a link to nothing" if os.path.islink(path) else error.reason
        raise ConfigError(f"--root {path}: {reason}; {name_one}") from None
    try:
        root.names("/")
    except PathError as error:
        root.close()
        raise ConfigError(f"--root {path}: {error.reason}; run this as a user who may read the image") from None
    return root


def _refuse_no_system(root: Root) -> None:
    """Refuse an image that holds nothing: it was not unpacked, or something else was meant. Raises ConfigError.

    A pipeline that checks it would be told that all is well.
    """
    if {"etc", "usr"}.isdisjoint(name for name, _ in root.names("/")):
        nothing = "no system is in there, neither etc nor usr"
        raise ConfigError(f"--root {root.path}: {nothing}; name the directory that the image was unpacked to")


def sought(places: Places, stage: Scene) -> str:
    """Where instances were looked for, for the case that there is none: a clause."""
    main_cf = f"no {os.path.join(stage.config.postfix, 'main.cf')} is there"
    if places.config is None and not stage.root.live:
        return f"{main_cf}, and no configuration file that lists instances was named (--config)"
    return f"{main_cf}, and {places.config or CONFIG} lists no instance"


def _check_state(path: str) -> None:
    """Refuse a directory that was asked for and would not be used: the usual one is a convenience, this is a wish."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return  # it is made when there is something to remember
    except OSError as error:
        raise ConfigError(f"--state {path}: cannot be used: {clause(error)}") from None
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"--state {path}: is a link; name the directory that it leads to")
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"--state {path}: is not a directory")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"--state {path}: belongs to user {status.st_uid}, who could change what is remembered")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"--state {path}: others can write to it (mode {mode:04o}); take that away (chmod go-w)")


def read_rules(live: Root, places: Places, store: Store, *, image: bool) -> tuple[tuple[RuleSet, ...], News | None]:
    """The rule sets of a run, shipped and local ones; and what is to be kept, where they had to be parsed.

    What they come to is kept beside the very texts that it came from; chrootsync.rules.packed says what that saves.
    Raises ConfigError with every mistake.
    """
    shipped_texts, local = rule_texts(live, places, image=image)
    texts = [(path, text.decode("utf-8", "surrogateescape")) for path, text in (*shipped_texts, *local)]
    fingerprint = repr((__version__, len(local), texts))
    kept = packed.unpack(store.get(RULES, fingerprint))
    if kept is not None:
        return kept, None
    from chrootsync.rules.ruleset import parse

    found = parse(shipped_texts, local)
    return found, News(fingerprint=fingerprint, value=packed.pack(found))


def _keep(store: Store, news: News, root: Root, instances: Sequence[Instance]) -> None:
    """Keep the rules where there is a place already, and not in one that overlaps with a chroot: that is refused."""
    if store.directory is None or not os.path.isdir(store.directory):
        return
    state = os.path.realpath(store.directory)
    chroots = (os.path.realpath(root.path.rstrip("/") + one.chroot) for one in instances if one.chroot)
    if not any(_overlap(state, chroot) for chroot in chroots):
        store.put(RULES, news.fingerprint, news.value)


def _overlap(one: str, other: str) -> bool:
    return os.path.commonpath([one, other]) in (one, other)


Texts = list[tuple[str, bytes]]
"""Rule files: their paths, and what is in them."""


def rule_texts(live: Root, places: Places, *, image: bool) -> tuple[Texts, Texts]:
    """The shipped rule files and the live host's local ones; an image's own are never read. Raises ConfigError."""
    shipped_texts = _texts(live, shipped.directory("rules"), trusted=False)
    directory = places.rules or (None if image else LOCAL_RULES)
    local: Texts = []
    if directory is not None:
        try:
            local = _texts(live, directory, trusted=True)
        except AbsentError:
            if places.rules is not None:
                reason = "is not a directory" if os.path.exists(places.rules) else "does not exist"
                raise ConfigError(f"--rules {places.rules}: {reason}") from None
            _refuse_dangling(directory)
        except PathError as error:
            raise ConfigError(f"the rules cannot be used: {error}") from None
    return shipped_texts, local


def _texts(live: Root, directory: str, *, trusted: bool) -> Texts:
    """The rule files of a directory with their paths, sorted by name."""
    read = live.read_trusted if trusted else live.read
    paths = [
        os.path.join(directory, name)
        for name, kind in live.names(directory)
        if name.endswith(".toml") and kind in (FileType.FILE, FileType.LINK)
    ]
    texts = []
    for path in paths:
        try:
            texts.append((path, read(path)))
        except AbsentError:
            _refuse_dangling(path)  # else it has been taken away in this very moment
    return texts


def _refuse_dangling(path: str) -> None:
    """Refuse a link to nothing: what it was to bring would silently be missing. Raises ConfigError."""
    if os.path.islink(path):
        raise ConfigError(f"{path}: is a link to nothing; mend what it leads to, or remove it")


def read_config(live: Root, places: Places, rule_sets: Sequence[RuleSet], *, image: bool) -> Config:
    """The configuration file; without one, the defaults. Raises ConfigError."""
    if places.config is None and image:
        return Config()
    path = places.config or CONFIG
    try:
        text = live.read_trusted(path)
    except AbsentError:
        if places.config is not None:
            raise ConfigError(f"--config {places.config}: does not exist") from None
        _refuse_dangling(path)
        return Config()
    except PathError as error:
        raise ConfigError(f"the configuration cannot be used: {error}") from None
    from chrootsync.rules.config import parse_config

    config = parse_config(path, text, rule_sets=[rule_set.name for rule_set in rule_sets])
    if not image:
        _refuse_root(path, config)
    return config


def _refuse_root(path: str, config: Config) -> None:
    """A chroot that is the root by another name (a link, a bind mount) is a mistake of the configuration.

    Only of the live host's: where there is an image, a chroot is a path in it, and comparing it tells.
    """
    problems = []
    for index, instance in enumerate(config.instances):
        try:
            same = os.path.samestat(os.stat(instance.chroot), os.stat("/"))
        except OSError:
            continue
        if same:
            problems.append(f"{path}: instance[{index}].chroot: {instance.chroot} is the root itself by another name")
    if problems:
        raise ConfigError(*problems)


def keep_out(stage: Scene) -> list[str]:
    """The state directory as a path of the root that is worked on, where it is in it: no chroot may overlap with it."""
    if stage.store.directory is None:
        return []
    directory, root = os.path.realpath(stage.store.directory), os.path.realpath(stage.root.path).rstrip("/")
    return [directory.removeprefix(root) or "/"] if f"{directory}/".startswith(f"{root}/") else []


def select(instances: Sequence[Instance], names: Sequence[str]) -> tuple[Instance, ...]:
    """The instances that were asked for, in their own order; all of them where none was. Raises ConfigError."""
    if not names:
        return tuple(instances)
    wanted = {name.rstrip("/") if name.startswith("/") else name for name in names}
    known = {answer for instance in instances for answer in _answers(instance)}
    unknown = sorted(wanted - known)
    if unknown:
        there = ", ".join(sorted(instance.name for instance in instances)) or "none at all"
        raise ConfigError(*(f"there is no instance {name!r} here; there is: {there}" for name in unknown))
    return tuple(instance for instance in instances if wanted.intersection(_answers(instance)))


def _answers(instance: Instance) -> set[str]:
    """The names that an instance answers to."""
    names = {instance.name, *instance.aliases}
    return names | ({instance.config} if instance.config is not None else set())
