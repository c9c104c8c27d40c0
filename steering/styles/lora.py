"""Low-rank additions to a text encoder's weights, through peft. A torch module.

Hu et al. 2021 (arXiv 2106.09685): y = W x + (alpha / r) B A x, with B zero at first, so that
training begins at the encoder as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from steering.styles.errors import BadStyleData

__all__ = ["Lora", "LoraPreset", "add_lora", "linear_names", "target_names"]

LoraPreset = Literal["query_value", "attention", "all_linear"]
"""`query_value` is what the paper adapts, `attention` all of a block's attention projections,
`all_linear` every linear layer of the blocks (Dettmers et al. 2023, section 4: needed to match
training in full)."""

_BERT = ("query", "value", "key", "attention.output.dense")
_LLAMA = ("q_proj", "v_proj", "k_proj", "o_proj")
_BERTS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text")
_LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "phi3")
_NAMES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(_BERTS, (_BERT[:2], _BERT)),
    **dict.fromkeys(_LLAMAS, (_LLAMA[:2], _LLAMA)),
    "deberta-v2": (
        ("query_proj", "value_proj"),
        ("query_proj", "value_proj", "key_proj", "attention.output.dense"),
    ),
    "deberta": (("in_proj",), ("in_proj", "attention.output.dense")),
    "distilbert": (("q_lin", "v_lin"), ("q_lin", "v_lin", "k_lin", "out_lin")),
    "mpnet": (("attn.q", "attn.v"), ("attn.q", "attn.v", "attn.k", "attn.o")),
    "modernbert": (("attn.Wqkv",), ("attn.Wqkv", "attn.Wo")),
    "gpt_neox": (("query_key_value",), ("query_key_value", "attention.dense")),
    "gpt2": (("c_attn",), ("c_attn", "attn.c_proj")),
    "gpt_neo": (("q_proj", "v_proj"), ("q_proj", "v_proj", "k_proj", "out_proj")),
    "phi3": (("qkv_proj",), ("qkv_proj", "o_proj")),
    "t5": (("q", "v"), ("q", "v", "k", "o")),
    "mamba": (("in_proj", "x_proj"), ("in_proj", "x_proj")),
}
"""By model family: names' ends of what makes queries and values, and of all of attention. Fused
projections hold the keys, too; Mamba has no attention, and its projections take that place."""


@dataclass(frozen=True)
class Lora:
    """How large the additions are, and where."""

    r: int = 8
    """Their rank."""
    alpha: float = 16.0
    """Over r it is the additions' scale."""
    dropout: float = 0.0
    """Share of their inputs set to zero in training."""
    targets: LoraPreset | tuple[str, ...] = "attention"
    """A preset, or ends of module names."""

    @property
    def scale(self) -> float:
        """What the additions are multiplied by: alpha / r."""
        return self.alpha / self.r


def add_lora(model: Any, lora: Lora, seed: int) -> Any:
    """Wrap a transformers model: its weights are frozen, the additions are float32 and trained.

    Args:
        seed: of the additions' initial weights; torch's own generator is left as it is.

    Raises:
        BadStyleData: peft is not installed, or the model has no such modules.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise BadStyleData(
            "tune: lora needs the package peft; install it with `pip install 'saeq[styles]'`, or "
            "use tune: whole or frozen"
        ) from error
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_names(model, lora.targets),
        task_type="FEATURE_EXTRACTION",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def target_names(model: Any, targets: LoraPreset | tuple[str, ...]) -> list[str]:
    """Ends of the names of the modules that a preset stands for in this model.

    Raises:
        BadStyleData: the family has no such preset, or no module is called so.
    """
    linear = linear_names(model)
    family = str(model.config.model_type)
    if targets == "all_linear":
        return linear
    if isinstance(targets, str):
        if family not in _NAMES:
            raise BadStyleData(
                f"lora_targets={targets!r} is not known for models of the family {family!r}; use "
                f"all_linear, or name ends of its modules: {_ends(linear)}"
            )
        names = _NAMES[family][0 if targets == "query_value" else 1]
    else:
        names = targets
    missing = [one for one in names if not any(_ends_in(name, one) for name in linear)]
    if missing:
        raise BadStyleData(
            f"lora_targets: no linear layer's name ends in {', '.join(missing)}; there are "
            f"{_ends(linear)}"
        )
    return list(names)


def linear_names(model: Any) -> list[str]:
    """Names of all linear layers outside the pooler, which is not used here."""
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and name.split(".")[0] != "pooler"
    ]


def _ends_in(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _ends(linear: list[str]) -> str:
    ends = dict.fromkeys(".".join(name.split(".")[-2:]) for name in linear)
    shown = list(ends)[:12]
    return ", ".join(shown) + (", ..." if len(ends) > len(shown) else "")
