"""A trial of `sae_train`: a member of the pack on the trial's own node and device."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from jobs.kind import (
    Finished,
    Progress,
    SweepUnusable,
    TrialContext,
    TrialFailed,
    TrialLost,
    TrialOutOfMemory,
    TrialRunner,
)
from jobs.runners.sae_pack_actor import pack_actor
from jobs.sae_train import SaeTrain

HEARD_EVERY_S = 3.0
OUTPUT_WITHIN_S = 3.0


class SaePackRunner(TrialRunner):
    """Talks to the pack for one trial; a thread tells the pack that the trial is still there."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        kind = SaeTrain()
        setup = kind.Setup.model_validate(context.setup)
        self._spec = kind.stream_spec(setup, context.device)
        self._config = kind.architecture(setup, context.config)
        self._ce_tokens = setup.evaluation.ce_tokens
        probe = setup.evaluation.probe
        self._probe = None if probe is None else probe.model_dump(mode="json")
        self._total = kind.total_tokens(setup, context.config)
        self._member = f"{context.sweep}/{context.trial}/{id(self):x}"
        self._pack: Any = None
        self._pack_name = ""
        self._place: dict[str, Any] = {}
        self._gone = threading.Event()

    @property
    def place(self) -> dict[str, Any]:
        """Where the member lives: {"pack", "pid", "host", "device"}."""
        return {"pack": self._pack_name, **self._place}

    def attach(self, checkpoint: Path | None) -> int:
        context = self._context
        self._pack_name, self._pack = pack_actor(
            ray.get_runtime_context().get_node_id(),
            self._spec.model_dump(mode="json"),
            self._spec.key,
            context.device,
            context.gpu_ids,
        )
        self._place = self._get(self._pack.place.remote())
        config = self._config.model_dump(mode="json")
        folder = str(checkpoint) if checkpoint else None
        tokens = self._answer(
            self._pack.attach.remote(self._member, context.sweep, config, self._total, folder)
        )
        threading.Thread(target=self._stay_heard, name="heard", daemon=True).start()
        return int(tokens)

    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        state = self._answer(
            self._pack.advance.remote(self._member, until_tokens, run_on_to, max_seconds)
        )
        return Progress(**{**state, "at": {"pack": self._pack_name, **state["at"]}})

    def save(self, folder: Path) -> int:
        return int(self._answer(self._pack.save.remote(self._member, str(folder))))

    def finish(self, folder: Path) -> Finished:
        report = self._answer(
            self._pack.finish.remote(self._member, str(folder), self._ce_tokens, self._probe)
        )
        record = report["record"]
        lineage = {"stream": record["stream"], "segments": record["segments"], "parents": []}
        return Finished(kind="sae", **{**report, "record": {**record, "lineage": lineage}})

    def take_output(self) -> list[str]:
        if self._pack is None or self._gone.is_set():
            return []
        try:
            lines: list[str] = ray.get(
                self._pack.take_output.remote(self._member), timeout=OUTPUT_WITHIN_S
            )
        except RayError:
            return []  # the pack is gone, or busy: the trial learns of that elsewhere
        return lines

    def detach(self) -> None:
        self._gone.set()
        if self._pack is not None:
            try:
                ray.get(self._pack.detach.remote(self._member), timeout=10)
            except RayError:
                return  # the pack is gone, and the member with it

    def _stay_heard(self) -> None:
        while not self._gone.wait(HEARD_EVERY_S):
            self._pack.heard_of.remote([self._member])

    def _answer(self, reference: Any) -> Any:
        tag, value = self._get(reference)
        if tag == "ok":
            return value
        if tag == "out_of_memory":
            raise TrialOutOfMemory(value)
        if tag == "unusable":
            raise SweepUnusable(value)
        if tag == "lost":
            raise TrialLost(value)
        raise TrialFailed(*value)

    def _get(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayActorError as error:
            raise TrialLost(f"its pack {self._pack_name} is gone") from error
