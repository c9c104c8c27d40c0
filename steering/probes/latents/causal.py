"""Does a latent do anything: switch it off, or on, and see what a probe and the model say.

A torch module. Shape suffixes: N = texts, D = width, F = latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.edits import SaeLatents, steered
from steering.errors import BadSteeringInput
from steering.intervals import Interval, mean_interval
from steering.probes.data import LabelledTexts
from steering.probes.features.pool import Places, joined, pooled_activations, pooled_latents
from steering.probes.features.sae_hooks import path_of_sae
from steering.probes.features.sparse import csr_of
from steering.probes.features.spec import FeatureSpec
from steering.probes.features.store import Arrays
from steering.probes.latents.yes_no import (
    YesNoSpec,
    answer_tokens,
    encode_questions,
    logit_difference_N,
    padded,
)
from steering.reading import read_activations

__all__ = ["Action", "CausalEffect", "ProbeReading", "causal_check", "high_values"]

Array = np.ndarray[Any, Any]
Action = Literal["zero", "clamp"]
Measure = Literal["probe", "yes_no"]


@dataclass(frozen=True)
class ProbeReading:
    """A probe and what it reads; the hook must not come before the SAE's."""

    spec: FeatureSpec
    """One row a text: last, mean, max or first. With `sae`, latents of the SAE that is checked."""
    score: Callable[[Any], Array]
    """From features (numpy, or scipy CSR of latents) to scores [N] or [N, 1]."""


@dataclass(frozen=True)
class CausalEffect:
    """What one change of one latent does: the value after less the value before, mean over texts.

    Measured are the probe's score (in its own units), or the model's logit of yes less that of no.
    """

    latent: int
    action: Action
    set_to: float
    measure: Measure
    on_positive: Interval
    """Over texts that have the label."""
    on_negative: Interval
    is_control: bool

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def causal_check(
    lm: LanguageModel,
    sae: TrainedSae,
    labelled: LabelledTexts,
    latents: Sequence[int],
    *,
    label: int = 0,
    probe: ProbeReading | None = None,
    question: YesNoSpec | None = None,
    clamp_to: Mapping[int, float] | None = None,
    controls: Sequence[int] = (),
    hook: str | None = None,
    max_tokens: int = 512,
    batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[CausalEffect]:
    """Zero each latent, clamp those with a value in `clamp_to`, at all tokens; measure both ways.

    The SAE's error stays in place, so what changes is the latent alone. A latent that only marks
    the label changes a probe that reads it, and not the model's answer.

    Args:
        labelled: texts of both kinds; a few dozen are enough, each latent costs a pass over them.
        label: which column of the labels.
        clamp_to: latent to value, such as `high_values` gives.
        controls: latents to compare with, such as random ones of like firing rate.
        on_progress: told after each change: changes done, and of how many.

    Raises:
        BadSteeringInput: nothing to measure, one class only, or an SAE that does not fit.
    """
    path = path_of_sae(lm, sae, hook)
    y_N = labelled.y_NL[:, label]
    if probe is None and question is None:
        raise BadSteeringInput("give a probe or a question to measure the effect on")
    if probe is not None and probe.spec.is_by_token:
        raise BadSteeringInput(
            f"the causal check reads one row a text, not pooling: {probe.spec.pooling}; give a "
            "probe over last, mean, max or first"
        )
    if y_N.all() or not y_N.any():
        raise BadSteeringInput("the causal check needs texts with the label and without it")
    reader = _Reader(lm, sae, path, labelled.texts, probe, question, max_tokens, batch_tokens)
    before = reader.read([])
    changes: list[tuple[int, Action, float]] = []
    for latent in [*latents, *controls]:
        changes.append((latent, "zero", 0.0))
        if clamp_to is not None and latent in clamp_to:
            changes.append((latent, "clamp", clamp_to[latent]))
    effects = []
    for done, (latent, action, value) in enumerate(changes, 1):
        after = reader.read([SaeLatents(hook=path, sae=sae, latents={latent: ("set", value)})])
        for measure, before_N in before.items():
            on = [
                _mean(after[measure] - before_N, rows, labelled.items)
                for rows in (np.flatnonzero(y_N), np.flatnonzero(~y_N))
            ]
            is_control = latent not in latents
            effects.append(CausalEffect(latent, action, value, measure, on[0], on[1], is_control))
        if on_progress is not None:
            on_progress(done, len(changes))
    return effects


def high_values(x_NF: Any, latents: Sequence[int], quantile: float = 0.95) -> dict[int, float]:
    """For each latent a value that is large for it: a quantile of its values where it fires.

    Latents that never fire are left out.
    """
    columns = x_NF[:, list(latents)].tocsc()
    found = {}
    for place, latent in enumerate(latents):
        values = columns.data[columns.indptr[place] : columns.indptr[place + 1]]
        values = values[values > 0]
        if len(values):
            found[latent] = float(np.quantile(values, quantile))
    return found


def _mean(change_N: Array, rows: Array, items: Sequence[str]) -> Interval:
    """With an interval over items; without one where there is a single item."""
    own = [items[row] for row in rows.tolist()]
    if len(set(own)) < 2:
        return Interval(float(change_N[rows].mean()), float("nan"), float("nan"))
    return mean_interval(change_N[rows], own)


@dataclass(frozen=True)
class _Reader:
    """Measures texts under edits."""

    lm: LanguageModel
    sae: TrainedSae
    path: str
    texts: Sequence[str]
    probe: ProbeReading | None
    question: YesNoSpec | None
    max_tokens: int
    batch_tokens: int

    def read(self, edits: Sequence[SaeLatents]) -> dict[Measure, Array]:
        """One value a text of each measure, float64 [N]."""
        found: dict[Measure, Array] = {}
        if self.probe is not None:
            scores = np.asarray(self.probe.score(self._features(self.probe.spec, edits)))
            found["probe"] = scores.reshape(len(self.texts)).astype(np.float64)
        if self.question is not None:
            found["yes_no"] = self._answers(self.question, edits)
        return found

    def _features(self, spec: FeatureSpec, edits: Sequence[SaeLatents]) -> Any:
        read_at = self.lm.path_of(spec.hook) if spec.hook is not None else self.path
        rows: list[Arrays | None] = [None] * len(self.texts)
        limits = {"max_tokens": self.max_tokens, "batch_tokens": self.batch_tokens}
        with steered(self.lm, edits):
            for batch, acts in read_activations(self.lm, self.texts, [read_at], **limits):
                places = Places.of(batch.is_text_NT)
                if spec.sae is None:
                    own = pooled_activations(acts[read_at], places, spec.pooling, None)
                else:
                    own = pooled_latents(
                        acts[read_at], self.sae, places, [spec.pooling], None, 512
                    )[spec.pooling]
                for row, arrays in zip(batch.rows, own, strict=True):
                    rows[row] = arrays
        whole = joined([arrays for arrays in rows if arrays is not None])
        return whole["rows"] if spec.sae is None else csr_of(whole, self.sae.d_sae)

    def _answers(self, question: YesNoSpec, edits: Sequence[SaeLatents]) -> Array:
        yes, no = answer_tokens(self.lm, question)
        prompts = encode_questions(self.lm, self.texts, question)
        found_N = np.zeros(len(prompts))
        with steered(self.lm, edits):
            for rows, ids_NT, last_N in padded(prompts, self.batch_tokens):
                logits_NTV = self.lm.logits(ids_NT)
                logits_NV = logits_NTV[range(len(rows)), last_N]
                found_N[rows] = logit_difference_N(logits_NV, yes, no).cpu().numpy()
        return found_N
