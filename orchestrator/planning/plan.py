"""What a sweep would run, and what it would cost: arithmetic; nothing is loaded or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jobs.kind import Footprint
from orchestrator.money.node_price import NOT_KNOWN, node_price
from orchestrator.planning.calibration import Calibration
from orchestrator.planning.devices import BANDWIDTH_EFFICIENCY, EFFICIENCY, DeviceProfile
from orchestrator.planning.expectation import Expectation, expected_share
from orchestrator.planning.largest_trial import LargestTrial, largest_of, largest_trial
from orchestrator.planning.placement import DEFAULT_MEMBERS, DoesNotFit
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.units import format_bytes

SHOWN_CONFIGURATIONS = 10
COUNTED_CONFIGURATIONS = 256
"""Memory and work are added up over this many trials at most and scaled to all."""

FORMULA_BASIS = (
    f"formula: FLOP at {EFFICIENCY:.0%} of peak (bf16 for the language model, fp32 for trials "
    f"without autocast), and then trials' bytes at {BANDWIDTH_EFFICIENCY:.0%} of bandwidth"
)
CPU_FORMULA_BASIS = f"formula: FLOP at {EFFICIENCY:.0%} of the cores' fp32 peak"
MEASURED_BASIS = "measured here by --calibrate"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Between(_Part):
    """A quantity with early stopping and without."""

    expected: float | None
    """With early stopping as it is expected to go; None where nobody can say."""
    at_most: float
    """When every trial runs to its end."""


class MemoryPlan(_Part):
    """Bytes, from the job kind's formula."""

    device: Literal["cpu", "cuda"]
    """Where they are needed."""
    trial_bytes_min: int
    trial_bytes_max: int
    shared_bytes: int
    """Paid once a device: the language model and the activation buffer."""
    trial_parts: Mapping[str, int] = {}
    """What the largest trial is made of; empty where the kind does not tell."""
    shared_parts: Mapping[str, int] = {}
    """Likewise of what is shared; `steps: <buffer>` is of steps that trials take in turn."""
    largest_config: Mapping[str, Any]


class DevicePlan(_Part):
    """The sweep on one kind of device."""

    device: str
    num_devices: int
    here: bool
    memory_bytes: int
    trials_per_device: int
    """Live at once on one device; 0: not even the largest trial fits alone."""
    trials_by_memory: int
    """As many as one device has memory for, however many the sweep has or asks for."""
    packs: int
    """Groups of trials that share a forward pass, when each pack is filled once."""
    hours: Between | None
    hours_basis: str
    usd: Between | None
    usd_basis: str
    notes: tuple[str, ...] = ()
    """What stands in the way: too little memory, a budget that is exceeded."""


class Plan(_Part):
    """All that `saeq plan` shows."""

    sweep: str
    job: str
    trials: int
    configurations: tuple[Mapping[str, Any], ...]
    """The first ones, as the sampler would suggest them with nothing known."""
    tokens: Between
    """Over all trials."""
    tokens_per_trial: int
    """Of the longest."""
    scheduler: str
    rungs: tuple[int, ...]
    expected_share: float | None
    expected_share_basis: str
    memory: MemoryPlan
    """On devices like the first one."""
    memory_elsewhere: MemoryPlan | None = None
    """On the others, where they need other memory."""
    devices: tuple[DevicePlan, ...]
    trust_remote_code: bool
    calibration: Calibration | None = None


@dataclass(frozen=True)
class _Work:
    """One trial's size."""

    tokens: int
    num_reports: int
    footprint: Footprint


class TrialTooLarge(DoesNotFit):
    """A trial that fits no device that was asked about."""

    def __init__(self, need_bytes: int, shared_bytes: int, config: str, devices: str) -> None:
        super().__init__(need_bytes, shared_bytes, config, devices)
        self.need_bytes, self.shared_bytes = need_bytes, shared_bytes
        self.config, self.devices = config, devices

    def __str__(self) -> str:
        return (
            f"a trial needs {format_bytes(self.need_bytes)} beside the "
            f"{format_bytes(self.shared_bytes)} that trials share, which fits none of: "
            f"{self.devices}; its configuration is {self.config}; lower its width or batch_tokens, "
            "or use a device with more memory"
        )


