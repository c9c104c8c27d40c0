"""Settings that are the same for all rows of a batch, or one a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from steering.errors import BadSteeringInput

__all__ = ["NUMBER", "VECTOR", "Number", "RowWise", "check_number", "per_row"]

Number = float | Tensor
"""One number for all rows, or a tensor [N] with one a row."""

_SHARED_NDIM = "shared_ndim"
NUMBER: Mapping[str, int] = {_SHARED_NDIM: 0}
"""Metadata of a dataclass field holding a number, or a tensor [N] with one a row."""
VECTOR: Mapping[str, int] = {_SHARED_NDIM: 1}
"""Metadata of a dataclass field holding [D], or [N, D] with one a row."""


class RowWise:
    """A dataclass with fields marked by `VECTOR` and `NUMBER`."""

    def __post_init__(self) -> None:
        for name, shared_ndim in self._row_wise_fields().items():
            _check(type(self).__name__, name, getattr(self, name), shared_ndim)
        for name, shared_ndim in self._row_wise_fields().items():
            value = getattr(self, name)
            if shared_ndim and value is not None and value.shape[-1] != self.width:
                raise BadSteeringInput(
                    f"{type(self).__name__}: vectors have widths {self.width} and "
                    f"{value.shape[-1]}; give those of one hook"
                )
        if len(self._num_rows_by_field()) > 1:
            said = ", ".join(f"{name}: {n}" for n, name in self._num_rows_by_field().items())
            raise BadSteeringInput(
                f"{type(self).__name__} has different numbers of rows ({said}); give one vector or "
                "number for all rows of the batch, or one a row"
            )

    @property
    def num_rows(self) -> int | None:
        """How many rows there are settings for; None if they are for any number of rows."""
        return next(iter(self._num_rows_by_field()), None)

    @property
    def width(self) -> int | None:
        """Of the activations that the vectors are for; None if there is none."""
        vectors = [getattr(self, name) for name, ndim in self._row_wise_fields().items() if ndim]
        return next((v.shape[-1] for v in vectors if v is not None), None)

    def rows(self, indices: Sequence[int] | Tensor) -> Self:
        """The same for these rows of the batch, in this order; a row may come more than once."""
        index = torch.as_tensor(indices, dtype=torch.long)
        changed = self._changed(lambda value: value[index.to(value.device)], only_row_wise=True)
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on a device."""
        changed = self._changed(lambda value: value.to(device), only_row_wise=False)
        return replace(self, **changed) if changed else self  # type: ignore[type-var]

    def _changed(
        self, change: Callable[[Tensor], Tensor], *, only_row_wise: bool
    ) -> dict[str, Any]:
        """Fields whose tensors are changed."""
        return {
            name: change(value)
            for name, shared_ndim in self._row_wise_fields().items()
            if isinstance(value := getattr(self, name), Tensor)
            and (value.ndim > shared_ndim or not only_row_wise)
        }

    def _row_wise_fields(self) -> dict[str, int]:
        marked = {f.name: f.metadata.get(_SHARED_NDIM) for f in fields(self)}  # type: ignore[arg-type]
        return {name: ndim for name, ndim in marked.items() if ndim is not None}

    def _num_rows_by_field(self) -> dict[int, str]:
        values = {name: (getattr(self, name), n) for name, n in self._row_wise_fields().items()}
        return {
            len(value): name
            for name, (value, ndim) in values.items()
            if isinstance(value, Tensor) and value.ndim > ndim
        }


def per_row(value: Number, row_M: Tensor, like_MD: Tensor, *, shared_ndim: int) -> Tensor:
    """A setting for each of M tokens, to be used with [M, D]: [M, D] or [D], [M, 1] or []."""
    found = torch.as_tensor(value).to(like_MD)
    if found.ndim > shared_ndim:
        found = found[row_M]
        return found if shared_ndim else found.unsqueeze(-1)
    return found


def check_number(what: str, value: Any) -> None:
    """Raises BadSteeringInput unless it is a finite number, or a tensor [N] of such."""
    _check(what, "the value", value, 0)


def _check(owner: str, name: str, value: Any, shared_ndim: int) -> None:
    if value is None:
        return
    if shared_ndim and not isinstance(value, Tensor):
        raise BadSteeringInput(f"{owner}: {name} is a {type(value).__name__}; give a torch tensor")
    found = torch.as_tensor(value)
    if found.ndim not in (shared_ndim, shared_ndim + 1):
        shapes = "[D], or [N, D] with one vector a row" if shared_ndim else "a number, or [N]"
        raise BadSteeringInput(f"{owner}: {name} has shape {list(found.shape)}; give {shapes}")
    if not bool(torch.isfinite(found).all()):
        raise BadSteeringInput(f"{owner}: {name} holds NaN or infinity; look at how it was made")
