"""Scores by a classifier that reads a text and an attribute together (SFAM; Patel et al. 2023).

A torch module where it scores; the spec is plain data. Shape suffixes: P = pairs, K = logits.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from steering.styles.errors import BadStyleData
from steering.styles.scorers.source import Scores

logger = logging.getLogger(__name__)

HeadType = Literal["one_logit", "two_logits"]
LOGITS: dict[HeadType, int] = {"one_logit": 1, "two_logits": 2}

TEXTS_AT_A_TIME = 64
"""Kept on the disk together: what was scored before an interruption is not scored again."""
BATCH_PAIRS = 64
CACHE_BYTES = 20 * 10**9


class SfamSpec(BaseModel):
    """A sentence-pair scorer and what its outputs mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """Folder or hub name; transformers' AutoModelForSequenceClassification loads it."""
    head: HeadType
    """`one_logit`: score = sigmoid(logit). `two_logits`: score = softmax(logits)[yes]."""
    yes: Literal[0, 1] | None = None
    """Of two logits the one that says that the text has the attribute."""
    max_tokens: int = Field(default=512, ge=8)
    """Of text and attribute together; it is the text that is cut."""

    @model_validator(mode="after")
    def _yes_is_said(self) -> Self:
        if self.head == "two_logits" and self.yes is None:
            raise ValueError(
                "head=two_logits needs yes: 0 or 1, the logit that says that the text has the "
                "attribute (config.json of the model calls them id2label)"
            )
        if self.head == "one_logit" and self.yes is not None:
            raise ValueError(f"yes={self.yes} chooses between two logits; head is one_logit")
        return self

    def score(self, texts: Sequence[str], attributes: Sequence[str], cache: Path) -> Scores:
        """Every text with every attribute: len(texts) * len(attributes) passes, kept on disk."""
        kept = _Kept(cache, self, attributes)
        scorer: _PairScorer | None = None
        parts = []
        for first in range(0, len(texts), TEXTS_AT_A_TIME):
            some = texts[first : first + TEXTS_AT_A_TIME]
            found = kept.read(some)
            if found is None:
                scorer = scorer or _PairScorer(self)
                found = scorer(some, attributes)
                kept.write(some, found)
                logger.info("scored %d of %d texts", first + len(some), len(texts))
            parts.append(found)
        return np.concatenate(parts)


class _Kept:
    """Scores of some texts by one scorer, on the local disk."""

    def __init__(self, cache: Path, spec: SfamSpec, attributes: Sequence[str]) -> None:
        from sae.bounded_folder import BoundedFolder

        origin = [spec.model_dump_json(), _weights(spec.model), list(attributes)]
        self._origin = json.dumps(origin)
        self._folder = BoundedFolder(cache, CACHE_BYTES, "the cache of style scores")

    def _name(self, texts: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps([self._origin, list(texts)]).encode()).hexdigest()[:32]

    def read(self, texts: Sequence[str]) -> Scores | None:
        arrays = self._folder.read(self._name(texts))
        return None if arrays is None else arrays["scores"].numpy()

    def write(self, texts: Sequence[str], scores: Scores) -> None:
        from sae.shard_file import HostArray

        self._folder.write(self._name(texts), {"scores": HostArray.of(scores)}, {})


def _weights(model: str) -> str | None:
    """Of a folder: another training of the same name has other scores."""
    from sae.file_fingerprint import fingerprint_files

    folder = Path(model)
    if not folder.is_dir():
        return None
    return fingerprint_files(path for path in folder.iterdir() if path.is_file())


class _PairScorer:
    """A loaded classifier whose head is as it was said to be."""

    def __init__(self, spec: SfamSpec) -> None:
        import torch

        self._spec = spec
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer, model = _loaded(spec)
        self._model = model.to(self._device).eval()
        longest = getattr(model.config, "max_position_embeddings", spec.max_tokens)
        # RoBERTa counts positions from the padding's number on.
        offset = 1 + (model.config.pad_token_id or 0) if "roberta" in model.config.model_type else 0
        self._max_tokens = min(spec.max_tokens, longest - offset)

    def __call__(self, texts: Sequence[str], attributes: Sequence[str]) -> Scores:
        pairs = [(row, place) for row in range(len(texts)) for place in range(len(attributes))]
        # Pairs of like length together: padding is work for nothing.
        pairs.sort(key=lambda pair: -(len(texts[pair[0]]) + len(attributes[pair[1]])))
        scores_NA = np.empty((len(texts), len(attributes)), dtype=np.float32)
        for first in range(0, len(pairs), BATCH_PAIRS):
            some = pairs[first : first + BATCH_PAIRS]
            rows, places = [row for row, _ in some], [place for _, place in some]
            found_P = self._batch([texts[r] for r in rows], [attributes[p] for p in places])
            scores_NA[rows, places] = found_P
        return scores_NA

    def _batch(self, texts: list[str], attributes: list[str]) -> Scores:
        import torch

        batch = self._tokenizer(
            texts,
            attributes,
            padding=True,
            truncation="only_first",
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            logits_PK = self._model(**batch).logits.float()
        if self._spec.head == "one_logit":
            score_P = torch.sigmoid(logits_PK[:, 0])
        else:
            score_P = torch.softmax(logits_PK, dim=-1)[:, self._spec.yes or 0]
        found: Scores = score_P.cpu().numpy()
        return found


def _loaded(spec: SfamSpec) -> tuple[Any, Any]:
    """Tokenizer and model. Raises BadStyleData where the checkpoint's head is not the spec's."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from sae.model_files import quiet_transformers

    with quiet_transformers():
        config = _read(spec, lambda: AutoConfig.from_pretrained(spec.model))
        _check_head(spec, int(config.num_labels), config.id2label)
        tokenizer = _read(spec, lambda: AutoTokenizer.from_pretrained(spec.model))
        model, info = _read(
            spec,
            lambda: AutoModelForSequenceClassification.from_pretrained(
                spec.model, output_loading_info=True
            ),
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadStyleData(
            f"scorer {spec.model!r} has no trained head: {', '.join(missing[:3])} are not in its "
            "weights, and random ones would score at random; name a checkpoint that was trained "
            "as a sequence classifier"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, model


def _check_head(spec: SfamSpec, num_labels: int, id2label: Any) -> None:
    if num_labels == LOGITS[spec.head]:
        return
    labels = ", ".join(f"{place}: {name}" for place, name in sorted(dict(id2label).items()))
    fitting = {count: head for head, count in LOGITS.items()}.get(num_labels)
    way_out = (
        f"write head: {fitting}" + (" and yes: 0 or 1" if fitting == "two_logits" else "")
        if fitting
        else "name a checkpoint with one or two; this one tells something else"
    )
    raise BadStyleData(
        f"scorer {spec.model!r} has num_labels={num_labels} ({labels}), but head={spec.head} reads "
        f"{LOGITS[spec.head]}; the head of a checkpoint changes with how it was trained: {way_out}"
    )


def _read(spec: SfamSpec, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise BadStyleData(f"scorer {spec.model!r} cannot be loaded: {first}") from error
