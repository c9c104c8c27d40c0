"""Directions in a model's activations, by several methods. Importing this alone loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steering.directions.contrast_methods import method_names
from steering.directions.contrast_spec import ContrastSpec, ReadPosition

if TYPE_CHECKING:
    from steering.directions.addressing import addressed
    from steering.directions.attributes import attribute_vectors
    from steering.directions.contrast_pairs import read_contrast
    from steering.directions.contrasting import contrast
    from steering.directions.each_style import one_vs_rest
    from steering.directions.generated_answers import generated_vectors
    from steering.directions.generated_attributes import generated_attribute_vectors
    from steering.directions.held_out import separation
    from steering.directions.measured_norms import with_norms
    from steering.directions.probe_directions import probe_vectors
    from steering.directions.sae_directions import sae_latent_vectors, sae_mean_difference

__all__ = [
    "ContrastSpec",
    "ReadPosition",
    "addressed",
    "attribute_vectors",
    "contrast",
    "generated_attribute_vectors",
    "generated_vectors",
    "method_names",
    "one_vs_rest",
    "probe_vectors",
    "read_contrast",
    "sae_latent_vectors",
    "sae_mean_difference",
    "separation",
    "with_norms",
]

_LATER = {
    "addressed": "addressing",
    "attribute_vectors": "attributes",
    "contrast": "contrasting",
    "generated_attribute_vectors": "generated_attributes",
    "generated_vectors": "generated_answers",
    "one_vs_rest": "each_style",
    "probe_vectors": "probe_directions",
    "read_contrast": "contrast_pairs",
    "sae_latent_vectors": "sae_directions",
    "sae_mean_difference": "sae_directions",
    "separation": "held_out",
    "with_norms": "measured_norms",
}
"""Function -> its module, most of which import torch: it is imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