def plan(
    spec: SweepSpec, devices: Sequence[DeviceProfile], calibration: Calibration | None = None
) -> Plan:
    """Work out what a sweep runs and costs on each device.

    Args:
        spec: the validated sweep.
        devices: where it might run.
        calibration: rates measured on this machine; used for the devices that are here.

    Raises:
        TrialTooLarge: the largest trial fits none of the devices.
    """
    configs = suggested(spec)
    kind = spec.kind
    totals = [kind.total_tokens(spec.setup, config) for config in configs]
    footprints = [kind.footprint(spec.setup, config) for config in configs]
    reports = [len(spec.report_points(config)) for config in configs]
    work = list(starmap(_Work, zip(totals, reports, footprints, strict=True)))
    largest = largest_trial(configs, footprints)
    _refuse_too_large(largest, devices)
    share = expected_share(
        spec.early_stop,
        list(zip(configs, totals, strict=True)),
        strata=spec.strata,
        direction=spec.direction,
        slots=max(trials_per_device(spec, d, largest.footprint) for d in devices),
    )
    memory, *elsewhere = [
        _memory_plan(kind, footprints, largest)
        for kind in dict.fromkeys(device.kind for device in devices)
    ]
    scale = spec.trials / len(configs)
    return Plan(
        sweep=spec.name,
        job=spec.job,
        trials=spec.trials,
        configurations=tuple(configs[:SHOWN_CONFIGURATIONS]),
        tokens=_between(sum(totals) * scale, share),
        tokens_per_trial=max(totals),
        scheduler=spec.early_stop.scheduler,
        rungs=spec.early_stop.rungs(max(totals)),
        expected_share=share.share,
        expected_share_basis=share.basis,
        memory=memory,
        memory_elsewhere=next((each for each in elsewhere if _differ(each, memory)), None),
        devices=tuple(_on_device(spec, device, work, share, calibration) for device in devices),
        trust_remote_code=trusts_remote_code(spec),
        calibration=calibration,
    )


def _memory_plan(
    device: Literal["cpu", "cuda"], footprints: Sequence[Footprint], largest: LargestTrial
) -> MemoryPlan:
    worst = largest.footprint.on(device)
    return MemoryPlan(
        device=device,
        trial_bytes_min=min(each.on(device).trial_bytes for each in footprints),
        trial_bytes_max=worst.trial_bytes,
        shared_bytes=worst.shared_bytes,
        trial_parts=worst.trial_parts,
        shared_parts=worst.shared_parts,
        largest_config=largest.config_by_device[device],
    )


def _differ(one: MemoryPlan, other: MemoryPlan) -> bool:
    return one.model_copy(update={"device": other.device}) != other


def suggested(spec: SweepSpec, limit: int = COUNTED_CONFIGURATIONS) -> list[dict[str, Any]]:
    """The first configurations, as the sampler suggests them while no trial has run."""
    sampler = spec.build_sampler()
    return [sampler.suggest(number, []) for number in range(min(limit, sampler.total()))]


