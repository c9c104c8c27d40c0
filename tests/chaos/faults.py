"""What a storm does to a sweep: one class a fault, found by its name."""

from __future__ import annotations

import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from orchestrator.log.sweep_log import SweepLog
from orchestrator.store import MANIFEST, KeyMissing, Store
from orchestrator.store.folder import FolderBackend
from tests.chaos.processes import Kind, Process
from tests.chaos.segments import Damage
from tests.chaos.served import Served


@dataclass
class Scene:
    """What a fault can reach."""

    store: Store
    serves: Sequence[Served]
    rng: random.Random
    damage: Damage = field(default_factory=Damage)
    sweep: str = ""
    """The one that is worked off now."""
    stopped: list[tuple[float, float, Process]] = field(default_factory=list)
    """(wall clock when stopped, monotonic time to wake it, process)."""
    stop_seconds: tuple[float, float] = (25.0, 60.0)

    def any_of(self, kind: Kind) -> tuple[Served, Process] | None:
        """One process of a kind, whoever serves it, that is not stopped."""
        found = [(s, p) for s in self.serves for p in s.processes(kind) if not p.is_stopped]
        return self.rng.choice(found) if found else None

    def any_working_driver(self) -> Process | None:
        """A driver under which a trial has started: one that is killed on its way teaches less."""
        trials = SweepLog(self.store, self.sweep).refresh().trials.values()
        busy = {t.holder for t in trials if t.status == "running" and t.started is not None}
        found = [p for s in self.serves for p in s.processes("driver") if not p.is_stopped]
        working = [process for process in found if process.writer in busy]
        return self.rng.choice(working) if working else None

    def wake(self, *, all_of_them: bool = False) -> list[Process]:
        """Let stopped processes go on whose time has come; returns them."""
        due = [s for s in self.stopped if all_of_them or time.monotonic() >= s[1]]
        for stopped in due:
            self.stopped.remove(stopped)
            stopped[2].send(signal.SIGCONT)
            self.damage.stalls.append((stopped[0], time.time()))
        return [process for _, _, process in due]


class Fault(ABC):
    """One way to hurt a sweep. Subclassing with a name registers it."""

    by_name: ClassVar[dict[str, type[Fault]]] = {}
    name: ClassVar[str] = ""
    weight: ClassVar[float] = 1.0
    """How often it is chosen, against the others."""
    is_kill: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            Fault.by_name[cls.name] = cls

    @abstractmethod
    def strike(self, scene: Scene) -> str | None:
        """Do it; says to what, or None when there is nothing of the kind now."""


class _KillOne(Fault):
    kind: ClassVar[Kind]

    def strike(self, scene: Scene) -> str | None:
        found = scene.any_of(self.kind)
        if found is None:
            return None
        served, process = found
        process.send(signal.SIGKILL)
        return f"{process} of {served.name}"


class KillTrial(_KillOne):
    name, kind, weight = "kill-trial", "trial", 4.0


class KillPack(_KillOne):
    name, kind, weight = "kill-pack", "pack", 3.0


class KillRaylet(_KillOne):
    name, kind = "kill-raylet", "raylet"


class KillGcs(_KillOne):
    name, kind = "kill-gcs", "gcs"


class KillDriver(Fault):
    name, weight = "kill-driver", 3.0

    def strike(self, scene: Scene) -> str | None:
        driver = scene.any_working_driver()
        if driver is not None:
            driver.send(signal.SIGKILL)
        return str(driver) if driver is not None else None


class KillServe(Fault):
    """The storm starts it again."""

    name, weight = "kill-serve", 1.5

    def strike(self, scene: Scene) -> str | None:
        running = [served for served in scene.serves if served.poll() is None]
        if not running:
            return None
        served = scene.rng.choice(running)
        served.kill()
        return f"{served.name} {served.pid}"


