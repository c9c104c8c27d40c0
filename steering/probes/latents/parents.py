"""Families of latents: which fires only where another one does, and which point the same way.

Shape suffixes: N = rows (tokens), F = latents, K = latents that are looked at, D = width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from steering.errors import BadSteeringInput

__all__ = ["Relation", "related_latents"]

Array = np.ndarray[Any, Any]
Kind = Literal["parent", "child", "twin"]


@dataclass(frozen=True)
class Relation:
    """Two latents that fire together."""

    latent: int
    other: int
    kind: Kind
    """parent: `other` fires wherever `latent` does, and elsewhere too; child: the reverse; twin:
    each fires where the other does."""
    other_given_latent: float
    """Share of the rows with `latent` in which `other` fires too."""
    latent_given_other: float
    expected: float
    """Of `other_given_latent`, if they had nothing to do with each other: the rate of `other`."""
    together: int
    """Rows with both."""
    decoder_cosine: float
    """Near 1 the smaller one may be a piece split off (feature splitting); near 0 or below they
    mean different things, and the smaller one may have absorbed the larger one's place."""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def related_latents(
    x_NF: Any,
    latents: Sequence[int],
    W_dec_FD: Array,
    *,
    inside: float = 0.9,
    min_together: int = 10,
    min_lift: float = 2.0,
    top: int = 10,
) -> list[Relation]:
    """Parents, children and twins of some latents, from a sparse table of latents by token.

    Args:
        x_NF: scipy CSR; rows by token, since over whole texts most latents meet.
        latents: to be looked at; the others may be any latent.
        W_dec_FD: decoder rows.
        inside: the share of a latent's rows in which its parent must fire.
        min_together: pairs that meet in fewer rows are chance.
        min_lift: how much more often than by chance the parent must fire there: a latent that
            fires nearly everywhere is nobody's parent.
        top: most relations for each latent, those that meet most often.

    Raises:
        BadSteeringInput: a latent that the table does not have.
    """
    if bad := [latent for latent in latents if not 0 <= latent < x_NF.shape[1]]:
        raise BadSteeringInput(f"latent {bad[0]} is none of {x_NF.shape[1]}")
    fires = (x_NF != 0).astype(np.int32).tocsr()
    count_F = np.asarray(fires.sum(axis=0)).ravel()
    together_KF = (fires[:, list(latents)].T @ fires).toarray()
    norm_F = np.linalg.norm(W_dec_FD, axis=1)
    found: list[Relation] = []
    for place, latent in enumerate(latents):
        together_F = together_KF[place]
        others = np.flatnonzero(together_F >= min_together)
        of_latent: list[Relation] = []
        for other in others[others != latent].tolist():
            both = int(together_F[other])
            given_latent, given_other = both / count_F[latent], both / count_F[other]
            lift = given_latent * fires.shape[0] / count_F[other]
            kind = _kind(given_latent, given_other, inside)
            if kind is None or lift < min_lift:
                continue
            cosine = W_dec_FD[latent] @ W_dec_FD[other] / (norm_F[latent] * norm_F[other] + 1e-12)
            of_latent.append(
                Relation(
                    latent=latent,
                    other=other,
                    kind=kind,
                    other_given_latent=float(given_latent),
                    latent_given_other=float(given_other),
                    expected=float(count_F[other] / fires.shape[0]),
                    together=both,
                    decoder_cosine=float(cosine),
                )
            )
        found += sorted(of_latent, key=lambda one: (-one.together, one.other))[:top]
    return found


def _kind(other_given_latent: float, latent_given_other: float, inside: float) -> Kind | None:
    if other_given_latent >= inside and latent_given_other >= inside:
        return "twin"
    if other_given_latent >= inside:
        return "parent"
    return "child" if latent_given_other >= inside else None
