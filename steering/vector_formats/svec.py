"""IBM's `.svec` files (github.com/IBM/activation-steering at 52be602). A torch module.

JSON: {"model_type", "directions": {"l": [numbers]}, "explained_variances": {"l": number}}.

Off by one: vector l is *read* from hidden_states[l + 1], the output of block l
(steering_vector.py), and *added* to what enters block l (LeashLayer.forward), which is the output
of block l - 1. So a file's vector l becomes one that was read at resid_post.l and is added at
resid_pre.l, unless it is asked for where it was read; and ours at resid_post.l goes out as l + 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from steering.vector_formats.block_hooks import entered_block
from steering.vectors import About, BadVectors, SteeringVectors

__all__ = ["read_svec", "write_svec"]


def read_svec(path: Path, *, added: Literal["as_ibm", "where_read"] = "as_ibm") -> SteeringVectors:
    """Vectors of a `.svec` file; the file does not say how they were made, nor residual norms.

    Args:
        added: `as_ibm` at what enters block l, which is where IBM's code adds it; `where_read` at
            what leaves block l, whose activations it was read from.

    Raises:
        BadVectors: no such file, or its contents are something else.
    """
    said = _read(path)
    directions = said["directions"]
    try:
        rows = {int(layer): torch.tensor(numbers).float() for layer, numbers in directions.items()}
        vector_LD = torch.stack([rows[layer] for layer in sorted(rows)])
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadVectors(
            f"{path}: its directions are no lists of numbers of one length ({error})"
        ) from error
    layers = sorted(rows)
    place = "resid_pre" if added == "as_ibm" else "resid_post"
    about = About(
        formula="unknown",
        sign_rule="as in the file",
        read_hooks=tuple(f"resid_post.{layer}" for layer in layers),
        details={
            "imported_from": "svec",
            "model_type": str(said.get("model_type", "")),
            "explained_variances": {
                str(layer): float(share)
                for layer, share in said.get("explained_variances", {}).items()
            },
        },
    )
    hooks = tuple(f"{place}.{layer}" for layer in layers)
    return SteeringVectors(vector_LD, hooks, torch.zeros(len(layers)), about)


def write_svec(path: Path, vectors: SteeringVectors) -> None:
    """Write a file with which IBM's code adds the same vectors at the same places.

    Raises:
        BadVectors: a hook that is not the residual stream between blocks.
    """
    rows = {entered_block(hook): place for place, hook in enumerate(vectors.hooks)}
    if len(rows) != len(vectors.hooks):
        raise BadVectors(
            f"two of the hooks {', '.join(vectors.hooks)} are one place (resid_post.l is "
            "resid_pre.l+1); take one with .only(hook)"
        )
    model, known = vectors.about.model, vectors.about.details
    variances = known.get("explained_variances")
    said = {
        "model_type": model.family if model else str(known.get("model_type", "")),
        "directions": {str(b): vectors.vector_LD[row].tolist() for b, row in sorted(rows.items())},
        "explained_variances": variances if isinstance(variances, dict) else {},
    }
    path.write_text(json.dumps(said), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadVectors(f"{path} is not there; name a .svec file") from error
    except (OSError, ValueError) as error:
        raise BadVectors(f"{path} is no .svec file ({error})") from error
    if not isinstance(said, dict) or not said.get("directions"):
        raise BadVectors(f"{path} is no .svec file: it has no directions")
    return said
