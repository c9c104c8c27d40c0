"""All evaluations of one finished embedding: what is asked for, or what its data allows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steering.styles.errors import BadStyleData
from steering.styles.evaluations.outcome import Outcome
from steering.styles.rows import RowsSpec, read_rows

logger = logging.getLogger(__name__)

RECORD = "record.json"
"""Beside the artefact's own files: how it came to be."""

Test = Literal["verification", "few_shot", "baselines"]
TESTS: tuple[Test, ...] = ("verification", "few_shot", "baselines")
OWN_SHARES = (0.7, 0.15, 0.15)
OTHER_SHARES = (0.35, 0.15, 0.5)
"""Of a corpus that the model never saw: half of it tests."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is asked of an embedding."""

    data: RowsSpec | None = None
    """Another corpus; None: the test part of the data that it was trained on."""
    tests: tuple[Test, ...] = TESTS
    group_map: Mapping[str, str] | None = None
    """A group of the other corpus to one of the model's."""
    metadata: tuple[str, ...] = ()
    """Further columns, for the baseline that sees nothing else."""
    stel: Path | None = None
    """Folder with STEL's task files."""
    seed: int = 0


def evaluate(
    folder: Path,
    request: EvaluationRequest,
    cache: Path,
    tell: Callable[[str], None] = logger.info,
) -> list[Outcome]:
    """Put the embedding in an artefact's folder to the tests.

    Args:
        cache: a folder for features, which may be emptied at any time.
        tell: is told what is being done, a line at a time.

    Raises:
        BadStyleData: the folder holds no embedding, or the data cannot be used.
    """
    from steering.styles import load
    from steering.styles.evaluations.embedded import embed_texts
    from steering.styles.evaluations.stel import stel

    model = load(folder)
    outcomes: list[Outcome] = []
    if request.data is not None or request.tests:
        outcomes += _on_rows(model, folder, request, cache, tell)
    if request.stel is not None:
        tell("STEL and STEL-or-Content")
        if model.encoder_spec.features:
            why = "this embedding reads given vectors, and STEL's tasks are texts"
            outcomes.append(Outcome.skip("stel", why))
        else:
            embed = partial(embed_texts, model, cache=cache)
            outcomes.append(stel(request.stel, embed, model.distance))
    return outcomes


def _on_rows(
    model: Any,
    folder: Path,
    request: EvaluationRequest,
    cache: Path,
    tell: Callable[[str], None],
) -> list[Outcome]:
    from steering.styles.evaluations.baselines import baselines
    from steering.styles.evaluations.embedded import (
        Embedded,
        checked_split,
        embed_rows,
        split_embedded,
    )
    from steering.styles.evaluations.few_shot import few_shot
    from steering.styles.evaluations.second_corpus import second_corpus
    from steering.styles.evaluations.verification import verification

    spec, shares, split_seed = _rows_of(folder, request)
    tell(f"embedding {_named(spec)}")
    rows = read_rows(spec)
    if request.tests:
        checked_split(rows, shares, split_seed)  # said before minutes go into the embedding
    embedding_NE = embed_rows(model, rows, cache)
    whole = Embedded(np.asarray(embedding_NE, np.float32), rows, _columns(spec, request.metadata))
    outcomes = []
    if request.data is not None:
        tell("second corpus")
        outcomes.append(second_corpus(model, whole, request.group_map))
    if not request.tests:
        return outcomes
    parts = split_embedded(
        whole, shares, split_seed, model.distance, was_trained_on=request.data is None
    )
    how: dict[Test, Callable[[], Outcome]] = {
        "verification": lambda: verification(parts, request.seed),
        "few_shot": lambda: few_shot(parts, seed=request.seed),
        "baselines": lambda: baselines(parts),
    }
    for name in request.tests:
        tell(name.replace("_", " "))
        outcomes.append(how[name]())
    return outcomes


def _rows_of(
    folder: Path, request: EvaluationRequest
) -> tuple[RowsSpec, tuple[float, float, float], int]:
    """The rows, and how they are split: as they were in training, where they are those."""
    if request.data is not None:
        return request.data, OTHER_SHARES, request.seed
    try:
        setup = json.loads((folder / RECORD).read_text())["setup"]
        split = setup.get("split", {})
        shares = tuple(split.get("shares", OWN_SHARES))
        return RowsSpec.model_validate(setup["data"]), shares, int(split.get("seed", 0))
    except (OSError, KeyError, ValueError) as error:
        raise BadStyleData(
            f"{folder} does not say what it was trained on ({type(error).__name__} in {RECORD}); "
            "give the rows to test on: --data FILE --text COL --group COL --item COL"
        ) from error


def _columns(spec: RowsSpec, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Values of further columns, in the order of the rows."""
    if names and spec.builtin is not None:
        raise BadStyleData(f"--metadata {names[0]}: {spec.builtin} has no further columns")
    found = {}
    for name in names:
        rows = read_rows(spec.model_copy(update={"corpus": name}))
        assert rows.corpora is not None
        found[name] = rows.corpora
    return found


def _named(spec: RowsSpec) -> str:
    shown = spec.builtin or spec.files
    return str(shown) if isinstance(shown, str) else "the rows"
