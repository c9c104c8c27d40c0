"""Shuffle blocks of activations on the local disk, read instead of computed. A torch module.

A block is found by what it was computed from: the language model's pass and the very tokens. So a
text, a seed or a packing that has changed can never be answered with old activations, and streams
that only begin alike share what they have in common.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae.activation_cache.stored import FLOAT8, Stored
from sae.bounded_folder import BoundedFolder
from sae.shard_file import Bytes, HostArray
from sae.token_order import BlockTokens

logger = logging.getLogger(__name__)

FORMAT = 1
NAME_BY_DTYPE = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    FLOAT8: "F8_E4M3",
}
DTYPE_BY_NAME = {name: dtype for dtype, name in NAME_BY_DTYPE.items()}

StoredByHook = dict[str, Stored]


class BlockCache:
    """Blocks of one language model's pass, in one precision.

    Reading and writing have a thread each. A block that is finished while the one before is still
    being written is not written: a slow disk must not slow the first wave down.

    Args:
        folder: where blocks of every pass are.
        pass_identity: all that the activations of given tokens depend on, as JSON.
        dtype: precision of the blocks.
        device: where blocks come from and go to.
    """

    def __init__(
        self,
        folder: BoundedFolder,
        pass_identity: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._folder = folder
        self._identity = json.dumps({"format": FORMAT, **pass_identity}, sort_keys=True)
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        self._subfolder = f"{digest}-{str(dtype).removeprefix('torch.')}"
        self._device = device
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="activation-reader")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="activation-writer")
        self._writing: Future[None] | None = None
        stream_type: Any = torch.cuda.Stream
        self._copies = stream_type(device) if device.type == "cuda" else None

    def name_of(self, index: int, block: BlockTokens) -> str:
        """Name of a block: its place in the stream, for people, and a hash of its tokens."""
        digest = hashlib.sha256()
        for array in (block.tokens_CT, block.flat_index_S, block.slot_S):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return f"{self._subfolder}/block-{index:06d}-{digest.hexdigest()[:24]}"

    def start_reading(self, name: str) -> Future[StoredByHook | None] | None:
        """Begin to read a block; None if there is none. The result is None if it was damaged.

        The result is on the host, page-locked where the device is a GPU.
        """
        return self._reader.submit(self._read, name) if self._folder.has(name) else None

    def write_soon(self, name: str, stored_by_hook: StoredByHook) -> None:
        """Write a block in the background; its tensors must not be changed any more."""
        if not self._folder.is_writable or self._folder.has(name):
            return
        if self._writing is not None and not self._writing.done():
            logger.debug("block %s is not kept: the disk is behind", name)
            return
        self.flush()
        ready = None
        if self._copies is not None:
            ready = torch.cuda.current_stream(self._device).record_event()
        self._writing = self._writer.submit(self._write, name, stored_by_hook, ready)

    def flush(self) -> None:
        """Wait until what is being written is there."""
        if self._writing is not None:
            self._writing.result()

    def _read(self, name: str) -> StoredByHook | None:
        arrays = self._folder.read(name, self._buffer)
        if arrays is None:
            return None
        hooks = [key for key in arrays if not key.endswith(":scale")]
        return {
            hook: Stored(
                _tensor(arrays[hook]),
                _tensor(arrays[f"{hook}:scale"]) if f"{hook}:scale" in arrays else None,
            )
            for hook in hooks
        }

    def _buffer(self, num_bytes: int) -> Bytes:
        pinned = self._device.type == "cuda"
        buffer: Bytes = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pinned).numpy()
        return buffer

    def _write(self, name: str, stored_by_hook: StoredByHook, ready: Any) -> None:
        arrays: dict[str, HostArray] = {}
        for hook, stored in stored_by_hook.items():
            arrays[hook] = _host_array(self._on_host(stored.values_SD, ready))
            if stored.scale_S is not None:
                arrays[f"{hook}:scale"] = _host_array(self._on_host(stored.scale_S, ready))
        self._folder.write(name, arrays, {"pass": self._identity})

    def _on_host(self, tensor: Tensor, ready: Any) -> Tensor:
        if self._copies is None:
            return tensor
        # A stream of its own: the steps need not wait for the copy. The caller's reference keeps
        # the memory from being used again before the copy is done.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(ready)
            host.copy_(tensor, non_blocking=True)
        self._copies.synchronize()
        return host


def _host_array(tensor: Tensor) -> HostArray:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return HostArray(NAME_BY_DTYPE[tensor.dtype], tuple(tensor.shape), data)


def _tensor(array: HostArray) -> Tensor:
    return torch.from_numpy(array.data).view(DTYPE_BY_NAME[array.dtype]).reshape(array.shape)
