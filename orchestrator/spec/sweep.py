"""A sweep file, read and checked: everything that a sweep is, before anything of it has run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
)

from jobs import JobKind
from jobs.kind import Metric, job_kind
from orchestrator.samplers import Sampler, SamplerConfig, parse_sampler
from orchestrator.spec.how_to_run import what_is_run
from orchestrator.spec.space import Space
from orchestrator.spec.units import BadQuantity, Hours, Seconds, Tokens, Usd
from orchestrator.stopping import StoppingConfig, parse_stopping
from orchestrator.stopping.guards import GuardsConfig

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
MAX_NAME_CHARACTERS = 60
NUM_REPORTS = 20
"""Reports of a trial for which no interval was asked."""

_FROZEN = ConfigDict(
    extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
        rule = (
            f"must be at most {MAX_NAME_CHARACTERS} lowercase letters, digits, '-', '_' and '.', "
            "the first a letter or digit"
        )
        near = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:MAX_NAME_CHARACTERS]
        raise BadQuantity(rule, repr(name), f"write name: {near or 'my-sweep'}")
    return name


class BudgetConfig(BaseModel):
    """What a sweep may use up; when it is spent, no further trial is suggested."""

    model_config = _FROZEN

    usd: Usd | None = None
    """Dollars over all trials."""
    hours: Hours | None = None
    """Hours in which at least one driver was alive; a night in which nothing ran counts nothing."""


class PackConfig(BaseModel):
    """How trials share a device."""

    model_config = _FROZEN

    members: int | None = Field(default=None, gt=0)
    """At most this many trials live on one device; not given: as many as fit."""


class CheckpointConfig(BaseModel):
    """How much work may be lost."""

    model_config = _FROZEN

    seconds: Seconds = Field(default=60, gt=0)
    """A running trial is saved about this often."""


class PriceConfig(BaseModel):
    """What the machines cost."""

    model_config = _FROZEN

    usd_per_hour: Usd = 0.0
    """Dollars an hour for one device: a GPU, or a machine without one; not given: the node's label
    saeq-usd-per-hour, else its spot price, else a typical one."""


class NeedSelect(BaseModel):
    """Which artefacts of another sweep are taken."""

    model_config = _FROZEN

    kind: str
    """Artefact kind, such as sae."""
    best: str | None = None
    """Only the best by this metric."""
    top: int | None = Field(default=None, gt=0)
    """Only this many, by the other sweep's metric."""
    all: bool = False
    """Every one."""
    pareto: bool = False
    """Those on the frontier."""
    where: str | None = None
    """A condition on metrics and parameters, such as "l0 < 64 and architecture == 'topk'"."""


class Need(BaseModel):
    """Another sweep whose artefacts this one takes."""

    model_config = _FROZEN

    sweep: str
    """Name of the other sweep."""
    select: NeedSelect
    """Which of its artefacts: at most one of best, top, all and pareto; none of them is all."""


