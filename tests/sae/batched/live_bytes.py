"""Bytes of all tensors that are alive, counted as torch's operations make them: no device needed.

What an operation takes inside itself is not seen, such as the double buffers of a sort on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet, finalize

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages that operations return while it is entered, until they are freed.

    Args:
        known: tensors that were there before, which nobody is charged for.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: WeakSet[UntypedStorage] = WeakSet(each.untyped_storage() for each in known)
        self.alive = 0
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.alive)
        return result

    def _count(self, storage: UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.alive += storage.nbytes()
        finalize(storage, self._free, storage.nbytes())

    def _free(self, num_bytes: int) -> None:
        self.alive -= num_bytes

    def start_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = self.alive
