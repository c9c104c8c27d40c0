"""Plans: the arithmetic, what is refused, the page a person reads, the JSON a program reads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs import JobKind
from jobs.kind import Footprint
from orchestrator.money.node_price import node_price
from orchestrator.money.prices import TYPICAL_USD_PER_HOUR
from orchestrator.planning.calibration import Calibration, CalibrationFailed, calibrate
from orchestrator.planning.devices import (
    BANDWIDTH_EFFICIENCY,
    EFFICIENCY,
    GPUS,
    DeviceProfile,
    UnknownDevice,
    device_named,
    this_machine,
)
from orchestrator.planning.expectation import expected_share
from orchestrator.planning.plan import MEASURED_BASIS, Plan, TrialTooLarge, plan, suggested
from orchestrator.spec.sweep import SweepSpec, parse_sweep
from orchestrator.stopping import parse_stopping
from orchestrator.view.plan_page import plan_page

MIB = 1024**2

SWEEP = """
name: planned
job: sae_train
model: {builtin: smollm2-135m%(model)s}
data: {builtin: python-docs, context: 128}
hooks: [model.layers.10]
tokens: 64000
batch_tokens: 256
space:
  architecture: {choice: [topk, batchtopk]}
  d_sae: 1024
  k: {choice: [16, 64]}
  lr: {choice: [1.0e-5, 3.0e-3, 3.0e-2]}
search: {sampler: grid}
early_stop: %(early_stop)s
%(more)s
"""

ASHA = "{scheduler: asha, metric: fvu, strata: [k], grace: 8k, reduction: 3}"

FOOTPRINT = Footprint(
    trial_bytes=100 * MIB,
    shared_bytes=600 * MIB,
    shared_flop_per_token=1e8,
    trial_flop_per_token=1e7,
)

GPU = DeviceProfile(
    name="A100-80",
    kind="cuda",
    memory_bytes=1000 * MIB,
    usable_bytes=1000 * MIB,
    bf16_flop_per_second=1e12,
    fp32_flop_per_second=1e11,
)

HERE = GPU.model_copy(update={"name": "here", "kind": "cpu", "here": True})

MEASURED = Calibration(
    device="cpu",
    members=4,
    stream_tokens=8192,
    wall_seconds=12.0,
    load_seconds=3.0,
    shared_seconds_per_token=4e-4,
    trial_seconds_per_token=1e-4,
    report_seconds=0.05,
    checkpoint_seconds=0.02,
)


def sweep(early_stop: str = "{scheduler: none}", more: str = "", model: str = "") -> SweepSpec:
    return parse_sweep(SWEEP % {"early_stop": early_stop, "more": more, "model": model})


@pytest.fixture(autouse=True)
def _simple_footprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: FOOTPRINT)


def made(
    spec: SweepSpec | None = None,
    devices: Sequence[DeviceProfile] = (GPU,),
    measured: Calibration | None = None,
) -> Plan:
    return plan(spec or sweep(), devices, measured)


def page(spec: SweepSpec, shown: Plan, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(plan_page(spec, shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_grid_is_counted_whole_and_shown_in_part() -> None:
    shown = made()
    assert shown.trials == 12
    assert len(shown.configurations) == 10
    assert shown.tokens.at_most == 12 * 64000


def test_trials_per_device_are_what_memory_leaves_beside_the_model() -> None:
    assert made().devices[0].trials_per_device == 4  # (1000 - 600) / 100
    assert made().devices[0].packs == 3


def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials keep less on a CPU, and share more."""
    there = replace(FOOTPRINT, trial_bytes=30 * MIB, shared_bytes=700 * MIB)
    footprint = replace(FOOTPRINT, on_cpu=there)
    monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: footprint)


def test_a_cpu_is_planned_with_what_trials_need_there(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cpu(monkeypatch)
    shown = made(devices=[HERE, GPU])
    assert [row.trials_per_device for row in shown.devices] == [10, 4]
    assert (shown.memory.device, shown.memory.trial_bytes_max) == ("cpu", 30 * MIB)
    assert shown.memory_elsewhere is not None
    assert shown.memory_elsewhere.trial_bytes_max == 100 * MIB
    flat = " ".join(page(sweep(), shown, 200).split())
    assert "30 MiB a trial, beside 700 MiB shared on a CPU 100 MiB a trial" in flat
    alike = made(devices=[GPU])
    assert alike.memory_elsewhere is None
    assert "600 MiB shared on a device" in " ".join(page(sweep(), alike, 200).split())


def test_what_memory_is_made_of_is_told_the_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    footprint = replace(
        FOOTPRINT,
        trial_parts={"weights": 40 * MIB, "moments": 60 * MIB},
        shared_parts={
            "steps: pre": 100 * MIB,
            "steps: key": 250 * MIB,
            "model": 249 * MIB,
            "small": MIB,
        },
    )
    monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: footprint)
    shown = made()
    assert shown.memory.shared_parts == footprint.shared_parts
    flat = " ".join(page(sweep(), shown, 200).split())
    assert "a trial: moments 60 MiB, weights 40 MiB" in flat
    assert "shared: steps 350 MiB, model 249 MiB, others 1 MiB" in flat
    monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: FOOTPRINT)
    assert "shared:" not in page(sweep(), made(), 200)


