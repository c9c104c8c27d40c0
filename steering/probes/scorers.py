"""What a fitted probe computes from a row, as plain arrays: log odds, 0 is the even point.

Shape suffixes: N = rows, D = columns, K = chosen columns, H = hidden units, M = training rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from steering.errors import BadSteeringInput
from steering.probes.matrices import Array, Bags, Matrix, Scaling, is_sparse, row_pieces, times

__all__ = [
    "SCORERS",
    "BagLinear",
    "BagPooling",
    "ChosenColumns",
    "Layers",
    "Linear",
    "Neighbours",
    "Scorer",
]

BagPooling = Literal["max", "attention"]
"""A bag's score: its best token's; or the mean of its tokens', with weights that are learned."""

MAX_DENSE_COLUMNS_VALUES = 2**25
"""Chosen columns are made dense up to 256 MiB."""


class Scorer(ABC):
    """Rows -> one score each; higher means more surely positive."""

    kind: ClassVar[str]

    @abstractmethod
    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        """Log odds, float64 [N].

        Args:
            memo: kept by the caller for one x, so that labels share what is costly.
        """

    def weights(self) -> Array | None:
        """The weights [D] of raw columns, where the score is linear in them."""
        return None

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Everything that it consists of."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Scorer:
        """The inverse of `arrays`."""


