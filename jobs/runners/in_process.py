"""A trial that is computed in its actor's own process: many short steps, one after the other."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jobs.kind import Finished, Progress, SweepUnusable, TrialContext, TrialRunner
from sae.sae_spec import BadSae
from sae.stream_errors import StreamError
from steering.errors import BadSteeringInput

__all__ = ["InProcessRunner"]


class InProcessRunner(TrialRunner):
    """What such trials have in common; a subclass says what a step is.

    A unit of progress (an epoch, a prompt) may take several steps, and a step should take well
    under a second: between two of them the trial hears that it has to leave. What the subclass
    raises of `BadSteeringInput`, `StreamError` and `BadSae` makes the sweep unusable, with the
    message as it is.
    """

    artefact_kind: ClassVar[str]
    """As its job kind calls it."""

    def __init__(self, context: TrialContext) -> None:
        self.context = context
        self._busy_s = 0.0

    @abstractmethod
    def open(self) -> None:
        """Load what the trial needs: data, models. Called once, before all else."""

    @property
    @abstractmethod
    def units_done(self) -> int:
        """Whole units that are done."""

    @abstractmethod
    def step(self) -> None:
        """Go on by one step."""

    @abstractmethod
    def measure(self) -> Mapping[str, float]:
        """Every metric of the kind's `metrics`, as it stands. Called at a report."""

    @abstractmethod
    def write_state(self, folder: Path) -> None:
        """The whole state into an empty folder: safetensors and JSON, nothing pickled."""

    @abstractmethod
    def read_state(self, folder: Path) -> None:
        """Go on from what `write_state` wrote, exactly."""

    @abstractmethod
    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Write the artefact into an empty folder, load it back, measure.

        Files below `folder/report/` are for people: `saeq results` copies them.

        Returns all metrics and final metrics, and the record. Raises TrialFailed if what was
        loaded back is not what was made.
        """

    def close(self) -> None:
        """Let go of what `open` loaded. Never raises."""

    @property
    def place(self) -> Mapping[str, Any]:
        return {"pid": os.getpid()}

    def attach(self, checkpoint: Path | None) -> int:
        with _said_plainly():
            self.open()
            if checkpoint is not None:
                self.read_state(checkpoint)
            return self.units_done

    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        del run_on_to
        with _said_plainly(), self._timed():
            started = time.monotonic()
            while self.units_done < until_tokens:
                self.step()
                is_late = time.monotonic() - started >= max_seconds
                if is_late and self.units_done < until_tokens:
                    metrics = None
                    break
            else:
                metrics = dict(self.measure())
        return Progress(self.units_done, metrics, self._busy_s)

    def save(self, folder: Path) -> int:
        self.write_state(folder)
        return self.units_done

    def finish(self, folder: Path) -> Finished:
        with _said_plainly(), self._timed():
            metrics, record = self.export(folder)
        return Finished(self.artefact_kind, metrics, record, self._busy_s)

    def detach(self) -> None:
        self.close()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._busy_s += time.monotonic() - started


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except (BadSteeringInput, StreamError, BadSae) as error:
        raise SweepUnusable(str(error)) from error
