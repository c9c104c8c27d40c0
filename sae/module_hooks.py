"""Functions that see, and may replace, what comes out of a module or goes into it.

A torch module. Shape suffixes: C = contexts, T = context length, D = width at the hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sae.stream_errors import UnknownHook

__all__ = ["See", "attach"]

See = Callable[[Tensor], Tensor | None]
"""Gets [C, T, D]; a tensor it returns goes on in its place."""


def attach(module: nn.Module, path: str, see: See, *, is_input: bool) -> RemovableHandle:
    """Call `see` each time the module runs; functions attached earlier are called earlier.

    Args:
        path: of the module, for messages.
        is_input: before the module runs, with its input.

    While the module runs: raises UnknownHook if there is not one vector a token.
    """

    def after(module: nn.Module, inputs: Any, output: Any) -> Any:
        del module, inputs
        is_tuple = isinstance(output, tuple)
        new_CTD = _seen(path, output[0] if is_tuple else output, see)
        if new_CTD is None:
            return None
        return (new_CTD, *output[1:]) if is_tuple else new_CTD

    def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        del module
        if inputs:
            new_CTD = _seen(path, inputs[0], see)
            return None if new_CTD is None else ((new_CTD, *inputs[1:]), named)
        new_CTD = _seen(path, named.get("hidden_states"), see)
        return None if new_CTD is None else (inputs, {**named, "hidden_states": new_CTD})

    if is_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def _seen(path: str, hidden: Any, see: See) -> Tensor | None:
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise UnknownHook(
            f"module {path!r} does not give one vector a token; hook a block, or its attention "
            "or MLP"
        )
    new_CTD = see(hidden)
    return None if new_CTD is None else new_CTD.to(hidden.dtype)
