"""What a job kind promises the orchestrator: its part of the sweep file, its metrics, its trials.

A kind is one module in this folder. Nothing at its module level imports torch: the command line,
the driver and the trial actors load every kind, and only the process that computes pays for torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Config = Mapping[str, Any]
"""One trial's configuration: parameter name to plain JSON value."""


class Metric(BaseModel):
    """A number that every report of a kind carries."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    direction: Literal["min", "max"] | None
    """Which way is better; None for a number that is only watched (L0, dead fraction)."""
    description: str
    not_comparable_while_searching: tuple[str, ...] = ()
    """Parameters whose search makes this metric meaningless to compare between trials."""


@dataclass(frozen=True)
class Footprint:
    """Memory of one trial and of what it shares with its neighbours, in bytes, and its work."""

    trial_bytes: int
    shared_bytes: int
    """Paid once a device: the language model and the activation buffer."""
    shared_flop_per_token: float = 0.0
    """0, as the next: the kind has no formula for time."""
    trial_flop_per_token: float = 0.0
    trial_traffic_bytes_per_token: float = 0.0
    """Read from and written to the device's memory in a trial's own steps; 0: never the limit."""
    trial_is_bfloat16: bool = False
    """Whether the matrix products of a trial's steps run in bfloat16."""
    trial_parts: Mapping[str, int] = field(default_factory=dict)
    """What `trial_bytes` are made of, as people call it; empty: nobody says."""
    shared_parts: Mapping[str, int] = field(default_factory=dict)
    """Likewise of `shared_bytes`. Of trials that differ a device pays the largest of each name;
    names with a common beginning up to a colon (`steps: gradients`) are shown as one."""
    on_cpu: Footprint | None = None
    """What holds on a CPU, where that differs."""

    def on(self, device: str) -> Footprint:
        """What holds on a device: `cpu` or `cuda`."""
        return self.on_cpu if device == "cpu" and self.on_cpu is not None else self


@dataclass(frozen=True)
class InputArtefact:
    """A finished artefact of another sweep that this one `needs`."""

    id: str
    kind: str
    sweep: str
    sha256: str
    """Of its manifest: what a child's record names as its parent."""
    record: Mapping[str, Any]
    folder: Path | None = None
    """Its files on this machine, once somebody fetched them."""


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial with its artefact's files on this machine."""

    trial: str
    config: Config
    metrics: Mapping[str, float]
    artefact: str
    folder: Path


@dataclass(frozen=True)
class TrialContext:
    """All that a runner is told about the trial it runs. Picklable; no handle to the store."""

    sweep: str
    trial: str
    config: Config
    setup: Mapping[str, Any]
    """The kind's part of the sweep file, as JSON (`Setup.model_validate` gives the object)."""
    seed: int
    max_members: int
    device: str
    gpu_ids: tuple[str, ...] = ()
    """Physical devices that Ray gave to the trial; empty on a machine without GPUs."""
    inputs: tuple[InputArtefact, ...] = ()
    """What the sweep `needs` of other sweeps, in the order of its sweep file."""
    metric: str = ""
    """By which the sweep's trials are compared; empty where nobody said."""


@dataclass(frozen=True)
class Progress:
    """Where a trial stands after `advance`."""

    tokens: int
    metrics: Mapping[str, float] | None
    """Set when the asked-for point was reached; None when `advance` came back before it."""
    busy_seconds: float
    """Device time since attaching: own step time plus an even share of the language model's."""
    lm_seconds: float = 0.0
    """Of that, the language model's."""
    lm_alone_seconds: float = 0.0
    """What the language model would have taken for this trial alone."""
    at: Mapping[str, Any] = field(default_factory=dict)
    """Place and load for the dashboard: pack, pid, members, lm_tokens_per_second, ..."""
    draining: bool = False
    """The pack was asked to stop: save what there is and come back."""


@dataclass(frozen=True)
class Finished:
    """A finished trial's output folder, measured after it was loaded back."""

    kind: str
    """Artefact kind: `sae`, `embedding`, ..."""
    metrics: Mapping[str, float]
    record: Mapping[str, Any]
    """Lineage, versions and whatever else says how the artefact came to be."""
    busy_seconds: float
    lm_seconds: float = 0.0
    lm_alone_seconds: float = 0.0


class TrialLost(Exception):
    """The process that computed the trial is gone: not its fault, it goes back.

    Args:
        reason: what went away, in a few words for the log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TrialOutOfMemory(Exception):
    """The trial did not fit beside its neighbours; retried once with twice its share."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TrialFailed(Exception):
    """The trial cannot go on and trying it elsewhere will not help unless something is mended.

    Args:
        reason: one line for the table.
        traceback: the rest, for the log.
        final: whether trying again would only fail the same way.
    """

    def __init__(self, reason: str, traceback: str = "", final: bool = False) -> None:
        super().__init__(reason, traceback, final)
        self.reason, self.traceback, self.final = reason, traceback, final

    def __str__(self) -> str:
        return self.reason


