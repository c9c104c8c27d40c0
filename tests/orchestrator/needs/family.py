"""A sweep with artefacts and one that needs them, in a store; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.log.events import EventBase, Failed, Finished, Leased, Suggested
from orchestrator.log.sweep_log import LogWriter, SweepLog
from orchestrator.queue import Queue, QueuedSweep
from orchestrator.spec.sweep import SweepSpec, parse_sweep
from orchestrator.store import Store

PARENT = """
name: {name}
job: sae_train
model: {{builtin: smollm2-135m}}
data: {{builtin: python-docs}}
hooks: [model.layers.1]
tokens: 90k
batch_tokens: 1000
space: {{architecture: topk, d_sae: 64, k: {{choice: [4, 8, 16]}}, lr: 1.0e-3}}
search: {{sampler: grid}}
"""
NEEDS = "needs: [{{sweep: {sweep}, select: {select}}}]\n"
FVU = (0.5, 0.3, 0.4)
"""Of the parent's trials."""


def spec_of(name: str, needs: str = "") -> SweepSpec:
    return parse_sweep(PARENT.format(name=name) + needs)


def needing(name: str, sweep: str, select: str) -> SweepSpec:
    return spec_of(name, NEEDS.format(sweep=sweep, select=select))


class Family:
    """A parent of three trials in a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(str(folder / "store"))
        self.parent = self.submit(spec_of("parent"))
        self._writer = LogWriter(self.store, "parent")

    def submit(self, spec: SweepSpec) -> QueuedSweep:
        return Queue(self.store).submit(spec, spec.name)[0]

    def log(self, sweep: str) -> SweepLog:
        """With a writer, as a supervisor has it."""
        log = SweepLog(self.store, sweep, LogWriter(self.store, sweep, "supervisor"))
        log.refresh()
        return log

    def say(self, *events: EventBase) -> None:
        self._writer.append(*events)

    def finish(self, number: int, **metrics: float) -> str:
        """A trial of the parent finishes, with an artefact in the store."""
        trial, k = f"t{number:04d}", (4, 8, 16)[number]
        artefact = f"parent-{trial}"
        numbers = {"fvu": FVU[number], "l0": float(k), **metrics}
        folder = self.folder / artefact
        folder.mkdir()
        record: dict[str, Any] = {"id": artefact, "kind": "sae", "sweep": "parent", "trial": trial}
        (folder / "record.json").write_text(json.dumps({**record, "metrics": numbers}))
        (folder / "weights").write_text(f"weights of {artefact}")
        self.store.put_files(folder, self.store.layout.artefact("sae", artefact))
        config = {"architecture": "topk", "d_sae": 64, "k": k, "lr": 1e-3}
        self.say(
            Suggested(trial=trial, number=number, config=config, total_tokens=90_000),
            Leased(trial=trial, epoch=1),
            Finished(trial=trial, epoch=1, artefact=artefact, metrics=numbers, tokens=90_000),
        )
        return artefact

    def fail(self, number: int) -> None:
        trial = f"t{number:04d}"
        self.say(
            Suggested(trial=trial, number=number, config={"k": 4}, total_tokens=90_000),
            Failed(trial=trial, epoch=1, reason="x", final=True),
        )
