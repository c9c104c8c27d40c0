"""Banks of one's own: a prompt a line, or JSON lines with what each is about.

A `.txt` file has a prompt a line; lines that begin with # are remarks. A `.jsonl` file has objects
{"prompt": "...", "group": "physicist", "id": "q1"}; group and id may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steering.errors import BadSteeringInput
from steering.prompt_banks.bank import Bank, Prompt

__all__ = ["ENDINGS", "read_bank"]

ENDINGS = (".txt", ".jsonl")


class _Line(BaseModel):
    """A line of a .jsonl file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1)
    group: str | None = Field(default=None, min_length=1)
    id: str | None = Field(default=None, min_length=1)


def read_bank(path: Path, known: Sequence[str] = ()) -> Bank:
    """Read a file; its name without the ending is the bank's.

    Args:
        known: built-in banks, named where the file is not there.

    Raises:
        BadSteeringInput: it cannot be read, or a line is faulty; with the line's number.
    """
    if path.suffix not in ENDINGS:
        builtin = f"; built-in ones: {', '.join(known)}" if known else ""
        raise BadSteeringInput(
            f"prompt bank {path.name!r} is unknown: a file of one's own ends in "
            f"{' or '.join(ENDINGS)}{builtin}"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadSteeringInput(
            f"prompt bank {path} cannot be read ({error.strerror}); name a file"
        ) from error
    except UnicodeDecodeError as error:
        raise BadSteeringInput(f"prompt bank {path} is not UTF-8 text; convert it") from error
    parse = _text_line if path.suffix == ".txt" else _json_line
    prompts = [parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return Bank(path.stem, tuple(prompt for prompt in prompts if prompt is not None))


def _text_line(path: Path, number: int, line: str) -> Prompt | None:
    del path
    return None if line.startswith("#") else Prompt(f"line-{number}", line.strip())


def _json_line(path: Path, number: int, line: str) -> Prompt:
    try:
        found = _Line.model_validate(json.loads(line))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadSteeringInput(
            f"{path}, line {number}: {faults}; a line has prompt and, if it is about one, group"
        ) from error
    except ValueError as error:
        raise BadSteeringInput(f"{path}, line {number}: is no JSON object ({error})") from error
    if not found.prompt.strip():
        raise BadSteeringInput(f"{path}, line {number}: the prompt is empty; drop the line")
    return Prompt(found.id or f"line-{number}", found.prompt.strip(), found.group)
