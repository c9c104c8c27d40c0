"""Rows with a planted label, for tests of probes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from steering.probes.matrices import Array
from steering.probes.noise.token_bags import TokenBags
from steering.probes.parts import Parts


def directions(rows: int = 600, width: int = 24, gap: float = 2.0, seed: int = 0) -> Any:
    """Dense rows whose label moves them along one direction: x [rows, width], y [rows]."""
    random = np.random.default_rng(seed)
    y = random.random(rows) < 0.4
    way = np.random.default_rng(99).normal(size=width)
    way /= np.linalg.norm(way)
    x = random.normal(size=(rows, width)) + gap * y[:, None] * way + 3.0
    return x.astype(np.float32), y


def latents(rows: int = 600, width: int = 300, label_latent: int = 7, seed: int = 0) -> Any:
    """Sparse latents of which one is the label: CSR [rows, width], y [rows]."""
    random = np.random.default_rng(seed)
    y = random.random(rows) < 0.3
    rate = np.exp(random.uniform(np.log(0.01), np.log(0.3), width))
    scale = np.exp(random.normal(0, 1, width))
    x = (random.random((rows, width)) < rate) * scale * random.gamma(2, 0.5, (rows, width))
    x[:, label_latent] = y * random.uniform(0.05, 0.15, rows)
    return csr_matrix(x.astype(np.float32)), y


def haystack(
    items: int, seed: int, *, hay_is_raised: bool = False, width: int = 8
) -> tuple[TokenBags, Any]:
    """A needle in each positive item, and which tokens are needles.

    Raised is the hay of items without a needle, so far that means tell nothing.
    """
    random = np.random.default_rng(seed)
    y = random.random(items) < 0.5
    lengths = random.integers(20, 40, items)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    x = random.normal(size=(int(offsets[-1]), width)).astype(np.float32)
    needle = np.zeros(int(offsets[-1]), dtype=bool)
    for item in range(items):
        own = slice(int(offsets[item]), int(offsets[item + 1]))
        if y[item]:
            needle[own.start + random.integers(0, lengths[item])] = True
        elif hay_is_raised:
            x[own, 0] += 7.0 / lengths[item]
    x[needle, 0] += 7.0
    return TokenBags.of(x, offsets, y), needle


def parted(x: Any, y: Array, items: Any = None, shares: tuple[float, float] = (0.5, 0.2)) -> Parts:
    """The rows in their order cut into train, validation and test."""
    count = x.shape[0]
    first, second = int(shares[0] * count), int((shares[0] + shares[1]) * count)
    rows = {
        "train": range(first), "validation": range(first, second), "test": range(second, count),
    }  # fmt: skip
    return Parts.of(x, y, range(count) if items is None else items, rows)