class KillMachine(Fault):
    """A serve, its drivers and its whole Ray at once."""

    name, weight = "kill-machine", 0.5

    def strike(self, scene: Scene) -> str | None:
        running = [served for served in scene.serves if served.poll() is None]
        if not running:
            return None
        served = scene.rng.choice(running)
        return f"{served.name}, {served.kill_everything()} processes"


class KillRay(Fault):
    """Everything of one Ray; serve and driver stay."""

    name, weight = "kill-ray", 0.5

    def strike(self, scene: Scene) -> str | None:
        found = scene.any_of("raylet")
        if found is None:
            return None
        served = found[0]
        kinds = ("gcs", "raylet", "pack", "trial")
        rays = [p for p in served.processes() if p.kind in kinds or p.command.startswith("ray::")]
        for process in rays:
            process.send(signal.SIGKILL)
        return f"{len(rays)} processes of {served.name}'s Ray"


class StopDriver(Fault):
    """Asleep for longer than a lease lives, then awake again and stale."""

    name, is_kill = "stop-driver", False

    def strike(self, scene: Scene) -> str | None:
        driver = scene.any_working_driver()
        if driver is None or scene.stopped:
            return None
        seconds = scene.rng.uniform(*scene.stop_seconds)
        driver.send(signal.SIGSTOP)
        scene.stopped.append((time.time(), time.monotonic() + seconds, driver))
        return f"{driver} for {seconds:.0f} s"


class CutCheckpoint(Fault):
    """The newest checkpoint of a trial loses half of its largest file."""

    name, is_kill = "cut-checkpoint", False

    def strike(self, scene: Scene) -> str | None:
        layout, backend = scene.store.layout, scene.store.backend
        trials = SweepLog(scene.store, scene.sweep).refresh().trials
        running = [trial for trial in trials.values() if not trial.ended]
        scene.rng.shuffle(running)
        already = {trial for trial, _ in scene.damage.cut_checkpoints}
        for trial in running:
            prefix = layout.checkpoints(scene.sweep, trial.id)
            sets = [f"{prefix}{name}/" for name in backend.children(prefix)]
            whole = [p for p in sorted(sets) if scene.store.files(p) is not None]
            if len(whole) < 2 or trial.id in already:  # two damaged ones are the work of a vandal
                continue
            files = [e for e in backend.entries(whole[-1]) if not e.key.endswith(MANIFEST)]
            largest = max(files, key=lambda entry: entry.num_bytes, default=None)
            if largest is not None and _halve(scene.store, largest.key):
                scene.damage.cut_checkpoints.append((trial.id, time.time()))
                return largest.key
        return None


class CutLog(Fault):
    """The last line of a dead driver's log is torn, as by a machine that lost its power."""

    name, is_kill = "cut-log", False

    def strike(self, scene: Scene) -> str | None:
        backend = scene.store.backend
        alive = {p.writer for s in scene.serves for p in s.processes("driver")}
        state = SweepLog(scene.store, scene.sweep).refresh()
        dead = [writer for writer in state.drivers if writer not in alive]
        keys = [scene.store.layout.segment(scene.sweep, writer) for writer in dead]
        keys = sorted(set(keys) - scene.damage.cut_segments)
        if not keys:
            return None
        key = scene.rng.choice(keys)
        data = backend.get(key)
        last_line = data.rstrip(b"\n").rpartition(b"\n")[2]
        scene.damage.cut_segments.add(key)
        backend.put(key, data[: len(data) - 1 - len(last_line) // 2])
        return key


def _halve(store: Store, key: str) -> bool:
    """Truncate an object where it lies; False when it is gone meanwhile."""
    backend = store.backend
    if isinstance(backend, FolderBackend):  # in place: a file that is deleted stays deleted
        path = backend.path(key)
        try:
            os.truncate(path, path.stat().st_size // 2)
        except FileNotFoundError:
            return False
        return True
    try:
        data, version = backend.get_versioned(key)
    except KeyMissing:
        return False
    return backend.compare_and_swap(key, data[: len(data) // 2], version)
