"""The part of a sweep file that a steering table owns. Plain data, no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.composed_setup import CompositionParameters, StyleSource
from jobs.one_or_many import ONE_OR_MANY
from sae.stream_spec import ModelSpec
from steering.generation.spec import GenerationSpec
from steering.prompt_banks import Bank, find_bank
from steering.styles.rows import RowsSpec
from steering.table.conditions import PromptTexts
from steering.table.grid import check_seeds

__all__ = ["MIN_GROUPS", "SteeringTableParameters", "SteeringTableSetup"]

MIN_GROUPS = 3
MIN_PROMPTS = 4
Site = Literal["resid_post", "resid_pre", "mlp_out", "attn_out"]


class SteeringTableSetup(StyleSource):
    """The keys of a sweep file that all trials share."""

    model: ModelSpec
    """The language model that is steered and prompted."""
    embedding: str | None = Field(default=None, min_length=1)
    """Folder of a finished style embedding; not given: the one that the sweep `needs`."""
    data: RowsSpec | None = None
    """The groups' own texts (or style vectors), which their style is taken from; not given: what
    the needed embedding was made from."""
    groups: tuple[str, ...] | None = None
    """Which of the embedding's groups take part, at least three; not given: all."""
    banks: Annotated[tuple[str, ...], ONE_OR_MANY] = Field(("neutral",), min_length=1)
    """Prompt banks: built-in ones (neutral, python-docs) or files (.txt, .jsonl). Each has a table
    of its own; the trial's metrics are those of the first one."""
    prompts_per_bank: int = Field(default=16, ge=MIN_PROMPTS)
    """Of each bank, from the first on: half to choose the strength on, half for the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """An answer of every condition for each; at least three."""
    strengths: Annotated[tuple[float, ...], ONE_OR_MANY] = (0.05, 0.1, 0.2)
    """Tried on half of the prompts, the best one taken for the table; fractions of the residual
    norm. Not used where `strength` is in the space."""
    fluent_within: float = Field(default=2.0, gt=1)
    """A strength whose answers are more than so many times as perplexing as unsteered ones is not
    chosen."""
    texts: PromptTexts = PromptTexts()
    """How prompts say the group and its attributes."""
    prompt_attributes: int = Field(default=3, gt=0)
    """How many attributes of a group a prompt says: those it leads the runner-up by most."""
    generation: GenerationSpec = GenerationSpec(max_new_tokens=40)
    """How answers are generated."""

    @model_validator(mode="after")
    def _enough_of_all(self) -> SteeringTableSetup:
        check_seeds(self.seeds)
        groups = self.groups
        if groups is not None and (len(groups) < MIN_GROUPS or len(set(groups)) < len(groups)):
            raise ValueError(
                f"groups={list(groups)}: at least {MIN_GROUPS} different ones are needed, or "
                "every change would be a change to the other one"
            )
        for name in ("banks", "strengths"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}={list(values)}: give at least one, each once")
        if min(self.strengths) <= 0:
            raise ValueError(f"strengths={list(self.strengths)} must be positive; C1 has none")
        if self.generation.temperature == 0:
            raise ValueError(
                "generation.temperature=0 gives the same answer for every seed, and the table "
                "compares seeds; use a temperature above 0"
            )
        return self

    @property
    def num_units(self) -> int:
        """Pairs of a prompt and a seed: the length of a trial."""
        return len(self.banks) * self.prompts_per_bank * len(self.seeds)

    def read_banks(self, groups: tuple[str, ...] | None = None) -> tuple[Bank, ...]:
        """The prompts. Raises BadSteeringInput."""
        found = tuple(find_bank(name) for name in self.banks)
        return tuple(bank.first(self.prompts_per_bank, groups) for bank in found)


class SteeringTableParameters(CompositionParameters):
    """What trials may vary."""

    layer: int = Field(ge=0)
    """Where vectors are read and added."""
    site: Site = "resid_post"
    """Which place of the layer."""
    strength: float | None = Field(default=None, gt=0)
    """Of the residual norm; not given: chosen among the setup's `strengths`."""
    positions: Literal["all", "prompt", "generated", "last"] = "all"
    """Tokens at which is steered."""
    preserve_norm: bool = False
    """Scale each steered activation back to its norm."""

    @property
    def hook(self) -> str:
        """Where is steered."""
        return f"{self.site}.{self.layer}"
