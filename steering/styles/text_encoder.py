"""A language model that gives one vector a text. A torch module.

Shape suffixes: N = texts of a batch, T = tokens of the longest, D = width of the vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sae.attention import leave_flash, load_with_attention
from sae.model_files import quiet_transformers
from steering.styles.encoder_files import EncoderFiles, encoder_files
from steering.styles.encoders import EncoderSpec, Pooling
from steering.styles.errors import BadStyleData
from steering.styles.rows import Vectors

__all__ = ["TextEncoder", "load_encoder", "pool"]

logger = logging.getLogger(__name__)

OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})
"""Families whose positions begin after the padding's: fewer tokens fit than positions are there."""
ALIGNED_TO_MANY = 10**9
"""From here on a tokenizer's longest length means that it knows none."""

Ids = list[int]


@dataclass
class TextEncoder:
    """A loaded model with its tokenizer."""

    files: EncoderFiles
    model: Any
    tokenizer: Any
    max_tokens: int
    """Of a text, special tokens included."""
    prefix: str = ""
    batch_tokens: int = 8192
    """Of one pass, padding included; halved when memory is out."""
    fallbacks: list[str] = field(default_factory=list)
    """What was asked for and is not used, in words."""
    num_cut: int = 0
    """Texts of the last `tokenize` that were longer than `max_tokens`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.model.parameters())).device

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.get_text_config().hidden_size)

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, special tokens included, cut after `max_tokens`.

        Raises:
            BadStyleData: a text without any token.
        """
        given = [self.prefix + text for text in texts]
        found: list[Ids] = []
        self.num_cut = 0
        for first in range(0, len(given), 1024):
            some = self.tokenizer(given[first : first + 1024], verbose=False)
            whole = some["input_ids"]
            if any(len(ids) > self.max_tokens for ids in whole):
                self.num_cut += sum(len(ids) > self.max_tokens for ids in whole)
                cut = self.tokenizer(
                    given[first : first + 1024], truncation=True, max_length=self.max_tokens
                )
                whole = cut["input_ids"]
            found += [list(ids) for ids in whole]
        empty = next((row for row, ids in enumerate(found) if not ids), None)
        if empty is not None:
            raise BadStyleData(
                f"text {empty} ({texts[empty][:40]!r}) has no token for {self.files.name}; drop it"
            )
        return found

    def parts(self, ids: Sequence[Ids]) -> Iterator[list[int]]:
        """Rows by passes of at most `batch_tokens`, texts of like length together, long first."""
        order = sorted(range(len(ids)), key=lambda row: (-len(ids[row]), row))
        first = 0
        while first < len(order):
            count = max(1, self.batch_tokens // len(ids[order[first]]))
            yield order[first : first + count]
            first += count

    def __call__(self, ids: Sequence[Ids]) -> Tensor:
        """Pooled outputs [N, D], float32, on the model's device; gradients flow if enabled."""
        tokens_NT, mask_NT = self._padded(ids)
        try:
            hidden_NTD = self._outputs(tokens_NT, mask_NT)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "flash" not in str(self.model.config._attn_implementation):
                raise
            self.fallbacks.append(leave_flash(self.model, error))
            hidden_NTD = self._outputs(tokens_NT, mask_NT)
        pooled_ND = pool(hidden_NTD.float(), mask_NT, self.files.pooling)
        return nn.functional.normalize(pooled_ND, dim=-1) if self.files.normalize else pooled_ND

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Features [texts, D] in their order, float32, computed in inference mode.

        Raises:
            BadStyleData: a text without any token, or one that is not finite when encoded.
        """
        ids = self.tokenize(texts)
        if self.num_cut:
            logger.warning(
                "%d of %d texts are longer than %d tokens and were cut; raise encoder.max_tokens",
                self.num_cut,
                len(texts),
                self.max_tokens,
            )
        found: Vectors = self.encode_ids(ids).numpy()
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            raise BadStyleData(
                f"encoder {self.files.name!r} gives NaN or infinite numbers for {len(bad)} texts, "
                f"first for {texts[int(bad[0])][:40]!r}; use dtype: float32"
            )
        return found

    def encode_ids(self, ids: Sequence[Ids]) -> Tensor:
        """As `encode`, of what `tokenize` gave; [N, D] on the CPU.

        When memory is out, passes become smaller. Raises torch.OutOfMemoryError when a single text
        does not fit.
        """
        was_training = self.model.training
        self.model.eval()
        features_ND = torch.empty((len(ids), self.width))
        try:
            with torch.no_grad():
                done = 0
                for rows in list(self.parts(ids)):
                    features_ND[torch.tensor(rows)] = self._smaller_if_need_be(
                        [ids[row] for row in rows]
                    )
                    done += len(rows)
                    if done % 50_000 < len(rows) and len(ids) > 50_000:
                        logger.info("encoded %d of %d texts", done, len(ids))
        finally:
            self.model.train(was_training)
        return features_ND

    def _smaller_if_need_be(self, ids: Sequence[Ids]) -> Tensor:
        try:
            return self(ids).cpu()
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(ids) // 2
        self.batch_tokens = max(64, self.batch_tokens // 2)
        return torch.cat([self._smaller_if_need_be(part) for part in (ids[:half], ids[half:])])

    def _padded(self, ids: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Tokens and mask [N, T], padded on the right."""
        longest = max(len(one) for one in ids)
        tokens_NT = torch.full((len(ids), longest), int(self.tokenizer.pad_token_id or 0))
        mask_NT = torch.zeros((len(ids), longest), dtype=torch.long)
        for row, one in enumerate(ids):
            tokens_NT[row, : len(one)] = torch.tensor(one)
            mask_NT[row, : len(one)] = 1
        return tokens_NT.to(self.device), mask_NT.to(self.device)

    def _outputs(self, tokens_NT: Tensor, mask_NT: Tensor) -> Tensor:
        hidden_NTD: Tensor = self.model(
            input_ids=tokens_NT, attention_mask=mask_NT
        ).last_hidden_state
        return hidden_NTD


def load_encoder(
    spec: EncoderSpec, files: EncoderFiles | None = None, device: str | None = None
) -> TextEncoder:
    """Load a spec's model with its tokenizer, in evaluation mode.

    Args:
        files: where it is, if not where the spec says: an artefact's own copy.
        device: `cpu` or `cuda`; None for CUDA if there is any.

    Raises:
        BadStyleData: it cannot be loaded, or is no encoder of texts.
    """
    files = files or encoder_files(spec)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    origin: dict[str, Any] = {"pretrained_model_name_or_path": files.name}
    origin |= {"revision": files.revision} if files.revision else {}
    origin |= {"subfolder": files.subfolder} if files.subfolder else {}
    try:
        with quiet_transformers():
            tokenizer, model, said = _load(origin, spec, place)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadStyleData(
            f"encoder {files.name!r} cannot be loaded: {first}; name a folder that holds one, or a "
            "hub name where the hub can be reached"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if said:
        logger.warning("%s", said.replace("model.", "encoder."))
    model.config.use_cache = False
    return TextEncoder(
        files,
        model.to(place).eval(),
        tokenizer,
        min(spec.max_tokens, _longest(tokenizer, model.config)),
        spec.prefix,
        spec.batch_tokens,
        [said] if said else [],
    )


def _load(origin: dict[str, Any], spec: EncoderSpec, device: torch.device) -> tuple[Any, Any, str]:
    """Tokenizer, model on the CPU, and a line about what is not used."""
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

    config = AutoConfig.from_pretrained(**_without_adapter(origin))
    loader = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(**origin, padding_side="right")
    dtype: torch.dtype = getattr(torch, spec.dtype)
    model, said = load_with_attention(
        origin, spec.attention, dtype, device, loader=loader.from_pretrained
    )
    return tokenizer, model, said


def _without_adapter(origin: dict[str, Any]) -> dict[str, Any]:
    """Where the configuration is: an adapter's folder has none, but names its model."""
    import json

    file = Path(origin["pretrained_model_name_or_path"]) / "adapter_config.json"
    if not file.is_file():
        return origin
    says = json.loads(file.read_text())
    found = {"pretrained_model_name_or_path": says["base_model_name_or_path"]}
    return found | ({"revision": says["revision"]} if says.get("revision") else {})


def _longest(tokenizer: Any, config: Any) -> int:
    """Tokens that a model takes, special ones included."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or ALIGNED_TO_MANY
    if config.model_type in OFFSET_POSITIONS:
        positions -= int(text.pad_token_id or 0) + 1
    known = tokenizer.model_max_length or ALIGNED_TO_MANY
    return int(min(positions, known))


def pool(hidden_NTD: Tensor, mask_NT: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text, [N, D], over the tokens where the mask is 1; padding on either side."""
    mask_NT1 = mask_NT.bool().unsqueeze(-1)
    if pooling == "mean":
        kept_NTD = hidden_NTD.masked_fill(~mask_NT1, 0.0)
        return kept_NTD.sum(dim=1) / mask_NT1.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return hidden_NTD.masked_fill(~mask_NT1, -torch.inf).amax(dim=1)
    places_T = torch.arange(mask_NT.shape[1], device=mask_NT.device)
    if pooling == "cls":
        place_N = torch.where(mask_NT.bool(), places_T, mask_NT.shape[1]).amin(dim=1)
    else:
        place_N = torch.where(mask_NT.bool(), places_T, -1).amax(dim=1)
    return hidden_NTD[torch.arange(len(hidden_NTD), device=mask_NT.device), place_N]
