"""The page that `saeq plan` prints: readable at 80 columns, every estimate with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.planning.plan import MEASURED_BASIS, Between, DevicePlan, MemoryPlan, Plan
from orchestrator.spec.units import (
    format_bytes,
    format_duration,
    format_rounded,
    format_usd,
)

if TYPE_CHECKING:
    from orchestrator.spec.sweep import SweepSpec

DASH = "-"
SHOWN_PART = 0.01
"""Smaller parts of the memory are shown together."""

FORMULAS_OMIT = (
    "formulas leave out loading, evaluation, and launching kernels, which bounds small SAEs"
)


def plan_page(spec: SweepSpec, plan: Plan) -> RenderableType:
    """Everything a person wants to know before saying `saeq run`."""
    parts: list[RenderableType] = [
        Text.assemble((plan.sweep, "bold"), f"  {plan.trials} trials of {plan.job}"),
        Text(),
        _facts(spec, plan),
        Text(),
        _configurations(spec, plan),
        _devices(plan),
        *_footnotes(plan),
    ]
    return Group(*parts)


def _facts(spec: SweepSpec, plan: Plan) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("search", f"{spec.search.sampler}, seed {spec.search.seed}")
    grid.add_row(spec.kind.unit, _tokens(plan))
    grid.add_row("stopping", _stopping(spec, plan))
    grid.add_row("memory", _memory(plan))
    if plan.trust_remote_code:
        warning = "on: code that comes with the model or data runs as you"
        grid.add_row("trust_remote_code", Text(warning, style="bold yellow"))
    if plan.calibration is not None:
        grid.add_row("measured here", _measured(spec, plan))
    return grid


def _tokens(plan: Plan) -> str:
    most = format_rounded(plan.tokens.at_most)
    text = f"{format_rounded(plan.tokens_per_trial)} a trial, {most} in all at most"
    if plan.tokens.expected is None or plan.expected_share == 1.0:
        return text
    expected = format_rounded(plan.tokens.expected)
    return f"{text}; {expected} expected ({plan.expected_share:.0%})"


def _stopping(spec: SweepSpec, plan: Plan) -> str:
    if not plan.rungs:
        return f"{plan.scheduler}: every trial runs to its end"
    rungs = ", ".join(format_rounded(rung) for rung in plan.rungs)
    strata = f" within equal {', '.join(spec.strata)}" if spec.strata else " over the whole sweep"
    return f"{plan.scheduler} on {spec.metric} at {rungs} {spec.kind.unit},{strata}"


def _memory(plan: Plan) -> str:
    if plan.memory_elsewhere is None:
        return _memory_on(plan.memory, "a device")
    both = (plan.memory, plan.memory_elsewhere)
    return "\n".join(_memory_on(each, _A_DEVICE[each.device]) for each in both)


_A_DEVICE = {"cpu": "a CPU", "cuda": "a GPU"}


def _memory_on(memory: MemoryPlan, device: str) -> str:
    low, high = format_bytes(memory.trial_bytes_min), format_bytes(memory.trial_bytes_max)
    trial = high if low == high else f"{low} to {high}"
    lines = [f"{trial} a trial, beside {format_bytes(memory.shared_bytes)} shared on {device}"]
    if memory.trial_parts:
        whose = "a trial" if low == high else "the largest trial"
        lines.append(f"{whose}: {_parts(memory.trial_parts)}")
    if memory.shared_parts:
        lines.append(f"shared: {_parts(memory.shared_parts)}")
    return "\n".join(lines)


def _parts(parts: Mapping[str, int]) -> str:
    """Names with sizes, the largest first; names of one beginning are added up."""
    sums: dict[str, int] = {}
    for name, num_bytes in parts.items():
        beginning = name.partition(":")[0]
        sums[beginning] = sums.get(beginning, 0) + num_bytes
    ranked = sorted(sums.items(), key=lambda part: part[1], reverse=True)
    shown = [part for part in ranked if part[1] >= SHOWN_PART * sum(sums.values())]
    told = [f"{name} {format_bytes(num_bytes)}" for name, num_bytes in shown]
    left = sum(sums.values()) - sum(num_bytes for _, num_bytes in shown)
    return ", ".join(told + ([f"others {format_bytes(left)}"] if left else []))


def _measured(spec: SweepSpec, plan: Plan) -> str:
    measured = plan.calibration
    assert measured is not None
    here = next((each for each in plan.devices if each.here), None)
    shares = measured.shares(
        members=max(1, here.trials_per_device if here else measured.members),
        tokens=plan.tokens_per_trial,
        num_reports=len(spec.report_points(plan.memory.largest_config)),
        checkpoint_interval_s=spec.checkpoint.seconds,
    )
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    language_model = format_rounded(1 / measured.shared_seconds_per_token)
    steps = format_rounded(1 / measured.trial_seconds_per_token)
    return (
        f"{language_model} tokens/s of the language model, {steps} tokens/s of training steps, "
        f"{measured.members} trials for {format_duration(measured.wall_seconds)} "
        f"on {measured.device} after {format_duration(measured.load_seconds)} of loading. "
        f"A trial's time: {parts}"
    )


def _configurations(spec: SweepSpec, plan: Plan) -> RenderableType:
    searched = [name for name in spec.space.names if name in spec.space.searched]
    names = [name for name in searched if any(d.varies for d in spec.space.entries[name])]
    fixed = {
        name: value
        for name, value in plan.configurations[0].items()
        if name not in spec.space.searched
    }
    shown = len(plan.configurations)
    title = f"all {shown} trials" if shown == plan.trials else f"first {shown} of {plan.trials}"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("#", justify="right", style="dim")
    for name in names:
        table.add_column(name, overflow="fold")
    for number, config in enumerate(plan.configurations):
        table.add_row(str(number), *(_value(config, name) for name in names))
    lines = []
    if following := [_following(spec, name) for name in searched if name not in names]:
        lines.append("where they apply: " + ", ".join(following))
    if fixed:
        shared = ", ".join(f"{name} {_value(fixed, name)}" for name in fixed)
        lines.append(f"the same in all: {shared}")
    return Group(table, *(Text(f"{line}\n", style="dim") for line in lines))


def _following(spec: SweepSpec, name: str) -> str:
    """A parameter that has one value under each of its conditions."""
    alternatives = spec.space.entries[name]
    values = [_value({name: value}, name) for each in alternatives for value in each.corners()]
    return f"{name} {' or '.join(values)}"


def _value(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if value is None:
        return DASH
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _devices(plan: Plan) -> RenderableType:
    title = "where it could run: expected / at most"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("device", overflow="fold")
    table.add_column("fit", justify="right", no_wrap=True)
    table.add_column("live", justify="right", no_wrap=True)
    table.add_column("packs", justify="right", no_wrap=True)
    table.add_column("time", justify="right")
    table.add_column("cost", justify="right")
    for device in plan.devices:
        number = f"{device.num_devices} x " if device.num_devices > 1 else ""
        table.add_row(
            f"{number}{device.device}",
            str(device.trials_by_memory or DASH),
            str(device.trials_per_device or DASH),
            str(device.packs or DASH),
            _pair(device.hours, lambda hours: format_duration(hours * 3600)),
            _pair(device.usd, format_usd),
        )
    notes = [
        Text(f"{device.device}: {note}", style="yellow")
        for device in plan.devices
        for note in device.notes
    ]
    return Group(table, *notes, *([Text()] if notes else []))


def _pair(between: Between | None, shown: Any) -> str:
    if between is None:
        return DASH
    if between.expected == between.at_most:
        return str(shown(between.at_most))
    expected = DASH if between.expected is None else shown(between.expected)
    return f"{expected} / {shown(between.at_most)}"


def _footnotes(plan: Plan) -> list[Text]:
    """How each number came about, equal origins named once."""
    lines = [
        "fit: trials that one device has memory for; live: those of them at once, as the sweep "
        "has trials and pack.members allows"
    ]
    lines += _by_basis("time", plan.devices, "hours_basis")
    lines += _by_basis("cost", plan.devices, "usd_basis")
    if any(each.hours_basis != MEASURED_BASIS for each in plan.devices):
        lines.append(FORMULAS_OMIT)
    lines.append(f"expected: {plan.expected_share_basis}")
    return [Text(line, style="dim") for line in lines]


def _by_basis(name: str, devices: tuple[DevicePlan, ...], field: str) -> list[str]:
    named: dict[str, list[str]] = {}
    for device in devices:
        if device.trials_per_device:
            named.setdefault(getattr(device, field), []).append(device.device)
    if len(named) == 1:
        return [f"{name}: {next(iter(named))}"]
    return [f"{name}, {'; '.join(devices)}: {basis}" for basis, devices in named.items()]
