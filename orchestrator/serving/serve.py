"""`saeq serve`: works the queue of a store off until told to stop, or until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from orchestrator.nodes.admission import admit, refuse_if_kept_out
from orchestrator.nodes.host_watch import HostWatch, WatchedWork
from orchestrator.nodes.identity import node_id, node_kind, node_labels, this_host
from orchestrator.nodes.presence import Presence
from orchestrator.nodes.probe import Prober
from orchestrator.providers.notices import Notice
from orchestrator.queue import QueuedSweep
from orchestrator.serving.allotment import Allotment, Allotter
from orchestrator.serving.cluster_look import ClusterLook
from orchestrator.serving.driver_process import DriverOrder
from orchestrator.serving.local_ray import RaySource
from orchestrator.serving.notice_watch import NoticeWatch, leave_within_s
from orchestrator.serving.roster import Roster
from orchestrator.serving.sweep_worker import SweepWorker
from orchestrator.store import Store, StoreError
from orchestrator.trials.time_left import DRIVER_START_S, TimeLeft

TICK_S = 0.2
LOOK_EVERY_S = 1.0
STORE_AGAIN_S = 5.0
DRAIN_WITHIN_S = 45.0
KILL_AFTER_S = 50.0
"""From the request to stop to the end: within a minute, however slow the store."""
GIVEN_BACK = "trials are being checkpointed and given back"
QUEUE = ""
"""Instead of a sweep's name: what is said concerns all of them."""


class NoRay(ValueError):
    """The local Ray does not come up; the message says how it ended."""


@dataclass(frozen=True)
class ServeOptions:
    """How long to serve, and how many sweeps at once."""

    max_sweeps: int = 4
    until_idle: bool = False
    """End when nothing in the queue can be worked on by anybody."""
    for_s: float | None = None
    """Drain after so many seconds."""
    idle_for_s: float | None = None
    """End when no trial was worked on here for so many seconds; others may hold what is left."""
    anyway: bool = False
    """Also on a machine that its probe, or failures of trials, keep out."""
    until: float | None = None
    """Drain then, in seconds since 1970."""

    @property
    def ends_in_s(self) -> float:
        """Seconds from now until it has to end; infinite if never."""
        left_s = inf if self.until is None else self.until - time.time()
        return left_s if self.for_s is None else min(self.for_s, left_s)


