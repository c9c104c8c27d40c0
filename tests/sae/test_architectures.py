"""Every architecture's configuration: what it accepts, refuses and builds."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from sae.architectures import ArchitectureConfig, by_architecture, parse_architecture
from sae.architectures.base import TopKFamilyConfig
from tests.sae.synthetic_source import small_config

ARCHITECTURES = sorted(by_architecture)


def faults(architecture: str, total_steps: int | None = None, **parameters: Any) -> str:
    return "\n".join(small_config(architecture, **parameters).faults(total_steps=total_steps))


def test_all_of_sae_lens_s_trainable_architectures_that_were_asked_for_are_here() -> None:
    asked_for = {"topk", "batchtopk", "matryoshka_batchtopk", "standard", "jumprelu", "gated"}
    assert set(ARCHITECTURES) == asked_for


def test_importing_the_architectures_does_not_import_torch() -> None:
    code = "import sys, sae.architectures, sae.memory; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_config_survives_json(architecture: str) -> None:
    config = small_config(architecture)
    assert parse_architecture(config.model_dump(mode="json")) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_field_has_a_description_and_every_knob_is_a_required_field(
    architecture: str,
) -> None:
    fields = by_architecture[architecture].model_fields
    undescribed = [name for name, field in fields.items() if field.description is None]
    assert undescribed == ["architecture"]
    assert fields[by_architecture[architecture].sparsity_knob].is_required()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_reaches_sae_lens(architecture: str) -> None:
    config = small_config(architecture)
    built = config.build_sae(16, "cpu", {"hook_name": "layer"}).cfg
    assert built.architecture() == architecture
    assert built.metadata.hook_name == "layer"
    ours = config.model_dump() | {"matryoshka_widths": [4, 16, 64]}
    shared = [name for name in ours if hasattr(built, name) and name != "architecture"]
    assert {name: getattr(built, name) for name in shared} == {name: ours[name] for name in shared}
    not_ours = {"device", "d_in", "metadata", "reshape_activations", "use_sparse_activations"}
    assert set(vars(built)) - not_ours <= set(ours)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sound_configs_have_no_faults(architecture: str) -> None:
    assert faults(architecture, total_steps=100, lr_warm_up_steps=10, lr_decay_steps=80) == ""


@pytest.mark.parametrize(
    ("architecture", "parameters", "message"),
    [
        ("topk", {"k": 128}, "k=128 exceeds d_sae=64; lower k or widen the dictionary"),
        ("batchtopk", {"k": 64.5}, "k=64.5 exceeds d_sae=64"),
        ("standard", {"lr_end": 1.0}, "lr_end=1 exceeds lr=0.003"),
        ("gated", {"autocast": True, "dtype": "float64"}, "autocast computes in bfloat16"),
        ("jumprelu", {"jumprelu_sparsity_loss_mode": "quadratic"}, "needs target_l0"),
        ("jumprelu", {"target_l0": 5}, "target_l0=5 is not used by"),
        ("matryoshka_batchtopk", {"matryoshka_widths": [32, 16]}, "must be positive and rise"),
        ("matryoshka_batchtopk", {"matryoshka_widths": [64]}, "use architecture: batchtopk"),
        ("matryoshka_batchtopk", {"d_sae": 8}, "must be positive and rise"),
        ("topk", {"lr_warm_up_steps": 60, "lr_decay_steps": 40}, "below the 100 steps"),
        ("standard", {"l1_warm_up_steps": 101}, "l1_warm_up_steps=101 exceeds the 100 steps"),
        (
            "topk",
            {"lr_schedule": "cosineannealing", "lr_end": 0, "lr_decay_steps": 5},
            "nothing to decay",
        ),
    ],
)
def test_what_does_not_fit_together_is_said_with_the_way_out(
    architecture: str, parameters: dict[str, Any], message: str
) -> None:
    assert message in faults(architecture, total_steps=100, **parameters)


@pytest.mark.parametrize(("d_sae", "rate"), [(2**14, 2e-4), (131072, 7.07e-5), (2**12, 4e-4)])
def test_the_automatic_learning_rate_falls_with_the_root_of_the_width(
    d_sae: int, rate: float
) -> None:
    config = small_config("topk", d_sae=d_sae, lr="auto")
    assert config.learning_rate == pytest.approx(rate, rel=1e-3)
    assert config.final_lr == pytest.approx(rate / 10, rel=1e-3)
    assert config.model_dump(mode="json")["lr"] == "auto"


def test_a_given_learning_rate_is_taken_as_it_is() -> None:
    assert small_config("topk", lr=1e-3).learning_rate == 1e-3
    assert "lr_end=1 exceeds lr=0.0002 (auto)" in faults("topk", d_sae=2**14, lr="auto", lr_end=1)


def test_a_training_without_a_step_is_a_fault() -> None:
    assert "shorter than one batch" in faults("topk", total_steps=0)


def test_all_faults_are_listed_at_once() -> None:
    found = small_config("topk", k=128, lr_end=1.0, lr_warm_up_steps=200).faults(total_steps=100)
    assert len(found) == 3


def test_a_faulty_config_builds_nothing() -> None:
    with pytest.raises(ValueError, match="k=128 exceeds d_sae=64"):
        small_config("topk", k=128).build_sae(16, "cpu", {})


def test_a_misspelt_architecture_is_answered_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="architecture='topkk' is unknown.*Did you mean 'topk'"):
        parse_architecture({"architecture": "topkk"})
    with pytest.raises(ValueError, match="choose one of batchtopk, gated"):
        parse_architecture({"d_sae": 4})


@pytest.mark.parametrize(
    "wrong", [{"kk": 3}, {"lr": 0}, {"lr": float("inf")}, {"k": 2.5}, {"l1_coefficient": 1.0}]
)
def test_unknown_parameters_and_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        small_config("topk", **wrong)


def test_two_architectures_with_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="two architectures are named 'topk'"):

        class Again(TopKFamilyConfig):
            architecture: Literal["topk"] = "topk"
            k: int = 3

    assert by_architecture["topk"].__name__ == "TopKConfig"


def test_a_base_without_a_name_is_not_registered() -> None:
    assert ArchitectureConfig not in by_architecture.values()
    assert TopKFamilyConfig not in by_architecture.values()
