"""STEL's rule on tasks that are made by hand, read from files as they are published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steering.styles.errors import BadStyleData
from steering.styles.evaluations.stel import FULL, SAMPLES, read_tasks, stel

HEADER = (
    "\tAnchor 1\tAnchor 2\tAlternative 1.1\tAlternative 1.2\tCorrect Alternative\tID\t"
    "# Votes out of 5 for Correct Alternative\tstyle type\n"
)
CONTENTS = [
    "the line's name",
    'the "little" book\nof tales',
    "nobody knew",
    "a measure of grain",
]
"""Upper case is one style, lower case the other."""


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if {'"', "\n"} & set(text) else text


def write_tasks(
    path: Path, num: int = 4, style: str = "contraction", votes: Sequence[str] = ("",)
) -> Path:
    """Anchors upper and lower, alternatives in either order."""
    lines = [HEADER]
    for n in range(num):
        first, second = CONTENTS[n % 4], CONTENTS[(n + 1) % 4]
        anchors = (first.upper(), first)
        alternatives = (second.upper(), second) if n % 2 else (second, second.upper())
        cells = [str(n), *map(quoted, (*anchors, *alternatives)), "12"[n % 2 == 0]]
        lines.append("\t".join([*cells, f"QQ_{n}", votes[n % len(votes)], style]) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def by_style(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array([[1.0, 0.1] if text.isupper() else [0.1, 1.0] for text in texts])


def by_content(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    places = [CONTENTS.index(text.lower()) for text in texts]
    return np.eye(4)[places]


def mostly_content(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.concatenate([3 * by_content(texts), by_style(texts)], axis=1)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_style_alone_solves_both_and_content_alone_ties_one_and_fails_the_other(
    distance: Any, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks.tsv")
    solved = stel(tmp_path, by_style, distance)
    assert solved.figure("stel").interval.estimate == 1.0
    assert solved.figure("stel_or_content").interval.estimate == 1.0
    blind = stel(tmp_path, by_content, distance)
    assert blind.figure("stel").interval.estimate == 0.5  # ties
    assert blind.figure("stel_or_content").interval.estimate == 0.0
    both = stel(tmp_path, mostly_content, distance)
    assert both.figure("stel contraction").interval.estimate == 1.0
    assert both.figure("stel_or_content contraction").interval.estimate == 0.0


def test_a_wrong_order_counts_as_wrong(tmp_path: Path) -> None:
    path = write_tasks(tmp_path / "tasks.tsv")
    swapped = path.read_text().replace("\t1\tQQ", "\tx\tQQ").replace("\t2\tQQ", "\t1\tQQ")
    path.write_text(swapped.replace("\tx\tQQ", "\t2\tQQ"))
    found = stel(tmp_path, by_style, "cosine")
    assert found.figure("stel").interval.estimate == 0.0


def test_quotes_and_line_breaks_within_a_text_are_read(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.tsv")
    found = read_tasks(tmp_path)
    assert found.tasks[1].anchors[1] == 'the "little" book\nof tales'
    assert [task.correct for task in found.tasks] == [2, 1, 2, 1]


def test_tasks_that_people_did_not_agree_on_are_left_out_and_counted(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.tsv", votes=("5", "2", "-", "3"))
    found = read_tasks(tmp_path)
    assert (len(found.tasks), found.num_below_votes) == (3, 1)
    assert "1 tasks left out" in stel(tmp_path, by_style, "cosine").notes[-1]


def test_what_is_not_licensed_is_skipped_and_the_samples_stand_in(tmp_path: Path) -> None:
    folder = tmp_path / "Data" / "STEL" / "dimensions"
    for sample in SAMPLES:
        write_tasks(folder / sample, style="formality")
    found = stel(tmp_path, by_style, "cosine")
    (why,) = found.to_json()["skipped"].values()
    assert why.startswith("skipped: not licensed: ")
    assert found.figure("stel formality").num == 8
    write_tasks(folder / FULL, num=4, style="formality")
    whole = stel(tmp_path, by_style, "cosine")
    assert not whole.skipped
    assert whole.figure("stel formality").num == 4  # the samples are among them


def test_styles_beyond_the_published_ones_do_not_outweigh_them(tmp_path: Path) -> None:
    write_tasks(tmp_path / "a.tsv", num=4)
    write_tasks(tmp_path / "b.tsv", num=40, style="em-subj-pronoun")
    found = stel(tmp_path, by_style, "cosine")
    assert found.figure("stel").num == 4
    assert found.figure("stel em-subj-pronoun").num == 40
    assert "em-subj-pronoun" in found.notes[0]


def test_a_folder_without_tasks_is_skipped_and_other_files_are_refused(tmp_path: Path) -> None:
    assert "no task files" in stel(tmp_path, by_style, "cosine").skipped["stel"]
    with pytest.raises(BadStyleData, match="there is no such folder"):
        read_tasks(tmp_path / "nowhere")
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(BadStyleData, match="is no STEL task file, it lacks the columns Anchor 1"):
        read_tasks(tmp_path)
    path = write_tasks(tmp_path / "other.tsv", num=1)
    path.write_text(path.read_text().replace("\t2\tQQ", "\t3\tQQ"))
    with pytest.raises(BadStyleData, match="task 1: needs .* it has '3'"):
        read_tasks(tmp_path)
