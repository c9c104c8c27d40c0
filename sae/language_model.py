"""A frozen language model whose module outputs can be read early in a pass, or replaced.

A torch module. Shape suffixes: C = contexts, T = context length, D = width at the hook,
V = vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import RLock
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from sae.attention import IMPLEMENTATIONS, attention_of, leave_flash, load_with_attention
from sae.capabilities import cannot_compile
from sae.compiled_blocks import CompiledBlocks, CompilingFailed
from sae.hooks import resolve_hook, split_input
from sae.model_files import ModelFiles, cache_dir, find_model, quiet_transformers
from sae.module_hooks import See, attach
from sae.stream_errors import OFFLINE_MODEL, BadModel, UnknownHook
from sae.stream_spec import ModelSpec

__all__ = ["BadModel", "Edit", "LanguageModel", "cache_dir", "resolve_device", "resolve_dtype"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Edit = Callable[[Tensor], Tensor]
"""What replaces a module's output: [C, T, D] in, [C, T, D] out."""


class _PassIsOver(Exception):
    """Every asked-for module has run; the rest of the forward pass would be wasted."""


class LanguageModel:
    """A causal language model, in eval mode, without gradients, for one caller at a time."""

    def __init__(self, model: Any, tokenizer: Any, files: ModelFiles) -> None:
        self.model: Any = model
        self.tokenizer: Any = tokenizer
        self.files = files
        self.lock = RLock()
        """Held during each call: an evaluation thread and the training loop share the model."""
        self.module_names: frozenset[str] = frozenset(name for name, _ in model.named_modules())
        self.fallbacks: tuple[str, ...] = ()
        """What was asked for and is not used, a line each; each was a warning when it was seen."""
        self._compiled: CompiledBlocks | None = None
        self._is_tried_out = False
        self._path_by_hook: dict[str, str] = {}
        self._width_by_path: dict[str, int] = {}

    @classmethod
    def load(cls, spec: ModelSpec, device: str | torch.device, hooks: Iterable[str] = ()) -> Self:
        """Load a model and its tokenizer.

        Args:
            device: where the weights go; `auto` is CUDA if there is any.
            hooks: checked right away.

        Raises BadModel if the model cannot be had, UnknownHook if it lacks a hook.
        """
        target = resolve_device(device)
        dtype = resolve_dtype(spec, target)
        files = find_model(spec, dtype)
        model, tokenizer, fallback = _load(spec, files, dtype, target)
        language_model = cls(model, tokenizer, files)
        if fallback:
            language_model._fall_back(fallback)
        if spec.compile:
            language_model._compile()
        for hook in hooks:
            language_model.path_of(hook)
        return language_model

    @property
    def family(self) -> str:
        """`model_type` of the model's configuration."""
        return str(self.model.config.model_type)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and activations."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def attention(self) -> str:
        """How attention is computed: `sdpa` wherever that is the model's own attention."""
        return attention_of(self.model)

    @property
    def is_compiled(self) -> bool:
        """Whether blocks run compiled: asked for, and nothing spoke against it so far."""
        return self._compiled is not None

    @property
    def max_context(self) -> int | None:
        """Longest context the model was made for, in tokens; None if it does not say."""
        config = self.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def bos_token_id(self) -> int | None:
        """Beginning-of-sequence token, None if the tokenizer has none."""
        return None if self.tokenizer.bos_token_id is None else int(self.tokenizer.bos_token_id)

    @property
    def eos_token_id(self) -> int | None:
        """End-of-sequence token, None if the tokenizer has none."""
        return None if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        """Tokens that stand for no text, in ascending order."""
        return tuple(sorted(set(self.tokenizer.all_special_ids)))

    def path_of(self, hook: str) -> str:
        """Module path of a hook. Raises UnknownHook with the nearest names."""
        if hook not in self._path_by_hook:
            self._path_by_hook[hook] = resolve_hook(hook, self.family, self.module_names)
        return self._path_by_hook[hook]

    def d_in(self, hook: str) -> int:
        """Width of the activations at a hook. Raises UnknownHook."""
        path = self.path_of(hook)
        if path not in self._width_by_path:
            tokens_CT = torch.zeros((1, 2), dtype=torch.long)
            self._width_by_path[path] = self.activations(tokens_CT, [hook])[hook].shape[-1]
        return self._width_by_path[path]

    @torch.inference_mode()
    def activations(self, tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Read module outputs, in a pass that stops once all of them are known.

        Args:
            tokens_CT: token ids, [C, T]; moved to the model's device.
            hooks: module paths or aliases; the keys of the result.

        Returns [C, T, D] tensors in the model's precision. They are inference tensors: `clone`
        them before a computation that needs gradients. Raises UnknownHook.
        """
        path_by_hook = {hook: self.path_of(hook) for hook in hooks}
        missing = set(path_by_hook.values())
        found: dict[str, Tensor] = {}

        def keep(path: str, acts_CTD: Tensor) -> None:
            found[path] = acts_CTD
            missing.discard(path)
            if not missing:
                raise _PassIsOver

        with self.hooked([(path, partial(keep, path)) for path in sorted(missing)]):
            self._run(partial(_run_until_over, self._body, tokens_CT.to(self.device)))
            if missing:
                raise UnknownHook(
                    f"module {sorted(missing)[0]!r} does not run in a forward pass; hook a block, "
                    "or its attention or MLP"
                )
        self._width_by_path |= {path: acts_CTD.shape[-1] for path, acts_CTD in found.items()}
        return {hook: found[path] for hook, path in path_by_hook.items()}

    @torch.inference_mode()
    def logits(self, tokens_CT: Tensor, edit: Mapping[str, Edit] | None = None) -> Tensor:
        """Run the whole model, with module outputs replaced where `edit` says so.

        Args:
            tokens_CT: token ids, [C, T]; moved to the model's device.
            edit: hook to a function from the module's output [C, T, D] to its replacement.

        Returns [C, T, V] in the model's precision. Raises UnknownHook.
        """
        with self.hooked((edit or {}).items()):
            output = self.forward(input_ids=tokens_CT.to(self.device), use_cache=False)
        logits_CTV: Tensor = output.logits
        return logits_CTV

    @contextmanager
    def hooked(self, functions: Iterable[tuple[str, See]]) -> Iterator[None]:
        """Call functions in every pass within, with what is at their hooks; holds the lock.

        Args:
            functions: hooks, and what to call there with [C, T, D]; a tensor that is returned goes
                on in its place. Several at one hook are called in this order, each with what the
                one before left; those of an outer `hooked` come first.

        Afterwards none of them is left on the model, whatever was raised. Raises UnknownHook.
        """
        with self.lock, ExitStack() as undo:
            for hook, see in functions:
                path, is_input = split_input(self.path_of(hook))
                handle = attach(self._module_to_hook(path), path, see, is_input=is_input)
                undo.callback(handle.remove)
            yield

    @torch.inference_mode()
    def forward(self, **inputs: Any) -> Any:
        """One pass of the whole model, given what its `forward` takes; returns what that returns.

        Falls back where compiled blocks or flash attention turn out not to work.
        """
        with self.lock:
            return self._run(lambda: self.model(**inputs))

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Blocks run as they are within: where each pass has another shape, compiling costs more
        than it gives. Holds the lock.
        """
        with self.lock, ExitStack() as undo:
            if self._compiled is not None:
                undo.enter_context(self._compiled.paused())
            yield

    def try_out(self, num_contexts: int, context: int, hooks: Sequence[str]) -> None:
        """Run a pass of that shape, if something may turn out not to work: then it falls back now.

        So what is said of the model in records and caches holds from the first batch on.
        """
        if self.is_compiled or self._uses_flash:
            self.activations(torch.zeros((num_contexts, context), dtype=torch.long), hooks)

    def _compile(self) -> None:
        reason = cannot_compile(self.device.type)
        if not reason:
            try:
                self._compiled = CompiledBlocks(self.model)
            except CompilingFailed as error:
                reason = error.reason
        if reason:
            self._fall_back(f"model.compile: off, {reason}")

    def _run(self, a_pass: Callable[[], T]) -> T:
        """A pass; once more without what was asked for and does not work here."""
        if self._compiled is not None:
            try:
                return self._compiled.run(a_pass)
            except CompilingFailed as error:
                self._compiled = None
                self._fall_back(f"model.compile: off, {error.reason}")
        try:
            result = a_pass()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self._is_tried_out or not self._uses_flash:
                raise
            self._fall_back(leave_flash(self.model, error))
            result = a_pass()
        self._is_tried_out = True
        return result

    @property
    def _uses_flash(self) -> bool:
        return self.attention == IMPLEMENTATIONS["flash"]

    def _fall_back(self, said: str) -> None:
        self.fallbacks = (*self.fallbacks, said)
        logger.warning("%s", said)

    def _module_to_hook(self, path: str) -> nn.Module:
        if self._compiled is not None:
            self._compiled.open_for(path)
        module: nn.Module = self.model.get_submodule(path)
        return module

    @property
    def _body(self) -> Any:
        """The model without its head."""
        return self.model.base_model


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn `auto` into CUDA if there is any, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def resolve_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The asked-for precision, else bfloat16 on CUDA and float32 elsewhere."""
    default = "bfloat16" if device.type == "cuda" else "float32"
    dtype: torch.dtype = getattr(torch, spec.dtype or default)
    return dtype


def _load(
    spec: ModelSpec, files: ModelFiles, dtype: torch.dtype, device: torch.device
) -> tuple[Any, Any, str]:
    """The model, its tokenizer, and a line about attention that is not as asked for."""
    origin = {
        "pretrained_model_name_or_path": files.name,
        "revision": files.revision,
        "local_files_only": files.local_only,
        "trust_remote_code": spec.trust_remote_code,
    }
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(**origin)
            model, fallback = load_with_attention(origin, spec.attention, dtype, device)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise BadModel(f"model {spec.label!r} cannot be loaded: {reason}; {OFFLINE_MODEL}") from (
            error
        )
    return model.to(device).eval().requires_grad_(False), tokenizer, fallback


def _run_until_over(body: Any, tokens_CT: Tensor) -> None:
    with suppress(_PassIsOver):
        body(input_ids=tokens_CT, use_cache=False)
