"""`saeq plan`: what a sweep would run and cost; writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption

if TYPE_CHECKING:
    from orchestrator.planning.calibration import Calibration
    from orchestrator.planning.devices import DeviceProfile
    from orchestrator.spec.sweep import SweepSpec

SHOWN_DEVICES = ("L4-24", "A100-80", "H100-80", "H200-141")
"""What is compared with this machine when no --device is asked for."""

RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="NAME",
        help="With --where: an AWS region to ask for spot prices; may be given again.",
        show_default=False,
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="With --where: machines and prices of your own: .yaml, .json or .csv.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        metavar="FILE",
        help="With --where: the file of `ray up`, for its node types and region.",
        show_default=False,
    ),
]


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sweep file.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Such as A100-80, or `here`; may be given again. Else this machine and some GPUs.",
            show_default=False,
        ),
    ] = None,
    num_devices: Annotated[
        int, typer.Option("--num-devices", min=1, help="GPUs of that kind, side by side.")
    ] = 1,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Train here for some seconds first, and go by that."),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--where", help="Compare machines to rent: dollars and hours of each.")
    ] = False,
    region: RegionOption = None,
    prices: PricesOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a sweep would run and cost; writes nothing.

    saeq plan sweep.yaml                           this machine and some GPUs

    saeq plan sweep.yaml --calibrate               hours measured here, not guessed

    saeq plan sweep.yaml --device H100-80 --num-devices 8

    saeq plan sweep.yaml --where                   what to rent, at spot prices of now

    saeq plan sweep.yaml --where --prices my-prices.yaml

    The hours without --calibrate are formulas: good for comparing, not for promising.
    """
    from orchestrator.planning.plan import plan as make_plan
    from orchestrator.spec.sweep import load_sweep

    spec = load_sweep(file)
    if compare:
        _refuse_devices(device, num_devices)
        _where(spec, region or [], prices, cluster, calibrate=calibrate, as_json=as_json)
        return
    if region or prices or cluster:
        raise RequestError("--region, --prices and --cluster go with --where; add it")
    devices = _devices(spec, device or [], num_devices)
    measured = _measured(spec, devices, quiet=as_json) if calibrate else None
    made = make_plan(spec, devices, measured)
    if as_json:
        sys.stdout.write(made.model_dump_json(indent=2) + "\n")
        return
    from rich.console import Console

    from orchestrator.view.plan_page import plan_page

    Console(highlight=False).print(plan_page(spec, made))


def _refuse_devices(device: list[str] | None, num_devices: int) -> None:
    if device or num_devices != 1:
        raise RequestError(
            "--where compares whole machines; drop --device and --num-devices, or list the "
            "machines that you mean in a file for --prices"
        )


def _where(
    spec: SweepSpec,
    regions: list[str],
    prices: Path | None,
    cluster: Path | None,
    *,
    calibrate: bool,
    as_json: bool,
) -> None:
    from orchestrator.planning.market import offers_of_now
    from orchestrator.planning.where import where
    from orchestrator.view.where_page import where_page

    offers, notes = offers_of_now(regions, prices, cluster)
    measured = _measured_on_gpu(spec, quiet=as_json) if calibrate else None
    made = where(spec, offers, notes=notes, measured=measured)
    if as_json:
        sys.stdout.write(made.model_dump_json(indent=2) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(where_page(made, console.width))


def _measured_on_gpu(spec: SweepSpec, *, quiet: bool) -> tuple[Calibration, DeviceProfile]:
    from orchestrator.planning.devices import this_machine

    here = this_machine(spec.device)
    if here.kind != "cuda":
        raise RequestError(
            "--calibrate says how far the formulas are off on a GPU, and this machine has none; "
            "drop it, or run this on a machine with one"
        )
    measured = _measured(spec, [here], quiet=quiet)
    assert measured is not None
    return measured, here


def _devices(spec: SweepSpec, names: list[str], num_devices: int) -> list[DeviceProfile]:
    from orchestrator.planning.devices import device_named, this_machine

    here = this_machine(spec.device)
    if names:
        return [
            here if name in ("here", "this machine") else device_named(name, num_devices)
            for name in names
        ]
    return [here, *(device_named(name, num_devices) for name in SHOWN_DEVICES)]


def _measured(spec: SweepSpec, devices: list[DeviceProfile], *, quiet: bool) -> Calibration | None:
    from orchestrator.planning.calibration import calibrate
    from orchestrator.planning.devices import this_machine
    from orchestrator.planning.plan import suggested, trials_per_device

    here = next((each for each in devices if each.here), this_machine(spec.device))
    configs = suggested(spec)
    members = min(trials_per_device(spec, here, spec.kind.footprint(spec.setup, configs[0])), 16)
    if not quiet:
        sys.stderr.write(f"measuring {members} trials on {here.name} for some seconds ...\n")
    return calibrate(
        spec.job,
        spec.setup.model_dump(mode="json"),
        configs[: max(1, members)],
        device=here.kind,
    )
