"""Artefacts of other sweeps, as a trial asks for them: by kind and place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.kind import InputArtefact
from steering.errors import BadSteeringInput

__all__ = ["folder_of", "needed"]


def needed(inputs: Sequence[InputArtefact], kind: str, place: int = 0) -> InputArtefact:
    """One of the artefacts of a kind, the best being 0. Raises BadSteeringInput for none."""
    found = [one for one in inputs if one.kind == kind]
    if place >= len(found):
        raise BadSteeringInput(
            f"the sweep needs {len(found)} artefacts of kind {kind}, and number {place} is asked "
            f"for; add a sweep under needs: with select: {{kind: {kind}}}, or lower `input`"
        )
    return found[place]


def folder_of(artefact: InputArtefact) -> Path:
    """Its files on this machine, which kinds that take input files always have."""
    assert artefact.folder is not None
    return artefact.folder
