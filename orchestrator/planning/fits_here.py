"""Whether a sweep can run on this machine: asked before it is submitted, so in half a second."""

from __future__ import annotations

from pathlib import Path

from orchestrator.planning.devices import this_machine
from orchestrator.planning.machine import num_cpus
from orchestrator.planning.placement import place
from orchestrator.planning.plan import trials_that_fit
from orchestrator.spec.faults import Fault, SpecFaults
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.sweep_file import read_text
from orchestrator.spec.yaml_positions import parse_yaml


def refuse_what_cannot_run_here(spec: SweepSpec, file: Path) -> None:
    """Look at this machine's devices, memory and files; nothing is loaded.

    Raises:
        SpecFaults: a model or a text is not there, with the lines of the sweep file.
        DoesNotFit: a trial is too large for this machine, or it lacks the device asked for.
    """
    faults = [Fault(path, message) for path, message in spec.kind.check_here(spec.setup)]
    if faults:
        document = parse_yaml(read_text(file), str(file))
        raise SpecFaults(document.all_placed(faults), str(file))
    machine = this_machine(spec.device)
    num_gpus = machine.num_devices if machine.kind == "cuda" else 0
    node = {"CPU": float(num_cpus()), "GPU": float(num_gpus)}
    place(spec, [node], trials_that_fit(spec, machine))
