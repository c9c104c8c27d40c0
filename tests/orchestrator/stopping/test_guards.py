"""The rules that are always on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from orchestrator.log.events import Reported
from orchestrator.stopping import GuardsConfig, GuardVerdict, judge_guards

DEFAULT = GuardsConfig()
BAND = GuardsConfig(l0_band=(8, 256), l0_after=10_000)


def judge(
    metrics: Mapping[str, float | None],
    config: GuardsConfig = DEFAULT,
    losses: tuple[float, ...] = (),
    tokens: int = 12_000,
) -> GuardVerdict | None:
    history = [(1000 * (n + 1), {"loss": loss}) for n, loss in enumerate(losses)]
    report = Reported(trial="t1", tokens=tokens, metrics=metrics)
    return judge_guards(config, history, report)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [DEFAULT, GuardsConfig(spike=None, dead=False)])
def test_what_is_not_finite_always_ends_a_trial(value: float | None, config: GuardsConfig) -> None:
    verdict = judge({"fvu": 0.1, "loss": value}, config)
    assert verdict == GuardVerdict("non_finite", "loss is not finite at 12k tokens")
    assert judge({"fvu": value, "loss": 0.1}, config) == GuardVerdict(
        "non_finite", "fvu is not finite at 12k tokens"
    )


def test_the_loss_is_named_first_when_everything_is_not_finite() -> None:
    verdict = judge({"cosine": None, "fvu": None, "loss": None})
    assert verdict is not None and verdict.reason.startswith("loss is")


def test_a_loss_far_above_its_own_median_ends_a_trial_after_five_reports() -> None:
    usual = (3.0, 1.0, 1.0, 1.0, 0.5)
    verdict = judge({"loss": 10.1}, losses=usual)
    assert verdict == GuardVerdict(
        "spike", "loss 10.1 at 12k tokens is above 10 times its running median 1"
    )
    assert judge({"loss": 10.0}, losses=usual) is None
    assert judge({"loss": 10.1}, losses=usual[:4]) is None
    assert judge({"loss": 10.1}, GuardsConfig(spike=None), usual) is None
    assert judge({"loss": 10.1}, losses=(-1.0,) * 5) is None


def test_the_report_itself_may_be_in_the_history_already() -> None:
    losses = (1.0,) * 5 + (1000.0,) * 10
    assert judge({"loss": 1000.0}, losses=losses, tokens=6000) is not None


def test_all_latents_dead_ends_a_trial_unless_switched_off() -> None:
    assert judge({"dead_fraction": 1.0}) == GuardVerdict(
        "dead", "all latents are dead at 12k tokens"
    )
    assert judge({"dead_fraction": 0.999}) is None
    assert judge({"dead_fraction": 1.0}, GuardsConfig(dead=False)) is None


def test_an_l0_outside_the_band_ends_a_trial_after_warm_up() -> None:
    assert judge({"l0": 300.0}, BAND) == GuardVerdict(
        "l0_band", "l0 300 at 12k tokens is outside [8, 256]"
    )
    assert judge({"l0": 7.9}, BAND, tokens=10_000) is not None
    assert judge({"l0": 7.9}, BAND, tokens=9999) is None
    assert judge({"l0": 8.0}, BAND) is None
    assert judge({"l0": 300.0}) is None


def test_a_kind_without_these_metrics_is_left_alone() -> None:
    assert judge({"accuracy": 0.5}, BAND, losses=(1.0,) * 6) is None


def test_guards_survive_json_and_take_token_units() -> None:
    config = GuardsConfig.model_validate({"l0_band": [8, 256], "l0_after": "10k"})
    assert config == BAND
    assert GuardsConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"l0_band": [8, 256]}, "l0_band and l0_after go together"),
        ({"l0_after": "5M"}, "l0_band and l0_after go together"),
        ({"l0_band": [256, 8], "l0_after": "5M"}, r"l0_band=\[256.0, 8.0\] is empty"),
        ({"spike": 1.0}, "greater than 1"),
        ({"spikes": 2.0}, "spikes"),
    ],
)
def test_guards_that_make_no_sense_are_refused(entry: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GuardsConfig.model_validate(entry)
