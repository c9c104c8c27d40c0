"""Whether a sweep can run on this machine: asked before it is submitted, so in half a second."""

from __future__ import annotations

from pathlib import Path

from orchestrator.planning.fits_cluster import place_on
from orchestrator.planning.node_types import shape_of_this_machine
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
    place_on(spec, shape_of_this_machine(spec.device))
