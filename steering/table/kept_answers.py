"""Generated answers as JSON lines: written as they come, found again by what they came from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

__all__ = ["Answer", "KeptAnswers", "read_answers", "write_answers"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model said, and how fluent that is."""

    text: str
    ended: bool
    fluency: Mapping[str, float | None]
    """By name, as `steering.table.answers.FLUENCY` lists them; None for what an answer without
    tokens does not have."""


class KeptAnswers:
    """Answers by key: in memory, and in a file that several processes may append to.

    A key names all that an answer follows from, so that an answer is used wherever it fits: after
    an interruption, and by trials that differ in something else.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._answers: dict[str, Answer] = {}
        if file is not None and file.exists():
            self._answers = read_answers(file)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keep some; written at once."""
        new = {key: answer for key, answer in answers.items() if key not in self._answers}
        self._answers |= new
        if self._file is None or not new:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._file}.lock"), self._file.open("a", encoding="utf-8") as file:
                file.writelines(_lines(new))
        except OSError as error:
            logger.warning("answers are not kept in %s: %s", self._file, error)
            self._file = None

    def some(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Those of these keys that are there."""
        return {key: self._answers[key] for key in keys if key in self._answers}


def key_of(parts: Mapping[str, Any]) -> str:
    """A key from all that an answer follows from, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def write_answers(file: Path, answers: Mapping[str, Answer]) -> None:
    """Write a whole file."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(_lines(answers))


def read_answers(file: Path) -> dict[str, Answer]:
    """Read a file. A line that was torn by a crash is left out, with a warning."""
    found = {}
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                said = json.loads(line)
                answer = Answer(said["text"], said["ended"], said["fluency"])
                found[said["key"]] = answer
            except (ValueError, KeyError, TypeError):
                logger.warning("%s, line %d: is no answer and is left out", file, number)
    return found


def _lines(answers: Mapping[str, Answer]) -> Iterator[str]:
    for key, answer in answers.items():
        yield json.dumps({"key": key, **asdict(answer)}, sort_keys=True) + "\n"