@dataclass(frozen=True)
class Linear(Scorer):
    """weight . x + bias, over raw columns."""

    weight_D: Array
    bias: float

    kind: ClassVar[str] = "linear"

    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        del memo
        return times(x, self.weight_D) + self.bias

    def weights(self) -> Array:
        return self.weight_D

    def arrays(self) -> dict[str, Array]:
        return {"weight_D": self.weight_D, "bias": np.array(self.bias)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Linear:
        return cls(arrays["weight_D"], float(arrays["bias"]))


@dataclass(frozen=True)
class BagLinear(Scorer):
    """A bag's score from linear scores of its tokens: the best one's, or their weighted mean."""

    weight_D: Array
    bias: float
    attend_D: Array | None
    """The tokens' weights are the softmax of these products over the bag; None: the best token."""

    kind: ClassVar[str] = "bag_linear"

    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        del memo
        if not isinstance(x, Bags):
            raise BadSteeringInput(
                "this probe reads texts as bags of tokens (pooling: attention), not single rows"
            )
        score_T, starts = self.token_scores(x), x.offsets_I1[:-1]
        if self.attend_D is None:
            return np.maximum.reduceat(score_T, starts)
        attend_T, item_T = times(x.values_TD, self.attend_D), x.item_of_token_T
        power_T = np.exp(attend_T - np.maximum.reduceat(attend_T, starts)[item_T])
        return np.add.reduceat(power_T * score_T, starts) / np.add.reduceat(power_T, starts)

    def token_scores(self, x: Bags) -> Array:
        """Log odds of each token alone, float64 [T]; attention is not in them."""
        return times(x.values_TD, self.weight_D) + self.bias

    def weights(self) -> Array:
        return self.weight_D

    def arrays(self) -> dict[str, Array]:
        out = {"weight_D": self.weight_D, "bias": np.array(self.bias)}
        return out if self.attend_D is None else out | {"attend_D": self.attend_D}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> BagLinear:
        return cls(arrays["weight_D"], float(arrays["bias"]), arrays.get("attend_D"))


@dataclass(frozen=True)
class ChosenColumns(Scorer):
    """A linear score of few columns, which are in the order of their rank."""

    columns_K: Array
    weight_K: Array
    bias: float
    width: int

    kind: ClassVar[str] = "chosen_columns"

    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        del memo
        if is_sparse(x):
            return np.asarray(x @ self.weights()) + self.bias
        return times(x[:, self.columns_K], self.weight_K) + self.bias

    def weights(self) -> Array:
        weight_D = np.zeros(self.width)
        weight_D[self.columns_K] = self.weight_K
        return weight_D

    def arrays(self) -> dict[str, Array]:
        return {
            "columns_K": self.columns_K,
            "weight_K": self.weight_K,
            "bias": np.array(self.bias),
            "width": np.array(self.width),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ChosenColumns:
        return cls(
            arrays["columns_K"], arrays["weight_K"], float(arrays["bias"]), int(arrays["width"])
        )


@dataclass(frozen=True)
class Layers(Scorer):
    """A network with ReLU between its layers, over scaled columns."""

    scaling: Scaling
    weights_by_layer: tuple[Array, ...]
    """[in, out] each; the last one has one output."""
    biases_by_layer: tuple[Array, ...]

    kind: ClassVar[str] = "layers"

    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        del memo
        first = self.weights_by_layer[0] / self.scaling.scale_D[:, None]
        hidden = times(x, first) + (self.biases_by_layer[0] - self.scaling.shift_D @ first)
        for weight, bias in zip(self.weights_by_layer[1:], self.biases_by_layer[1:], strict=True):
            hidden = np.maximum(hidden, 0.0) @ weight + bias
        return np.asarray(hidden[:, 0])

    def arrays(self) -> dict[str, Array]:
        out = {"shift_D": self.scaling.shift_D, "scale_D": self.scaling.scale_D}
        for layer, weight in enumerate(self.weights_by_layer):
            out[f"weight.{layer}"] = weight
            out[f"bias.{layer}"] = self.biases_by_layer[layer]
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Layers:
        layers = range(sum(name.startswith("weight.") for name in arrays))
        return cls(
            Scaling(arrays["shift_D"], arrays["scale_D"]),
            tuple(arrays[f"weight.{layer}"] for layer in layers),
            tuple(arrays[f"bias.{layer}"] for layer in layers),
        )


@dataclass(frozen=True)
class Neighbours(Scorer):
    """Log odds of the weighted votes of the k nearest training rows, over scaled columns."""

    scaling: Scaling
    train_MD: Matrix
    """Scaled training rows, shared by all labels."""
    y_M: Array
    weight_M: Array
    k: int

    kind: ClassVar[str] = "neighbours"

    def scores(self, x: Matrix, memo: dict[int, Any] | None = None) -> Array:
        memo = {} if memo is None else memo
        found = memo.get(id(self.train_MD))
        if found is None or found.shape[1] < self.k:
            found = nearest_rows(self.train_MD, self.scaling, x, self.k)
            memo[id(self.train_MD)] = found
        return self.votes(found)

    def votes(self, nearest_NK: Array) -> Array:
        """Log odds from the nearest rows' numbers, nearest first; only the first k count."""
        chosen_NK = nearest_NK[:, : self.k]
        weight_NK = self.weight_M[chosen_NK]
        positive_N = (weight_NK * self.y_M[chosen_NK]).sum(axis=1)
        negative_N = weight_NK.sum(axis=1) - positive_N
        # Half a vote for either side keeps the odds finite and their order.
        return np.log(positive_N + 0.5) - np.log(np.maximum(negative_N, 0.0) + 0.5)

    def arrays(self) -> dict[str, Array]:
        out = {
            "shift_D": self.scaling.shift_D,
            "scale_D": self.scaling.scale_D,
            "y_M": self.y_M,
            "weight_M": self.weight_M,
            "k": np.array(self.k),
        }
        if is_sparse(self.train_MD):
            train = self.train_MD
            parts = (train.data, train.indices, train.indptr, np.array(train.shape))
            return out | dict(zip(("data", "indices", "indptr", "shape"), parts, strict=True))
        return out | {"train_MD": self.train_MD}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Neighbours:
        if "train_MD" in arrays:
            train = arrays["train_MD"]
        else:
            from scipy.sparse import csr_matrix

            parts = (arrays["data"], arrays["indices"], arrays["indptr"])
            train = csr_matrix(parts, shape=tuple(arrays["shape"]))
        scaling = Scaling(arrays["shift_D"], arrays["scale_D"])
        return cls(scaling, train, arrays["y_M"], arrays["weight_M"], int(arrays["k"]))


def nearest_rows(train_MD: Matrix, scaling: Scaling, x: Matrix, k: int) -> Array:
    """Numbers of the k nearest training rows (Euclidean, scaled), nearest first, [N, k]."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train_MD)
    pieces = [
        search.kneighbors(scaling.apply(x[rows]), return_distance=False) for rows in row_pieces(x)
    ]
    return np.concatenate(pieces)


SCORERS: dict[str, type[Scorer]] = {
    scorer.kind: scorer for scorer in (Linear, BagLinear, ChosenColumns, Layers, Neighbours)
}


def scorer_of(kind: str, arrays: Mapping[str, Array]) -> Scorer:
    """The scorer that was saved under this kind.

    Raises:
        BadSteeringInput: a kind that this version does not know.
    """
    if kind not in SCORERS:
        raise BadSteeringInput(f"scorer {kind!r} is unknown; known: {', '.join(sorted(SCORERS))}")
    return SCORERS[kind].from_arrays(arrays)
