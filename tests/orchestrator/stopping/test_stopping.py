"""Early stopping: who is compared with whom, who goes on, and in what words it is said."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.log.events import Reported
from orchestrator.log.state import TrialState
from orchestrator.stopping import (
    GuardsConfig,
    StoppingConfig,
    Verdict,
    by_scheduler,
    compared_with,
    parse_stopping,
    stratum_of,
)
from orchestrator.stopping.simulate import Curve, simulate
from orchestrator.stopping.trend import on_course_for

ENTRY_BY_SCHEDULER: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "asha": {"grace": "5k"},
    "pareto": {"grace": "5k"},
}
ASHA = parse_stopping({"scheduler": "asha", "grace": "5k", "reduction": 3})
PARETO = parse_stopping({"scheduler": "pareto", "grace": "5k", "margin": 0.1, "l0_slack": 0.05})


def report(
    trial: str,
    fvu: float | None,
    l0: float | None = 32.0,
    stratum: str = "k=32",
    rung: int = 15_000,
) -> Reported:
    metrics = {"fvu": fvu, "l0": l0}
    return Reported(trial=trial, tokens=rung, metrics=metrics, rung=rung, stratum=stratum)


def judge(
    rule: StoppingConfig,
    own: float | None,
    others: Sequence[float | None],
    direction: Literal["min", "max"] = "min",
) -> Verdict:
    reports = {f"t{n}": report(f"t{n}", fvu) for n, fvu in enumerate(others)}
    return rule.judge(
        TrialState("own"), report("own", own), reports, metric="fvu", direction=direction
    )


# What every rule has in common


@pytest.mark.parametrize("name", sorted(by_scheduler))
def test_every_rule_survives_json(name: str) -> None:
    rule = parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name]})
    assert parse_stopping(rule.model_dump(mode="json")) == rule


@pytest.mark.parametrize("name", sorted(by_scheduler))
def test_every_rule_refuses_a_key_that_it_does_not_know(name: str) -> None:
    with pytest.raises(ValidationError, match="gracee"):
        parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name], "gracee": 3})


@pytest.mark.parametrize("name", sorted(by_scheduler))
@settings(deadline=None)
@given(total=st.integers(1, 10**9))
def test_rungs_rise_from_grace_and_stay_below_the_end(name: str, total: int) -> None:
    rungs = parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name]}).rungs(total)
    assert list(rungs) == sorted(set(rungs))
    assert all(5000 <= rung < total for rung in rungs)


@pytest.mark.parametrize("name", sorted(by_scheduler))
def test_no_rule_stops_the_best_or_a_tie_with_it(name: str) -> None:
    rule = parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name]})
    for others in ([], [0.3], [0.2], [0.2] * 9, [None, 0.2], [0.3, 0.4, 0.5]):
        assert not judge(rule, 0.2, others).stop
        negated = [None if v is None else -v for v in others]
        assert not judge(rule, -0.2, negated, direction="max").stop


@pytest.mark.parametrize("name", sorted(set(by_scheduler) - {"none"}))
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_finite_is_stopped_even_alone_and_says_so(
    name: str, value: float | None
) -> None:
    rule = parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name]})
    for others in ([], [None], [0.3]):
        verdict = judge(rule, value, others)
        assert verdict.stop and verdict.value is None
        assert verdict.reason == "fvu is not finite at 15k tokens"


@pytest.mark.parametrize("name", sorted(by_scheduler))
@settings(deadline=None)
@given(
    own=st.floats(0.01, 1),
    others=st.lists(st.none() | st.floats(0.01, 1), max_size=12),
    direction=st.sampled_from(["min", "max"]),
)
def test_a_verdict_agrees_with_the_value_and_cutoff_that_it_shows(
    name: str, own: float, others: list[float | None], direction: Literal["min", "max"]
) -> None:
    rule = parse_stopping({"scheduler": name, **ENTRY_BY_SCHEDULER[name]})
    verdict = judge(rule, own, others, direction)
    assert verdict.rule == name and verdict.metric == "fvu" and verdict.value == own
    if verdict.cutoff is None:
        assert not verdict.stop
    else:
        worse = own > verdict.cutoff if direction == "min" else own < verdict.cutoff
        assert verdict.stop == worse


def test_a_misspelt_scheduler_gets_the_known_ones_and_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"known schedulers: .*Did you mean 'asha'\?"):
        parse_stopping({"scheduler": "asah", "grace": 5})
    with pytest.raises(ValueError, match="early_stop.scheduler is not given; choose one of asha"):
        parse_stopping({"grace": 5})


def test_strata_are_those_asked_for_else_the_kinds_own_and_pareto_has_none() -> None:
    assert ASHA.strata_or(["k"]) == ("k",)
    assert PARETO.strata_or(["k"]) == ()
    for name in ("asha", "pareto"):
        asked = parse_stopping({"scheduler": name, "grace": "5k", "strata": ["d_sae"]})
        assert asked.strata_or(["k"]) == ("d_sae",)
        nothing = parse_stopping({"scheduler": name, "grace": "5k", "strata": []})
        assert nothing.strata_or(["k"]) == ()


# asha


def test_rungs_are_grace_times_powers_of_the_reduction() -> None:
    assert ASHA.rungs(200_000) == (5000, 15_000, 45_000, 135_000)
    assert ASHA.rungs(45_000) == (5000, 15_000)
    assert ASHA.rungs(5000) == ()
    slow = parse_stopping({"scheduler": "asha", "grace": 3, "reduction": 1.1})
    assert slow.rungs(8) == (3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("own", "others", "stop", "cutoff"),
    [
        (0.4, [], False, None),
        (0.4, [0.3], True, 0.3),
        (0.4, [0.5], False, 0.5),
        (0.4, [0.5, 0.3], True, 0.3),
        (0.4, [0.3, 0.5, 0.6, 0.7], True, 0.3),
        (0.4, [0.3, 0.5, 0.6, 0.7, 0.8], False, 0.5),
        (0.4, [None, None, 0.3, 0.39, 0.7], True, 0.39),
        (0.4, [None, None], False, None),
    ],
)
def test_the_best_third_goes_on_and_of_fewer_only_the_best_so_far(
    own: float, others: list[float | None], stop: bool, cutoff: float | None
) -> None:
    verdict = judge(ASHA, own, others)
    assert (verdict.stop, verdict.cutoff, verdict.against) == (stop, cutoff, len(others))


def test_asha_says_in_words_who_was_better() -> None:
    verdict = judge(ASHA, 0.412, [0.371, 0.5, 0.6])
    assert verdict.reason == "fvu 0.412 at 15k tokens; the best 1 of 4 in k=32 reach 0.371"
    assert judge(ASHA, 0.4, []).reason == "fvu 0.4 at 15k tokens; nobody to compare with"
    whole = ASHA.judge(
        TrialState("own"),
        report("own", 0.4, stratum="all"),
        {"t1": report("t1", 0.3, stratum="all")},
        metric="fvu",
        direction="min",
    )
    assert "the best 1 of 2 in the sweep reach 0.3" in whole.reason


@settings(deadline=None)
@given(others=st.lists(st.none() | st.floats(0.01, 1), max_size=15), own=st.floats(0.01, 1))
def test_asha_keeps_exactly_those_with_fewer_than_a_third_before_them(
    others: list[float | None], own: float
) -> None:
    num_better = sum(v is not None and v < own for v in others)
    num_kept = max(1, (len(others) + 1) // 3)
    assert judge(ASHA, own, others).stop == (num_better >= num_kept)


# pareto


def pareto(own: tuple[float, float | None], *others: tuple[float | None, float | None]) -> Verdict:
    reports = {f"t{n}": report(f"t{n}", fvu, l0) for n, (fvu, l0) in enumerate(others)}
    return PARETO.judge(
        TrialState("own"), report("own", *own), reports, metric="fvu", direction="min"
    )


def test_pareto_stops_what_another_beats_in_both_by_the_margin() -> None:
    verdict = pareto((0.4, 32.0), (0.3, 32.0), (0.1, 64.0))
    assert verdict.stop and verdict.against == 1
    assert verdict.cutoff == pytest.approx(0.33)
    assert verdict.reason == "fvu 0.4 at 15k tokens, with l0 32; t0 reaches 0.3 with l0 32"


def test_pareto_lets_go_on_what_is_sparser_or_within_the_margin_or_tied() -> None:
    assert not pareto((0.4, 32.0), (0.1, 34.0)).stop
    assert pareto((0.4, 32.0), (0.1, 33.0)).stop  # within the slack of 5%
    assert not pareto((0.329, 32.0), (0.3, 16.0)).stop
    assert not pareto((0.3, 32.0), (0.3, 32.0)).stop
    assert not pareto((0.4, 32.0), (None, 16.0), (0.1, None)).stop
    assert pareto((0.4, 32.0)).reason == "fvu 0.4 at 15k tokens; nobody is as sparse"


def test_pareto_takes_an_l0_that_is_not_finite_for_the_densest() -> None:
    assert pareto((0.4, None), (0.3, 1000.0)).stop


# strata


def test_a_stratum_is_named_after_its_parameters_and_bands() -> None:
    config = {"k": 32, "d_sae": 1024, "lr": 1e-3, "hook": "model.layers.10", "widths": [1, 2]}
    metrics = {"l0": 70.0}
    assert stratum_of(config, metrics, ["k", "d_sae"]) == "k=32, d_sae=1024"
    assert stratum_of(config, metrics, ["hook", "l0"]) == "hook=model.layers.10, l0~64"
    assert stratum_of(config, metrics, ["lr", "widths"]) == "lr=0.001, widths=[1, 2]"
    assert stratum_of(config, metrics, ["l1_coefficient"]) == "l1_coefficient=-"
    assert stratum_of(config, metrics, []) == "all"


@pytest.mark.parametrize(
    ("l0", "band"),
    [(64, "64"), (90, "64"), (91, "128"), (46, "64"), (45, "32"), (0.3, "0.25"), (0, "0")]
    + [(None, "-"), (math.nan, "-"), (math.inf, "-")],
)
def test_an_l0_band_is_an_octave_around_a_power_of_two(l0: float | None, band: str) -> None:
    assert stratum_of({}, {"l0": l0}, ["l0"]) == f"l0~{band}"


def test_only_the_same_rung_and_stratum_is_compared_with_and_divergence_counts_as_worst() -> None:
    trials = [TrialState(f"t{n}", n, {"k": k}) for n, k in enumerate((32, 32, 64, 32, 64, 32))]
    trials[0].rungs[15_000] = report("t0", 0.4)
    trials[1].rungs[15_000] = report("t1", 0.3)
    trials[2].rungs[15_000] = report("t2", 0.2, stratum="k=64")
    trials[3].status, trials[4].status = "diverged", "diverged"
    trials[5].rungs[5000] = report("t5", 0.6, rung=5000)
    others = compared_with(trials, report("t0", 0.4), ["k"])
    assert set(others) == {"t1", "t3"}
    assert dict(others["t3"].metrics) == {}
    verdict = ASHA.judge(trials[0], report("t0", 0.4), others, metric="fvu", direction="min")
    assert verdict.stop and verdict.against == 2


def test_a_trial_that_diverged_after_the_rung_counts_with_what_it_had_there() -> None:
    trial = TrialState("t1", 1, {"k": 32})
    trial.rungs[15_000], trial.status = report("t1", 0.3), "diverged"
    others = compared_with([trial], report("t0", 0.4), ["k"])
    assert others == {"t1": trial.rungs[15_000]}


# simulation


def curve(final: float, l0: float = 32.0, total: int = 100_000, start: float = 1.0) -> Curve:
    """Falls from `start` to `final` evenly in log tokens; twenty reports."""
    points = []
    for tokens in range(5000, total + 1, 5000):
        share = math.log(tokens / 2500) / math.log(total / 2500)
        metrics = {"fvu": start + (final - start) * share, "l0": l0, "loss": 1.0}
        points.append((tokens, metrics))
    return points


def test_without_early_stopping_everything_is_kept_and_spent() -> None:
    curves = {f"t{n}": curve(0.1 * n) for n in range(6)}
    rule = parse_stopping({"scheduler": "none"})
    result = simulate(rule, curves, metric="fvu", direction="min", strata=[], slots=2)
    assert result.kept == tuple(curves)
    assert result.tokens == result.full_tokens == 600_000 and result.share == 1


@pytest.mark.parametrize("slots", [1, 3, 12])
@pytest.mark.parametrize("seed", range(3))
def test_asha_keeps_the_best_of_each_stratum_for_less_than_half(slots: int, seed: int) -> None:
    finals = [0.1 + 0.05 * n for n in range(12)]
    configs = {f"k{k}-{n:02d}": {"k": k} for k in (16, 64) for n in range(12)}
    order = random.Random(seed).sample(sorted(configs), len(configs))
    curves = {
        name: curve(finals[int(name[-2:])] * (2 if configs[name]["k"] == 16 else 1), start=2.0)
        for name in order
    }
    result = simulate(
        ASHA, curves, metric="fvu", direction="min", strata=["k"], slots=slots, configs=configs
    )
    assert {"k16-00", "k64-00"} <= set(result.kept)
    assert result.share < 0.5
    assert set(result.kept) | set(result.stopped) == set(curves)
    assert all(verdict.against >= 1 for verdict in result.stopped.values())


def test_comparing_across_strata_would_lose_the_sparse_end_which_pareto_keeps() -> None:
    curves = {"dense": curve(0.05, l0=64), "sparse": curve(0.3, l0=16), "bad": curve(0.6, l0=64)}
    mixed = simulate(ASHA, curves, metric="fvu", direction="min", strata=[], slots=3)
    assert "sparse" not in mixed.kept
    frontier = simulate(PARETO, curves, metric="fvu", direction="min", strata=[], slots=3)
    assert frontier.kept == ("dense", "sparse")
    assert "dense reaches" in frontier.stopped["bad"].reason


def test_a_simulated_trial_that_diverges_frees_its_slot() -> None:
    broken: Curve = [
        (5000, {"fvu": None, "l0": 1.0, "loss": None}),
        (100_000, {"fvu": 0.0, "l0": 1.0}),
    ]
    curves: dict[str, Curve] = {"broken": broken, "good": curve(0.1)}
    result = simulate(
        ASHA, curves, metric="fvu", direction="min", strata=[], slots=1, guards=GuardsConfig()
    )
    assert result.kept == ("good",)
    assert result.diverged["broken"].rule == "non_finite"
    assert result.tokens == 105_000


# trend


def seen(*points: tuple[int, float]) -> list[tuple[int, dict[str, float | None]]]:
    return [(tokens, {"fvu": value}) for tokens, value in points]


def test_a_power_law_is_continued_exactly() -> None:
    history = seen(*((tokens, 3.0 * tokens**-0.5) for tokens in (1000, 2000, 3000, 4000)))
    forecast = on_course_for(history, "fvu", "min", 16_000)
    assert forecast == pytest.approx(3.0 * 16_000**-0.5)


def test_a_metric_that_gets_worse_is_not_expected_to_go_on_so() -> None:
    assert on_course_for(seen((1000, 0.3), (2000, 0.4)), "fvu", "min", 9000) == pytest.approx(0.4)


def test_one_report_alone_has_no_trend() -> None:
    assert on_course_for(seen((1000, 0.3)), "fvu", "min", 9000) is None
    assert on_course_for(seen((100, 0.9), (1000, 0.3)), "fvu", "min", 9000) is None  # too old


def test_a_metric_that_rises_is_continued_in_the_logarithm_of_tokens() -> None:
    history = seen((1000, 0.1), (2000, 0.2))
    assert on_course_for(history, "fvu", "max", 4000) == pytest.approx(0.3)


def test_a_slow_starter_on_a_steeper_course_is_kept_before_an_early_leader() -> None:
    """Curves as measured: lr 1e-2 leads until 12k tokens, lr 3e-3 ends far ahead."""
    fast = seen((6144, 0.5), (8192, 0.464), (12288, 0.415), (49152, 0.366))
    slow = seen((6144, 0.602), (8192, 0.498), (12288, 0.39), (49152, 0.26))
    rule = parse_stopping({"scheduler": "asha", "grace": 8192, "strata": []})
    by_value = parse_stopping({**rule.model_dump(), "judge_by": "value"})
    both = {"fast": fast, "slow": slow}
    how: dict[str, Any] = {"metric": "fvu", "direction": "min", "strata": [], "slots": 2}
    assert simulate(rule, both, **how).kept == ("slow",)
    assert simulate(by_value, both, **how).kept == ("fast",)


def test_the_first_rung_stands_at_a_quarter_unless_asked_otherwise() -> None:
    rule = parse_stopping({"scheduler": "asha"})
    assert rule.rungs(64_000) == (16_000, 48_000)
