"""How a language model computes attention: as asked for, or the next best that can be had here.

A torch module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from sae.capabilities import cannot_flash

Attention = Literal["flash", "sdpa", "eager"]

IMPLEMENTATIONS: Mapping[Attention, str] = {
    "flash": "flash_attention_2",
    "sdpa": "sdpa",
    "eager": "eager",
}
"""What transformers calls them; each is followed by what takes its place."""


def load_with_attention(
    origin: Mapping[str, Any],
    asked: Literal["auto"] | Attention,
    dtype: torch.dtype,
    device: torch.device,
    loader: Callable[..., Any] = AutoModelForCausalLM.from_pretrained,
) -> tuple[Any, str]:
    """Load a model; where its attention cannot be had, with the next one.

    Args:
        origin: what `from_pretrained` is told of where the model is.
        asked: `auto` leaves the choice to transformers: sdpa wherever it computes the same, and not
            for models whose attention scores are soft-capped (Gemma 2).
        device: where the model will run.
        loader: `from_pretrained` of another class than the one with a language model's head.

    Returns the model, on the CPU, and a line about what was asked for and is not used, or "".
    Raises what `from_pretrained` raises for a model that cannot be loaded at all.
    """
    if asked == "auto":
        return loader(**origin, dtype=dtype), ""
    refusals: list[str] = []
    for attention in _from(asked):
        refusal = _refusal(attention, dtype, device)
        if not refusal:
            try:
                name = IMPLEMENTATIONS[attention]
                model = loader(**origin, dtype=dtype, attn_implementation=name)
            except (ValueError, ImportError) as error:
                if attention == "eager":
                    raise
                refusal = _words(error)
            else:
                return model, _line(asked, attention, refusals)
        refusals.append(refusal)
    raise AssertionError("eager was loaded, or raised")


def attention_of(model: Any) -> str:
    """How a loaded model computes attention, by transformers' name."""
    return str(model.config.get_text_config()._attn_implementation)


def leave_flash(model: Any, error: RuntimeError) -> str:
    """Give a loaded model the next best attention; returns the line that says so.

    Raises the error itself where the model takes no other.
    """
    for attention in _from("sdpa"):
        try:
            model.set_attn_implementation(IMPLEMENTATIONS[attention])
        except ValueError:
            continue
        if attention_of(model) == IMPLEMENTATIONS[attention]:
            return _line("flash", attention, [_words(error)])
    raise error


def _line(asked: str, used: str, refusals: Sequence[str]) -> str:
    """For the output of whoever asked; empty where nothing was refused."""
    if not refusals:
        return ""
    return f"model.attention: {used} instead of {asked}: {'; '.join(refusals)}"


def _words(error: Exception) -> str:
    """Of a long message the first sentence."""
    return " ".join(str(error).split()).partition(". ")[0]


def _from(asked: Attention) -> list[Attention]:
    order = list(IMPLEMENTATIONS)
    return order[order.index(asked) :]


def _refusal(attention: Attention, dtype: torch.dtype, device: torch.device) -> str:
    """Known before a model is loaded. Without it transformers would fetch a kernel from the hub."""
    if attention != "flash":
        return ""
    return cannot_flash(str(device), str(dtype).removeprefix("torch."))
