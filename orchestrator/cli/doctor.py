"""`saeq doctor`: checks machine, store and cluster, and says what to do."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.errors import DONE, SWEEP_FAILED, RequestError
from orchestrator.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from orchestrator.doctor.examination import Examined
    from orchestrator.store import Store

SLURM_MODULE = "orchestrator.doctor.slurm"


def doctor(
    store: StoreOption = None,
    slurm: Annotated[
        bool,
        typer.Option("--slurm", help="Also send a one-minute job through all stages of a start."),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check this machine, its GPUs and compilers, the store, Ray, nodes and the queue.

    Each line that is not well says the way out. Writes some small objects into the store and
    removes them; changes nothing else. Exit code 1 where there is a fault, else 0.

        saeq doctor
        saeq doctor --store s3://my-bucket/saeq
        saeq doctor --slurm
        saeq doctor --json | jq '.checks[].findings[] | select(.level == "fault")'
    """
    from orchestrator.doctor.examination import examine, impatient
    from orchestrator.doctor.store import place_of
    from orchestrator.store import Store
    from orchestrator.view.doctor_page import doctor_json, doctor_page

    opened = impatient(Store.open(store))
    examined = examine(opened)
    if slurm:
        examined.append(_try_job(opened))
    if as_json:
        sys.stdout.write(json.dumps(doctor_json(examined), indent=1) + "\n")
    else:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        width = console.width if console.is_terminal else None
        for line in doctor_page(examined, place_of(opened), width):
            console.print(line)
    return SWEEP_FAILED if any(each.level == "fault" for each in examined) else DONE


def _try_job(store: Store) -> Examined:
    """A real job through all stages; takes its minute or more."""
    import time

    from orchestrator.doctor.examination import Examined

    if find_spec(SLURM_MODULE) is None:
        raise RequestError("--slurm: this build of saeq has no SLURM check")
    started = time.monotonic()
    findings = tuple(import_module(SLURM_MODULE).try_job(store))
    return Examined("SLURM job", findings, time.monotonic() - started)
