"""Names of hook points: aliases such as `blocks.8.hook_resid_post` to modules of the model.

A hook is the output of a module, or with `:input` behind its path what goes into it. For the
residual stream the module is a block; `resid_pre.N` is the output of block N-1, and for N = 0 of
the embedding, or where no module's output surely is that, the input of block 0. So reading at
`resid_pre.N` and writing there, or at `resid_post.N-1`, are about the very same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sae.stream_errors import UnknownHook

if TYPE_CHECKING:
    from sae.model_shapes import ModelShape

__all__ = [
    "ALIAS_NAMES",
    "UnknownHook",
    "check_hook",
    "hook_width",
    "layer_of",
    "resolve_hook",
    "split_input",
]

INPUT = ":input"
"""Behind a module path: what goes into the module, not what comes out of it."""

ALIAS_NAMES = ("resid_pre", "resid_post", "attn_out", "mlp_out")
_ALIAS = re.compile(r"^(?:blocks\.(\d+)\.hook_(\w+)|(\w+)\.(\d+))$")
_BLOCK = re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Layout:
    """Where a family of models keeps its blocks, and the parts of one block."""

    blocks: tuple[str, ...]
    """Module lists that may hold the blocks, the usual one first."""
    attn_out: str
    mlp_out: str
    embedding: str | None
    """The module whose output enters block 0; None where some versions of a family scale it
    outside of any module: then block 0's input is taken."""


# Post-norm families add the *normed* output of a sublayer to the residual stream; that is what
# TransformerLens calls hook_attn_out and hook_mlp_out there.
_LLAMA = Layout(("model.layers",), "self_attn", "mlp", "model.embed_tokens")
_GEMMA = Layout(("model.layers",), "self_attn", "mlp", None)
_GEMMA_POST_NORM = Layout(
    ("model.layers", "model.language_model.layers"),
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    None,
)
LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout(("transformer.h",), "attn", "mlp", "transformer.drop"),
    "gpt_neox": Layout(("gpt_neox.layers",), "attention", "mlp", "gpt_neox.emb_dropout"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA_POST_NORM,
    "gemma3": _GEMMA_POST_NORM,
    "gemma3_text": _GEMMA_POST_NORM,
}
"""By `model_type` of the Hugging Face configuration."""


def resolve_hook(hook: str, family: str, module_names: Collection[str]) -> str:
    """Turn a hook into a module path of this model.

    Args:
        hook: a module path, `blocks.N.hook_<what>` or `<what>.N`, see `ALIAS_NAMES`.
        family: `model_type` of the model's configuration.
        module_names: paths of all modules of the model.

    Raises UnknownHook with the nearest names.
    """
    if hook and split_input(hook)[0] in module_names:
        return hook
    alias = _parse_alias(hook)
    if alias is None:
        raise UnknownHook(_no_such_module(hook, module_names))
    layout = _layout(hook, family)
    blocks = next((path for path in layout.blocks if path in module_names), layout.blocks[0])
    num_layers = sum(1 for name in module_names if re.fullmatch(re.escape(blocks) + r"\.\d+", name))
    path = _module_path(hook, *alias, layout, blocks, num_layers)
    if split_input(path)[0] not in module_names:
        raise UnknownHook(_no_such_module(path, module_names))
    return path


def check_hook(hook: str, shape: ModelShape | None) -> None:
    """Refuse what can be refused without loading the model: syntax, family, layer.

    Args:
        shape: None if nothing is known about the model; then only aliases are looked at.

    Raises UnknownHook.
    """
    alias = _parse_alias(hook)
    if shape is None:
        return
    if alias is not None:
        layout = _layout(hook, shape.family)
        blocks = layout.blocks[0]
        _module_path(hook, *alias, layout, blocks, shape.num_layers)
        return
    known = LAYOUTS.get(shape.family)
    if known is None:
        return
    layer = layer_of(hook)
    if layer is not None and layer >= shape.num_layers:
        raise UnknownHook(_no_such_layer(hook, layer, shape.num_layers))
    top_names = {path.split(".")[0] for path in known.blocks} | {"lm_head", "embed_out"}
    if hook.split(".")[0] not in top_names:
        last = shape.num_layers - 1
        paths = [f"{known.blocks[0]}.{n}" for n in range(shape.num_layers)]
        near = get_close_matches(hook, paths, n=1, cutoff=0.5) or [f"{known.blocks[0]}.{last}"]
        raise UnknownHook(
            f"hook {hook!r} is no module of a {shape.family} model; its blocks are "
            f"{known.blocks[0]}.0 to .{last}. Did you mean {near[0]!r}?"
        )