def trials_per_device(spec: SweepSpec, device: DeviceProfile, footprint: Footprint) -> int:
    """How many trials of that size live on one device at once; 0 if none fits."""
    asked = spec.pack.members or DEFAULT_MEMBERS
    by_memory = trials_by_memory(device, footprint)
    return min(by_memory, asked, -(-spec.trials // device.num_devices))


def trials_by_memory(device: DeviceProfile, footprint: Footprint) -> int:
    """How many trials of that size one device has memory for."""
    needs = footprint.on(device.kind)
    return max(0, (device.usable_bytes - needs.shared_bytes) // needs.trial_bytes)


def trials_that_fit(spec: SweepSpec, device: DeviceProfile) -> int:
    """How many of the sweep's largest trials live on one device at once.

    Raises:
        TrialTooLarge: not even one does.
    """
    return trials_per_device(spec, device, refuse_what_fits_nowhere(spec, [device]))


def refuse_what_fits_nowhere(spec: SweepSpec, devices: Sequence[DeviceProfile]) -> Footprint:
    """The sweep's largest trial, if one of the devices has room for it.

    Raises:
        TrialTooLarge: none has.
    """
    configs = suggested(spec)
    footprints = [spec.kind.footprint(spec.setup, config) for config in configs]
    largest = largest_trial(configs, footprints)
    _refuse_too_large(largest, devices)
    return largest.footprint


def trusts_remote_code(spec: SweepSpec) -> bool:
    """Whether the sweep lets code that comes with a model run."""
    return any(_truthy_leaves(spec.setup.model_dump(mode="json"), "trust_remote_code"))


def _truthy_leaves(tree: Any, key: str) -> list[Any]:
    if isinstance(tree, list):
        return [leaf for each in tree for leaf in _truthy_leaves(each, key)]
    if not isinstance(tree, dict):
        return []
    found = [tree[key]] if tree.get(key) else []
    return found + [leaf for each in tree.values() for leaf in _truthy_leaves(each, key)]


def _refuse_too_large(largest: LargestTrial, devices: Sequence[DeviceProfile]) -> None:
    if any(fits(largest.footprint.on(d.kind), d) for d in devices):
        return
    roomiest = max(devices, key=lambda d: d.usable_bytes)
    needs, config = largest.footprint.on(roomiest.kind), largest.config_by_device[roomiest.kind]
    raise TrialTooLarge(
        needs.trial_bytes,
        needs.shared_bytes,
        ", ".join(f"{name}={value}" for name, value in config.items()),
        ", ".join(f"{d.name} ({format_bytes(d.usable_bytes)} usable)" for d in devices),
    )


def fits(needs: Footprint, device: DeviceProfile) -> bool:
    """Whether one trial has room beside what it shares."""
    return device.usable_bytes >= needs.shared_bytes + needs.trial_bytes


def _between(at_most: float, share: Expectation) -> Between:
    expected = None if share.share is None else at_most * share.share
    return Between(expected=expected, at_most=at_most)


def _on_device(
    spec: SweepSpec,
    device: DeviceProfile,
    work: Sequence[_Work],
    share: Expectation,
    calibration: Calibration | None,
) -> DevicePlan:
    largest = largest_of([each.footprint for each in work])
    members = trials_per_device(spec, device, largest)
    packs = -(-spec.trials // members) if members else 0
    price = node_price(spec.price.usd_per_hour, {}, device=device.name)
    hours, usd, basis, notes = None, None, "does not fit", []
    if members:
        measured = calibration if device.here else None
        basis = _basis(device, measured)
        seconds = _seconds(spec, device, members, work, measured)
        if seconds == 0:
            basis = f"no formula for {spec.job}; its first trials tell, in `saeq watch`"
        else:
            hours = _between(seconds / 3600 / min(device.num_devices, packs), share)
            if price.usd_per_hour is not None:
                usd = _between(seconds / 3600 * price.usd_per_hour, share)
            notes = over_budget(spec, hours, usd)
    else:
        needs = largest.on(device.kind)
        need = format_bytes(needs.shared_bytes + needs.trial_bytes)
        notes = [f"needs {need}, {format_bytes(device.usable_bytes)} usable"]
    return DevicePlan(
        device=device.name,
        num_devices=device.num_devices,
        here=device.here,
        memory_bytes=device.memory_bytes,
        trials_per_device=members,
        trials_by_memory=trials_by_memory(device, largest),
        packs=packs,
        hours=hours,
        hours_basis=basis,
        usd=usd,
        usd_basis=price.source,
        notes=tuple(notes),
    )


def _basis(device: DeviceProfile, measured: Calibration | None) -> str:
    if measured is not None:
        return MEASURED_BASIS
    return FORMULA_BASIS if device.kind == "cuda" else CPU_FORMULA_BASIS


def _seconds(
    spec: SweepSpec,
    device: DeviceProfile,
    members: int,
    work: Sequence[_Work],
    measured: Calibration | None,
) -> float:
    """Device seconds of all trials run to their ends; the shared pass is split over a pack."""
    scale = spec.trials / len(work)
    if measured is not None:
        per_token = measured.shared_seconds_per_token / members + measured.trial_seconds_per_token
        return scale * sum(
            each.tokens * per_token + each.num_reports * measured.report_seconds for each in work
        )
    shared_rate = members * device.bf16_flop_per_second * EFFICIENCY
    return scale * sum(
        each.tokens * each.footprint.shared_flop_per_token / shared_rate
        + each.tokens * _trial_seconds_per_token(device, each.footprint)
        for each in work
    )


def _trial_seconds_per_token(device: DeviceProfile, footprint: Footprint) -> float:
    """Of a trial's own steps: matrix products and passes over memory come one after the other."""
    peak = (
        device.bf16_flop_per_second if footprint.trial_is_bfloat16 else device.fp32_flop_per_second
    )
    arithmetic = footprint.trial_flop_per_token / (peak * EFFICIENCY)
    if device.bytes_per_second is None:
        return arithmetic
    bandwidth = device.bytes_per_second * BANDWIDTH_EFFICIENCY
    return arithmetic + footprint.trial_traffic_bytes_per_token / bandwidth


def over_budget(spec: SweepSpec, hours: Between, usd: Between | None) -> list[str]:
    """What of the sweep's budget does not suffice, in words."""
    notes = []
    for name, limit, need in (
        ("hours", spec.budget.hours, hours),
        ("usd", spec.budget.usd, usd),
    ):
        if limit is None or need is None:
            if limit is not None:
                notes.append(f"budget.{name} {limit:g} holds nothing: {NOT_KNOWN}")
            continue
        expected = need.at_most if need.expected is None else need.expected
        if expected > limit:
            notes.append(f"budget.{name} {limit:g} ends it early: about {expected:.3g} needed")
    return notes
