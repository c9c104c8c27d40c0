"""Trials in pairs: a planted difference is found, noise is a tie, and too little is refused."""

from __future__ import annotations

import csv
import json
from itertools import product
from typing import Any

import numpy as np
import pytest

from orchestrator.log.state import TrialState
from orchestrator.results.comparison import CannotCompare, Question, compare, how_to_pair
from orchestrator.spec.sweep import parse_sweep
from orchestrator.view.comparison_page import comparison_page

SEEDS = range(5)


def question(parameter: str = "distance", **changes: Any) -> Question:
    given: dict[str, Any] = {
        "sweep": "demo",
        "parameter": parameter,
        "metric": "test",
        "direction": "max",
        "chosen_by": "validation",
        "chosen_direction": "max",
    }
    return Question(**{**given, **changes})


def trial(config: dict[str, Any], test: float | None, **changes: Any) -> TrialState:
    metrics = {"test": test, "validation": test}
    return TrialState("t", config=config, **{"status": "finished", "metrics": metrics, **changes})


def grid(effect: float, *, spread: float = 0.01, seeds: Any = SEEDS) -> list[TrialState]:
    """Cosine is better by `effect`; seeds and pools differ by far more."""
    random = np.random.default_rng(0)
    found = []
    for seed, pool in product(seeds, ("mixed", "disjoint")):
        base = 0.5 + 0.1 * seed + (0.2 if pool == "mixed" else 0.0)
        for distance in ("cosine", "euclidean"):
            value = base + effect * (distance == "cosine") + spread * random.normal()
            found.append(trial({"distance": distance, "pool": pool, "seed": seed}, value))
    return found


def test_a_small_difference_is_found_among_larger_ones_between_seeds() -> None:
    found = compare(grid(0.03), question())
    (one,) = found.contrasts
    assert one.verdict == "cosine"
    assert (one.num_pairs, one.num_units, found.unit) == (10, 5, "seeds")
    assert one.difference.low > 0
    assert one.difference.estimate == pytest.approx(0.03, abs=0.01)


def test_no_difference_is_a_tie() -> None:
    (one,) = compare(grid(0.0), question()).contrasts
    assert one.winner == "tie"
    (one,) = compare(grid(0.03), question(within=0.05)).contrasts
    assert one.verdict == "tie"


def test_where_lower_is_better_the_lower_one_wins() -> None:
    (one,) = compare(grid(0.03), question(direction="min")).contrasts
    assert one.verdict == "euclidean"


def test_every_pair_of_values_is_compared_with_wider_intervals() -> None:
    trials = [trial({"d": value, "seed": seed}, 0.1 * value + 0.001 * seed)
              for value, seed in product((2, 10, 8), SEEDS)]  # fmt: skip
    found = compare(trials, question("d"))
    assert [(one.first, one.second) for one in found.contrasts] == [(2, 8), (2, 10), (8, 10)]
    assert [one.verdict for one in found.contrasts] == ["8", "10", "10"]
    assert found.contrasts[0].difference.confidence == pytest.approx(1 - 0.05 / 3)


def test_values_without_pairs_do_not_keep_the_others_from_being_compared() -> None:
    alone = trial({"distance": "squared", "pool": "mixed", "seed": 0}, 0.5)
    found = compare([*grid(0.03), alone], question())
    assert [one.verdict for one in found.contrasts] == ["cosine"]
    assert len(found.not_compared) == 2
    assert found.not_compared[0].startswith("distance cosine and squared: 1 pair over 1 seed")


def conditional() -> list[TrialState]:
    """Triplet has a margin that matters, supcon a temperature that does not."""
    triplet = [trial({"loss": "triplet", "margin": margin, "seed": seed}, 0.9 - margin)
               for margin, seed in product((0.1, 0.5), SEEDS)]  # fmt: skip
    supcon = [trial({"loss": "supcon", "temperature": t, "seed": seed}, 0.7)
              for t, seed in product((0.1, 0.2), SEEDS)]  # fmt: skip
    return [*triplet, *supcon]


def test_parameters_of_one_value_alone_are_averaged_over_or_taken_at_their_best() -> None:
    (one,) = compare(conditional(), question("loss")).contrasts
    assert one.ignored == ("margin", "temperature")
    assert (one.verdict, one.num_pairs) == ("supcon", 5)
    best = compare(conditional(), question("loss", at_best=("margin", "temperature")))
    assert best.contrasts[0].verdict == "triplet"
    assert best.sides[1].best == {"margin": 0.1}
    assert not best.contrasts[0].ignored


