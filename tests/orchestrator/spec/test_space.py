"""Search spaces: forms, conditions, grids, and their way through JSON."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.kind import job_kind
from orchestrator.spec.config_checks import probes
from orchestrator.spec.distributions import Distribution, value_key
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.space import Space, holds

SAE = job_kind("sae_train")


def refusal(raw: Any) -> str:
    with pytest.raises(SpecFaults) as caught:
        Space.parse(raw)
    return str(caught.value)


def sae_refusal(raw: Any) -> str:
    with pytest.raises(SpecFaults) as caught:
        Space.parse(raw).for_kind(SAE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "wording"),
    [
        ([16, 32], "a bare list could be one value or several; got [16, 32]; write {choice: [16"),
        ({"choice": []}, "k.choice: must list at least one value; got []"),
        ({"choice": 5}, "k.choice: must list at least one value; got 5"),
        ({"choice": [16, 16.0]}, "k.choice[1]: lists a value twice"),
        ({"uniform": [2, 1]}, "needs a low bound below its high one; got [2, 1]; swap them"),
        ({"uniform": [1, 1]}, "use {fixed: 1.0} for a single value"),
        ({"uniform": [1]}, "needs two bounds, low and high; got [1]"),
        ({"uniform": ["a", 2]}, "k.uniform[0]: must be a number; got 'a'"),
        ({"uniform": [0, float("inf")]}, "must be a finite number"),
        ({"loguniform": [0, 1]}, "needs bounds above zero"),
        ({"int": [1.5, 3]}, "k.int[0]: must be a whole number; got 1.5"),
        ({"int": [1, 9], "step": 0}, "k.step: must be a whole number of at least 1; got 0"),
        ({"int": [1, 9], "step": 20}, "k.step: exceeds the range of 1 to 9"),
        ({"int": [1, 9], "log": True, "step": 2}, "cannot stand beside log: true"),
        ({"int": [0, 9], "log": True}, "needs bounds above zero, since log is true"),
        ({"uniform": [0, 1], "points": 1}, "k.points: must be a whole number of at least 2"),
        ({"chioce": [16]}, "k.chioce: unknown form; needs one of choice, fixed, int"),
        ({"choice": [16], "uniform": [0, 1]}, "has 2 forms (choice, uniform) where one is needed"),
        ({"choice": [16], "wy": "x"}, "k.wy: unknown key"),
        ({"choice": [16], "why": 5}, "k.why: must be text; got 5"),
        ({"choice": [16], "points": 3}, "k.points: unknown key; beside `choice` may stand"),
        ({"fixed": {"a": 1}}, "must be a number, text, true, false or null"),
        (float("nan"), "must be a finite number"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_way_out(entry: Any, wording: str) -> None:
    assert wording in refusal({"k": entry})


def test_a_misspelt_form_gets_a_suggestion() -> None:
    assert "Did you mean 'choice'?" in refusal({"k": {"chioce": [16]}})


@pytest.mark.parametrize(
    ("raw", "wording"),
    [
        ({"a": {"fixed": 1, "when": {"bb": 2}}, "b_b": 2}, "Did you mean 'b_b'?"),
        ({"a": {"fixed": 1, "when": {"a": 1}}}, "a cannot depend on itself"),
        ({"a": {"fixed": 1, "when": {"b": 3}}, "b": {"choice": [1, 2]}}, "b is one of 1, 2; got 3"),
        (
            {"a": {"fixed": 1, "when": {"b": "tokp"}}, "b": {"choice": ["topk", "x"]}},
            "Did you mean 'topk'?",
        ),
        (
            {"a": {"fixed": 1, "when": {"b": 1}}, "b": {"uniform": [0, 2]}},
            "b is a range, and a condition needs single values",
        ),
        (
            {"a": {"fixed": 1, "when": {"b": 1}}, "b": {"fixed": 1, "when": {"a": 1}}},
            "go round in a circle",
        ),
        ({"a": {"fixed": 1, "when": 5}}, "a.when: must be a mapping of parameter to values"),
        ({"a": {"fixed": 1, "when": {"b": []}}, "b": 1}, "lists no value, so it is never true"),
        (
            {"b": {"choice": [1, 2]}, "a": [{"fixed": 1, "when": {"b": 1}}, {"fixed": 2}]},
            "a[1]: needs `when`, as one of several ranges",
        ),
        (
            {
                "b": {"choice": [1, 2]},
                "a": [{"fixed": 1, "when": {"b": 1}}, {"fixed": 2, "when": {"b": [1, 2]}}],
            },
            "a[1].when: may hold together with the one of a[0]",
        ),
        (
            {
                "b": {"choice": [1, 2]},
                "c": {"choice": [3, 4], "when": {"b": 1}},
                "a": {"fixed": 1, "when": {"b": 2, "c": 3}},
            },
            "a.when: is never true: its conditions do not go together",
        ),
    ],
)
def test_a_wrong_condition_is_refused(raw: Any, wording: str) -> None:
    assert wording in refusal(raw)


def test_all_faults_of_a_space_come_at_once() -> None:
    told = refusal({"a": [1], "b": {"choice": []}, "c": {"fixed": 1, "when": {"d": 1}}})
    assert told.endswith("3 faults")


def test_conditions_do_not_depend_on_the_order_of_the_file() -> None:
    space = Space.parse({"a": {"fixed": 1, "when": {"b": 1}}, "b": {"choice": [1, 2]}})
    assert space.grid() == [{"a": 1, "b": 1}, {"b": 2}]
    assert list(space.grid()[0]) == ["a", "b"]


def test_different_ranges_by_condition_are_one_parameter() -> None:
    space = Space.parse(
        {
            "b": {"choice": ["x", "y"]},
            "a": [{"choice": [1, 2], "when": {"b": "x"}}, {"fixed": 7, "when": {"b": "y"}}],
        }
    )
    assert [(c["b"], c["a"]) for c in space.grid()] == [("x", 1), ("x", 2), ("y", 7)]
    assert space.size() == space.grid_size() == 3


def test_searched_are_those_that_differ_between_trials() -> None:
    raw = {
        "a": {"choice": [1]},
        "b": {"choice": ["x", "y"]},
        "c": 5,
        "d": {"fixed": 6, "when": {"b": "x"}},
        "e": {"uniform": [0, 1]},
        "f": {"fixed": 6, "when": {"c": 5}},
    }
    assert Space.parse(raw).searched == ("b", "d", "e")


def test_grid_points_of_ranges_are_even_and_hold_both_ends() -> None:
    space = Space.parse(
        {
            "lr": {"loguniform": [1e-5, 1e-3], "points": 3},
            "p": {"uniform": [0, 1], "points": 3},
            "n": {"int": [2, 8], "step": 3},
        }
    )
    grid = space.grid()
    assert sorted({c["lr"] for c in grid}) == pytest.approx([1e-5, 1e-4, 1e-3])
    assert {c["lr"] for c in grid} >= {1e-5, 1e-3}
    assert sorted({c["p"] for c in grid}) == [0, 0.5, 1]
    assert sorted({c["n"] for c in grid}) == [2, 5, 8]


def test_a_grid_over_an_open_range_is_refused_with_the_way_out() -> None:
    space = Space.parse({"lr": {"uniform": [0, 1]}})
    assert space.size() is None
    with pytest.raises(ValueError, match=r"all of a range: lr; add `points: 5`"):
        space.grid()


def test_a_huge_grid_is_refused_before_it_is_made() -> None:
    space = Space.parse({"n": {"int": [1, 10**12]}})
    assert space.size() == 10**12
    with pytest.raises(ValueError, match="1000000000000 points, more than 100000"):
        space.grid()


def test_counts_may_have_units() -> None:
    space = Space.parse({"d_sae": {"choice": ["12k", 1024]}, "n": {"int": ["1k", "2k"]}})
    assert space.values_of("d_sae") == (12_000, 1024)
    assert space.entries["n"][0].as_json() == {"int": [1000, 2000]}


def test_a_parameter_of_some_architectures_is_asked_for_those_alone() -> None:
    space = Space.parse(
        {
            "architecture": {"choice": ["topk", "batchtopk", "standard"]},
            "d_sae": 64,
            "k": {"choice": [4, 8]},
            "l1_coefficient": {"choice": [1, 5]},
        }
    ).for_kind(SAE)
    assert [("k" in c, "l1_coefficient" in c) for c in space.grid()] == [
        *[(True, False)] * 4,
        *[(False, True)] * 2,
    ]
    assert space.for_kind(SAE) == space


def test_without_the_discriminator_it_says_what_to_write() -> None:
    assert "architecture: is missing; it decides" in sae_refusal({"d_sae": 64})


@pytest.mark.parametrize(
    ("raw", "wording"),
    [
        ({"architecture": "topkk"}, "got 'topkk'; use one of these. Did you mean 'topk'?"),
        ({"architecture": {"int": [1, 2]}}, "so it cannot be a range or depend"),
        ({"architecture": "topk", "d_sae": 64, "k": 4, "kk": 4}, "kk: unknown parameter"),
        ({"architecture": "topk", "d_sae": 64}, "k: is missing; architecture topk needs it"),
        (
            {"architecture": "standard", "d_sae": 64, "l1_coefficient": 1, "k": 4},
            "k: does not belong to architecture standard; it belongs to batchtopk",
        ),
        (
            {
                "architecture": {"choice": ["topk", "standard"]},
                "d_sae": 64,
                "l1_coefficient": 1,
                "k": {"fixed": 4, "when": {"architecture": "standard"}},
            },
            "k does not belong to architecture standard",
        ),
    ],
)
def test_names_that_do_not_fit_the_kind_are_refused(raw: Any, wording: str) -> None:
    assert wording in sae_refusal(raw)


def test_a_misspelt_parameter_is_not_missing_too() -> None:
    told = sae_refusal({"architecture": "topk", "d_sea": 64, "k": 4})
    assert "Did you mean 'd_sae'?" in told
    assert told.endswith("\n1 fault")


numbers = st.floats(min_value=1e-6, max_value=1e6, allow_nan=False)
scalars = st.one_of(
    st.integers(-(10**6), 10**6), st.booleans(), st.none(), numbers, st.sampled_from("xyz")
)
bounds = st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted)
whole_bounds = st.lists(st.integers(1, 60), min_size=2, max_size=2, unique=True).map(sorted)
entries = st.one_of(
    scalars,
    st.fixed_dictionaries({"fixed": st.lists(st.integers(), max_size=2)}),
    st.fixed_dictionaries(
        {"choice": st.lists(scalars, min_size=1, max_size=3, unique_by=value_key)},
        optional={"why": st.text(max_size=5)},
    ),
    st.fixed_dictionaries({"uniform": bounds}, optional={"points": st.integers(2, 3)}),
    st.fixed_dictionaries({"loguniform": bounds}, optional={"points": st.integers(2, 3)}),
    st.fixed_dictionaries({"int": whole_bounds}, optional={"log": st.booleans()}),
)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """A space in which some parameters depend on earlier ones."""
    raw: dict[str, Any] = {"first": {"choice": [1, 2, "three"]}}
    for name in draw(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True)):
        entry = draw(entries)
        sources = [n for n, e in raw.items() if isinstance(e, dict) and "choice" in e]
        if isinstance(entry, dict) and draw(st.booleans()):
            source = draw(st.sampled_from(sources))
            some = st.lists(st.sampled_from(raw[source]["choice"]), min_size=1, unique_by=value_key)
            entry = {**entry, "when": {source: draw(some)}}
        raw[name] = entry
    return Space.parse(raw)


def legal(space: Space, config: dict[str, Any]) -> bool:
    for name, alternatives in space.entries.items():
        holding = [d for d in alternatives if holds(d, config)]
        if (name in config) != bool(holding):
            return False
        if holding and not holding[0].contains(config[name]):
            return False
    return set(config) <= set(space.entries)


@given(spaces())
def test_a_space_survives_json(space: Space) -> None:
    text = json.dumps(space.as_json())
    again = Space.parse(json.loads(text))
    assert again == space
    assert json.dumps(again.as_json()) == text


@given(spaces(), st.integers(0, 2**32))
def test_every_sample_satisfies_the_conditions_and_is_plain_json(space: Space, seed: int) -> None:
    config = space.sample(random.Random(seed))
    assert legal(space, config)
    assert space.sample(random.Random(seed)) == config
    assert json.loads(json.dumps(config)) == config


@settings(max_examples=50)
@given(spaces())
def test_every_grid_point_is_legal_and_none_comes_twice(space: Space) -> None:
    size = space.grid_size()
    if size is None or size > 5000:
        return
    grid = space.grid()
    assert len(grid) == size
    assert all(legal(space, config) for config in grid)
    assert len({json.dumps(config) for config in grid}) == size


@settings(max_examples=50)
@given(spaces())
def test_probes_are_legal_and_show_every_value_that_can_occur(space: Space) -> None:
    tried = list(probes(space))
    assert all(legal(space, config) for config in tried)
    for name, alternatives in space.entries.items():
        wanted = {value_key(v) for d in alternatives for v in d.corners()}
        seen = {value_key(config[name]) for config in tried if name in config}
        assert seen == wanted


def test_a_walk_asks_for_open_parameters_alone_those_depended_on_first() -> None:
    space = Space.parse(
        {"a": {"choice": [1, 2], "when": {"b": 1}}, "b": {"choice": [1, 2]}, "c": 5}
    )
    asked: list[str] = []

    def ask(name: str, distribution: Distribution) -> Any:
        asked.append(name)
        return distribution.corners()[0]

    assert space.walk(ask) == {"a": 1, "b": 1, "c": 5}
    assert asked == ["b", "a"]
