"""Answers that took minutes to generate, kept in a file so that an interruption costs little.

A torch module, through generation.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sae.language_model import LanguageModel
from steering.generation import Generated, GenerationSpec, generate
from steering.vectors import model_identity

__all__ = ["generate_kept"]

logger = logging.getLogger(__name__)


def generate_kept(
    lm: LanguageModel,
    prompts: Sequence[str],
    spec: GenerationSpec,
    seeds: Sequence[int],
    path: Path | None,
) -> list[Generated]:
    """As `generate`; what the file holds of the same prompts, settings and model is not made again.

    Args:
        path: a .jsonl file, a line an answer; written as answers come. None keeps nothing.
    """
    key = _key(lm, prompts, spec, seeds)
    done = {} if path is None else _read(path, key)
    missing = [row for row in range(len(prompts)) if row not in done]
    if missing and done:
        logger.info("%d of %d answers are there already", len(done), len(prompts))

    def keep(place: int, answer: Generated) -> None:
        done[missing[place]] = answer
        if path is not None:
            _append(path, {"key": key, "row": missing[place], **vars(answer)})
        if len(done) % max(1, len(prompts) // 10) == 0:
            logger.info("%d of %d answers generated", len(done), len(prompts))

    if missing:
        some = [prompts[row] for row in missing]
        generate(lm, some, spec, seeds=[seeds[row] for row in missing], on_row=keep)
    return [done[row] for row in range(len(prompts))]


def _append(path: Path, said: Mapping[str, object]) -> None:
    # A line of its own, also behind one that a killed process left half written.
    torn = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(said) + "\n")


def _read(path: Path, key: str) -> dict[int, Generated]:
    done: dict[int, Generated] = {}
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed
        if said.get("key") == key:
            done[said["row"]] = Generated(said["text"], tuple(said["tokens"]), said["ended"])
    return done


def _key(
    lm: LanguageModel, prompts: Sequence[str], spec: GenerationSpec, seeds: Sequence[int]
) -> str:
    model = model_identity(lm).model_dump(mode="json")
    settings = spec.model_dump(mode="json", exclude={"rows"})
    said = json.dumps([model, settings, list(prompts), list(seeds)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]
