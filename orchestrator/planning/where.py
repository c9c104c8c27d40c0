"""One sweep on many kinds of machine: what fits, how fast, how dear; cheapest, fastest, between."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from orchestrator.planning.calibration import Calibration
from orchestrator.planning.devices import GPUS, DeviceProfile
from orchestrator.planning.offers import MachineOffer
from orchestrator.planning.plan import Between, DevicePlan, Plan, over_budget
from orchestrator.planning.plan import plan as make_plan
from orchestrator.spec.sweep import SweepSpec


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Scaling(_Part):
    """What measuring here said of the formulas."""

    factor: float
    """Measured over estimated time, by which every estimate is multiplied."""
    device: str
    """Where it was measured."""


class MachineRow(_Part):
    """The sweep on one machine of a kind."""

    name: str
    provider: str
    zone: str
    spot: bool
    node_type: str
    """Its name in the cluster file; empty where it is not there."""
    device: str
    num_devices: int
    saes_per_device: int
    """Live at once on one device; 0: not even the largest fits alone."""
    tokens_per_second: float | None
    """Of training, over all SAEs and devices of the machine, once all are busy."""
    hours: Between | None
    usd_per_hour: float | None
    price_source: str
    price_is_estimate: bool
    usd: Between | None
    """The machine's price for all of its hours; starting and loading come on top."""
    usd_per_sae: float | None
    """With early stopping as it is expected to go; a stopped one is one, too."""
    on_frontier: bool
    """No other is both cheaper and faster."""
    notes: tuple[str, ...] = ()


class WherePlan(_Part):
    """All that `saeq plan --where` shows."""

    sweep: str
    trials: int
    tokens: Between
    machines: tuple[MachineRow, ...]
    """The cheapest first; then those without a price; then those on which nothing fits."""
    cheapest: str | None
    fastest: str | None
    hours_basis: str
    expected_share_basis: str
    scaling: Scaling | None
    notes: tuple[str, ...] = ()
    """Who could not be asked, and why."""


def where(
    spec: SweepSpec,
    offers: Sequence[MachineOffer],
    *,
    notes: Sequence[str] = (),
    measured: tuple[Calibration, DeviceProfile] | None = None,
) -> WherePlan:
    """Work a sweep out on one machine of each kind.

    Args:
        offers: the machines.
        notes: what a reader should know of where their prices are from.
        measured: rates of this machine, and its device: estimates are scaled by how far the
            formulas were off here.

    Raises:
        TrialTooLarge: the largest trial fits none of them.
    """
    shapes = list(dict.fromkeys((offer.device, offer.num_devices) for offer in offers))
    profiles = [GPUS[name].model_copy(update={"num_devices": count}) for name, count in shapes]
    planned = make_plan(spec, profiles)
    by_shape = dict(zip(shapes, planned.devices, strict=True))
    scaling = None if measured is None else _scaling(spec, *measured)
    rows = [
        _row(spec, offer, by_shape[offer.device, offer.num_devices], planned, scaling)
        for offer in offers
    ]
    rows = _with_frontier(rows)
    priced = [row for row in rows if row.usd is not None]
    timed = [row for row in rows if row.hours is not None]
    basis = next((each.hours_basis for each in planned.devices if each.trials_per_device), "")
    return WherePlan(
        sweep=spec.name,
        trials=spec.trials,
        tokens=planned.tokens,
        machines=tuple(sorted(rows, key=_order)),
        cheapest=min(priced, key=_order).name if priced else None,
        fastest=min(timed, key=_pace).name if timed else None,
        hours_basis=basis,
        expected_share_basis=planned.expected_share_basis,
        scaling=scaling,
        notes=(*notes, *_own_price(spec)),
    )


def _own_price(spec: SweepSpec) -> list[str]:
    own = spec.price.usd_per_hour
    return [f"price.usd_per_hour {own:g} of the sweep is not used here"] if own > 0 else []


def _scaling(spec: SweepSpec, calibration: Calibration, here: DeviceProfile) -> Scaling:
    measured = make_plan(spec, [here], calibration).devices[0].hours
    formula = make_plan(spec, [here]).devices[0].hours
    assert measured is not None  # what was measured fits
    assert formula is not None
    return Scaling(factor=measured.at_most / formula.at_most, device=here.name)


def _row(
    spec: SweepSpec, offer: MachineOffer, device: DevicePlan, planned: Plan, scaling: Scaling | None
) -> MachineRow:
    hours = _times(device.hours, 1.0 if scaling is None else scaling.factor)
    usd = None if offer.usd_per_hour is None else _times(hours, offer.usd_per_hour)
    pace = None if hours is None else planned.tokens.at_most / (hours.at_most * 3600)
    notes = over_budget(spec, hours, usd) if hours is not None else list(device.notes)
    return MachineRow(
        name=offer.name,
        provider=offer.provider,
        zone=offer.zone,
        spot=offer.spot,
        node_type=offer.node_type,
        device=offer.device,
        num_devices=offer.num_devices,
        saes_per_device=device.trials_per_device,
        tokens_per_second=pace,
        hours=hours,
        usd_per_hour=offer.usd_per_hour,
        price_source=offer.source,
        price_is_estimate=offer.is_estimate,
        usd=usd,
        usd_per_sae=None if usd is None else expected(usd) / spec.trials,
        on_frontier=False,
        notes=tuple(notes),
    )


def _times(between: Between | None, factor: float) -> Between | None:
    if between is None:
        return None
    share = None if between.expected is None else between.expected * factor
    return Between(expected=share, at_most=between.at_most * factor)


def expected(between: Between) -> float:
    """As it is expected to go; at most, where nobody can say."""
    return between.at_most if between.expected is None else between.expected


def _pace(row: MachineRow) -> tuple[float, float]:
    hours = expected(row.hours) if row.hours is not None else float("inf")
    return hours, expected(row.usd) if row.usd is not None else float("inf")


def _order(row: MachineRow) -> tuple[bool, bool, float, float, str]:
    hours, usd = _pace(row)
    return row.hours is None, row.usd is None, usd, hours, row.name


def _with_frontier(rows: Sequence[MachineRow]) -> list[MachineRow]:
    points = [_pace(row) for row in rows if row.usd is not None]
    return [
        row.model_copy(update={"on_frontier": row.usd is not None and _is_best(_pace(row), points)})
        for row in rows
    ]


def _is_best(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    """Whether none is better in one and at least as good in the other."""
    return not any(
        other != point and other[0] <= point[0] and other[1] <= point[1] for other in points
    )
