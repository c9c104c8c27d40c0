"""A probe's weights as a direction. A torch module.

Shape suffixes: L = hooks, D = width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sae.language_model import LanguageModel
from steering.directions.contrast_methods import Array
from steering.directions.contrasting import text_sha256
from steering.directions.measured_norms import measured_norms
from steering.errors import BadSteeringInput
from steering.vectors import About, SteeringVectors, model_identity

__all__ = ["probe_vectors"]


def probe_vectors(
    lm: LanguageModel,
    weight_D_by_hook: Mapping[str, Array],
    texts: Sequence[str],
    *,
    scale_D_by_hook: Mapping[str, Array] | None = None,
    method: str = "",
    parents: Mapping[str, str] | None = None,
) -> SteeringVectors:
    """The normal of a linear probe at each hook: what it tells the sides apart by.

    That need not be what moves from one side to the other (arXiv:2310.06824): compare it with
    mean_difference before you trust it.

    Args:
        weight_D_by_hook: hook to weights [D] on activations as the model has them.
        texts: residual norms are measured over their tokens.
        scale_D_by_hook: what the probe divided activations by, if it did; then its weights are on
            those, and are divided by it, too.
        method: the probe's own, such as logistic_l2.
        parents: hashes of the probe and its data.

    Raises:
        BadSteeringInput: no weights, or of another width.
        UnknownHook: a hook that the model does not have.
    """
    rows = []
    for hook, weight in weight_D_by_hook.items():
        row = np.asarray(weight, dtype=np.float64).reshape(-1)
        if len(row) != (width := lm.d_in(hook)):
            raise BadSteeringInput(
                f"the probe at {hook!r} has {len(row)} weights, and activations there are {width} "
                "wide; give the weights of one label, on activations and not on SAE latents"
            )
        scale = None if scale_D_by_hook is None else np.asarray(scale_D_by_hook[hook])
        rows.append(torch.from_numpy(row if scale is None else row / scale).float())
    if not rows:
        raise BadSteeringInput("a probe's weights are needed for at least one hook; there are none")
    norms = measured_norms(lm, tuple(weight_D_by_hook), texts)
    about = About(
        formula="probe_weights",
        maths="v = w of a linear probe w.h + b",
        sign_rule="to the side that the probe scores higher",
        model=model_identity(lm),
        read_hooks=tuple(weight_D_by_hook),
        norm_hooks=norms.hooks,
        parents={**(parents or {}), "norm_texts": text_sha256(texts)},
        details={"probe": method},
    )
    return SteeringVectors(torch.stack(rows), tuple(weight_D_by_hook), norms.median_L, about)
