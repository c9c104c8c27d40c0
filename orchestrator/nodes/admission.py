"""Whether this machine may take trials: not in quarantine, and its probe found nothing wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from orchestrator.nodes.identity import BY_MACHINERY
from orchestrator.nodes.presence import Presence
from orchestrator.nodes.probe_report import ProbeReport
from orchestrator.nodes.quarantine import (
    BY_PROBE,
    HostStanding,
    host_standing,
    keep_out,
    note_failure,
    release,
)
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)


class NodeRefused(ValueError):
    """This machine takes no trials; whoever started it gets exit code 1."""

    exit_code = 1


class NodeUnfit(NodeRefused):
    """Its probe found faults."""

    def __init__(self, host: str, faults: Sequence[str], is_kept_out: bool) -> None:
        super().__init__(host, faults, is_kept_out)
        self.host, self.faults, self.is_kept_out = host, tuple(faults), is_kept_out

    def __str__(self) -> str:
        first = f"host {self.host} is not fit for trials: {self.faults[0]}"
        lines = [first, *(f"also: {fault}" for fault in self.faults[1:])]
        if self.is_kept_out:
            lines.append(f"it is in quarantine until a probe of it passes; {_ways_out(self.host)}")
        else:
            lines.append("`saeq serve --anyway` serves all the same")
        return "\n".join(lines)


class NodeKeptOut(NodeRefused):
    """Its host is in quarantine."""

    def __init__(self, host: str, why: str, since: float) -> None:
        super().__init__(host, why, since)
        self.host, self.why, self.since = host, why, since

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return (
            f"host {self.host} is in quarantine since {at}: {self.why}\n"
            f"when it is mended: {_ways_out(self.host)}"
        )


def _ways_out(host: str) -> str:
    return f"`saeq nodes --release {host}` lets it work, `saeq serve --anyway` does so this once"


def refuse_if_kept_out(standing: HostStanding) -> None:
    """Raises NodeKeptOut; not for what a probe found, since each node has its own."""
    if standing.kept_out_since is not None and not standing.is_by_probe:
        raise NodeKeptOut(standing.host, standing.why, standing.kept_out_since)


def admit(
    store: Store,
    presence: Presence,
    probe: Callable[[], ProbeReport],
    say: Callable[[str], None],
    *,
    anyway: bool = False,
) -> None:
    """Probe this machine, write what was found into its record, and let it in.

    A store that does not answer keeps nobody out: the next look will tell.

    Args:
        anyway: what is wrong is said, and that is all.

    Raises:
        NodeKeptOut: its host is in quarantine, and not because of an earlier probe.
        NodeUnfit: the probe found faults; those of a device put the host into quarantine.
    """
    known = _standing(store, presence.host)
    if not anyway:
        refuse_if_kept_out(known)
    report = probe()
    presence.say(probe=report.model_dump(mode="json"))
    for note in report.notes:
        say(note)
    if report.is_fit or anyway:
        for fault in report.faults:
            say(f"serving anyway: {fault}")
        if report.is_fit and report.gpus and known.is_kept_out and known.is_by_probe:
            release(store, presence.host)
            say(f"host {presence.host} passed its probe and is out of quarantine ({known.why})")
        presence.mark("probe", report.summary)
        return
    whats, ways_out = zip(*((fault.what, fault.way_out) for fault in report.faults), strict=True)
    presence.fail("probe", "; ".join(whats), "\n".join(ways_out))
    raise _refusal(store, presence, report)


def probe_beside_ray(
    store: Store,
    presence: Presence,
    probe: Callable[[], ProbeReport],
    say: Callable[[str], None],
) -> None:
    """For a Ray node that is up: broken devices put its host into quarantine, which drains it.

    Only those: trials may have begun there already, and hold memory that a probe would miss.
    """
    report = probe()
    presence.say(probe=report.model_dump(mode="json"))
    presence.mark("probe", report.summary)
    faults = report.device_faults
    if faults:
        presence.fail("ray", "; ".join(fault.what for fault in faults))
        say(f"not fit for trials: {faults[0]}")
        try:
            keep_out(store, presence.host, faults[0].what, BY_PROBE)
        except StoreError as error:
            say(f"quarantine of {presence.host} was not noted: {error}")
        return
    presence.mark("ray")


def _standing(store: Store, host: str) -> HostStanding:
    try:
        return host_standing(store, host)
    except StoreError as error:
        logger.warning("whether host %s is in quarantine is not known: %s", host, error)
        return HostStanding(host=host)


def _refusal(store: Store, presence: Presence, report: ProbeReport) -> NodeUnfit:
    """Hold the faults against the host, as far as the store takes it."""
    host = presence.host
    kept_out = False
    try:
        if report.device_faults:
            kept_out = keep_out(store, host, report.device_faults[0].what, BY_PROBE).is_kept_out
        elif presence.kind in BY_MACHINERY:  # a person who tries again knows what he does
            kept_out = note_failure(store, host, report.faults[0].what).is_kept_out
    except StoreError as error:
        logger.warning("what is wrong with host %s was not noted: %s", host, error)
    return NodeUnfit(host, [str(fault) for fault in report.faults], kept_out)
