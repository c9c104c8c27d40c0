"""The repeated blocks of a language model, compiled one by one so that hooks stay outside.

A torch module. Compiled whole, a model would be compiled again for each hook that comes and goes,
and could not be left in the middle of a pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CompilingFailed(Exception):
    """Compiled blocks do not run here; they are as they were before.

    Args:
        reason: what the compiler said, in a line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CompiledBlocks:
    """Compiles the `forward` of each block; equal blocks share what was compiled.

    Args:
        model: its longest list of modules is taken for the blocks.

    Raises CompilingFailed where torch refuses at once, as on a Python that is too new for it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._block_by_path = _blocks(model)
        self._has_run = False
        try:
            forwards = [torch.compile(block.forward) for block in self._block_by_path.values()]
        except RuntimeError as error:
            raise CompilingFailed(_first_words(error)) from error
        for block, forward in zip(self._block_by_path.values(), forwards, strict=True):
            block.forward = forward

    @property
    def paths(self) -> tuple[str, ...]:
        """Blocks that are compiled."""
        return tuple(self._block_by_path)

    def open_for(self, path: str) -> None:
        """Put a block back to how it was if the module at `path` is inside it, to be hooked."""
        for block_path, block in list(self._block_by_path.items()):
            if path.startswith(f"{block_path}."):
                vars(block).pop("forward", None)  # the class's own again; paused, it is already
                del self._block_by_path[block_path]
                logger.info("%s is not compiled: it is hooked inside, at %s", block_path, path)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Blocks as they are: for passes whose shapes change all the time."""
        forwards = {path: block.forward for path, block in self._block_by_path.items()}
        for block in self._block_by_path.values():
            del block.forward
        try:
            yield
        finally:
            for path, block in self._block_by_path.items():
                block.forward = forwards[path]

    def run(self, a_pass: Callable[[], T]) -> T:
        """Run a pass over the model.

        Raises CompilingFailed where that is what went wrong: an error of torch's compiler, or any
        other of a first pass, since a missing library or program shows when what was compiled is
        first loaded. Out of memory is raised as it is.
        """
        from torch._dynamo.exc import TorchDynamoException

        expected = (TorchDynamoException,) if self._has_run else (RuntimeError, OSError)
        try:
            result = a_pass()
        except torch.OutOfMemoryError:
            raise
        except expected as error:
            self._put_back()
            raise CompilingFailed(_first_words(error)) from error
        self._has_run = True
        return result

    def _put_back(self) -> None:
        for block in self._block_by_path.values():
            vars(block).pop("forward", None)
        self._block_by_path = {}


def _blocks(model: nn.Module) -> dict[str, Any]:
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    longest = max(lists, key=lambda name: len(lists[name]), default=None)
    if longest is None:
        return {}
    return {f"{longest}.{index}": block for index, block in enumerate(lists[longest])}


def _first_words(error: BaseException) -> str:
    """The first line that says something: dynamo begins with the name of a backend."""
    root = error.__cause__ or error
    lines = [line.strip() for line in str(root).splitlines() if line.strip()]
    return f"{type(root).__name__}: {lines[0]}" if lines else type(root).__name__