class SweepSpec(BaseModel):
    """One sweep. Made by `load_sweep` from a file, or by `model_validate` from its own JSON.

    `model_validate` checks each part alone: what was checked when it was submitted is not
    checked again when it is read back.
    """

    model_config = _FROZEN

    name: Annotated[str, AfterValidator(_checked_name)]
    """The sweep's name: lowercase letters, digits, '-', '_', '.'."""
    job: str
    """The job kind, such as sae_train."""
    setup: SerializeAsAny[BaseModel]
    """The job kind's own part; its keys stand at the top level of a sweep file."""
    space: Space
    """What may be tried."""
    search: Annotated[
        SerializeAsAny[SamplerConfig],
        BeforeValidator(
            lambda value: parse_sampler(value) if isinstance(value, Mapping) else value
        ),
    ]
    """How configurations are chosen from the space."""
    early_stop: Annotated[
        SerializeAsAny[StoppingConfig],
        BeforeValidator(
            lambda value: parse_stopping(value) if isinstance(value, Mapping) else value
        ),
    ]
    """Which trials are stopped before their end."""
    guards: GuardsConfig = GuardsConfig()
    """Limits that end a trial as diverged."""
    budget: BudgetConfig = BudgetConfig()
    """What the sweep may use up."""
    needs: tuple[Need, ...] = ()
    """Sweeps whose artefacts this one takes."""
    pack: PackConfig = PackConfig()
    """How trials share a device."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often trials are saved."""
    report: Tokens | None = None
    """Tokens between two reports of a trial; not given: a twentieth of its length."""
    max_failures: int = Field(default=2, ge=0)
    """How many failures of a trial are forgiven: the next one ends it."""
    price: PriceConfig = PriceConfig()
    """What the machines cost."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where trials run; auto: on a GPU where there is one."""

    @field_validator("setup", mode="before")
    @classmethod
    def _setup_of_the_kind(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, BaseModel) or "job" not in info.data:
            return value
        return job_kind(info.data["job"]).Setup.model_validate(value)

    @property
    def kind(self) -> JobKind:
        """The job kind itself."""
        return job_kind(self.job)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that trials have: the space's, and those of a written list."""
        return parameter_names(self.space, self.search)

    @property
    def searched(self) -> tuple[str, ...]:
        """Parameters that differ between trials."""
        return searched_names(self.space, self.search)

    @property
    def metric(self) -> str:
        """Name of the number by which trials are compared."""
        return self.early_stop.metric or self.kind.default_metric

    @property
    def direction(self) -> Literal["min", "max"]:
        """Which way that number is better.

        Raises:
            ValueError: the job kind has no such metric, or it has no better way.
        """
        return comparable_metric(self.kind, self.metric)

    @property
    def strata(self) -> tuple[str, ...]:
        """Names within whose equal values trials are compared; `l0` stands for L0 bands."""
        return self.early_stop.strata_or(self.kind.default_strata(self.names))

    @property
    def trials(self) -> int:
        """How many trials will be suggested at most."""
        return self.build_sampler().total()

    def build_sampler(self) -> Sampler:
        """The sampler over this sweep's space."""
        return self.search.build(
            self.space, strata=self.strata, metric=self.metric, direction=self.direction
        )

    def rungs(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        """Token counts at which a trial of this configuration is judged."""
        return self.early_stop.rungs(self.kind.total_tokens(self.setup, config))

    def report_points(self, config: Mapping[str, Any]) -> list[int]:
        """Token counts at which a trial of this configuration reports, its end the last."""
        total = self.kind.total_tokens(self.setup, config)
        interval = self.report or max(1, -(-total // NUM_REPORTS))
        points = {*range(interval, total, interval), *self.early_stop.rungs(total), total}
        return sorted(point for point in points if point <= total)

    @property
    def sha256(self) -> str:
        """Hash of everything in it."""
        return _sha256(self.model_dump(mode="json"))

    @property
    def identity_sha256(self) -> str:
        """Hash of what is run, without how: equal for a sweep that is run again elsewhere."""
        return _sha256(what_is_run(self))


def parameter_names(space: Space, search: SamplerConfig | None) -> tuple[str, ...]:
    """Parameters of the space, then those that only a written list of configurations has."""
    listed = (name for config in getattr(search, "configs", ()) for name in config)
    return tuple(dict.fromkeys((*space.names, *listed)))


def searched_names(space: Space, search: SamplerConfig | None) -> tuple[str, ...]:
    """Parameters that differ between trials."""
    configs = getattr(search, "configs", ())
    if not configs:
        return space.searched
    fixed = {name: space.values_of(name) for name in space.names if name not in space.searched}
    return tuple(
        name
        for name in parameter_names(space, search)
        if len({json.dumps(config.get(name, fixed.get(name)), default=str) for config in configs})
        > 1
    )


def reported_metric(kind: JobKind, name: str) -> Metric | None:
    """A metric that every report of the kind carries."""
    return next((metric for metric in kind.metrics if metric.name == name), None)


def final_metric(kind: JobKind, name: str) -> Metric | None:
    """A metric that is measured once, at a trial's end."""
    return next((metric for metric in kind.final_metrics if metric.name == name), None)


def comparable_metric(kind: JobKind, name: str) -> Literal["min", "max"]:
    """Direction of a metric. Raises ValueError for one that trials cannot be compared by."""
    metric = reported_metric(kind, name) or final_metric(kind, name)
    if metric is None or metric.direction is None:
        known = ", ".join(m.name for m in kind.metrics if m.direction is not None)
        raise ValueError(f"metric={name!r} cannot be compared in {kind.name}; use one of {known}")
    return metric.direction


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load_sweep(path: str | Path) -> SweepSpec:
    """Read and check a sweep file.

    Raises:
        SpecFaults: all that is wrong with it, with lines; also when it cannot be read.
    """
    from orchestrator.spec.sweep_file import read_text

    return parse_sweep(read_text(Path(path)), str(path))


def parse_sweep(text: str, name: str = "sweep.yaml") -> SweepSpec:
    """Check the text of a sweep file.

    Args:
        text: YAML 1.2.
        name: what the file is called in messages.

    Raises:
        SpecFaults: all that is wrong with it, with lines.
    """
    from orchestrator.spec.sweep_file import parse

    return parse(text, name)
