"""Samplers: what they cover, that they repeat themselves, and that Optuna finds a planted best."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.samplers import Sampler, SamplerConfig, by_sampler, parse_sampler
from orchestrator.samplers.optuna import OptunaSampler, centred_scores
from orchestrator.spec.space import Space

GRID = {
    "architecture": "topk",
    "d_sae": {"choice": [1024, 2048]},
    "k": {"choice": [16, 32, 64]},
    "lr": {"choice": [1e-4, 1e-3, 1e-2, 3e-2]},
}
OPEN = {"k": {"choice": [16, 64]}, "lr": {"loguniform": [1e-6, 1e-1]}}
CONDITIONAL = {
    "architecture": {"choice": ["topk", "standard"]},
    "k": {"choice": [16, 64], "when": {"architecture": "topk"}},
    "l1_coefficient": {"loguniform": [0.1, 10.0], "when": {"architecture": "standard"}},
    "lr": {"loguniform": [1e-5, 1e-2]},
    "widths": {"choice": [[64, 128], [64, 256]]},
    "batch": {"int": [16, 64], "step": 16},
}
ENTRY_BY_SAMPLER: Mapping[str, Mapping[str, Any]] = {
    "grid": {},
    "random": {"trials": 12},
    "optuna": {"trials": 30, "startup": 4},
    "list": {"configs": [{"k": 16, "lr": 1e-3}, {"k": 64, "lr": "5k"}]},
}


def build(entry: Mapping[str, Any], raw: Mapping[str, Any], strata: Sequence[str] = ()) -> Sampler:
    space = Space.parse(raw)
    return parse_sampler(entry).build(space, strata=strata, metric="fvu", direction="min")


def space_for(name: str) -> Mapping[str, Any]:
    return GRID if name == "grid" else OPEN


def trial(
    number: int,
    config: Mapping[str, Any],
    status: str = "finished",
    fvu: float | None = 0.5,
    rungs: Mapping[int, float | None] | None = None,
) -> TrialState:
    state = TrialState(f"t{number:04d}", number, config, total_tokens=1000)
    state.status = status  # type: ignore[assignment]
    state.metrics = {"fvu": fvu, "l0": 32.0}
    for tokens, value in (rungs or {}).items():
        state.rungs[tokens] = Reported(
            trial=state.id, tokens=tokens, metrics={"fvu": value, "l0": 32.0}, rung=tokens
        )
    return state


def history(sampler: Sampler, num: int) -> list[TrialState]:
    """A log with every status in it."""
    trials: list[TrialState] = []
    for number in range(num):
        config = sampler.suggest(number, trials)
        status = ("finished", "stopped", "diverged", "failed", "running", "queued")[number % 6]
        fvu = None if status == "diverged" else 0.1 + 0.01 * number
        rungs = {100: fvu} if number % 3 else {}
        trials.append(trial(number, config, status, fvu, rungs))
    return trials


@pytest.mark.parametrize("name", sorted(by_sampler))
def test_every_sampler_config_survives_json(name: str) -> None:
    config = parse_sampler({"sampler": name, **ENTRY_BY_SAMPLER[name]})
    assert parse_sampler(config.model_dump(mode="json")) == config
    assert type(config) is SamplerConfig.by_sampler[name]


@pytest.mark.parametrize("name", sorted(by_sampler))
def test_every_sampler_gives_valid_configurations_in_the_order_of_the_space(name: str) -> None:
    sampler = build({"sampler": name, **ENTRY_BY_SAMPLER[name]}, space_for(name), ["k"])
    trials: list[TrialState] = []
    for number in range(sampler.total()):
        config = sampler.suggest(number, trials)
        assert list(config) == [n for n in space_for(name) if n in config]
        trials.append(trial(number, config, fvu=0.1 + number / 100))


@pytest.mark.parametrize("name", sorted(by_sampler))
def test_every_sampler_refuses_a_number_past_its_last(name: str) -> None:
    sampler = build({"sampler": name, **ENTRY_BY_SAMPLER[name]}, space_for(name))
    for number in (-1, sampler.total()):
        with pytest.raises(ValueError, match=r"outside this sweep's 0\.\."):
            sampler.suggest(number, [])


@pytest.mark.parametrize("name", sorted(by_sampler))
def test_every_sampler_repeats_itself_for_the_same_log_in_any_order(name: str) -> None:
    entry = {"sampler": name, **ENTRY_BY_SAMPLER[name]}
    first, second = (build(entry, space_for(name), ["k"]) for _ in range(2))
    trials = history(first, min(first.total(), 12))
    for number in range(first.total()):
        before = [t for t in trials if t.number < number]
        shuffled = random.Random(number).sample(before, len(before))
        assert first.suggest(number, before) == second.suggest(number, shuffled)


def test_a_misspelt_sampler_gets_the_known_ones_and_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"known samplers: .*Did you mean 'optuna'\?"):
        parse_sampler({"sampler": "optuan"})
    with pytest.raises(ValueError, match=r"search.sampler is not given; choose one of grid"):
        parse_sampler({"trials": 3})


def test_the_grid_visits_every_point_once_and_each_stratum_in_turn() -> None:
    sampler = build({"sampler": "grid"}, GRID, ["d_sae", "k"])
    configs = [sampler.suggest(number, []) for number in range(sampler.total())]
    points = {tuple(config.values()) for config in configs}
    assert points == set(product(["topk"], [1024, 2048], [16, 32, 64], [1e-4, 1e-3, 1e-2, 3e-2]))
    assert len(configs) == len(points) == 24
    for turn in range(4):
        strata = {(c["d_sae"], c["k"]) for c in configs[6 * turn : 6 * turn + 6]}
        assert len(strata) == 6


def test_a_limited_grid_keeps_its_order_and_a_seed_changes_it() -> None:
    whole = build({"sampler": "grid"}, GRID, ["k"])
    some = build({"sampler": "grid", "trials": 7}, GRID, ["k"])
    other = build({"sampler": "grid", "trials": 7, "seed": 1}, GRID, ["k"])
    assert some.total() == 7
    assert [some.suggest(i, []) for i in range(7)] == [whole.suggest(i, []) for i in range(7)]
    assert [some.suggest(i, []) for i in range(7)] != [other.suggest(i, []) for i in range(7)]


def test_a_grid_over_a_range_without_points_is_refused_with_the_way_out() -> None:
    config = parse_sampler({"sampler": "grid"})
    (fault,) = config.faults(Space.parse(OPEN))
    assert "lr" in fault and "points" in fault
    with pytest.raises(ValueError, match="points"):
        build({"sampler": "grid"}, OPEN)


def test_a_random_draw_depends_on_seed_and_number_alone() -> None:
    entry = {"sampler": "random", "trials": 20}
    forwards, backwards = build(entry, OPEN), build(entry, OPEN)
    drawn = [forwards.suggest(number, []) for number in range(20)]
    assert drawn == [backwards.suggest(number, []) for number in reversed(range(20))][::-1]
    assert drawn != [build({**entry, "seed": 1}, OPEN).suggest(n, []) for n in range(20)]
    assert len({config["lr"] for config in drawn}) == 20


def test_random_draws_from_a_finite_space_do_not_repeat_before_it_is_exhausted() -> None:
    sampler = build({"sampler": "random", "trials": 26}, GRID)
    configs = [tuple(sampler.suggest(number, []).values()) for number in range(26)]
    assert len(set(configs[:24])) == 24


def test_a_list_is_completed_by_fixed_entries_and_may_override_them() -> None:
    raw = {
        "architecture": "topk",
        "d_sae": 1024,
        "k": {"fixed": 32, "when": {"architecture": "topk"}},
    }
    configs = [{"lr": 1e-3}, {"architecture": "standard", "d_sae": "2k", "l1_coefficient": 5}]
    sampler = build({"sampler": "list", "configs": configs}, raw)
    assert [sampler.suggest(number, []) for number in range(2)] == [
        {"architecture": "topk", "d_sae": 1024, "k": 32, "lr": 1e-3},
        {"architecture": "standard", "d_sae": 2000, "l1_coefficient": 5},
    ]


def test_a_list_that_leaves_an_open_entry_out_is_refused_for_each_configuration() -> None:
    config = parse_sampler({"sampler": "list", "configs": [{"k": 1}, {"lr": 1e-3}]})
    faults = config.faults(Space.parse(OPEN))
    assert len(faults) == 2
    assert faults[0].startswith("configs[0] does not give lr, which the space leaves open")
    with pytest.raises(ValueError, match=r"configs\[1\] does not give k"):
        config.build(Space.parse(OPEN), strata=[], metric="fvu", direction="min")


def test_optuna_deals_the_strata_out_in_turn() -> None:
    raw = {**GRID, "lr": {"loguniform": [1e-5, 1e-2]}}
    sampler = build({"sampler": "optuna", "trials": 12}, raw, ["d_sae", "k"])
    strata = [(c["d_sae"], c["k"]) for c in (sampler.suggest(n, []) for n in range(12))]
    assert set(strata[:6]) == set(strata[6:]) == set(product([1024, 2048], [16, 32, 64]))


def test_optuna_walks_conditional_spaces_and_takes_in_every_kind_of_end() -> None:
    sampler = build({"sampler": "optuna", "trials": 40, "startup": 4}, CONDITIONAL, ["k"])
    for state in history(sampler, 40):
        config = state.config
        assert ("k" in config) == (config["architecture"] == "topk")
        assert ("l1_coefficient" in config) == (config["architecture"] == "standard")
        assert config["batch"] in (16, 32, 48, 64)
        assert config["widths"] in ([64, 128], [64, 256])


def test_optuna_does_not_repeat_a_configuration_of_a_small_space() -> None:
    raw = {"k": {"choice": [16, 32]}, "lr": {"choice": [1e-4, 1e-3, 1e-2]}, "b": {"int": [1, 3]}}
    sampler = build({"sampler": "optuna", "trials": 18, "startup": 3}, raw, ["k"])
    trials: list[TrialState] = []
    for number in range(18):
        config = sampler.suggest(number, trials)
        trials.append(trial(number, config, fvu=abs(math.log10(config["lr"]) + 3) + 0.1))
    assert len({tuple(t.config.values()) for t in trials}) == 18


def test_optuna_ignores_trials_of_another_space_and_says_nothing() -> None:
    sampler = build({"sampler": "optuna", "trials": 3, "startup": 1}, OPEN, ["k"])
    strange = [trial(0, {"k": 16, "lr": 5.0}), trial(1, {"something": 1})]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(sampler.suggest(2, strange)) == {"k", "lr"}


def test_optuna_suggests_the_same_under_another_hash_seed() -> None:
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.orchestrator.samplers.test_samplers import CONDITIONAL, build, history\n"
        "s = build({'sampler': 'optuna', 'trials': 20, 'startup': 3}, CONDITIONAL, ['k'])\n"
        "sys.stdout.write(repr([t.config for t in history(s, 20)]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_scores_are_centred_within_stratum_and_rung() -> None:
    trials = [
        trial(0, {"k": 16}, "finished", 0.4, {100: 0.8}),
        trial(1, {"k": 16}, "stopped", 0.9, {100: 0.9}),
        trial(2, {"k": 16}, "stopped", 1.0, {100: 1.0}),
        trial(3, {"k": 64}, "finished", 0.1, {100: 0.2}),
        trial(4, {"k": 64}, "finished", 0.2, {100: None}),
        trial(5, {"k": 64}, "diverged", None, {}),
    ]
    scores = centred_scores(trials, ["k"], "fvu", "min")
    assert scores["t0000"] == pytest.approx({100: math.log(0.8 / 0.9), 1000: 0.0})
    assert scores["t0001"] == pytest.approx({100: 0.0})
    assert scores["t0002"] == pytest.approx({100: math.log(1.0 / 0.9)})
    assert scores["t0003"] == pytest.approx({100: 0.0, 1000: -math.log(2) / 2})
    assert scores["t0004"] == pytest.approx({1000: math.log(2) / 2})
    assert "t0005" not in scores


def test_scores_of_a_metric_to_be_raised_are_turned_round_and_survive_negative_values() -> None:
    trials = [trial(n, {}, fvu=value) for n, value in enumerate((-1.0, 0.5, 0.8))]
    scores = centred_scores(trials, [], "fvu", "max")
    assert [scores[t.id][1000] for t in trials] == pytest.approx([1.5, 0.0, -0.3])


def told(status: str, fvu: float | None = 0.5) -> Any:
    import optuna

    sampler = build({"sampler": "optuna", "trials": 9}, OPEN)
    assert isinstance(sampler, OptunaSampler)
    state = trial(0, {"k": 16, "lr": 1e-3}, status, fvu, {100: 0.7})
    return sampler._study(optuna, [state]).get_trials()[0]


@pytest.mark.parametrize(
    ("status", "state", "values"),
    [
        ("finished", "COMPLETE", {100: 0.0, 1000: 0.0}),
        ("stopped", "PRUNED", {100: 0.0}),
        ("diverged", "PRUNED", {}),
        ("failed", "FAIL", {100: 0.0}),
        ("cancelled", "FAIL", {100: 0.0}),
        ("running", "RUNNING", {100: 0.0}),
        ("queued", "RUNNING", {100: 0.0}),
    ],
)
def test_each_end_of_a_trial_is_told_to_optuna_as_what_it_means(
    status: str, state: str, values: Mapping[int, float]
) -> None:
    frozen = told(status)
    assert frozen.state.name == state
    assert frozen.intermediate_values == values


def test_a_finished_trial_without_a_finite_metric_is_never_told_as_nan() -> None:
    frozen = told("finished", None)
    assert frozen.state.name == "PRUNED"
    assert frozen.intermediate_values == {100: 0.0}


def regret(config: Mapping[str, Any]) -> float:
    """A planted bowl: how far from the best learning rate of the stratum, squared in decades.

    The optimum falls a little with k, and a larger k is better by far whatever the rest.
    """
    best = {16: -3.0, 64: -3.3}[config["k"]]
    return float((math.log10(config["lr"]) - best) ** 2 + (config.get("warm_up", 0.6) - 0.6) ** 2)


def best_of(sampler: Sampler, num: int) -> float:
    trials: list[TrialState] = []
    for number in range(num):
        config = sampler.suggest(number, trials)
        fvu = {16: 0.4, 64: 0.1}[config["k"]] * math.exp(regret(config))
        trials.append(trial(number, config, fvu=fvu))
    by_stratum = [[regret(t.config) for t in trials if t.config["k"] == k] for k in (16, 64)]
    return sum(min(regrets) for regrets in by_stratum)


@pytest.mark.parametrize("raw", [OPEN, {**OPEN, "warm_up": {"uniform": [0.0, 1.0]}}])
def test_optuna_beats_random_on_a_planted_bowl_in_most_seeds(raw: Mapping[str, Any]) -> None:
    wins = 0
    for seed in range(10):
        entry = {"trials": 40, "seed": seed}
        optuna_best = best_of(build({"sampler": "optuna", **entry}, raw, ["k"]), 40)
        random_best = best_of(build({"sampler": "random", **entry}, raw, ["k"]), 40)
        wins += optuna_best < random_best
    assert wins >= 7