def layer_of(path: str) -> int | None:
    """Index of the block that has to run for this module path or alias; -1 for the embedding.

    None if the path does not say.
    """
    alias = _parse_alias(path)
    if alias is not None:
        what, layer = alias
        return layer - 1 if what == "resid_pre" else layer
    module_path, is_input = split_input(path)
    match = _BLOCK.match(module_path)
    if match:
        return int(match[1]) - 1 if is_input and match.end() == len(module_path) else int(match[1])
    is_embedding = path in {layout.embedding for layout in LAYOUTS.values()}
    return -1 if is_embedding or "embed_tokens" in path or path.endswith(".wte") else None


def hook_width(hook: str, shape: ModelShape) -> int | None:
    """Width of the activations at a hook, d_model for all aliases; None if it takes the model."""
    if _parse_alias(hook) is not None:
        return shape.d_model
    layout = LAYOUTS.get(shape.family)
    if layout is None or layer_of(hook) is None:
        return None
    inside = _BLOCK.sub("", split_input(hook)[0], count=1)
    plain = {"", layout.attn_out, layout.mlp_out, "mlp", "self_attn", "attn", "attention"}
    return shape.d_model if inside in plain or layer_of(hook) == -1 else None


def split_input(path: str) -> tuple[str, bool]:
    """The module of a resolved hook, and whether its input is meant instead of its output."""
    return path.removesuffix(INPUT), path.endswith(INPUT)


def _parse_alias(hook: str) -> tuple[str, int] | None:
    match = _ALIAS.match(hook)
    if match is None:
        if hook.startswith("blocks."):
            raise UnknownHook(_no_such_alias(hook))
        return None
    layer, what = (match[1], match[2]) if match[1] is not None else (match[4], match[3])
    if what in ALIAS_NAMES:
        return what, int(layer)
    near = get_close_matches(what, ALIAS_NAMES, n=1, cutoff=0.7)
    if match[1] is not None or near:
        raise UnknownHook(_no_such_alias(hook, near[0] if near else None))
    return None


def _no_such_alias(hook: str, near: str | None = None) -> str:
    known = ", ".join(f"blocks.N.hook_{name}" for name in ALIAS_NAMES)
    suggestion = f" Did you mean hook_{near}?" if near else ""
    return (
        f"hook {hook!r} is not a known alias; known: {known} (or <name>.N for short); any other "
        f"place can be named by its module path.{suggestion}"
    )


def _layout(hook: str, family: str) -> Layout:
    if family not in LAYOUTS:
        raise UnknownHook(
            f"hook {hook!r} is an alias, and aliases are known for {', '.join(LAYOUTS)} but not "
            f"for {family}; give the module path, as in 'model.layers.8'"
        )
    return LAYOUTS[family]


def _module_path(
    hook: str, what: str, layer: int, layout: Layout, blocks: str, num_layers: int
) -> str:
    if layer >= num_layers:
        raise UnknownHook(_no_such_layer(hook, layer, num_layers))
    if what == "resid_post":
        return f"{blocks}.{layer}"
    if what == "attn_out":
        return f"{blocks}.{layer}.{layout.attn_out}"
    if what == "mlp_out":
        return f"{blocks}.{layer}.{layout.mlp_out}"
    if layer > 0:
        return f"{blocks}.{layer - 1}"
    return layout.embedding or f"{blocks}.0{INPUT}"


def _no_such_layer(hook: str, layer: int, num_layers: int) -> str:
    return (
        f"hook {hook!r} asks for layer {layer}; the model has layers 0 to {num_layers - 1}. "
        f"Did you mean layer {min(layer, num_layers) - 1}?"
    )


def _no_such_module(hook: str, module_names: Iterable[str]) -> str:
    names = [name for name in module_names if name]
    near = get_close_matches(hook, names, n=3, cutoff=0.4) or names[:3]
    return f"hook {hook!r} is no module of this model; the nearest are {', '.join(near)}"