def test_parameters_that_both_values_have_must_agree() -> None:
    trials = [trial({"d": value, "lr": 0.1 * n, "seed": n}, 0.5)
              for n, value in enumerate("abababab")]  # fmt: skip
    with pytest.raises(CannotCompare, match="0 pairs over 0 seeds in demo, at least 3 seeds"):
        compare(trials, question("d"))


def test_too_few_seeds_say_what_to_run() -> None:
    with pytest.raises(CannotCompare) as refused:
        compare(grid(0.1, seeds=(0, 1)), question())
    said = str(refused.value)
    assert "4 pairs over 2 seeds" in said
    assert "distance: {choice: [cosine, euclidean]}" in said
    assert "seed: {choice: [0, 1, 2]}" in said


def test_the_sweep_that_is_proposed_can_be_submitted() -> None:
    head = "name: c\njob: embedding\ndata: {builtin: python-docs}\nencoder: {builtin: minilm}\n"
    lines = how_to_pair("distance", ["cosine", "euclidean"]).splitlines()
    body = "\n".join(line.removeprefix("    ") for line in lines)
    spec = parse_sweep(head + body.replace("space:", "space:\n  loss: triplet"), "c.yaml")
    assert spec.trials == 6


def test_trials_that_did_not_finish_have_no_partner_and_are_counted() -> None:
    trials = grid(0.1)
    for one in trials:
        if one.config["seed"] > 2 and one.config["distance"] == "euclidean":
            one.status = "stopped"
    found = compare(trials, question())
    assert found.contrasts[0].num_units == 3
    assert found.left_out == {"stopped": 4}
    for one in trials:
        if one.config["distance"] == "euclidean":
            one.status = "stopped"
    with pytest.raises(CannotCompare, match="two values of distance are needed.*have cosine"):
        compare(trials, question())


def test_a_range_is_no_choice() -> None:
    trials = [trial({"lr": 1e-3 * n, "seed": n}, 0.5) for n in range(20)]
    with pytest.raises(CannotCompare, match="lr has 20 values.*drawn from a range"):
        compare(trials, question("lr"))


def test_without_seeds_settings_are_what_is_resampled() -> None:
    trials = [trial({"d": d, "k": k}, k + 0.1 * (d == "a")) for d, k in product("ab", range(4))]
    found = compare(trials, question("d"))
    assert (found.unit, found.contrasts[0].num_units) == ("pairs", 4)
    assert found.contrasts[0].verdict == "a"
    with pytest.raises(CannotCompare, match="at least 3 pairs are needed"):
        compare(trials[:2] + trials[4:6], question("d"))


def test_seeds_themselves_are_compared_over_settings() -> None:
    found = compare(grid(0.1), question("distance"))
    assert found.unit == "seeds"
    seeds = [trial({"seed": s, "k": k}, 0.1 * k) for s, k in product((0, 1), range(4))]
    assert compare(seeds, question("seed")).contrasts[0].verdict == "tie"


def test_a_value_that_was_not_measured_is_no_pair() -> None:
    trials = [*grid(0.1, seeds=range(4)), trial({"distance": "cosine", "pool": "mixed",
              "seed": 9}, None), trial({"distance": "euclidean", "pool": "mixed",
              "seed": 9}, float("nan"))]  # fmt: skip
    assert compare(trials, question()).contrasts[0].num_units == 4


def test_programs_get_json_and_csv() -> None:
    found = compare(grid(0.03), question())
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["comparisons"][0]["winner"] == "cosine"
    assert document["comparisons"][0]["seeds"] == 5
    (row,) = csv.DictReader(found.to_csv().splitlines())
    assert (row["by"], row["verdict"], row["winner"]) == ("distance", "better", "cosine")
    tie = compare(grid(0.0), question()).to_json()["comparisons"][0]
    assert (tie["verdict"], tie["winner"]) == ("tie", None)


@pytest.mark.parametrize("width", [None, 60, 30])
def test_the_page_fits_and_says_the_verdict(width: int | None) -> None:
    found = compare(grid(0.03, seeds=range(3)), question())
    lines = comparison_page(found, width, ascii_only=True)
    text = "\n".join(line.plain for line in lines)
    assert "cosine is better than euclidean." in " ".join(text.split())
    assert "once in 4 by chance" in " ".join(text.split())
    assert text.isascii()
    if width is not None:
        assert max(line.cell_len for line in lines[1:]) <= width
    page = comparison_page(
        compare(conditional(), question("loss", at_best=("margin",), chosen_by="test")), None
    )
    said = " ".join(line.plain for line in page)
    assert "margin=0.1" in said
    assert "looks too good" in said
    assert "Averaged over temperature" in said
