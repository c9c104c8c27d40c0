"""Evaluations of a finished embedding: what was planted is found, what is not there is not."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steering.styles.errors import BadStyleData
from steering.styles.evaluations.baselines import baselines
from steering.styles.evaluations.embedded import Embedded, EmbeddedParts, split_embedded
from steering.styles.evaluations.few_shot import few_shot
from steering.styles.evaluations.report import write_evaluation
from steering.styles.evaluations.second_corpus import second_corpus
from steering.styles.evaluations.verification import c_at_1, roc_auc, verification
from steering.styles.head import Head
from steering.styles.model import StyleModel
from steering.styles.rows import Rows

WIDTH = 4
PLACES = {"a": 0, "b": 1, "c": 2}


def corpus(
    names: Sequence[str] = ("a", "b", "c"),
    *,
    noise: float = 0.3,
    per_group: int = 40,
    texts: dict[str, str] | None = None,
    metadata: bool = False,
    seed: int = 0,
) -> Embedded:
    """Groups around their own unit vectors, two rows an item."""
    random = np.random.default_rng(seed)
    groups = [name for name in names for _ in range(per_group)]
    places = [PLACES.get(name[0].lower(), 3) for name in groups]
    x_NE = np.eye(WIDTH)[places] + noise * random.normal(size=(len(groups), WIDTH))
    said = None
    if texts is not None:
        said = [f"{texts[name]} {n} and of the" for n, name in enumerate(groups)]
    items = [f"q{row // 2}" for row in range(len(groups))]
    columns = {"job": list(groups)} if metadata else {}
    return Embedded(x_NE.astype(np.float32), Rows(groups, items, said), columns)


def parts_of(whole: Embedded) -> EmbeddedParts:
    return split_embedded(whole, (0.4, 0.2, 0.4), 0, "euclidean", was_trained_on=False)


@pytest.fixture
def model() -> StyleModel:
    head = Head((WIDTH, WIDTH), normalize=False, seed=0)
    return StyleModel(
        head,
        ("a", "b", "c"),
        torch.eye(3, WIDTH),
        "euclidean",
        torch.zeros(WIDTH),
        torch.ones(WIDTH),
        {"encoder": {"features": True}},
    )


def test_centroids_that_hold_elsewhere_are_found_by_name(model: StyleModel) -> None:
    found = second_corpus(model, corpus(noise=0.1))
    figure = found.figure("macro_accuracy")
    assert figure.interval.estimate == 1.0
    assert figure.chance == pytest.approx(1 / 3)
    assert found.details["confusion"] == [[40, 0, 0], [0, 40, 0], [0, 0, 40]]


def test_groups_are_matched_by_a_map_and_the_others_are_named(model: StyleModel) -> None:
    other = corpus(("A1", "B1", "zebra"), noise=0.1)
    found = second_corpus(model, other, {"A1": "a", "B1": "b"})
    assert found.figure("macro_accuracy").interval.estimate == 1.0
    assert found.figure("macro_accuracy").chance == 0.5
    assert found.figure("macro_accuracy").num == 80
    assert found.skipped == {"group zebra": "the model has no such group"}
    swapped = second_corpus(model, other, {"A1": "b", "B1": "a"})
    assert swapped.figure("macro_accuracy").interval.estimate == 0.0
    with pytest.raises(BadStyleData, match="the model has no group 'q'; it has a, b, c"):
        second_corpus(model, other, {"A1": "q"})
    with pytest.raises(BadStyleData, match="the corpus has no group 'x'"):
        second_corpus(model, other, {"x": "a"})


def test_a_corpus_without_common_groups_is_skipped_with_the_way_out(model: StyleModel) -> None:
    found = second_corpus(model, corpus(("x", "y", "c")))
    assert "--map THEIRS=OURS" in found.skipped["second_corpus"]
    assert not found.figures


def test_same_and_different_authors_are_told_apart_where_they_lie_apart() -> None:
    apart = verification(parts_of(corpus(noise=0.05)))
    assert apart.figure("roc_auc").interval.estimate == 1.0
    assert apart.figure("c_at_1").interval.estimate > 0.97
    random = np.random.default_rng(1)
    whole = corpus()
    noise_NE = np.asarray(random.normal(size=whole.embedding_NE.shape), dtype=np.float32)
    nothing = Embedded(noise_NE, whole.rows)
    chance = verification(parts_of(nothing)).figure("roc_auc").interval
    assert chance.low < 0.5 < chance.high


def test_auc_and_c_at_1_are_the_formulas() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    score_P, is_same_P = random.integers(0, 9, 80) / 8, random.random(80) < 0.4
    assert roc_auc(score_P, is_same_P) == pytest.approx(roc_auc_score(is_same_P, score_P))
    assert np.isnan(roc_auc(score_P, np.ones(80, dtype=bool)))
    # 5 pairs: two right, one wrong, two unanswered: (2 + 2 * 2 / 5) / 5
    five = np.array([0.9, 0.1, 0.8, 0.5, 0.5])
    truth = np.array([True, False, False, True, False])
    assert c_at_1(five, truth, 0.4, 0.6) == pytest.approx((2 + 2 * 2 / 5) / 5)


def test_pairs_are_not_of_one_item() -> None:
    from steering.styles.evaluations.verification import _pairs

    some = corpus()
    pairs = _pairs(some, 0)
    assert (some.items[pairs.first_P] != some.items[pairs.second_P])[pairs.is_same_P].all()
    same = some.groups[pairs.first_P] == some.groups[pairs.second_P]
    assert (same == pairs.is_same_P).all()


def test_few_shot_grows_and_stops_where_rows_end() -> None:
    found = few_shot(parts_of(corpus(noise=0.6, per_group=40)), shots=(1, 8, 64), resamples=5)
    one, eight = (figure.interval.estimate for figure in found.figures)
    assert eight > one > 1 / 3
    assert [len(some) for some in found.details["accuracy_by_k"].values()] == [5, 5]
    assert "k up to 8: the smallest group has 2" in found.notes[0]


def test_separation_that_is_topic_is_said_to_be() -> None:
    topics = {"a": "river boat water", "b": "stock market money", "c": "goal football team"}
    found = baselines(parts_of(corpus(texts=topics, noise=0.9)))
    assert found.figure("topic_tfidf").interval.estimate == 1.0
    assert found.figure("topic_bag_of_words").interval.estimate == 1.0
    assert found.figure("embedding - topic_tfidf").interval.high < 0
    assert "as far above chance" in found.notes[0]


def test_separation_that_is_not_topic_is_said_to_be_none_of_it() -> None:
    same = dict.fromkeys("abc", "river boat water")
    found = baselines(parts_of(corpus(texts=same, noise=0.1)))
    assert found.figure("topic_tfidf").interval.estimate < 0.5
    assert found.figure("embedding").interval.estimate == 1.0
    assert found.figure("embedding - topic_tfidf").interval.low > 0.3


def test_metadata_that_names_the_group_is_found_and_vectors_alone_have_no_topic() -> None:
    found = baselines(parts_of(corpus(metadata=True)))
    assert found.figure("metadata").interval.estimate == 1.0
    assert "name their column with --text" in found.skipped["topic"]
    nothing = baselines(parts_of(corpus()))
    assert set(nothing.skipped) == {"topic", "metadata"}


def test_outcomes_become_a_table_a_file_for_programs_and_a_picture(
    model: StyleModel, tmp_path: Path
) -> None:
    whole = corpus()
    outcomes = [
        second_corpus(model, corpus(("a", "b", "zebra"))),
        few_shot(parts_of(whole), shots=(1, 2), resamples=3),
        baselines(parts_of(whole)),
    ]
    written = write_evaluation(tmp_path / "out", outcomes, {"artefact": "mine", "data": "rows"})
    names = [path.name for path in written]
    assert names == ["evaluation.md", "evaluation.csv", "evaluation.json", "few_shot.png"]
    table = written[0].read_text()
    assert "## second corpus" in table and "skipped: the model has no such group" in table
    rows = list(csv.DictReader(written[1].read_text().splitlines()))
    assert {row["evaluation"] for row in rows} == {"second_corpus", "few_shot", "baselines"}
    document: dict[str, Any] = json.loads(written[2].read_text())
    assert document["artefact"] == "mine"
    assert len(document["evaluations"]) == 3
    assert written[3].read_bytes().startswith(b"\x89PNG")
