"""Probes on tokens, judged by text always, and by token where token labels mean something.

By token there is a number where spans label the tokens, or where the noise of their labels is
declared; else the report says why there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from steering.probes.evaluation import evaluate, interval_json
from steering.probes.features import FeatureSpec
from steering.probes.matrices import Array
from steering.probes.method import FittedProbe
from steering.probes.noise.token_evaluation import NoiseModel, evaluate_tokens
from steering.probes.report.page import Section, Table, interval_text
from steering.probes.study import ProbeStudy, largest_by_text

__all__ = ["levels_of", "levels_section"]

Said = Mapping[str, Any]
CLEAN = NoiseModel(kind="clean")
UNKNOWN = (
    "By token nothing is said: texts are labelled here, their tokens are not, and most tokens of a "
    "positive text may carry nothing. Name a column of spans (data.spans), or declare how often "
    "token labels are wrong (token_noise)."
)


def levels_of(
    study: ProbeStudy, source: str, split_seed: int, probe: FittedProbe, noise: NoiseModel | None
) -> dict[str, Any] | None:
    """AUROC on the test part by text, and by token under a noise model; None for pooled features.

    Args:
        noise: what is declared; None for clean labels where there are spans, and for no number by
            token where there are none.
    """
    spec = study.spec_by_source[source]
    if not spec.is_by_token:
        return None
    if noise is None and study.table.labelled.spans is not None:
        noise = CLEAN
    rows = study.parts(source, split_seed).test
    texts = study.texts_of(spec, split_seed, "test")
    token_TL = probe.token_scores(rows.x) if spec.is_bag else probe.scores(rows.x)
    text_NL = probe.scores(rows.x) if spec.is_bag else _by_text(token_TL, texts)
    return {
        "texts": _texts(study, text_NL, np.unique(texts)),
        "text_score": "the probe's own" if spec.is_bag else "its largest token score",
        "noise": None if noise is None else noise.model_dump(mode="json"),
        "tokens": [] if noise is None else _tokens(study, spec, token_TL, texts, noise),
    }


def _by_text(token_TL: Array, texts: Array) -> Array:
    return largest_by_text(token_TL, token_TL, texts, texts)[0]


def _texts(study: ProbeStudy, score_NL: Array, texts: Array) -> list[dict[str, Any]]:
    labelled = study.table.labelled
    found = evaluate(
        score_NL,
        labelled.y_NL[texts],
        [labelled.items[text] for text in texts.tolist()],
        task="multilabel" if labelled.task == "multiclass" else labelled.task,
        label_names=study.label_names,
    )
    return [{"label": one.name, "auroc": interval_json(one.auroc)} for one in found.labels]


def _tokens(
    study: ProbeStudy, spec: FeatureSpec, token_TL: Array, texts: Array, noise: NoiseModel
) -> list[dict[str, Any]]:
    table = study.table
    y_TL = table.y(spec)[table.rows_of(spec, np.unique(texts))]
    items = np.asarray(table.labelled.items, dtype=str)[texts]
    out = []
    for label, name in enumerate(study.label_names):
        found = evaluate_tokens(token_TL[:, label], y_TL[:, label], items, noise)
        said = {key: interval_json(one) for key, one in found.items()}
        is_possible = noise.is_possible(found["auroc_as_labelled"])
        out.append({"label": name, **said, "is_possible": is_possible})
    return out


def levels_section(said: Said) -> Section | None:
    """By text and by token, a row a label."""
    levels = said.get("levels")
    if not levels:
        return None
    tokens = {one["label"]: one for one in levels["tokens"]}
    rows = []
    for one in levels["texts"]:
        cells = [one["label"], interval_text(one["auroc"])]
        if tokens:
            own = tokens[one["label"]]
            corrected = interval_text(own["auroc"]) if own["is_possible"] else "more than 1"
            cells += [corrected, interval_text(own["auroc_as_labelled"])]
        rows.append((False, cells))
    heads = ["<label", "AUROC by text"]
    if tokens:
        heads += ["AUROC by token", "as labelled"]
    note = f"Test rows of the first split; a text's score is {levels['text_score']}. "
    note += _noise_text(levels["noise"])
    if not all(one["is_possible"] for one in levels["tokens"]):
        note += " More than 1: token labels are right more often than that, or wrong otherwise."
    return Section("By text and by token", note, Table(heads, rows))


def _noise_text(noise: Said | None) -> str:
    if noise is None:
        return UNKNOWN
    if noise["kind"] == "clean":
        return "Token labels count as right."
    wrong = [noise[name] for name in ("wrong_among_positive", "wrong_among_negative")]
    return (
        f"Declared: of the tokens labelled positive {wrong[0]:.0%} are wrong, of the others "
        f"{wrong[1]:.0%}, whatever the token; the AUROC by token is corrected for it "
        "(Menon et al. 2015)."
    )
