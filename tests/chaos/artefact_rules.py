"""What was kept is whole, loads, and is what the log says it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.log.state import SweepState, TrialState
from orchestrator.queue import QueuedSweep
from orchestrator.store import KeyMissing, Store, StoreError
from orchestrator.trials.artefacts import RECORD
from tests.chaos.segments import Broken

VERIFIES = "a finished artefact verifies"
AS_SAID = "an artefact is what its end says"
NO_BATCH_TWICE = "no batch is trained on twice"


def artefact_faults(
    store: Store, queued: QueuedSweep, state: SweepState, *, load_weights: bool = True
) -> Iterator[Broken]:
    """Everything in which the artefacts of finished trials are not as promised.

    Args:
        load_weights: also load each SAE with sae_lens (imports torch).
    """
    kind = queued.spec.kind.artefact_kind
    for trial in state.by_number():
        if trial.status != "finished":
            continue
        if trial.artefact is None:
            yield Broken(VERIFIES, trial.id, "it finished without an artefact")
            continue
        with tempfile.TemporaryDirectory(prefix="saeq-verdict-") as name:
            folder = Path(name)
            try:
                store.get_files(store.layout.artefact(kind, trial.artefact), folder)
                record = json.loads((folder / RECORD).read_text())
            except (KeyMissing, StoreError, OSError, ValueError) as error:
                yield Broken(VERIFIES, trial.id, str(error))
                continue
            yield from record_faults(trial, record)
            if load_weights and kind == "sae":
                yield from _loading_faults(trial.id, folder)


def record_faults(trial: TrialState, record: Mapping[str, Any]) -> Iterator[Broken]:
    """Whether a record is of this trial and its parts add up."""
    if (record["trial"], record["config"]) != (trial.id, dict(trial.config)):
        detail = f"the record is of {record['trial']} with {record['config']}"
        yield Broken(AS_SAID, trial.id, detail)
    told = {name: trial.metrics.get(name) for name in record["metrics"]}
    if told != record["metrics"]:
        names = sorted(n for n in told if told[n] != record["metrics"][n])
        detail = f"{names[0]}={record['metrics'][names[0]]} there, {told[names[0]]} in the log"
        yield Broken(AS_SAID, trial.id, detail)
    yield from _segment_faults(trial, record)


def _segment_faults(trial: TrialState, record: Mapping[str, Any]) -> Iterator[Broken]:
    details, segments = record["record"], record["lineage"]["segments"]
    steps = sum(end - first for first, end in segments)
    tokens = steps * details["batch_tokens"]
    if not tokens == details["tokens"] == trial.tokens == trial.total_tokens:
        yield Broken(
            AS_SAID,
            trial.id,
            f"its segments come to {tokens} tokens, its record says {details['tokens']}, the log "
            f"{trial.tokens} of {trial.total_tokens}",
        )
    for (_, end), (first, _) in zip(segments, segments[1:], strict=False):
        if first < end:
            yield Broken(NO_BATCH_TWICE, trial.id, f"a segment begins at {first}, before {end}")


def _loading_faults(trial: str, folder: Path) -> Iterator[Broken]:
    import torch
    from sae_lens import SAE

    try:
        sae = SAE.load_from_disk(str(folder), device="cpu")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        yield Broken(VERIFIES, trial, f"sae_lens does not load it: {error}")
        return
    for name, tensor in sae.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            yield Broken(VERIFIES, trial, f"{name} is not finite")
