"""Runs the language model once over labelled text for all features that are not there yet.

A torch module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch import Tensor

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts
from steering.probes.features.identity import digest_of, reading_identity, sae_identity
from steering.probes.features.pool import Places, joined, pooled_activations, pooled_latents
from steering.probes.features.sae_hooks import path_of_sae
from steering.probes.features.spec import ExtractSettings, FeatureSpec
from steering.probes.features.store import Arrays, StoredTable, make_room
from steering.probes.features.table import FeatureTable, TokenIndex
from steering.reading import TextBatch, read_activations

__all__ = ["MAX_CACHE_BYTES", "OnProgress", "extract"]

logger = logging.getLogger(__name__)

MAX_CACHE_BYTES = 100 * 10**9
"""Of all tables together; those read longest ago make room."""
LOG_EVERY_S = 30.0
TRIES = 3

OnProgress = Callable[[int, int], None]
"""Told after each part: texts done, and of how many."""


@dataclass(frozen=True)
class _Kind:
    """One table on the disk; several specs may be served by it."""

    path: str
    """Of the module that is read."""
    sae: str | None
    stored: str
    """A pooling; `tokens` for all that have a row a token; `index` for what those rows are."""


_INDEX = _Kind("", None, "index")


@dataclass(frozen=True)
class _Work:
    """What is to be computed, and from what."""

    lm: LanguageModel
    saes: Mapping[str, TrainedSae]
    texts: Sequence[str]
    settings: ExtractSettings
    parts: Sequence[range]
    """The texts of each part."""
    tables: Mapping[_Kind, StoredTable]


def extract(
    lm: LanguageModel,
    saes: Mapping[str, TrainedSae],
    labelled: LabelledTexts,
    specs: Sequence[FeatureSpec],
    cache: Path,
    *,
    settings: ExtractSettings | None = None,
    on_progress: OnProgress | None = None,
) -> FeatureTable:
    """Features of all specs, from the disk or computed and kept there.

    One pass of the language model serves all hooks and SAEs. What was kept is found by the model,
    the SAE's weights, the texts and the settings, so processes share it: one computes, the others
    wait. After a kill the next call goes on behind the last part that was written.

    Args:
        saes: by the name that specs use.
        cache: a folder that may be emptied at any time.

    Raises:
        BadSteeringInput: an SAE that is not there or does not fit its hook, texts longer than the
            model's context, or a disk that is full.
        UnknownHook: the model has no such hook.
    """
    settings = settings or ExtractSettings()
    _check_context(lm, settings)
    kind_by_spec = {spec: _kind_of(lm, saes, spec) for spec in specs}
    kinds = list(dict.fromkeys(kind_by_spec.values()))
    if any(spec.is_by_token for spec in specs):
        kinds.append(_INDEX)
    reading = reading_identity(lm, labelled.texts, settings)
    parts = _parts_of(labelled.texts, settings.shard_chars)
    tables = {kind: _table(kind, saes, reading, len(parts), cache) for kind in kinds}
    work = _Work(lm, saes, labelled.texts, settings, parts, tables)
    cache.mkdir(parents=True, exist_ok=True)
    opened = _opened(work, digest_of(reading), cache, on_progress)
    return FeatureTable(
        labelled=labelled,
        arrays_by_spec={spec: opened[kind] for spec, kind in kind_by_spec.items()},
        num_latents={name: sae.d_sae for name, sae in saes.items()},
        tokens=_token_index(opened[_INDEX]) if _INDEX in opened else None,
    )


def _opened(
    work: _Work, lock_name: str, cache: Path, on_progress: OnProgress | None
) -> dict[_Kind, Arrays]:
    """Arrays of all tables; those that are not there, or damaged, are computed."""
    opened: dict[_Kind, Arrays] = {}
    for _ in range(TRIES):
        for kind, table in work.tables.items():
            arrays = opened.get(kind) or table.read()
            if arrays is not None:
                opened[kind] = arrays
        if len(opened) == len(work.tables):
            return opened
        # Whoever waits here finds the tables made.
        with FileLock(cache / f"{lock_name}.lock"):
            _compute(work, on_progress)
        make_room(cache, MAX_CACHE_BYTES, [table.folder for table in work.tables.values()])
    raise BadSteeringInput(
        f"features in {cache} were damaged as soon as they were written, {TRIES} times; look at "
        "that disk, or name another folder with SAEQ_CACHE"
    )


def _check_context(lm: LanguageModel, settings: ExtractSettings) -> None:
    if lm.max_context is not None and settings.max_tokens > lm.max_context:
        raise BadSteeringInput(
            f"max_tokens={settings.max_tokens} exceeds the {lm.max_context} tokens that the model "
            "was made for; lower max_tokens"
        )


def _kind_of(lm: LanguageModel, saes: Mapping[str, TrainedSae], spec: FeatureSpec) -> _Kind:
    stored = "tokens" if spec.is_by_token else spec.pooling
    if spec.sae is None:
        assert spec.hook is not None
        return _Kind(lm.path_of(spec.hook), None, stored)
    if spec.sae not in saes:
        raise BadSteeringInput(
            f"features ask for SAE {spec.sae!r}; there is {', '.join(sorted(saes)) or 'none'}"
        )
    return _Kind(path_of_sae(lm, saes[spec.sae], spec.hook), spec.sae, stored)


def _table(
    kind: _Kind,
    saes: Mapping[str, TrainedSae],
    reading: Mapping[str, object],
    num_parts: int,
    cache: Path,
) -> StoredTable:
    sae = None if kind.sae is None else sae_identity(saes[kind.sae])
    identity = {**reading, "module": kind.path, "sae": sae, "stored": kind.stored}
    return StoredTable(cache / digest_of(identity), identity, num_parts)


def _parts_of(texts: Sequence[str], shard_chars: int) -> list[range]:
    """Consecutive texts of so many characters together, at least one."""
    parts, first, chars = [], 0, 0
    for row, text in enumerate(texts):
        chars += len(text)
        if chars >= shard_chars:
            parts.append(range(first, row + 1))
            first, chars = row + 1, 0
    return [*parts, range(first, len(texts))] if first < len(texts) else parts


def _compute(work: _Work, on_progress: OnProgress | None) -> None:
    """Make every table whole that is not. Called by one process at a time."""
    open_tables = {kind: table for kind, table in work.tables.items() if not table.is_whole}
    sound = {kind: table.sound_parts() for kind, table in open_tables.items()}
    start_s = said_s = time.monotonic()
    for number, part in enumerate(work.parts):
        missing = [kind for kind in open_tables if number not in sound[kind]]
        if missing:
            # With all that an SAE gives: which tokens it encodes together decides the last bits.
            read = {(kind.path, kind.sae) for kind in missing}
            kinds = [kind for kind in open_tables if (kind.path, kind.sae) in read]
            rows = _rows_of_part(work, part, kinds)
            for kind in missing:
                open_tables[kind].write_part(number, _stored(rows[kind], work.settings))
        if on_progress is not None:
            on_progress(part.stop, len(work.texts))
        if time.monotonic() - said_s > LOG_EVERY_S:
            said_s = time.monotonic()
            logger.info(
                "features: %d of %d texts after %.0f s",
                part.stop,
                len(work.texts),
                said_s - start_s,
            )
    for table in open_tables.values():
        table.put_together()


def _rows_of_part(work: _Work, part: range, kinds: Sequence[_Kind]) -> dict[_Kind, Arrays]:
    """Rows of some texts, in their order, from one run of the language model."""
    texts = [work.texts[row] for row in part]
    paths = sorted({kind.path for kind in kinds if kind != _INDEX})
    rows: dict[_Kind, list[Arrays | None]] = {kind: [None] * len(texts) for kind in kinds}
    limits = {
        "max_tokens": work.settings.max_tokens,
        "batch_tokens": work.settings.batch_tokens,
    }
    for batch, acts_by_path in read_activations(work.lm, texts, paths, **limits):
        for kind, of_texts in _rows_of_batch(work, batch, acts_by_path, kinds).items():
            for row, arrays in zip(batch.rows, of_texts, strict=True):
                rows[kind][row] = arrays
    return {
        kind: joined([arrays for arrays in some if arrays is not None])
        for kind, some in rows.items()
    }


def _rows_of_batch(
    work: _Work, batch: TextBatch, acts_by_path: Mapping[str, Tensor], kinds: Sequence[_Kind]
) -> dict[_Kind, list[Arrays]]:
    settings, places = work.settings, Places.of(batch.is_text_NT)
    found: dict[_Kind, list[Arrays]] = {}
    for kind in kinds:
        if kind == _INDEX:
            found[kind] = _index_of_batch(batch, places, settings.kept_tokens)
        elif kind.sae is None:
            acts_NTD = acts_by_path[kind.path]
            found[kind] = pooled_activations(acts_NTD, places, kind.stored, settings.kept_tokens)
    for path, name in {(kind.path, kind.sae) for kind in kinds}:
        if name is None:
            continue
        own = [kind for kind in kinds if (kind.path, kind.sae) == (path, name)]
        by_pooling = pooled_latents(
            acts_by_path[path],
            work.saes[name],
            places,
            [kind.stored for kind in own],
            settings.kept_tokens,
            settings.sae_tokens,
        )
        found |= {kind: by_pooling[kind.stored] for kind in own}
    return found


def _index_of_batch(batch: TextBatch, places: Places, kept_tokens: int | None) -> list[Arrays]:
    """What each row of a table by token stands for."""
    found: list[Arrays] = []
    for place, kept in enumerate(places.read_by("tokens", kept_tokens)):
        of_text = batch.is_text_NT[place].nonzero().squeeze(1).tolist()
        columns = [of_text[each] for each in kept]
        chars = [batch.spans[place][column] for column in columns]
        found.append(
            {
                "lengths": np.array([len(kept)], dtype=np.int64),
                "token": batch.tokens_NT[place, columns].to("cpu").numpy().astype(np.int32),
                "place": np.array(kept, dtype=np.int32),
                "chars": np.array(chars, dtype=np.int32).reshape(-1, 2),
            }
        )
    return found


def _stored(arrays: Arrays, settings: ExtractSettings) -> Arrays:
    if settings.precision == "float32":
        return arrays
    limit = float(np.finfo(np.float16).max)
    return {
        name: array.clip(-limit, limit).astype(np.float16) if array.dtype == np.float32 else array
        for name, array in arrays.items()
    }


def _token_index(arrays: Arrays) -> TokenIndex:
    offset_N1 = np.zeros(len(arrays["lengths"]) + 1, dtype=np.int64)
    np.cumsum(arrays["lengths"], out=offset_N1[1:])
    return TokenIndex(offset_N1, arrays["token"], arrays["place"], arrays["chars"])
