"""Where an SAE belongs: it must be read at the hook, and of the width, that it was trained for."""

from __future__ import annotations

import logging

from sae.hooks import UnknownHook
from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.errors import BadSteeringInput

__all__ = ["path_of_sae"]

logger = logging.getLogger(__name__)


def path_of_sae(lm: LanguageModel, sae: TrainedSae, hook: str | None = None) -> str:
    """Module path at which to read for this SAE: the given hook, else its own.

    Raises:
        BadSteeringInput: it says no hook and none is given, it was trained at another one, or
            activations there have another width.
        UnknownHook: the model has no such hook.
    """
    if hook is None and sae.hook is None:
        raise BadSteeringInput(f"SAE {sae.label} does not say its hook; give it with hook:")
    path = lm.path_of(hook or sae.hook or "")
    own = _own_path(lm, sae)
    if own is not None and own != path:
        raise BadSteeringInput(
            f"SAE {sae.label} was trained at {sae.hook} ({own}), and hook={hook!r} is {path}; "
            "its latents mean nothing there: drop hook, or take an SAE of that hook"
        )
    if sae.d_in != lm.d_in(path):
        raise BadSteeringInput(
            f"SAE {sae.label} reads activations of width {sae.d_in}, and {path} of "
            f"{lm.files.name} gives {lm.d_in(path)}; take an SAE that was trained on this model"
        )
    return path


def _own_path(lm: LanguageModel, sae: TrainedSae) -> str | None:
    if sae.hook is None:
        return None
    try:
        return lm.path_of(sae.hook)
    except UnknownHook:
        logger.warning(
            "SAE %s says it was trained at %r, which this model does not have by that name; "
            "whether the hook fits is not checked",
            sae.label,
            sae.hook,
        )
        return None
