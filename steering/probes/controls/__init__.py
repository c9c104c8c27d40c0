"""Controls and baselines that a probe's number has to stand beside."""

from __future__ import annotations

from steering.probes.controls.quiver import Arrow, QuiverGain, paired_auroc_gain, quiver_gain
from steering.probes.controls.random_latents import (
    firing_rates,
    matched_random_latents,
    random_latents_control,
)
from steering.probes.controls.seeds import MIN_SEEDS, SeedSummary, over_seeds
from steering.probes.controls.selectivity import Selectivity, control_labels, selectivity
from steering.probes.controls.shuffled_labels import (
    ShuffledControl,
    shuffled_control,
    shuffled_parts,
)
from steering.probes.controls.triviality import (
    Baseline,
    bag_of_words,
    length_features,
    metadata_features,
    triviality_baselines,
)

__all__ = [
    "MIN_SEEDS",
    "Arrow",
    "Baseline",
    "QuiverGain",
    "SeedSummary",
    "Selectivity",
    "ShuffledControl",
    "bag_of_words",
    "control_labels",
    "firing_rates",
    "length_features",
    "matched_random_latents",
    "metadata_features",
    "over_seeds",
    "paired_auroc_gain",
    "quiver_gain",
    "random_latents_control",
    "selectivity",
    "shuffled_control",
    "shuffled_parts",
    "triviality_baselines",
]
