"""A folder with one safetensors file and one JSON file that says what its numbers are.

A torch module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from steering.errors import BadSteeringInput

__all__ = ["BadVectors", "read_folder", "write_folder"]

NUMBERS, JSON = "vectors.safetensors", "vectors.json"
FORMAT = 1


class BadVectors(BadSteeringInput):
    """Steering vectors that cannot be read, or do not fit what they are to steer."""


def write_folder(
    folder: Path, kind: str, numbers: Mapping[str, Tensor], said: Mapping[str, Any]
) -> None:
    """Write both files; the JSON comes last, so a folder without it was not finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).unlink(missing_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in numbers.items()}
    save_file(plain, folder / NUMBERS)
    head = {"kind": kind, "format": FORMAT, "sha256": _sha256(folder / NUMBERS)}
    text = json.dumps({**head, **said}, indent=1)
    (folder / JSON).write_text(text + "\n", encoding="utf-8")


def read_folder(
    folder: Path, kind: str, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The numbers by name, and what the JSON says.

    Raises:
        BadVectors: a file is missing or broken, or it is an artefact of another kind.
    """
    said = _read_json(folder)
    if said.get("kind") != kind:
        raise BadVectors(
            f"{folder} holds {said.get('kind')!r}, not {kind!r}; name a folder of that kind"
        )
    if said.get("format") != FORMAT:
        raise BadVectors(
            f"{folder} has format {said.get('format')!r}, and this version reads {FORMAT}; use the "
            "version of saeq that wrote it"
        )
    path = folder / NUMBERS
    if not path.is_file():
        raise BadVectors(f"{folder} lacks {NUMBERS}; fetch or write it again")
    if said.get("sha256") != _sha256(path):
        raise BadVectors(f"{path} is not what {JSON} was written for; fetch or write both again")
    try:
        numbers = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadVectors(f"{path} is broken ({error}); fetch or write it again") from error
    if missing := [name for name in names if name not in numbers]:
        raise BadVectors(f"{path} lacks {', '.join(missing)}; write it again")
    return numbers, said


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / JSON
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadVectors(
            f"{folder} holds no steering vectors ({JSON} is not there); name a folder that "
            "save_vectors wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise BadVectors(f"{path} is broken ({error}); fetch or write it again") from error
    if not isinstance(said, dict):
        raise BadVectors(f"{path} is broken (no JSON object); fetch or write it again")
    return said


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