class Serve:
    """The loop of one serving process."""

    def __init__(
        self,
        store: Store,
        ray: RaySource,
        options: ServeOptions,
        say: Callable[[str, str], None],
        tick: Callable[[], None],
        allotter: Allotter | None = None,
        notices: NoticeWatch | None = None,
    ) -> None:
        """
        Args:
            say: told a sweep (or `QUEUE`) and what happened, a line each.
            tick: called several times a second.
            notices: says when this machine is taken away; None: nobody does.
        """
        self._notices = notices
        self._time_left = TimeLeft(time.monotonic() + options.ends_in_s, this_host())
        self._busy_at = time.monotonic()
        self._store, self._ray, self._options = store, ray, options
        self._say, self._tick = say, tick
        self._roster = Roster(store, self._new_worker, say)
        self._cluster = ClusterLook(ray)
        self._allotter = allotter or Allotter(options.max_sweeps, lambda: self._cluster.shape)
        self._hosts = HostWatch(store, this_host(), say)
        self._said: dict[str, str] = {}
        self._next_look = 0.0
        self._wants_ray = False

    @property
    def working(self) -> list[SweepWorker]:
        """The sweeps that have a driver here."""
        return [worker for worker in self._roster.workers if worker.phase == "driving"]

    def run(self) -> None:
        """Returns when it is done, or when it was asked to stop: then trials are checkpointed.

        Raises:
            NoRay: a local Ray was started again and again, and died each time.
            NodeRefused: this machine is not fit for trials, or its host is in quarantine.
        """
        labels, anyway = node_labels(), self._options.anyway
        with Presence(self._store, node_id(), node_kind(), labels) as presence:
            presence.mark("environment")
            try:
                say = partial(self._say, QUEUE)
                admit(self._store, presence, Prober(labels), say, anyway=anyway)
                self._serve(presence)
            except KeyboardInterrupt:
                self._say(QUEUE, f"asked to stop: {GIVEN_BACK}")
            finally:
                presence.say(state=f"draining: {self._due()}" if self._due() else "draining")
                self._drain()
                self._cluster.close()

    def _serve(self, presence: Presence) -> None:
        self._busy_at, has_looked = time.monotonic(), False
        while not (why := self._why_end(has_looked)):
            has_looked = self._step(presence)
            if self.working or self._starts_ray_for_work():
                self._busy_at = time.monotonic()
            time.sleep(TICK_S)
        self._say(QUEUE, why)

    def _why_end(self, has_looked: bool) -> str:
        """Why to end now, as it is said; empty while there is no reason."""
        options = self._options
        if notice := self._due():
            return f"{notice}: {GIVEN_BACK}"
        if self._time_left.left_s <= 0:
            return f"time is over: {GIVEN_BACK}"
        if options.idle_for_s and time.monotonic() - self._busy_at > options.idle_for_s:
            return f"nothing to do for {options.idle_for_s:.0f} s"
        if options.until_idle and has_looked and self._is_idle():
            return "nothing is left that can be worked on"
        if has_looked and self._is_too_late():
            return "ends early: nothing runs, and nothing may begin any more"
        return ""

    def _step(self, presence: Presence) -> bool:
        """One round, perhaps with a look; a store that does not answer is asked again later."""
        has_looked = False
        try:
            self._watch()
            if time.monotonic() >= self._next_look:
                self._look()
                self._tell(presence)
                self._next_look = time.monotonic() + LOOK_EVERY_S
                has_looked = True
            self._tick()
            self._said.pop("store", None)
        except StoreError as error:
            self._say_once("store", QUEUE, f"{error}; trying again")
            self._next_look = time.monotonic() + STORE_AGAIN_S
        return has_looked

    def _tell(self, presence: Presence) -> None:
        """How far this node has come, and what its trials say of the machines they ran on."""
        working = self.working
        slots = sum(worker.num_running() for worker in working)
        sweeps = tuple(worker.queued.id for worker in working)
        presence.say(slots=slots, sweeps=sweeps, state=self._state(), takes=self._cluster.takes)
        if self._ray.address is not None:
            presence.mark("ray", self._ray.address)
        self._hosts.look(
            WatchedWork(w.queued.id, w.log.state, w.driver.writer if w.driver else "")
            for w in self._roster.workers
        )
        if self._hosts.first_lease:
            presence.mark("lease", self._hosts.first_lease)
        if self._hosts.first_report:
            presence.mark("report", self._hosts.first_report)
        if not self._options.anyway:
            refuse_if_kept_out(self._hosts.own)

    def _state(self) -> str:
        """In a few words, for `saeq nodes`."""
        if self._notices is not None and self._notices.notice is not None:
            return str(self._notices.notice)
        if self.working:
            return "serving"
        if self._ray.problem:
            return f"no Ray: {self._ray.problem.splitlines()[0]}"
        if self._wants_ray and self._ray.address is None:
            return "Ray is starting"
        whys = (f"{w.queued.id} waits: {w.why_waits}" for w in self._roster.workers if w.why_waits)
        return next(whys, "idle")

    def _watch(self) -> None:
        if self._wants_ray or not self._ray.is_local:  # a cluster says what it takes, idle or not
            self._ray.tick()
        self._cluster.tick()
        if self._ray.given_up:
            raise NoRay(self._ray.problem)
        self._say_of_notices()
        if self._ray.problem:
            self._say_once("ray", QUEUE, self._ray.problem)
        else:
            self._said.pop("ray", None)
        for worker in self._roster.workers:
            worker.tick()

    def _look(self) -> None:
        self._roster.look()
        workers = self._roster.workers
        # Also while others hold all the work: to take it over at once when they go.
        self._wants_ray = self._wants_ray or not self._is_idle()
        allotment = self._allotter.allot(workers)
        for worker in workers:
            if worker.phase == "driving":
                worker.allow(allotment.slots.get(worker.queued.id, 0))
            elif self._is_late_for(worker):
                allotment.why_not[worker.queued.id] = self._time_left.why_not
            elif worker.queued.id in allotment.slots:
                self._start(worker, allotment)
            self._say_why_it_waits(worker, allotment)
        if not workers:
            self._say_once("idle", QUEUE, "no sweep waits; one that is submitted will be taken")
        else:
            self._said.pop("idle", None)

    def _start(self, worker: SweepWorker, allotment: Allotment) -> None:
        if self._ray.address is None:
            return
        sweep = worker.queued.id
        slots = allotment.slots[sweep]
        worker.start(
            DriverOrder(
                self._ray.address,
                self._ray.environment,
                slots=slots,
                usable_bytes=allotment.usable_bytes.get(sweep),
                drain_within_s=DRAIN_WITHIN_S,
                ends_in_s=None if self._time_left.left_s == inf else self._time_left.left_s,
            )
        )
        many = "all slots" if slots is None else f"{slots} slot{'s' if slots != 1 else ''}"
        self._say(sweep, f"taken (priority {worker.priority}, {many})")

    def _say_why_it_waits(self, worker: SweepWorker, allotment: Allotment) -> None:
        sweep = worker.queued.id
        why = worker.why_waits if worker.phase == "waiting" else ""
        why = allotment.why_not.get(sweep, why)
        if why and worker.phase != "driving":
            self._say_once(sweep, sweep, why)
        else:
            self._said.pop(sweep, None)

    def _say_once(self, key: str, sweep: str, what: str) -> None:
        if self._said.get(key) != what:
            self._said[key] = what
            self._say(sweep, what)

    def _is_idle(self) -> bool:
        return not any(worker.is_alive for worker in self._roster.workers)

    def _starts_ray_for_work(self) -> bool:
        """Whether a driver would have been started by now, were it not for Ray."""
        workers = self._roster.workers
        return self._ray.address is None and any(worker.may_start for worker in workers)

    def _new_worker(self, queued: QueuedSweep) -> SweepWorker:
        return SweepWorker(self._store, queued, self._ray, lambda what: self._say(queued.id, what))

    def _is_late_for(self, worker: SweepWorker) -> bool:
        """Whether a driver started now would have no time to begin a trial of that sweep."""
        return worker.is_alive and self._time_left.is_short(worker.log.state, DRIVER_START_S)

    def _is_too_late(self) -> bool:
        """Whether nothing runs here, and none of the sweeps that wait may be begun any more."""
        waiting = [worker for worker in self._roster.workers if worker.is_alive]
        return bool(waiting) and not self.working and all(map(self._is_late_for, waiting))

    def _due(self) -> Notice | None:
        """The notice that this machine goes, and soon."""
        return self._notices.due() if self._notices is not None else None

    def _say_of_notices(self) -> None:
        if self._notices is None:
            return
        notice = self._notices.notice
        if notice is not None and not notice.is_due:
            self._say_once("notice", QUEUE, f"{notice.words}: noted, working on")
        if self._notices.problem:
            self._say_once("notices", QUEUE, f"notices: {self._notices.problem}")
        else:
            self._said.pop("notices", None)

    def _drain(self) -> None:
        """All drivers at once; asked twice: now."""
        deadline = time.monotonic() + leave_within_s(self._due(), KILL_AFTER_S)
        try:
            for worker in self.working:
                worker.ask_to_drain()
            while time.monotonic() < deadline and any(
                worker.driver is not None and worker.driver.poll() is None
                for worker in self.working
            ):
                self._tick()
                time.sleep(0.05)
        except KeyboardInterrupt:
            self._say(QUEUE, "asked again: stopping now")
        for worker in self.working:
            worker.stop()
