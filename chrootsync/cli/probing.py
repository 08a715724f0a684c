"""Probes what a verb works on, and tells what a repair has broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from chrootsync.cli.compare import MANUAL, Wishes
from chrootsync.cli.progress import Progress
from chrootsync.cli.setup import STATE, Scene
from chrootsync.model import ConfigError, Drift, Instance, InstanceReport, PathError, Probe, Remedy, Status
from chrootsync.model.frozen import field, frozen, replace
from chrootsync.probe.asking import Asker
from chrootsync.probe.needs import Need, Needs

if TYPE_CHECKING:
    from chrootsync.probe.looking import Before

SHOWN = 3  # instances that are named while they are probed


@frozen
class Prober:
    """Looks things up in chroots of a scene; ``needs`` has to see every entry that is compared there.

    Whoever makes this closes it.
    """

    stage: Scene
    now: float
    dns: bool
    shown: Progress
    needs: Needs = field(default_factory=Needs)
    asker: Asker = field(default_factory=Asker)

    def close(self) -> None:
        """End what was begun for lookups."""
        self.asker.close()

    def expect(self, drift: Drift) -> None:
        """Let the process that looks things up get ready: it is going to be asked, unless memory forbids the repair.

        Where it cannot be started, whoever asks it is told.
        """
        if _is_repaired(drift) and _is_entered(drift.entry.instance):
            with suppress(PathError):
                self.asker.begin()

    def all(self, reports: Sequence[InstanceReport]) -> tuple[InstanceReport, ...]:
        """The reports with what somebody asked to be looked up; what was looked up already is not once more."""
        probes = self._probes([one for one in reports if one.probe is None])
        return tuple(replace(one, probe=replace(one.probe or probes[one.instance.name], asked=True)) for one in reports)

    def before(self, reports: Sequence[InstanceReport]) -> Callable[[], dict[str, Before]]:
        """What works in the chroots that are about to be repaired, by the names of their instances.

        It is being looked up; whoever wants to know it waits for it.
        """
        wanted = [one.instance for one in reports if _will_be_repaired(one)]
        if not wanted:
            return dict
        from chrootsync.probe.looking import working

        begun = working(self.stage.host, self.asker, self._needed(wanted), now=self.now, dns=self.dns)
        return lambda: {one.name: before for one, before in zip(wanted, begun.result(), strict=True)}

    def after(
        self, reports: Sequence[InstanceReport], before: Mapping[str, Before], repair: int | None
    ) -> Callable[[], tuple[InstanceReport, ...]]:
        """The reports with what works in the chroots that were repaired; ``repair`` is its number.

        It is being looked up; whoever wants to know it waits for it.
        """
        repaired = [one for one in reports if one.instance.name in before and _was_repaired(one)]
        if not repaired:
            return lambda: tuple(reports)
        from chrootsync.probe.looking import lost

        begun = self._begun(repaired)

        def told() -> tuple[InstanceReport, ...]:
            found = {name: lost(before[name], probe, self._way_back(repair)) for name, probe in begun().items()}
            return tuple(replace(one, probe=found.get(one.instance.name, one.probe)) for one in reports)

        return told

    def _probes(self, reports: Sequence[InstanceReport]) -> dict[str, Probe]:
        """What works in the chroots of some reports, by the names of their instances."""
        return self._begun(reports)()

    def _begun(self, reports: Sequence[InstanceReport]) -> Callable[[], dict[str, Probe]]:
        """The same, for whoever wants to wait for it later."""
        probes = {one.instance.name: Probe(error=one.instance.problem) for one in reports}
        wanted = [one.instance for one in reports if one.instance.problem is None and one.instance.chrooted]
        if not wanted:
            return lambda: probes
        from chrootsync.probe.looking import probe

        begun = probe(self.stage.host, self.asker, self._needed(wanted), now=self.now, dns=self.dns)
        return lambda: probes | {one.name: found for one, found in zip(wanted, begun.result(), strict=True)}

    def _needed(self, instances: Sequence[Instance]) -> list[tuple[Instance, Need]]:
        names = [instance.name for instance in instances]
        self.shown.say(f"probing {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}")
        return [(instance, self.needs.of(instance.name)) for instance in instances]

    def _way_back(self, repair: int | None) -> str:
        if repair is None:
            return "nothing is remembered of this repair: put back by hand what it replaced"
        import shlex

        state = self.stage.store.directory
        elsewhere = "" if state in (None, STATE) else f" --state {shlex.quote(state)}"
        return f"take the repair back with: chrootsync rollback {repair}{elsewhere}"


def prober(stage: Scene, wishes: Wishes, now: float, shown: Progress) -> Prober | None:
    """Who looks things up for a check; None where chroots cannot be entered.

    No name server is asked for automatic runs: units may not talk to other hosts.
    """
    if not is_possible(stage):
        return None
    return Prober(stage=stage, now=now, dns=wishes.dns and (wishes.probe or wishes.trigger == MANUAL), shown=shown)


def refuse_elsewhere(stage: Scene, what: str) -> None:
    """Refuse where nothing can be looked up as daemons do. Raises ConfigError."""
    if stage.host.run is None:
        raise ConfigError(f"{what}: an image runs no daemons to look things up for; run it on the host itself")
    if not is_possible(stage):
        raise ConfigError(f"{what}: only root can enter a chroot (chroot(2)); run it as root")


def is_possible(stage: Scene) -> bool:
    """Whether chroots can be entered."""
    return stage.host.run is not None and os.geteuid() == 0


def _will_be_repaired(report: InstanceReport) -> bool:
    return _is_entered(report.instance) and any(_is_repaired(finding.drift) for finding in report.findings)


def _is_repaired(drift: Drift) -> bool:
    return drift.remedy not in (Remedy.NONE, Remedy.RELOAD)


def _is_entered(instance: Instance) -> bool:
    return instance.chrooted and instance.problem is None


def _was_repaired(report: InstanceReport) -> bool:
    """Whether something was replaced, or nobody knows."""
    done = (Status.REPAIRED, Status.UNKNOWN)
    return any(one.outcome is not None and one.outcome.status in done for one in report.findings)
