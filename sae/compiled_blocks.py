"""The repeated blocks of a language model, compiled one by one so that hooks stay outside.

A torch module. Compiled whole, a model would be compiled again for each hook that comes and goes,
and could not be left in the middle of a pass.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


class CompiledBlocks:
    """Compiles the `forward` of each block; equal blocks share what was compiled.

    Args:
        model: its longest list of modules is taken for the blocks.
    """

    def __init__(self, model: nn.Module) -> None:
        self._block_by_path = _blocks(model)
        for block in self._block_by_path.values():
            block.forward = torch.compile(block.forward)

    @property
    def paths(self) -> tuple[str, ...]:
        """Blocks that are compiled."""
        return tuple(self._block_by_path)

    def open_for(self, path: str) -> None:
        """Put a block back to how it was if the module at `path` is inside it, to be hooked."""
        for block_path, block in list(self._block_by_path.items()):
            if path.startswith(f"{block_path}."):
                del block.forward  # the class's own again
                del self._block_by_path[block_path]
                logger.info("%s is not compiled: it is hooked inside, at %s", block_path, path)


def _blocks(model: nn.Module) -> dict[str, Any]:
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    longest = max(lists, key=lambda name: len(lists[name]), default=None)
    if longest is None:
        return {}
    return {f"{longest}.{index}": block for index, block in enumerate(lists[longest])}
