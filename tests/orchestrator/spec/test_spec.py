"""Sweep files: what they become, and that every fault is told at once at its line."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import JobKind
from orchestrator.spec.faults import SpecFaults
from orchestrator.spec.sweep import SweepSpec, load_sweep, parse_sweep
from orchestrator.stopping import StoppingConfig

EXAMPLES = sorted(Path(__file__).parents[3].glob("examples/*.yaml"))

BASE: dict[str, Any] = {
    "name": "small",
    "job": "sae_train",
    "model": {"builtin": "smollm2-135m"},
    "data": {"builtin": "python-docs"},
    "hooks": ["model.layers.10"],
    "tokens": "64k",
    "batch_tokens": 256,
    "space": {"architecture": "topk", "d_sae": 1024, "k": {"choice": [16, 32]}},
}

KINDS = ", ".join(sorted(JobKind.by_name))


def text_of(**changes: Any) -> str:
    """The small sweep with some keys changed (None: left out), a line for each key."""
    merged = {**BASE, **changes}
    return "\n".join(f"{k}: {json.dumps(v)}" for k, v in merged.items() if v is not None)


def spec_of(**changes: Any) -> SweepSpec:
    return parse_sweep(text_of(**changes))


def refusal(**changes: Any) -> str:
    with pytest.raises(SpecFaults) as caught:
        parse_sweep(text_of(**changes), "s.yaml")
    return str(caught.value)


SEVEN = """\
name: Seven Faults
job: sae_train
model: {nam: openai-community/gpt2}
data: {dataset: Skylion007/openwebtext}
hooks: [transformer.h.8]
tokens: 200X
space:
  architecture: topk
  d_sae: {choice: [1024, 2048]}
  k: [16, 32]
  lr: {loguniform: [1.0e-3, 1.0e-5]}
