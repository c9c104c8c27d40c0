"""The compiled `step.cpp`, its functions by name and dtype."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.batched.kernels.compiling import CannotCompile, compiled

SOURCE = Path(__file__).with_name("step.cpp")
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}

# p = pointer, i = int64, d = double, in the order of the C functions' arguments.
SIGNATURES = {
    "select_tokens": "pppiiiippppi",
    "select_batch": "pppiiipppppi",
    "decode": "pppppppdpiiipppi",
    "accumulate": "pppppppipdiiiipppi",
    "count_above": "pppiipi",
    "take_above": "pppiipppi",
    "sum_tokens": "pppipi",
    "sum_latents": "pppipi",
    "sum_squares": "pii",
    "adam": "ppppipi",
    "adam_transposed": "ppppiipi",
}
PLAIN_SIGNATURES = {"by_latent": "pppiipppi", "coded_adam": "piipiippppiipppppppi"}
"""Of functions that are there for one type only."""
RESULTS: dict[str, Any] = {
    "select_batch": ctypes.c_int64,
    "count_above": ctypes.c_int64,
    "sum_squares": ctypes.c_double,
}
TYPES: dict[str, Any] = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double}


class CppLibrary:
    """Typed entry points; pointers are passed as integers."""

    def __init__(self, path: Path, identity: str) -> None:
        # Resolves OpenMP to the runtime that torch has loaded: two would fight for the cores.
        library = ctypes.CDLL(str(path))
        self.identity = identity
        self.by_name = {
            (name, dtype): _function(library, f"saeq_{name}_{suffix}", name)
            for name in SIGNATURES
            for dtype, suffix in SUFFIX.items()
        }
        self.by_latent = _function(library, "saeq_by_latent", "by_latent")
        self.coded_adam = _function(library, "saeq_coded_adam", "coded_adam")


def load_library() -> CppLibrary:
    """Compile the kernels, or take them from the cache. Raises CannotCompile."""
    path, identity = compiled(SOURCE)
    try:
        return CppLibrary(path, identity)
    except OSError as error:
        raise CannotCompile(f"{path} cannot be loaded: {error}") from error


def address(tensor: Tensor | None) -> int | None:
    """Where a contiguous CPU tensor lies; None for none."""
    if tensor is None:
        return None
    assert tensor.is_contiguous() and tensor.device.type == "cpu"
    return tensor.data_ptr()


def _function(library: ctypes.CDLL, symbol: str, name: str) -> Any:
    function = getattr(library, symbol)
    signature = {**SIGNATURES, **PLAIN_SIGNATURES}[name]
    function.argtypes = [TYPES[each] for each in signature]
    function.restype = RESULTS.get(name)
    return function
