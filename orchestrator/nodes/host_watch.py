"""Holds fast failures of trials against the hosts they ran on, and good reports in their favour.

Of the drivers of one `serve` only: of several that work on a sweep each notes its own, so nothing
is held against a host twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.log.events import Leased, Reported, Started, TrialEvent
from orchestrator.log.state import SweepState
from orchestrator.nodes.quarantine import HostStanding, host_standing, note_failure, note_success
from orchestrator.nodes.records import read_nodes
from orchestrator.nodes.trial_failures import Incident, incidents
from orchestrator.store import Store

logger = logging.getLogger(__name__)

SETTLE_S = 5.0
"""A failure is held against nobody before it is known whether Ray, or its driver, died with it."""
ONE_EVENT_S = 10.0
"""What fails on one host within this is one failure: a pack dies with all of its members."""
ENDED_WELL = ("asked to stop", "nothing left to do here")
GOOD_EVERY_S = 60.0
LOOK_EVERY_S = 30.0
"""Somebody else may put this host into quarantine."""


@dataclass(frozen=True)
class WatchedWork:
    """One sweep that is worked on here."""

    sweep: str
    state: SweepState
    writer: str
    """Of the driver that is on it now; empty where there is none."""


class HostWatch:
    """Looks at logs that others keep up to date.

    Args:
        host: of this process: `own` says how it stands.
        say: told a sweep and what is held against a host.
    """

    def __init__(
        self,
        store: Store,
        host: str,
        say: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._host, self._say, self._clock = store, host, say, clock
        self._ours: set[str] = set()
        self._last_event_at: dict[tuple[str, str], float] = {}
        self._first_seen: dict[tuple[str, Incident], float] = {}
        self._done: set[tuple[str, Incident]] = set()
        self._noted_at: dict[str, float] = {}
        self._died_alone: set[tuple[str, str]] = set()
        self._good_at: dict[tuple[str, str], float] = {}
        self._next_look = clock() + LOOK_EVERY_S
        self.first_lease = ""
        """`sweep/trial` of the first trial that was held here; empty until there is one."""
        self.first_report = ""
        self.own = HostStanding(host=host)
        """As of the last look."""

    def look(self, work: Iterable[WatchedWork]) -> None:
        """Take in what is new. Raises StoreError."""
        for one in work:
            if one.writer:
                self._ours.add(one.writer)
            for trial in one.state.trials.values():
                key = (one.sweep, trial.id)
                if self._last_event_at.get(key) != trial.last_event_at:
                    self._look_at(one, trial.id)
                    self._last_event_at[key] = trial.last_event_at
            self._settle(one)
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_EVERY_S
            self.own = host_standing(self._store, self._host)

    def _look_at(self, work: WatchedWork, trial: str) -> None:
        events = [e for e in work.state.events_of(trial) if e.writer in self._ours]
        if not events:
            return
        self._note_firsts(f"{work.sweep}/{trial}", events)
        for incident in incidents(work.state, trial):
            if incident.writer in self._ours and (work.sweep, incident) not in self._done:
                self._first_seen.setdefault((work.sweep, incident), self._clock())
        reports = [e for e in events if isinstance(e, Reported)]
        if reports:
            self._note_good(events, max(reports, key=lambda e: (e.life, e.epoch, e.seq)))

    def _note_firsts(self, name: str, events: Sequence[TrialEvent]) -> None:
        if not self.first_lease and any(isinstance(e, Leased) for e in events):
            self.first_lease = name
        if not self.first_report and any(isinstance(e, Reported) for e in events):
            self.first_report = name

    def _note_good(self, events: Sequence[TrialEvent], report: Reported) -> None:
        """The machine that a report came from is well, and the device."""
        started = next(
            (e for e in events if isinstance(e, Started) and e.epoch == report.epoch), None
        )
        if started is None or not started.host:
            return
        place = (started.host, started.device)
        last = self._good_at.get(place)
        if last is None or self._clock() - last >= GOOD_EVERY_S:
            self._good_at[place] = self._clock()
            note_success(self._store, *place)

    def _settle(self, work: WatchedWork) -> None:
        """Hold against hosts what has stood long enough to be their own."""
        due = [
            (key, seen)
            for key, seen in self._first_seen.items()
            if key[0] == work.sweep and self._clock() - seen >= SETTLE_S
        ]
        for (sweep, incident), _ in due:
            del self._first_seen[(sweep, incident)]
            self._done.add((sweep, incident))
            if not self._is_excused(work.state, incident):
                self._hold_against(sweep, incident)

    def _is_excused(self, state: SweepState, incident: Incident) -> bool:
        """Whether Ray or the driver died too, it is part of a noted failure, or the node leaves."""
        ended = state.ended_drivers.get(incident.writer)
        if ended is not None and ended.reason not in ENDED_WELL:
            return True
        noted_at = self._noted_at.get(incident.host)
        if noted_at is not None and abs(incident.at - noted_at) < ONE_EVENT_S:
            return True
        if incident not in incidents(state, incident.trial) or self._is_leaving(incident.host):
            return True
        return not incident.is_certain and self._was_its_own_fault(incident)

    def _was_its_own_fault(self, incident: Incident) -> bool:
        """Whether one trial alone died, as it had done before: then it may be the reason itself."""
        known = [one for _, one in (*self._first_seen, *self._done) if one.host == incident.host]
        with_it = {one.trial for one in known if abs(one.at - incident.at) < ONE_EVENT_S}
        if with_it != {incident.trial}:
            return False
        alone = (incident.host, incident.trial)
        if alone in self._died_alone:
            return True
        self._died_alone.add(alone)
        return False

    def _is_leaving(self, host: str) -> bool:
        nodes = [record for record in read_nodes(self._store) if record.host == host]
        return any(record.newest.state.startswith("draining") for record in nodes)

    def _hold_against(self, sweep: str, incident: Incident) -> None:
        self._noted_at[incident.host] = incident.at
        standing = note_failure(
            self._store, incident.host, f"{sweep}: {incident.what}", device=incident.device
        )
        self._say(sweep, f"held against host {incident.host}: {incident.what}")
        if standing.host == self._host:
            self.own = standing
        elif standing.is_kept_out:
            self._say(sweep, f"host {standing.host} is in quarantine: {standing.why}")