class SweepUnusable(Exception):
    """Nothing of the sweep can run here: no model, no data. The user mends it and runs again.

    Args:
        reason: the rule, the value and the way out, in one sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TrialRunner(ABC):
    """One trial inside its actor. Every method may raise the exceptions above."""

    @property
    def place(self) -> Mapping[str, Any]:
        """Where the trial lives once attached: {"pack", "pid"} of the process that computes."""
        return {}

    @abstractmethod
    def attach(self, checkpoint: Path | None) -> int:
        """Take the trial up, from a checkpoint folder if given; returns tokens already done."""

    @abstractmethod
    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        """Wait for the report at a token count, at most `max_seconds`, or until drained.

        Args:
            until_tokens: where the next report is due.
            run_on_to: how far the trial may work on while that report travels, at least
                `until_tokens`: up to the next rung, where it waits for a verdict.
        """

    @abstractmethod
    def save(self, folder: Path) -> int:
        """Write the whole state into an empty folder; returns the tokens it stands for."""

    @abstractmethod
    def finish(self, folder: Path) -> Finished:
        """Export into an empty folder, load back, measure. Raises TrialFailed if they differ."""

    def take_output(self) -> list[str]:
        """Lines printed for this trial since the last call, in whatever process computes it."""
        return []

    @abstractmethod
    def detach(self) -> None:
        """Give everything back. Never raises for a pack that is already gone."""


class JobKind(ABC):
    """One kind of work. Subclassing registers it under its name."""

    by_name: ClassVar[dict[str, type[JobKind]]] = {}

    name: ClassVar[str]
    artefact_kind: ClassVar[str]
    Setup: ClassVar[type[BaseModel]]
    """The top-level keys of a sweep file that this kind owns (model, data, hooks, tokens, ...)."""
    metrics: ClassVar[Sequence[Metric]]
    """In every report."""
    final_metrics: ClassVar[Sequence[Metric]] = ()
    """Measured once, at a trial's end: nothing can be stopped early by them."""
    default_metric: ClassVar[str]
    unit: ClassVar[str] = "tokens"
    """What a trial's progress is counted in: tokens, epochs, prompts."""
    how_to_run: ClassVar[Sequence[tuple[str, ...]]] = ()
    """Keys of the setup, as paths, that change no result: a sweep in which only they differ is the
    same sweep."""
    takes_input_files: ClassVar[bool] = False
    """Whether a trial wants the files of the artefacts that its sweep needs, on its own machine."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name in JobKind.by_name:
            raise TypeError(
                f"two job kinds are named {cls.name!r}: {cls.__module__} and "
                f"{JobKind.by_name[cls.name].__module__}; rename one"
            )
        JobKind.by_name[cls.name] = cls

    @abstractmethod
    def parameters(self) -> Mapping[str | None, type[BaseModel]]:
        """The trial parameters, a pydantic model for each value of the discriminator.

        `{None: Model}` for a kind without variants. Names that no model has are refused in the
        search space; a name that only some variants have is sampled for those alone.
        """

    discriminator: ClassVar[str | None] = None
    """The parameter that picks the model: `architecture` for SAEs."""

    def implied_space(self, setup: Any) -> Mapping[str, Sequence[Any]]:
        """Parameters the setup itself opens (`hooks: [a, b]` makes `hook` a choice of two)."""
        del setup
        return {}

    def check_setup(self, setup: Any) -> list[tuple[tuple[str | int, ...], str]]:
        """Faults of the setup that no single key shows: (path of the key, message)."""
        del setup
        return []

    def check_needs(
        self, setup: Any, kinds: Sequence[str]
    ) -> list[tuple[tuple[str | int, ...], str]]:
        """Faults between the setup and what the sweep takes of other sweeps.

        Args:
            kinds: artefact kind of each entry of `needs`, in the order of the sweep file.

        Paths and messages as in `check_setup`.
        """
        del setup, kinds
        return []

    def check_here(self, setup: Any) -> list[tuple[tuple[str | int, ...], str]]:
        """Faults that only the machine that will run it can see, such as a file that is not there.

        Cheap: asks the disk, never the network. Paths and messages as in `check_setup`.
        """
        del setup
        return []

    @abstractmethod
    def default_strata(self, searched: Sequence[str]) -> tuple[str, ...]:
        """Names by which trials are grouped before they are compared, given what is searched."""

    @abstractmethod
    def check(self, setup: Any, config: Config) -> list[str]:
        """Faults of one configuration that no single field shows (k above d_sae), as messages."""

    @abstractmethod
    def total_tokens(self, setup: Any, config: Config) -> int:
        """How far a trial goes, in tokens (or the kind's own unit of progress)."""

    @abstractmethod
    def footprint(self, setup: Any, config: Config) -> Footprint:
        """Memory and work of one trial, from formulas alone: no torch, no network."""

    leaves_reports: ClassVar[bool] = False
    """Whether artefacts have a `report/` folder or the kind writes a report of a whole sweep."""

    def write_report(
        self, setup: Any, trials: Sequence[FinishedTrial], folder: Path
    ) -> Sequence[Path]:
        """Files for people about a whole sweep: tables, pictures, a page.

        `saeq results` calls it with all finished trials. What a single trial left in its artefact's
        `report/` is copied without it.

        Args:
            folder: where they go; it is there.

        Returns what was written, the one to open first in front.
        """
        del setup, trials, folder
        return ()

    def shared_key(self, setup: Any) -> str:
        """Names what a footprint's `shared_bytes` are paid for: sweeps of equal keys share it."""
        return f"{self.name} {setup.model_dump_json()}"

    @abstractmethod
    def runner(self, context: TrialContext) -> TrialRunner:
        """The trial itself; called inside the trial's actor."""


def job_kind(name: str) -> JobKind:
    """Look a kind up by name. Raises ValueError that lists the known ones."""
    if name not in JobKind.by_name:
        known = ", ".join(sorted(JobKind.by_name))
        raise ValueError(f"job={name!r} is unknown; known job kinds: {known}")
    return JobKind.by_name[name]()
