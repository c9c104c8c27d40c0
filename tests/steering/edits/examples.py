"""One example of every edit, made from the names of its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import torch
from torch import Tensor

from steering.edits import AnyEdit, CosineCondition, Edit, ProbeCondition, When
from tests.sae.tiny_model import D_MODEL
from tests.steering.edits.models import HOOK
from tests.steering.edits.saes import random_sae


def some_vector(seed: int = 0, num_rows: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (D_MODEL,) if num_rows is None else (num_rows, D_MODEL)
    return torch.randn(shape, generator=generator) * 2


def some_numbers(num_rows: int | None) -> float | Tensor:
    return 1.5 if num_rows is None else torch.arange(num_rows) * 0.7 + 0.5


MAKE: dict[str, Callable[[int | None], Any]] = {
    "hook": lambda _: HOOK,
    "vector": lambda num_rows: some_vector(0, num_rows),
    "mean": lambda num_rows: some_vector(1, num_rows),
    "value": some_numbers,
    "sae": lambda _: random_sae("jumprelu"),
    "latents": lambda num_rows: {
        3: ("set", some_numbers(num_rows)),
        11: ("scale", 0.0),
        12: ("scale", some_numbers(num_rows)),
    },
}
"""A required setting of a new edit needs an entry, by its name."""

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "add": [{"preserve_norm": True}],
    "project_out": [{"addition": some_vector(2)}],
    "clamp": [{"kind": "at_least"}, {"kind": "at_most", "value": -0.5}],
    "sae_latents": [{"sae": random_sae("topk")}],
}
"""Further examples, with these settings instead."""


def example(name: str, num_rows: int | None = None, **settings: Any) -> Edit:
    """An edit of that name; `num_rows` makes its vectors and numbers row-wise."""
    edit_class = Edit.by_name[name]
    required = [f.name for f in fields(edit_class) if f.default is MISSING]
    made = {field: MAKE[field](num_rows) for field in required}
    return edit_class(**{**made, **settings})


def _all() -> dict[str, AnyEdit]:
    found: dict[str, AnyEdit] = {}
    for name in sorted(Edit.by_name):
        found[name] = example(name)
        for settings in VARIANTS.get(name, []):
            found[f"{name} with {', '.join(settings)}"] = example(name, **settings)
    add = example("add")
    prompt = CosineCondition("resid_post.0", some_vector(3), -1.0)
    token = ProbeCondition(HOOK, some_vector(4), 0.0, op="sim_lt", decided="token")
    found["when a prompt is like it"] = When(add, prompt)
    found["when a token is not like it"] = When(add, token)
    return found


EXAMPLES = _all()