search: {sampler: randm, trials: 8}
early_stop: {scheduler: asha, metric: los, grace: 5M}
"""


def test_a_spec_with_seven_faults_lists_seven_with_their_lines() -> None:
    with pytest.raises(SpecFaults) as caught:
        parse_sweep(SEVEN, "seven.yaml")
    told = [(fault.line, fault.where) for fault in caught.value.faults]
    assert told == [
        (1, "name"),
        (3, "model.nam"),
        (6, "tokens"),
        (10, "space.k"),
        (11, "space.lr.loguniform"),
        (12, "search.sampler"),
        (13, "early_stop.metric"),
    ]
    assert str(caught.value).endswith("7 faults in seven.yaml")
    assert "seven.yaml:13: early_stop.metric: is not reported by sae_train; got 'los'" in str(
        caught.value
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_right_and_survives_json(path: Path) -> None:
    spec = load_sweep(path)
    again = SweepSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec
    assert (again.sha256, again.identity_sha256) == (spec.sha256, spec.identity_sha256)
    assert again.trials == spec.trials > 0
    assert again.build_sampler().suggest(0, []) == spec.build_sampler().suggest(0, [])


def test_what_is_not_asked_for_has_the_documented_defaults() -> None:
    spec = spec_of()
    assert (spec.search.sampler, spec.trials) == ("grid", 2)
    assert (spec.early_stop.scheduler, spec.metric, spec.direction) == ("none", "fvu", "min")
    assert spec.strata == ("k",)
    assert (spec.checkpoint.seconds, spec.max_failures, spec.device) == (60, 2, "auto")
    assert spec.searched == ("k",)


def test_units_are_read_wherever_they_stand() -> None:
    spec = spec_of(
        budget={"usd": "$60", "hours": "90m"},
        report="8k",
        checkpoint={"seconds": "2m"},
        price={"usd_per_hour": "$2.5"},
    )
    assert (spec.budget.usd, spec.budget.hours, spec.report) == (60, 1.5, 8000)
    assert (spec.checkpoint.seconds, spec.price.usd_per_hour) == (120, 2.5)


def test_several_hooks_open_the_parameter_hook() -> None:
    spec = spec_of(hooks=["model.layers.10", "model.layers.20"])
    assert spec.searched == ("hook", "k")
    assert spec.strata == ("hook", "k")
    assert spec.trials == 4


def test_a_single_hook_may_be_written_without_brackets() -> None:
    assert spec_of(hooks="model.layers.10") == spec_of()


def test_how_to_run_is_no_part_of_the_identity() -> None:
    spec, elsewhere = spec_of(), spec_of(device="cpu", price={"usd_per_hour": 2})
    assert spec.identity_sha256 == elsewhere.identity_sha256
    assert spec.sha256 != elsewhere.sha256
    assert spec.identity_sha256 != spec_of(tokens="128k").identity_sha256


def test_keys_of_the_setup_that_only_say_how_to_run_are_no_part_of_the_identity() -> None:
    plain, cached = spec_of(), spec_of(cache={"bytes": "50GB"})
    larger = spec_of(cache={"bytes": "1TB", "folder": "/scratch"}, overlap=False)
    assert cached.identity_sha256 == larger.identity_sha256
    assert plain.identity_sha256 == spec_of(overlap=False).identity_sha256
    rounded = spec_of(cache={"bytes": "50GB", "dtype": "float8"})
    hashes = {each.identity_sha256 for each in (plain, cached, rounded)}
    assert len(hashes) == 3  # the precision is what every SAE trains on


def test_reports_come_at_intervals_at_rungs_and_at_the_end() -> None:
    stop = {"scheduler": "asha", "grace": "9k", "reduction": 3}
    spec = spec_of(early_stop=stop, report="20k")
    assert spec.rungs({}) == (9000, 27000)
    assert spec.report_points({}) == [9000, 20000, 27000, 40000, 60000, 64000]
    assert len(spec_of().report_points({})) == 20


def test_a_written_list_of_configurations_is_a_search() -> None:
    configs = [{"k": 16, "lr": 1e-3}, {"k": 32, "lr": 1e-4}]
    spec = spec_of(
        space={"architecture": "topk", "d_sae": 1024},
        search={"sampler": "list", "configs": configs},
    )
    assert spec.trials == 2
    assert spec.searched == ("k", "lr")
    assert spec.strata == ("k",)
    assert spec.build_sampler().suggest(0, [])["architecture"] == "topk"


def test_a_fault_in_a_written_list_is_told_at_its_place() -> None:
    told = refusal(
        space={"architecture": "topk", "d_sae": 1024},
        search={"sampler": "list", "configs": [{"k": 16}, {"k": 4096}, {"kk": 4}]},
    )
    assert "search.configs[1].k: k=4096 exceeds d_sae=1024" in told
    assert "search.configs[2].kk: unknown key" in told


TOPK = BASE["space"]
ASHA = {"scheduler": "asha", "grace": "8k"}


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"name": None}, "s.yaml:1: name: is missing"),
        ({"name": "x" * 61}, "must be at most 60 lowercase letters"),
        ({"name": "My Sweep"}, "got 'My Sweep'; write name: my-sweep"),
        ({"job": None}, f"job: is missing (the job kind); write job: {KINDS}"),
        ({"job": "sae_trian"}, f"unknown job kind; known: {KINDS}"),
        ({"job": "sae_trian"}, "Did you mean 'sae_train'?"),
        ({"tokenss": 5}, "s.yaml:9: tokenss: unknown key; rename or remove it. Did you mean 'tok"),
        ({"setup": {}}, "setup: unknown key"),
        ({"tokens": None}, "tokens: is missing (Length of each trial's training"),
        ({"tokens": 100}, "tokens: tokens=100 is less than one batch of batch_tokens=256"),
        ({"buffer_tokens": 10}, "buffer_tokens=10 is below batch_tokens=256"),
        ({"hooks": []}, "hooks: must be at least 1 long"),
        ({"hooks": ["a", "a"]}, "hooks[1]: hook 'a' stands twice; drop one"),
        ({"hooks": ["model.layers.99"]}, "hooks[0]: hook 'model.layers.99' asks for layer 99"),
        ({"hooks": ["blocks.3.hook_resid_pst"]}, "Did you mean hook_resid_post?"),
        (
            {"data": {"builtin": "python-docs", "context": 9000}},
            "data.context: context=9000 exceeds",
        ),
        ({"model": {}}, "model: give exactly one of name and builtin"),
        ({"space": None}, "space: is missing (what may be tried)"),
        ({"space": 5}, "space: must map parameters to what they may be; got 5"),
        ({"space": {}}, "space.architecture: is missing"),
        ({"space": {**TOPK, "lr": {"uniform": [1e-4, 1e-3]}}}, "search: is missing, and the space"),
        (
            {"space": {**TOPK, "d_sae": {"int": [64, 999]}}},
            "search: is missing, and the space has 1",
        ),
        ({"search": {"trials": 5}}, "search.sampler: is missing; it is one of grid, list, optuna"),
        ({"search": {"samplr": "grid"}}, "search.samplr: unknown key"),
        ({"search": "grid"}, "search: must be a mapping with sampler; got 'grid'; write search: {"),
        ({"search": {"sampler": "gird"}}, "Did you mean 'grid'?"),
        ({"search": {"sampler": "random"}}, "search.trials: is missing"),
        ({"search": {"sampler": "grid", "trials": 3}}, "search.trials: there are only 2 different"),
        ({"search": {"sampler": "random", "trials": 3}}, "got 3; write trials: 2"),
        (
            {"space": {**TOPK, "lr": {"uniform": [1e-4, 1e-3]}}, "search": {"sampler": "grid"}},
            "search: a grid cannot visit all of a range: lr",
        ),
        ({"early_stop": {"scheduler": "ahsa"}}, "Did you mean 'asha'?"),
        (
            {"early_stop": {**ASHA, "grace": "64k"}},
            "early_stop.grace: must be below the 64k tokens",
        ),
        ({"early_stop": {**ASHA, "metric": "fuv"}}, "is not reported by sae_train; got 'fuv'"),
        ({"early_stop": {**ASHA, "metric": "fuv"}}, "Did you mean 'fvu'?"),
        ({"early_stop": {**ASHA, "metric": "l0"}}, "neither more nor less of it is better"),
        (
            {"early_stop": {**ASHA, "metric": "ce_recovered"}},
            "is only measured when a trial has finished",
        ),
        (
            {"early_stop": {**ASHA, "metric": "loss", "strata": []}},
            "cannot be compared between trials that differ in k; got 'loss'; use metric: fvu, or",
        ),
        ({"early_stop": {**ASHA, "strata": ["d_sea"]}}, "strata[0]: is no parameter of this space"),
        ({"early_stop": {**ASHA, "strata": ["k", "k"]}}, "strata[1]: stands twice; got 'k'"),
        ({"guards": {"spike": 0.5}}, "guards.spike: must be above 1"),
        (
            {"guards": {"l0_band": [1, 9], "l0_after": "1M"}},
            "guards.l0_after: must be below the 64k",
        ),
        ({"report": "1M"}, "report: must not exceed the 64k tokens of a trial"),
        ({"max_failures": -1}, "max_failures: must be at least 0"),
        ({"pack": {"members": 0}}, "pack.members: must be above 0"),
        ({"device": "gpu"}, "device: must be one of auto, cpu, cuda; got 'gpu'"),
        (
            {"needs": [{"sweep": "other", "select": {"kind": "sea", "best": "fvu"}}]},
            "needs[0].select.kind: no job kind makes such artefacts",
        ),
        (
            {"needs": [{"sweep": "other", "select": {"kind": "sae", "best": "fvu", "top": 3}}]},
            "needs[0].select: only one of best, top, all, pareto can be asked for; "
            "got 'best and top'; keep best alone",
        ),
        (
            {"needs": [{"sweep": "other", "select": {"kind": "sae", "where": "l0 < max(k, 3)"}}]},
            "needs[0].select.where: has 'max(k, 3)' where a number or a quoted text should be; "
            "got 'l0 < max(k, 3)'; write comparisons such as l0 < 64, joined by and",
        ),
        (
            {"needs": [{"sweep": "small", "select": {"kind": "sae"}}]},
            "needs[0].sweep: is this sweep itself, which would wait for ever; got 'small'",
        ),
        ({"needs": [{"swep": "other"}]}, "needs[0].swep: unknown key; rename or remove it. Did"),
        (
            {"space": {**TOPK, "k": {"choice": [16, 4096]}}},
            "space.k.choice[1]: k=4096 exceeds d_sae=1024; lower k or widen the dictionary (in 1",
        ),
        ({"space": {**TOPK, "k": {"choice": [16, 0]}}}, "space.k.choice[1]: must be above 0"),
        ({"space": {**TOPK, "k": {"choice": [16, 1.5]}}}, "k.choice[1]: must be a whole number"),
        ({"space": {**TOPK, "lr": "fast"}}, "space.lr: must be a number"),
        ({"space": {**TOPK, "lr_schedule": "cosine"}}, "Did you mean 'cosineannealing'?"),
        ({"space": {**TOPK, "lr_warm_up_steps": 250}}, "must stay below the 250 steps"),
        ({"space": {**TOPK, "hook": "model.layers.3"}}, "is not among the sweep's hooks"),
        (
            {
                "space": {
                    **TOPK,
                    "d_sae": {"choice": [64, 128]},
                    "k": {"fixed": 4, "when": {"d_sae": 64}},
                }
            },
            "space.k: k is needed where its `when` leaves it out",
        ),
    ],
)
def test_each_fault_is_refused_with_rule_value_and_way_out(
    changes: dict[str, Any], wording: str
) -> None:
    told = refusal(**changes)
    assert wording in told


def test_a_space_with_too_many_corners_to_try_is_still_checked_value_by_value() -> None:
    many = {"choice": [0.1 * n for n in range(1, 30)]}
    space = {**TOPK, "adam_beta1": many, "lr": many, "aux_loss_coefficient": many}
    space["adam_beta2"] = {"choice": [0.9, 1.5]}
    told = refusal(space=space, search={"sampler": "random", "trials": 5})
    assert "space.adam_beta2.choice[1]: must be below 1" in told


def test_a_misspelt_required_key_is_one_fault() -> None:
    told = refusal(tokens=None, tokns="64k")
    assert told.endswith("1 fault in s.yaml")


def test_faults_of_the_file_come_before_those_of_yaml_alone() -> None:
    with pytest.raises(SpecFaults) as caught:
        parse_sweep(text_of() + "\nname: again\nlrr: 5\n", "s.yaml")
    assert [fault.where for fault in caught.value.faults] == ["name", "lrr"]


def test_files_that_cannot_be_read_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "sweep.yaml").write_text("")
    for name, wording in {
        "binary.yaml": "is not UTF-8 text",
        "sweep.yaml": "is empty",
        "swep.yaml": "there is no such file; check the path. Did you mean 'sweep.yaml'?",
        ".": "is a folder",
    }.items():
        with pytest.raises(SpecFaults, match=wording):
            load_sweep(tmp_path / name)


def test_every_scheduler_can_be_asked_for_by_name_alone_with_its_required_keys() -> None:
    for name, config in StoppingConfig.by_scheduler.items():
        needs_grace = "grace" in config.model_fields and config.model_fields["grace"].is_required()
        section = {"scheduler": name, **({"grace": "8k"} if needs_grace else {})}
        spec = spec_of(early_stop=section)
        assert SweepSpec.model_validate(spec.model_dump(mode="json")) == spec


FULL: dict[str, Any] = {
    **BASE,
    "hooks": ["model.layers.10", "model.layers.20"],
    "space": {
        "architecture": {"choice": ["topk", "standard"]},
        "d_sae": {"choice": [1024, 2048], "why": "wide enough"},
        "k": [
            {"choice": [16, 32], "when": {"d_sae": 1024}},
            {"int": [16, 64], "when": {"d_sae": 2048}},
        ],
        "l1_coefficient": {"loguniform": [0.1, 10], "points": 3},
        "lr": {"uniform": [1e-4, 1e-3], "points": 2},
    },
    "search": {"sampler": "random", "trials": 8, "seed": 1},
    "early_stop": {"scheduler": "asha", "metric": "fvu", "strata": ["hook", "l0"], "grace": "8k"},
    "guards": {"spike": 20, "l0_band": [1, 99], "l0_after": "32k"},
    "budget": {"usd": "$5", "hours": "4h"},
    "needs": [],
    "pack": {"members": 4},
}
JUNK: list[Any] = [
    *(None, True, -1, 0, 1, 0.5, 1e30, "", "x", "5k", "lr", [], [[]], ["x"], [1, 1], [1, 2]),
    *({}, {"choice": [1, 2]}, {"x": {}}, [{}], {"when": {"k": 1}}, [{"fixed": 1, "when": {}}]),
]


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = [path] if path else []
    for key, value in inner if isinstance(data, dict | list) else ():
        found += places(value, (*path, key)) if isinstance(value, dict | list) else [(*path, key)]
    return found


def test_the_full_sweep_is_right() -> None:
    assert parse_sweep(json.dumps(FULL)).trials == 8


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(FULL)), st.sampled_from(JUNK)), max_size=3))
def test_whatever_stands_in_a_file_is_taken_or_refused_in_words(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    data = json.loads(json.dumps(FULL))
    for path, junk in changes:
        parent = data
        for part in path[:-1]:
            known = isinstance(parent, dict) and part in parent
            listed = isinstance(parent, list) and isinstance(part, int) and part < len(parent)
            parent = parent[part] if known or listed else {}
        if isinstance(parent, dict) or (
            isinstance(parent, list) and path[-1] in range(len(parent))
        ):
            parent[path[-1]] = deepcopy(junk)
    try:
        spec = parse_sweep(json.dumps(data, indent=1), "s.yaml")
    except SpecFaults as error:
        assert error.faults
        assert all(fault.rule and fault.line for fault in error.faults)
        assert "Traceback" not in str(error)
        return
    assert SweepSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec
    first = spec.build_sampler().suggest(0, [])
    assert spec.report_points(first)[-1] == spec.kind.total_tokens(spec.setup, first)
