"""The contract of every job kind, and what `sae_train` says about its sweeps."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jobs import JobKind
from jobs.kind import job_kind
from jobs.sae_train import SaeTrain
from sae.architectures import ArchitectureConfig
from sae.metric_names import AT_THE_END, REPORTED
from sae.stream_spec import StreamSpec

SETUP: dict[str, Any] = {
    "model": {"builtin": "smollm2-135m"},
    "data": {"builtin": "python-docs"},
    "hooks": ["model.layers.10"],
    "tokens": "64k",
    "batch_tokens": 256,
}
KINDS = sorted(JobKind.by_name)


def setup_of(**changes: Any) -> Any:
    return SaeTrain.Setup.model_validate({**SETUP, **changes})


@pytest.mark.parametrize("name", KINDS)
def test_every_metric_of_a_kind_is_documented_once(name: str) -> None:
    metrics = job_kind(name).metrics
    assert all(metric.description for metric in metrics)
    assert len({metric.name for metric in metrics}) == len(metrics)


@pytest.mark.parametrize("name", KINDS)
def test_the_default_metric_of_a_kind_is_reported_and_has_a_direction(name: str) -> None:
    kind = job_kind(name)
    default = next(metric for metric in kind.metrics if metric.name == kind.default_metric)
    assert default.direction is not None


@pytest.mark.parametrize("name", KINDS)
def test_setup_and_parameters_of_a_kind_are_frozen_and_forbid_unknown_keys(name: str) -> None:
    kind = job_kind(name)
    for model in (kind.Setup, *kind.parameters().values()):
        assert model.model_config.get("extra") == "forbid"
        assert model.model_config.get("frozen") is True


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_with_a_discriminator_has_it_in_every_model(name: str) -> None:
    kind = job_kind(name)
    for variant, model in kind.parameters().items():
        if kind.discriminator is None:
            assert variant is None
        else:
            assert model.model_fields[kind.discriminator].default == variant


@pytest.mark.parametrize("name", KINDS)
def test_what_makes_a_metric_incomparable_is_a_parameter(name: str) -> None:
    kind = job_kind(name)
    known = {field for model in kind.parameters().values() for field in model.model_fields}
    for metric in kind.metrics:
        assert set(metric.not_comparable_while_searching) <= known


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known job kinds: .*sae_train"):
        job_kind("nonsense")


def test_the_metrics_are_those_that_members_report() -> None:
    assert {metric.name for metric in SaeTrain.metrics} == set(REPORTED)
    assert {metric.name for metric in SaeTrain.final_metrics} == {*AT_THE_END, "probe_auroc"}


def test_there_are_parameters_for_every_architecture() -> None:
    assert set(SaeTrain().parameters()) == set(ArchitectureConfig.by_architecture)


@pytest.mark.parametrize(
    ("names", "strata"),
    [
        (("architecture", "d_sae", "k", "lr"), ("k",)),
        (("hook", "k"), ("hook", "k")),
        (("architecture", "k", "l1_coefficient"), ("l0",)),
        (("l0_coefficient", "hook"), ("hook", "l0")),
        (("lr",), ("l0",)),
    ],
)
def test_trials_are_compared_at_equal_sparsity(
    names: tuple[str, ...], strata: tuple[str, ...]
) -> None:
    assert SaeTrain().default_strata(names) == strata


def test_a_trial_trains_on_whole_batches() -> None:
    kind = SaeTrain()
    assert kind.total_tokens(setup_of(tokens=1000), {}) == 768
    assert kind.total_tokens(setup_of(), {}) == 64_000


def test_the_setup_survives_json() -> None:
    setup = setup_of(hooks=["model.layers.1", "model.layers.2"], evaluation={"ce_tokens": "1k"})
    assert SaeTrain.Setup.model_validate(setup.model_dump(mode="json")) == setup


def test_the_hook_of_a_trial_is_its_own_or_the_only_one() -> None:
    kind, config = SaeTrain(), {"architecture": "topk", "d_sae": 64, "k": 4}
    assert kind.architecture(setup_of(), config).hook == "model.layers.10"
    both = setup_of(hooks=["a", "b"])
    assert kind.architecture(both, {**config, "hook": "b"}).hook == "b"
    assert "has several (a, b)" in kind.check(both, config)[0]
    assert "hook=c is not among" in kind.check(both, {**config, "hook": "c"})[0]


def test_moments_of_a_byte_are_a_parameter_like_the_optimizer() -> None:
    kind, config = SaeTrain(), {"architecture": "topk", "d_sae": 64, "k": 4, "adam_moments": "8bit"}
    assert kind.check(setup_of(), config) == []
    assert kind.architecture(setup_of(), config).adam_moments == "8bit"
    (fault,) = kind.check(setup_of(), {**config, "optimizer": "signum"})
    assert "not used by optimizer=signum" in fault


def test_faults_between_parameters_are_told_with_the_numbers() -> None:
    faults = SaeTrain().check(setup_of(), {"architecture": "topk", "d_sae": 64, "k": 128})
    assert faults == ["k=128 exceeds d_sae=64; lower k or widen the dictionary"]


def test_the_stream_is_a_function_of_the_setup_alone() -> None:
    kind, setup = SaeTrain(), setup_of(hooks=["model.layers.1", "model.layers.2"])
    spec = kind.stream_spec(setup, "cpu")
    assert spec.hooks == ("model.layers.1", "model.layers.2")
    assert spec.key == kind.stream_spec(setup, "cpu").key
    assert spec.key != kind.stream_spec(setup_of(stream_seed=1), "cpu").key


def test_a_cache_is_written_as_people_do_and_its_precision_makes_another_stream() -> None:
    kind, setup = SaeTrain(), setup_of(cache={"bytes": "50GB", "dtype": "float8"})
    spec = kind.stream_spec(setup, "cpu")
    assert spec.cache is not None
    assert (spec.cache.bytes, spec.cache.dtype) == (50 * 10**9, "float8")
    assert StreamSpec.model_validate(spec.model_dump(mode="json")) == spec
    larger = setup_of(cache={"bytes": "1TB", "dtype": "float8"})
    assert kind.shared_key(larger) == kind.shared_key(setup) != kind.shared_key(setup_of())
    with pytest.raises(ValidationError, match="must be a size in bytes"):
        setup_of(cache={"bytes": "lots"})
    with pytest.raises(ValidationError, match="float8"):
        setup_of(cache={"bytes": "1GB", "dtype": "int8"})


def test_a_second_block_is_counted_where_one_may_be_there() -> None:
    kind, config = SaeTrain(), {"architecture": "topk", "d_sae": 1024, "k": 4}
    one = kind.footprint(setup_of(overlap=False), config).shared_bytes
    two = kind.footprint(setup_of(), config).shared_bytes
    assert two - one == 16 * setup_of().batch_tokens * 576 * 2
    # On a CPU, whose cores are busy anyway, no block is made ahead.
    here = [kind.footprint(setup_of(overlap=each), config).on("cpu") for each in (False, True)]
    assert here[0].shared_bytes == here[1].shared_bytes


def test_the_footprint_grows_with_the_dictionary_and_says_what_is_shared() -> None:
    kind, setup = SaeTrain(), setup_of()
    small = kind.footprint(setup, {"architecture": "topk", "d_sae": 1024, "k": 4})
    large = kind.footprint(setup, {"architecture": "topk", "d_sae": 4096, "k": 4})
    weight_bytes = 2 * 576 * 4096 * 4
    assert large.trial_bytes == pytest.approx(3 * weight_bytes, rel=0.01)
    assert large.trial_bytes == pytest.approx(4 * small.trial_bytes, rel=1e-6)
    assert sum(large.trial_parts.values()) == pytest.approx(large.trial_bytes, abs=3)
    assert sum(large.shared_parts.values()) == large.shared_bytes > 134e6 * 2
    assert large.shared_parts["language model"] == small.shared_parts["language model"]
    # The encoder's forward pass is dense; k latents a token are met four times.
    assert large.trial_flop_per_token == 2 * 576 * 4096 + 4 * 2 * 576 * 4


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_memory_is_that_of_the_backend_that_steps(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAEQ_BACKEND", raising=False)
    kind, setup = SaeTrain(), setup_of()
    config = {"architecture": "topk", "d_sae": 4096, "k": 4}
    by_hand = kind.footprint(setup, config).on(device)
    weight_bytes = 2 * 576 * 4096 * 4
    assert by_hand.trial_bytes == pytest.approx(3 * weight_bytes, rel=0.01)
    signum = kind.footprint(setup, {**config, "optimizer": "signum"}).on(device)
    assert signum.trial_bytes == pytest.approx(2 * weight_bytes, rel=0.02)
    eight_bit = kind.footprint(setup, {**config, "adam_moments": "8bit"}).on(device)
    assert eight_bit.trial_bytes == pytest.approx(1.51 * weight_bytes, rel=0.01)
    in_bfloat16 = kind.footprint(setup, {**config, "autocast": True}).on(device)
    assert in_bfloat16.trial_bytes == by_hand.trial_bytes
    # One copy of a weight in bfloat16, however many SAEs there are.
    assert in_bfloat16.shared_parts["steps: bf16.weight"] == weight_bytes / 4
    monkeypatch.setenv("SAEQ_BACKEND", "reference")
    by_sae_lens = kind.footprint(setup, config).on(device)
    # Each has a peak of its own, and nothing of its steps is shared.
    assert by_sae_lens.trial_bytes > 4 * weight_bytes
    assert by_hand.shared_bytes - by_sae_lens.shared_bytes > 2 * weight_bytes
    assert not any(name.startswith("steps") for name in by_sae_lens.shared_parts)
    assert by_sae_lens.trial_flop_per_token == 12 * 576 * 4096
    monkeypatch.delenv("SAEQ_BACKEND")
    in_half = kind.footprint(setup, {**config, "dtype": "bfloat16"}).on(device)
    assert not any(name.startswith("steps") for name in in_half.shared_parts)


def test_a_cpu_has_a_model_in_float32_and_its_checkpoints_copy_beside_it() -> None:
    config = {"architecture": "topk", "d_sae": 4096, "k": 4}
    on_gpu = SaeTrain().footprint(setup_of(), config)
    on_cpu, weight_bytes = on_gpu.on("cpu").shared_parts, 2 * 576 * 4096 * 4
    assert on_cpu["language model"] == 2 * on_gpu.shared_parts["language model"]
    assert on_cpu["copies"] - on_gpu.shared_parts["copies"] == 4 * weight_bytes


def test_the_model_is_counted_up_to_its_deepest_hook() -> None:
    kind, config = SaeTrain(), {"architecture": "topk", "d_sae": 64, "k": 4}
    shallow = kind.footprint(setup_of(hooks=["model.layers.4"]), config)
    deep = kind.footprint(setup_of(hooks=["model.layers.9"]), config)
    assert deep.shared_flop_per_token == 2 * shallow.shared_flop_per_token


@pytest.mark.parametrize(("name", "billions"), [("lab/Foo-7B", 7), ("x/tiny-33M", 0.033), ("x", 1)])
def test_an_unknown_model_is_counted_by_the_size_in_its_name(
    name: str, billions: float, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"architecture": "topk", "d_sae": 64, "k": 4}
    setup = setup_of(model={"name": name}, hooks=["layers.2"])
    shared = SaeTrain().footprint(setup, config).on("cpu").shared_bytes
    assert billions * 4e9 < shared < billions * 4e9 + 3e9
    assert f"sizes of model {name} are not known" in caplog.text
