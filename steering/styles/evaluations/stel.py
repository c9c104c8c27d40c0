"""STEL and STEL-or-Content (Wegmann and Nguyen 2021; Wegmann et al. 2022) from their task files.

Given anchors A1 and A2 of one content in two styles and sentences S1 and S2 of another content: is
the style of A1 that of S1 or that of S2? In STEL-or-Content the wrong one of S1 and S2 is A2, which
says the same as A1. The files are those of github.com/nlpsoc/STEL.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from steering.intervals import Interval, mean_interval
from steering.styles.errors import BadStyleData
from steering.styles.evaluations.embedded import distances
from steering.styles.evaluations.outcome import Figure, Outcome

if TYPE_CHECKING:
    from steering.styles.centroids import Distance

NAME = "stel"
Array = np.ndarray[Any, Any]

FULL = "_quad_stel-dimensions_formal-815_complex-815.tsv"
SAMPLES = ("quad_stel-dimension_formal-100_sample.tsv", "quad_stel-dimension_simple-100_sample.tsv")
"""What is public of the file above; left out where that is there, since it holds them."""
NOT_LICENSED = (
    "not licensed: the full formality and simplicity tasks (815 each) hold data of Yahoo Answers "
    "(L6); with Yahoo's permission their authors send the file; the public samples of 100 are used"
)
PUBLISHED = ("formality", "simplicity", "nbr_substitution", "contraction", "emotives")
"""Styles of the papers and of the figures in the repository's readme. Its code now also averages
over 100 pronoun tasks, which would make the mean another number than theirs."""
COLUMNS = ("Anchor 1", "Anchor 2", "Alternative 1.1", "Alternative 1.2", "Correct Alternative")
VOTES, STYLE, ID = "# Votes out of 5 for Correct Alternative", "style type", "ID"
MIN_VOTES = 3
"""Tasks that fewer of five people solved are left out, as STEL does."""


@dataclass(frozen=True)
class Task:
    """Whether the style of `anchors[0]` is that of `sentences[0]` (1) or `sentences[1]` (2)."""

    id: str
    style: str
    anchors: tuple[str, str]
    sentences: tuple[str, str]
    correct: int


@dataclass(frozen=True)
class TaskFiles:
    """What was found in a folder."""

    tasks: tuple[Task, ...]
    num_below_votes: int
    has_full: bool
    """Whether the licensed formality and simplicity tasks are there."""


def stel(folder: Path, embed: Callable[[Sequence[str]], Array], distance: Distance) -> Outcome:
    """Accuracy on both tests, for each style and in all; a tie counts half.

    Args:
        folder: a checkout of the repository, or any folder with its .tsv files.
        embed: texts to embeddings [N, E].
        distance: what stands for 1 - similarity in STEL's rule.

    Raises:
        BadStyleData: there is no such folder, or a file of it cannot be read as tasks.
    """
    found = read_tasks(folder)
    skipped = {} if found.has_full else {"formality, simplicity (815 tasks each)": NOT_LICENSED}
    if not found.tasks:
        return Outcome.skip(NAME, f"no task files (.tsv) with tasks below {folder}")
    texts = sorted({t for task in found.tasks for t in (*task.anchors, *task.sentences)})
    embedding_NE = np.asarray(embed(texts))
    place = {text: row for row, text in enumerate(texts)}

    def between(one: Sequence[str], other: Sequence[str]) -> Array:
        first_NE = embedding_NE[[place[text] for text in one]]
        return distances(first_NE, embedding_NE[[place[text] for text in other]], distance)

    plain_N = stel_scores(found.tasks, between)
    content_N = or_content_scores(found.tasks, between)
    figures = [*_figures("stel", found, plain_N), *_figures("stel_or_content", found, content_N)]
    others = sorted({task.style for task in found.tasks} - set(PUBLISHED))
    notes = []
    if others and len(others) < len({task.style for task in found.tasks}):
        notes.append(f"Not in the mean over styles, as they are not in STEL's: {', '.join(others)}")
    if found.num_below_votes:
        notes.append(
            f"{found.num_below_votes} tasks left out: fewer than {MIN_VOTES} of 5 people agreed"
        )
    return Outcome(NAME, figures, skipped, notes, {"num_tasks": len(found.tasks)})


def stel_scores(
    tasks: Sequence[Task], between: Callable[[Sequence[str], Sequence[str]], Array]
) -> Array:
    """1, 0 or 0.5 a task: S1-S2 is chosen iff d(A1,S1)^2 + d(A2,S2)^2 < d(A1,S2)^2 + d(A2,S1)^2.

    STEL's `eval_on_tasks.py`, with d = 1 - similarity.
    """
    a1, a2 = ([task.anchors[place] for task in tasks] for place in (0, 1))
    s1, s2 = ([task.sentences[place] for task in tasks] for place in (0, 1))
    kept_N = between(a1, s1) ** 2 + between(a2, s2) ** 2
    swapped_N = between(a1, s2) ** 2 + between(a2, s1) ** 2
    return _scored(kept_N, swapped_N, tasks)


def or_content_scores(
    tasks: Sequence[Task], between: Callable[[Sequence[str], Sequence[str]], Array]
) -> Array:
    """1, 0 or 0.5 a task: is A1 nearer to the sentence of its style than to A2?"""
    a1, a2 = ([task.anchors[place] for task in tasks] for place in (0, 1))
    same_style = [task.sentences[task.correct - 1] for task in tasks]
    to_style_N, to_content_N = between(a1, same_style), between(a1, a2)
    return (to_style_N < to_content_N) + 0.5 * (to_style_N == to_content_N)


def read_tasks(folder: Path) -> TaskFiles:
    """All tasks below a folder. Raises BadStyleData."""
    if not folder.is_dir():
        raise BadStyleData(
            f"--stel {folder}: there is no such folder; name a checkout of github.com/nlpsoc/STEL, "
            "or a folder with the .tsv files of its Data/STEL"
        )
    root = folder / "Data" / "STEL"
    paths = sorted((root if root.is_dir() else folder).rglob("*.tsv"))
    has_full = any(path.name == FULL for path in paths)
    tasks: list[Task] = []
    num_below = 0
    for path in paths:
        if has_full and path.name in SAMPLES:
            continue
        for task, votes in _tasks_of(path):
            if votes is not None and votes < MIN_VOTES:
                num_below += 1
            else:
                tasks.append(task)
    return TaskFiles(tuple(tasks), num_below, has_full)


def _tasks_of(path: Path) -> Iterator[tuple[Task, float | None]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadStyleData(
                    f"{path}: is no STEL task file, it lacks the columns {', '.join(missing)}; "
                    "take it out of the folder"
                )
            for number, row in enumerate(reader, 1):
                yield _task(path, number, row)
    except UnicodeDecodeError as error:
        raise BadStyleData(f"{path}: is not UTF-8 text; take it as it was published") from error


def _task(path: Path, number: int, row: dict[str, str]) -> tuple[Task, float | None]:
    correct, votes = (row[COLUMNS[4]] or "").strip(), (row.get(VOTES) or "").strip()
    texts = [row[name] or "" for name in COLUMNS[:4]]
    if correct not in ("1", "2") or not all(text.strip() for text in texts):
        raise BadStyleData(
            f"{path}, task {number}: needs two anchors, two alternatives, and 1 or 2 as the "
            f"correct one; it has {correct!r}"
        )
    a1, a2, s1, s2 = texts
    style, task_id = row.get(STYLE) or path.stem, row.get(ID) or f"{path.stem}/{number}"
    task = Task(task_id, style, (a1, a2), (s1, s2), int(correct))
    return task, float(votes) if votes.replace(".", "", 1).isdigit() else None


def _scored(kept_N: Array, swapped_N: Array, tasks: Sequence[Task]) -> Array:
    says_one_N = (kept_N < swapped_N) + 0.5 * (kept_N == swapped_N)
    correct_N = np.array([task.correct for task in tasks])
    return np.where(correct_N == 1, says_one_N, 1.0 - says_one_N)


def _figures(name: str, found: TaskFiles, score_N: Array) -> Iterator[Figure]:
    styles = np.array([task.style for task in found.tasks])
    published = score_N[np.isin(styles, PUBLISHED)]
    overall_N = published if len(published) else score_N
    yield Figure(name, _interval(overall_N), len(overall_N), 0.5)
    for style in sorted(set(styles.tolist())):
        own_N = score_N[styles == style]
        yield Figure(f"{name} {style}", _interval(own_N), len(own_N), 0.5)


def _interval(score_N: Array) -> Interval:
    if len(score_N) < 2:
        only = float(score_N.mean())
        return Interval(only, float("nan"), float("nan"))
    return mean_interval(score_N)
