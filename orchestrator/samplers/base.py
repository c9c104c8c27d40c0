"""What every sampler is told and what it answers with.

A sampler has no memory: the configuration of trial `number` is a function of the sweep file and
of the trials in the log, so any driver that reads the same log suggests the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from orchestrator.log.state import TrialState
    from orchestrator.spec.space import Space

Direction = Literal["min", "max"]
"""Which way a metric is better."""


class SamplerConfig(BaseModel):
    """The `search:` part of a sweep file.

    A subclass that gives `sampler` a default registers itself under that name.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    by_sampler: ClassVar[dict[str, type[SamplerConfig]]] = {}

    sampler: str
    trials: int | None = Field(default=None, gt=0)
    """How many configurations are tried at most; not asked for: all there are."""
    seed: int = Field(default=0, ge=0)
    """Everything that is drawn is a function of this and of the trial's number."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        field = cls.model_fields["sampler"]
        if field.is_required():
            return
        known = cls.by_sampler.setdefault(field.default, cls)
        if known is not cls:
            raise TypeError(
                f"two samplers are named {field.default!r}: {known.__module__} and "
                f"{cls.__module__}; rename one"
            )

    def faults(self, space: Space) -> list[str]:
        """What does not fit between sampler and space, as messages with rule, value, way out."""
        del space
        return []

    @abstractmethod
    def build(
        self, space: Space, *, strata: Sequence[str], metric: str, direction: Direction
    ) -> Sampler:
        """Make the sampler.

        Args:
            space: what may be tried.
            strata: parameters within whose equal values trials are compared (`l0`: L0 bands).
            metric: name of the number that says how good a trial is.
            direction: which way that number is better.

        Raises:
            ValueError: sampler and space do not fit; the message holds every fault.
        """

    def refuse_faults(self, space: Space) -> None:
        """Raise ValueError with all faults, if there are any."""
        faults = self.faults(space)
        if faults:
            raise ValueError("; ".join(faults))


class Sampler(ABC):
    """Suggests configurations, by number."""

    @abstractmethod
    def total(self) -> int:
        """How many trials it will suggest: numbers 0 to total - 1."""

    @abstractmethod
    def suggest(self, number: int, trials: Sequence[TrialState]) -> dict[str, Any]:
        """Give the configuration of trial `number`, in the space's order of names.

        Args:
            number: 0 <= number < total().
            trials: all trials of the log so far, in any order.

        Raises:
            ValueError: there is no trial of that number.
        """

    def _check_number(self, number: int) -> None:
        if not 0 <= number < self.total():
            raise ValueError(
                f"trial number {number} is outside this sweep's 0..{self.total() - 1}; "
                "raise search.trials to go on"
            )


def sampler_class(name: object) -> type[SamplerConfig]:
    """Look a sampler up by name. Raises ValueError with the known ones and a suggestion."""
    known = SamplerConfig.by_sampler
    if isinstance(name, str) and name in known:
        return known[name]
    close = get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"sampler={name!r} is unknown; known samplers: {', '.join(sorted(known))}.{suggestion}"
    )


def parse_sampler(entry: Mapping[str, Any]) -> SamplerConfig:
    """Make the configuration that a sweep file's `search:` describes.

    Raises:
        ValueError: the sampler is missing or unknown, or (pydantic's ValidationError) a key is
            missing, unknown or out of range.
    """
    if "sampler" not in entry:
        known = ", ".join(sorted(SamplerConfig.by_sampler))
        raise ValueError(f"search.sampler is not given; choose one of {known}")
    return sampler_class(entry["sampler"]).model_validate(dict(entry))
