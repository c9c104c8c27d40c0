"""Single latents for the report: ranked, in context, switched off, and who fires with them.

A torch module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.probes.controls import firing_rates, matched_random_latents
from steering.probes.latents.causal import CausalEffect, ProbeReading, causal_check, high_values
from steering.probes.latents.contexts import Context, texts_by_latent, top_contexts
from steering.probes.latents.parents import Relation, related_latents
from steering.probes.latents.ranking import LatentRank, rank_latents
from steering.probes.latents.yes_no import YesNoSpec
from steering.probes.method import FittedProbe
from steering.probes.study import ProbeStudy

__all__ = ["LatentWishes", "latents_of"]

DARKEST = 0.75
Said = dict[str, Any]


@dataclass(frozen=True)
class LatentWishes:
    """How much is said."""

    top: int
    """Latents, shared out over the labels."""
    contexts: int
    causal_texts: int
    """Texts for the causal check; 0 for none."""
    question: YesNoSpec | None
    """What the model itself is asked about the texts."""
    max_tokens: int


def latents_of(
    study: ProbeStudy,
    source: str,
    split_seed: int,
    probe: FittedProbe,
    lm: LanguageModel,
    sae: TrainedSae,
    wishes: LatentWishes,
) -> list[Said]:
    """The latents that tell each label best, as JSON."""
    parts = study.parts(source, split_seed).as_rows()
    count = max(1, wishes.top // len(study.label_names))
    norms_F = sae.W_dec_FD.norm(dim=1).cpu().numpy()
    said: list[Said] = []
    for label, name in enumerate(study.label_names):
        ranks = rank_latents(
            parts.train.x,
            parts.train.y_NL[:, label],
            top=count,
            held_out=(parts.test.x, parts.test.y_NL[:, label]),
            decoder_norm_F=norms_F,
        )
        latents = [rank.latent for rank in ranks]
        contexts = _contexts(study, source, lm, sae, latents, wishes)
        effects = _effects(study, source, split_seed, label, probe, lm, sae, latents, wishes)
        related = related_latents(parts.train.x, latents, sae.W_dec_FD.cpu().numpy(), top=3)
        said += [
            _said(name, rank, contexts.get(rank.latent, []), effects, related) for rank in ranks
        ]
    return said


def _contexts(
    study: ProbeStudy,
    source: str,
    lm: LanguageModel,
    sae: TrainedSae,
    latents: Sequence[int],
    wishes: LatentWishes,
) -> dict[int, list[Context]]:
    spec = study.spec_by_source[source]
    texts = texts_by_latent(study.table, spec, latents, top=wishes.contexts)
    return top_contexts(
        lm, sae, study.table.labelled, texts, hook=spec.hook, max_tokens=wishes.max_tokens
    )


def _effects(
    study: ProbeStudy,
    source: str,
    split_seed: int,
    label: int,
    probe: FittedProbe,
    lm: LanguageModel,
    sae: TrainedSae,
    latents: Sequence[int],
    wishes: LatentWishes,
) -> list[CausalEffect]:
    """On test texts, half of them with the label; a random latent of like rate for each."""
    spec = study.spec_by_source[source]
    if not wishes.causal_texts or spec.is_by_token:
        return []
    rows, parts = study.rows(source, split_seed)["test"], study.parts(source, split_seed)
    y_N = parts.test.y_NL[:, label]
    half = wishes.causal_texts // 2
    some = np.concatenate([np.flatnonzero(y_N)[:half], np.flatnonzero(~y_N)[:half]])
    labelled = study.table.labelled.take([int(rows[place]) for place in some])
    rates_F = firing_rates(parts.train.x)
    return causal_check(
        lm,
        sae,
        labelled,
        latents,
        label=label,
        probe=ProbeReading(spec, lambda x: probe.scores(x)[:, label]),
        question=wishes.question,
        clamp_to=high_values(parts.train.x, latents),
        controls=matched_random_latents(rates_F, latents, seed=0).tolist(),
        hook=spec.hook,
        max_tokens=wishes.max_tokens,
    )


def _said(
    label: str,
    rank: LatentRank,
    contexts: Sequence[Context],
    effects: Sequence[CausalEffect],
    related: Sequence[Relation],
) -> Said:
    own = [effect for effect in effects if effect.latent == rank.latent]
    family = [relation for relation in related if relation.latent == rank.latent]
    lines = [f"{label}: AUROC {rank.auroc:.3f}"]
    if rank.auroc_held_out is not None:
        lines[0] += f" (test rows {rank.auroc_held_out:.3f})"
    lines.append(
        f"fires in {rank.firing_rate_positive:.0%} of the rows with the label, in "
        f"{rank.firing_rate_negative:.0%} of those without"
    )
    lines += [_effect_text(effect, effects) for effect in own]
    if family:
        lines.append("; ".join(f"{one.kind} of {one.other}" for one in family))
    return {
        "name": str(rank.latent),
        "label": label,
        "said": ". ".join(lines) + ".",
        "rank": asdict(rank),
        "causal": [effect.as_json() for effect in own],
        "related": [asdict(relation) for relation in family],
        "contexts": [_context(context) for context in contexts],
    }


def _effect_text(effect: CausalEffect, effects: Sequence[CausalEffect]) -> str:
    others = [
        one.on_positive.estimate
        for one in effects
        if one.is_control and one.measure == effect.measure and one.action == "zero"
    ]
    what = "set to 0" if effect.action == "zero" else f"set to {effect.set_to:.3g}"
    on = effect.on_positive if effect.action == "zero" else effect.on_negative
    whose = "with" if effect.action == "zero" else "without"
    measured = "the probe's score" if effect.measure == "probe" else "the model's yes over no"
    text = f"{what}, {measured} changes by {on.estimate:+.2f} on texts {whose} the label"
    if others and effect.action == "zero":
        text += f" (random latents: {float(np.mean(others)):+.2f})"
    return text


def _context(context: Context) -> Said:
    most = max(context.values, default=0.0) or 1.0
    pieces = [
        {"text": token, "value": f"{value:.3g}", "alpha": round(DARKEST * value / most, 2)}
        for token, value in zip(context.tokens, context.values, strict=True)
    ]
    before, behind = context.is_cut
    if before:
        pieces.insert(0, {"text": "\u2026", "value": "", "alpha": 0})
    if behind:
        pieces.append({"text": "\u2026", "value": "", "alpha": 0})
    tag = f"{', '.join(context.labels) or 'no label'}, at most {context.value:.3g}"
    return {"tag": tag, "pieces": pieces}
