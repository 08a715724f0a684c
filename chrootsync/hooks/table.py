"""The targets of ``install``: what a host has to have for each, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chrootsync.hooks import texts, units
from chrootsync.hooks.items import Facts, Item


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One target: ``paths`` of which one is there where the host has it, and its files.

    ``made`` gives the items that depend on the host, ``every`` all that it may ever have written. ``calls`` tells
    whether its files call the hook script. ``needs`` are paths without which nothing calls the files, and what then to
    do.
    """

    name: str
    paths: tuple[str, ...]
    files: tuple[Item, ...] = ()
    made: Callable[[Facts], tuple[Item, ...]] | None = None
    every: Callable[[Facts], tuple[Item, ...]] | None = None
    calls: bool = True
    needs: tuple[tuple[str, ...], str] | None = None

    def items(self, facts: Facts) -> tuple[Item, ...]:
        """What has to be there, without the hook script."""
        return (*_filled(self.files, facts), *(self.made(facts) if self.made is not None else ()))

    def possible(self, facts: Facts) -> tuple[Item, ...]:
        """What this target may have written, now or earlier, without the hook script."""
        known = {item.path: item for item in (self.every(facts) if self.every is not None else ())}
        known |= {item.path: item for item in self.items(facts)}
        return tuple(known.values())


def hook(facts: Facts) -> Item:
    """The script that all hooks call."""
    return Item(path=texts.HOOK, text=texts.filled(texts.SCRIPT, facts.interpreter), mode=0o755)


def _filled(files: tuple[Item, ...], facts: Facts) -> tuple[Item, ...]:
    return tuple(
        Item(path=item.path, text=texts.filled(item.text, facts.interpreter), mode=item.mode, comment=item.comment)
        for item in files
    )


def _left_of_postfix(facts: Facts) -> tuple[Item, ...]:
    return tuple(Item(path=path) for path in facts.drop_ins)


SPEC = "/etc/chrootsync/chrootsync-hook.spec"

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="systemd",
            paths=("/run/systemd/system", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"),
            made=units.items,
            every=units.every_item,
            calls=False,
        ),
        Target(
            name="postfix",
            paths=tuple(
                f"{directory}/{unit}"
                for directory in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
                for unit in ("postfix.service", "postfix@.service")
            ),
            made=units.postfix_items,
            every=_left_of_postfix,
            calls=False,
        ),
        Target(
            name="apt",
            paths=("/usr/bin/apt-get",),
            files=(Item(path="/etc/apt/apt.conf.d/99chrootsync", text=texts.APT, comment="//"),),
        ),
        Target(
            name="dpkg",
            paths=("/usr/bin/dpkg",),
            files=(Item(path="/etc/dpkg/dpkg.cfg.d/chrootsync", text=texts.DPKG),),
        ),
        Target(
            name="dnf",
            paths=("/usr/bin/dnf", "/usr/bin/dnf4", "/usr/bin/dnf-3", "/usr/bin/dnf5"),
            files=(
                Item(path="/etc/dnf/plugins/post-transaction-actions.d/chrootsync.action", text=texts.DNF4),
                Item(path="/etc/dnf/libdnf5-plugins/actions.d/chrootsync.actions", text=texts.DNF5),
            ),
            needs=(
                (
                    "/etc/dnf/plugins/post-transaction-actions.conf",
                    "/etc/dnf/libdnf5-plugins/actions.conf",
                ),
                "install python3-dnf-plugin-post-transaction-actions (dnf 4) or libdnf5-plugin-actions (dnf 5)",
            ),
        ),
        Target(
            name="rpm",
            paths=("/usr/bin/rpmbuild",),
            files=(Item(path=SPEC, text=texts.RPM),),
        ),
        Target(
            name="zypper",
            paths=("/usr/bin/zypper",),
            files=(Item(path="/usr/lib/zypp/plugins/commit/chrootsync", text=texts.ZYPPER, mode=0o755),),
        ),
        Target(
            name="pacman",
            paths=("/usr/bin/pacman",),
            files=(Item(path="/etc/pacman.d/hooks/zz-chrootsync.hook", text=texts.PACMAN),),
        ),
        Target(
            name="apk",
            paths=("/sbin/apk", "/usr/bin/apk"),
            files=(Item(path="/etc/apk/commit_hooks.d/zz-chrootsync", text=texts.APK, mode=0o755),),
        ),
        Target(
            name="resolvconf",
            paths=("/etc/resolvconf/update-libc.d",),
            files=(Item(path="/etc/resolvconf/update-libc.d/zz-chrootsync", text=texts.RESOLVCONF, mode=0o755),),
        ),
        Target(
            name="networkmanager",
            paths=("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"),
            files=(Item(path="/etc/NetworkManager/dispatcher.d/90-chrootsync", text=texts.NETWORKMANAGER, mode=0o755),),
        ),
        Target(
            name="dhclient",
            paths=("/sbin/dhclient", "/usr/sbin/dhclient"),
            files=(Item(path="/etc/dhcp/dhclient-exit-hooks.d/zz-chrootsync", text=texts.DHCLIENT),),
        ),
        Target(
            name="ifupdown",
            paths=("/sbin/ifup", "/usr/sbin/ifup"),
            files=(Item(path="/etc/network/if-up.d/zz-chrootsync", text=texts.IFUPDOWN, mode=0o755),),
        ),
        Target(
            name="ca-certificates",
            paths=("/usr/sbin/update-ca-certificates",),
            files=(Item(path="/etc/ca-certificates/update.d/zz-chrootsync", text=texts.CA_CERTIFICATES, mode=0o755),),
        ),
    )
}