def test_what_fits_no_cpu_is_refused_with_what_it_needs_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_cpu(monkeypatch)
    small = HERE.model_copy(update={"usable_bytes": 720 * MIB})
    with pytest.raises(TrialTooLarge, match="a trial needs 30 MiB beside the 700 MiB"):
        made(devices=[small])
    assert made(devices=[small, GPU]).devices[0].notes == ("needs 730 MiB, 720 MiB usable",)


def seconds_on(
    footprint: Footprint, device: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> float:
    monkeypatch.setattr(JobKind.by_name["sae_train"], "footprint", lambda *_: footprint)
    hours = made(devices=[device]).devices[0].hours
    assert hours is not None
    return hours.at_most * 3600


def test_memory_traffic_comes_on_top_of_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = replace(FOOTPRINT, shared_flop_per_token=0.0, trial_traffic_bytes_per_token=1e6)
    slow = GPU.model_copy(update={"bytes_per_second": 1e9})
    fast = GPU.model_copy(update={"bytes_per_second": 1e12})
    tokens = 12 * 64000
    arithmetic = tokens * 1e7 / (1e11 * EFFICIENCY)
    for device, bytes_s in ((slow, 1e9), (fast, 1e12)):
        traffic = tokens * 1e6 / (bytes_s * BANDWIDTH_EFFICIENCY)
        assert seconds_on(steps, device, monkeypatch) == pytest.approx(arithmetic + traffic)
    assert seconds_on(steps, GPU, monkeypatch) == pytest.approx(arithmetic)


def test_trials_in_bfloat16_run_at_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = replace(FOOTPRINT, shared_flop_per_token=0.0)
    in_bfloat16 = replace(steps, trial_is_bfloat16=True)
    ratio = seconds_on(steps, GPU, monkeypatch) / seconds_on(in_bfloat16, GPU, monkeypatch)
    assert ratio == pytest.approx(10)  # 1e12 over 1e11


def test_the_sweep_may_ask_for_fewer_trials_per_device() -> None:
    assert made(sweep(more="pack: {members: 2}")).devices[0].trials_per_device == 2


def test_hours_are_the_flops_over_the_share_of_the_peak() -> None:
    hours = made().devices[0].hours
    assert hours is not None
    tokens = 12 * 64000
    seconds = tokens * (1e8 / 4 / (0.4 * 1e12) + 1e7 / (0.4 * 1e11))
    assert hours.at_most == pytest.approx(seconds / 3600)
    assert hours.expected == hours.at_most  # nothing is stopped early


def test_dollars_are_device_hours_times_the_price_and_do_not_shrink_with_more_devices() -> None:
    one, two = made(devices=[GPU, GPU.model_copy(update={"num_devices": 2})]).devices
    assert one.hours and two.hours and one.usd and two.usd
    assert one.usd.at_most == pytest.approx(one.hours.at_most * TYPICAL_USD_PER_HOUR["A100-80"])
    assert two.hours.at_most == pytest.approx(one.hours.at_most / 2)
    assert two.usd.at_most == pytest.approx(one.usd.at_most)


def test_the_price_of_the_sweep_counts_before_the_table() -> None:
    device = made(sweep(more="price: {usd_per_hour: 2}"), [HERE]).devices[0]
    assert device.usd is not None and device.hours is not None
    assert device.usd.at_most == pytest.approx(2 * device.hours.at_most)
    assert device.usd_basis == "price.usd_per_hour of the sweep"


def test_a_device_without_a_price_has_no_dollars() -> None:
    device = made(devices=[HERE]).devices[0]
    assert device.usd is None
    assert "price.usd_per_hour" in device.usd_basis


def test_measured_rates_count_for_this_machine_alone() -> None:
    here, gpu = made(devices=[HERE, GPU], measured=MEASURED).devices
    assert here.hours_basis == MEASURED_BASIS and gpu.hours_basis != MEASURED_BASIS
    assert here.hours is not None
    trial_s = 64000 * (4e-4 / 4 + 1e-4) + 20 * 0.05
    assert here.hours.at_most == pytest.approx(12 * trial_s / 3600)


def test_a_trial_that_fits_nowhere_is_refused_with_the_numbers() -> None:
    small = GPU.model_copy(update={"name": "small", "usable_bytes": 650 * MIB})
    with pytest.raises(TrialTooLarge) as refused:
        made(devices=[small])
    message = str(refused.value)
    for part in ("100 MiB", "600 MiB", "small", "650 MiB", "d_sae=1024", "lower"):
        assert part in message


def test_a_device_that_is_too_small_stays_in_the_table_beside_one_that_fits() -> None:
    small = GPU.model_copy(update={"name": "small", "usable_bytes": 650 * MIB})
    row = made(devices=[small, GPU]).devices[0]
    assert row.trials_per_device == 0 and row.hours is None and row.usd is None
    assert "700 MiB" in row.notes[0] and "650 MiB" in row.notes[0]


def test_a_budget_that_will_not_do_is_said() -> None:
    tight = sweep(more="budget: {usd: 0.0001}")
    notes = made(tight).devices[0].notes
    assert notes and "budget.usd" in notes[0]


def test_the_expected_share_of_one_rung_is_that_of_the_rule() -> None:
    """48 trials in one stratum, a rung at a third: 1/3 + 2/3 of what goes on."""
    rule = parse_stopping({"scheduler": "asha", "grace": 1000, "reduction": 3})
    trials = [({"k": 1}, 3000)] * 48
    share = expected_share(rule, trials, strata=["k"], direction="min", slots=4).share
    assert share is not None
    # The best floor(n / 3) of the first n go on, in expectation sum(max(1, n // 3) / n) / 48.
    goes_on = sum(max(1, n // 3) / n for n in range(1, 49)) / 48
    assert share == pytest.approx(1 / 3 + 2 / 3 * goes_on, abs=0.04)


def test_more_strata_stop_less() -> None:
    rule = parse_stopping({"scheduler": "asha", "grace": 1000, "reduction": 3})
    trials = [({"k": number % 6}, 9000) for number in range(24)]

    def share(strata: Sequence[str]) -> float:
        found = expected_share(rule, trials, strata=strata, direction="min", slots=4).share
        assert found is not None
        return found

    assert share([]) < share(["k"]) < 1


def test_the_share_is_the_same_at_every_call() -> None:
    assert made(sweep(ASHA)) == made(sweep(ASHA))


def test_a_rule_over_two_numbers_is_not_guessed() -> None:
    spec = sweep("{scheduler: pareto, metric: fvu, grace: 8k}")
    shown = made(spec)
    assert shown.tokens.expected is None and shown.tokens.at_most == 12 * 64000
    assert "not modelled" in shown.expected_share_basis
    assert "- / " in page(spec, shown)


def test_trust_remote_code_is_shown() -> None:
    spec = sweep(model=", trust_remote_code: true")
    assert made(spec).trust_remote_code
    assert "trust_remote_code" in page(spec, made(spec))
    assert "trust_remote_code" not in page(sweep(), made())


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_page_fits_and_says_how_everything_was_estimated(width: int) -> None:
    spec = sweep(ASHA)
    shown = made(spec, [HERE, GPU], MEASURED)
    text = page(spec, shown, width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for part in ("12 trials", "8k, 24k tokens", MEASURED_BASIS, "FLOP at 40%", "language model 4"):
        assert part in flat


def test_a_plan_survives_json() -> None:
    shown = made(sweep(ASHA), [HERE, GPU], MEASURED)
    assert Plan.model_validate(json.loads(shown.model_dump_json())) == shown


def test_shares_of_a_trials_time_add_up() -> None:
    shares = MEASURED.shares(members=4, tokens=64000, num_reports=20, checkpoint_interval_s=60)
    assert sum(shares.values()) == pytest.approx(1)
    steps = shares["training steps with their optimizer"]
    assert shares["language model"] == pytest.approx(steps)
    assert shares["waiting"] == 0


def test_what_the_backend_tells_of_steps_is_shown_apart() -> None:
    told = MEASURED.model_copy(update={"waiting_share": 0.2, "optimizer_share": 0.25})
    shares = told.shares(members=4, tokens=64000, num_reports=20, checkpoint_interval_s=60)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["waiting"] == pytest.approx(shares["language model"] * 0.2)
    assert shares["optimizer"] == pytest.approx(shares["training steps"] / 3)


def test_the_first_configurations_are_those_of_the_sampler() -> None:
    configs = suggested(sweep())
    assert len(configs) == 12
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == 12


def test_an_unknown_device_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownDevice, match=r"A100-80.*Did you mean 'H100-80'"):
        device_named("H10")


def test_every_device_of_the_table_has_a_price() -> None:
    assert set(TYPICAL_USD_PER_HOUR) == set(GPUS)
    assert node_price(0.0, {}, device="nowhere").usd_per_hour is None


def test_this_machine_has_memory_and_arithmetic() -> None:
    here = this_machine("cpu")
    assert here.here and here.kind == "cpu"
    assert 0 < here.usable_bytes <= here.memory_bytes
    assert here.fp32_flop_per_second > 1e9


def test_a_kind_without_a_calibration_says_so() -> None:
    with pytest.raises(CalibrationFailed, match="no calibration"):
        calibrate("no_such_kind", {}, [])


def test_a_calibration_that_breaks_says_why() -> None:
    with pytest.raises(CalibrationFailed, match="plan without --calibrate"):
        calibrate("sae_train", {"model": "nonsense"}, [])


def test_the_command_prints_a_page_or_json_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from orchestrator.cli.plan import plan as command

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP % {"early_stop": ASHA, "more": "", "model": ""})
    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, [str(file), "--device", "A100-80", "--num-devices", "2"])
    assert shown.exit_code == 0 and "2 x A100-80" in shown.output
    as_json = CliRunner().invoke(app, [str(file), "--json", "--device", "L4-24"])
    parsed = json.loads(as_json.stdout)
    assert parsed["devices"][0]["device"] == "L4-24"
    assert parsed["rungs"] == [8000, 24000]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
