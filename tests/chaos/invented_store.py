"""A small sweep that is over, written into a store by hand, for the verdict to be tried on.

Two drivers, one after the other: the first was killed while it trained t0000, which the second
took up from its checkpoint and finished; the second also saw t0001 stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.log.events import (
    Checkpointed,
    DriverEnded,
    DriverStarted,
    EventBase,
    Finished,
    Leased,
    Reported,
    Started,
    Stopped,
    Suggested,
    TrialEvent,
)
from orchestrator.log.sweep_log import LogWriter
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.store import Store

SWEEP = "invented"
TEXT = """
name: invented
job: sae_train
model: {builtin: smollm2-135m}
data: {builtin: python-docs}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {architecture: topk, d_sae: 64, k: {choice: [4, 8]}, lr: 1.0e-3}
search: {sampler: grid}
checkpoint: {seconds: 30}
"""
FIRST, SECOND = "driver-aaaaaaaaaa", "driver-bbbbbbbbbb"
TOTAL_TOKENS = 90_000
SAFE_TOKENS = 40_000
METRICS = {"fvu": 0.1}
START = 1000.0
"""Wall clock at which the first driver began; a step of the clock is a second."""


class InventedStore:
    """See the module. Everything is public: tests break it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder / "store"))
        Queue(self.store).submit(parse_sweep(TEXT), TEXT)
        self.layout = self.store.layout
        self.now = START
        self.writers: dict[str, LogWriter] = {}
        self._first()
        self._second()

    # What happened

    def _first(self) -> None:
        self.say(FIRST, DriverStarted(host="there", pid=1))
        for number in (0, 1):
            self.suggest(FIRST, number)
        self.lease(FIRST, "t0000", 1)
        self.say(FIRST, Started(trial="t0000", epoch=1))
        self.report(FIRST, "t0000", 1, 20_000, after_s=20)
        self.report(FIRST, "t0000", 1, SAFE_TOKENS, after_s=20)
        self.say(FIRST, Checkpointed(trial="t0000", epoch=1, tokens=SAFE_TOKENS))
        self.report(FIRST, "t0000", 1, 60_000, after_s=20)
        self.say("supervisor-cccccccccc", DriverEnded(driver=FIRST, reason="killed by SIGKILL"))

    def _second(self) -> None:
        self.say(SECOND, DriverStarted(host="there", pid=2))
        self.lease(SECOND, "t0000", 2)
        self.say(SECOND, Started(trial="t0000", epoch=2, tokens=SAFE_TOKENS))
        self.lease(SECOND, "t0001", 1)
        self.say(SECOND, Started(trial="t0001", epoch=1))
        self.report(SECOND, "t0001", 1, 20_000, after_s=20)
        self.end(SECOND, stopped("t0001", 1))
        self.report(SECOND, "t0000", 2, TOTAL_TOKENS, after_s=40)
        self.register()
        self.end(SECOND, finished("t0000", 2))
        self.say(SECOND, DriverEnded(driver=SECOND, reason="nothing left to do here"))

    # How it is written

    def say(self, writer: str, *events: EventBase, after_s: float = 1.0) -> None:
        """Append as that writer, a moment later."""
        self.now += after_s
        if writer not in self.writers:
            self.writers[writer] = LogWriter(
                self.store, SWEEP, writer_id=writer, clock=lambda: self.now
            )
        self.writers[writer].append(*events)

    def suggest(self, writer: str, number: int, k: int | None = None) -> None:
        trial, config = f"t{number:04d}", config_of(k or 4 * (number + 1))
        claim = {"number": number, "config": config}
        self.store.create_json(self.layout.claim(SWEEP, trial), claim)
        suggested = Suggested(trial=trial, number=number, config=config, total_tokens=TOTAL_TOKENS)
        self.say(writer, suggested)

    def lease(self, writer: str, trial: str, epoch: int) -> None:
        key = self.layout.lease(SWEEP, trial, epoch)
        self.store.create_json(key, {"holder": writer, "epoch": epoch})
        self.say(writer, Leased(trial=trial, epoch=epoch))

    def report(self, writer: str, trial: str, epoch: int, tokens: int, after_s: float) -> None:
        reported = Reported(trial=trial, epoch=epoch, tokens=tokens, metrics=METRICS)
        self.say(writer, reported, after_s=after_s)

    def end(self, writer: str, event: TrialEvent) -> None:
        key = self.layout.end(SWEEP, event.trial)
        self.store.create_json(key, event.model_dump(mode="json"))
        self.say(writer, event)

    def register(self, **changes: Any) -> None:
        """The artefact of t0000, with its manifest; `changes` replace parts of its record."""
        record = {**sound_record(), **changes}
        prefix = self.layout.artefact("sae", f"{SWEEP}-t0000")
        self.store.delete_files(prefix)
        folder = Path(self.store.local_path(prefix)).parent / "made"
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath("record.json").write_text(json.dumps(record))
        folder.joinpath("sae_weights.safetensors").write_bytes(b"weights")
        self.store.put_files(folder, prefix)

    def edit_log(self, writer: str, old: bytes, new: bytes) -> None:
        """Replace text in a writer's object; every line has its own end."""
        key = self.layout.segment(SWEEP, writer)
        data = self.store.backend.get(key)
        assert old in data
        self.store.backend.put(key, data.replace(old, new, 1))

    def lines(self, writer: str) -> list[bytes]:
        return self.store.backend.get(self.layout.segment(SWEEP, writer)).splitlines(keepends=True)

    def put_lines(self, writer: str, lines: list[bytes]) -> None:
        self.store.backend.put(self.layout.segment(SWEEP, writer), b"".join(lines))


def config_of(k: int) -> dict[str, Any]:
    return {"architecture": "topk", "d_sae": 64, "k": k, "lr": 1e-3}


def finished(trial: str, epoch: int, **changes: Any) -> Finished:
    values = {"artefact": f"{SWEEP}-{trial}", "metrics": METRICS, "tokens": TOTAL_TOKENS}
    return Finished(trial=trial, epoch=epoch, **{**values, **changes})


def stopped(trial: str, epoch: int) -> Stopped:
    return Stopped(
        trial=trial,
        epoch=epoch,
        rule="asha",
        rung=20_000,
        metric="fvu",
        value=0.5,
        cutoff=0.1,
        against=1,
        reason="worse",
        tokens=20_000,
    )


def sound_record() -> dict[str, Any]:
    return {
        "id": f"{SWEEP}-t0000",
        "kind": "sae",
        "sweep": SWEEP,
        "trial": "t0000",
        "config": config_of(4),
        "metrics": METRICS,
        "lineage": {"segments": [[0, 40], [55, 105]]},
        "record": {"tokens": TOTAL_TOKENS, "batch_tokens": 1000},
    }
