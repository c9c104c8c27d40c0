"""Tables and pictures of a finished embedding, and of a whole sweep."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from steering.styles.evaluation import Labelled, report
from steering.styles.pictures import write_report
from steering.styles.sweep_report import TrialLine, write_sweep_report

PNG = b"\x89PNG"


def shares_of(num_groups: int, parents: dict[str, str], **others: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    centre_GE = 3 * torch.randn(num_groups, 6, generator=generator)
    group_N = torch.arange(num_groups).repeat(20)
    train, test = (
        Labelled(
            centre_GE[group_N] + 2 * torch.randn(len(group_N), 6, generator=generator),
            group_N,
            ["ab"[n // (10 * num_groups)] for n in range(20 * num_groups)],
        )
        for _ in range(2)
    )
    names = [f"group number {n} of many" for n in range(num_groups)]
    return report(train, test, names, "mean", "euclidean", parents, **others)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("num_groups", [2, 22, 80])
def test_every_number_of_groups_is_drawn(num_groups: int, tmp_path: Path) -> None:
    shares = shares_of(num_groups, {})
    files = write_report(tmp_path / "report", shares)
    assert {path.suffix for path in files} == {".csv", ".png"}
    assert all(path.read_bytes()[:4] == PNG for path in files if path.suffix == ".png")
    table = read(tmp_path / "report" / "confusion.csv")
    assert len(table) == num_groups + 1
    assert sum(int(cell) for row in table[1:] for cell in row[1:]) == 20 * num_groups
    assert not (tmp_path / "report" / "confusion_by_parent.csv").exists()


def test_parents_corpora_and_intervals_are_told(tmp_path: Path) -> None:
    parents = {f"group number {n} of many": "even" for n in (0, 2)}
    items = [str(n // 3) for n in range(80)]
    shares = shares_of(4, parents, items=items)
    write_report(tmp_path, shares)
    assert read(tmp_path / "confusion_by_parent.csv")[0][1:] == shares["parents"]
    assert len(shares["parents"]) == 3
    by_name = {row[1]: row for row in read(tmp_path / "accuracy.csv")[1:]}
    for name in ("macro accuracy", "parent accuracy", "a", "b"):
        value, low, high = (float(cell) for cell in by_name[name][2:5])
        assert low <= value <= high
        assert high - low > 0
    assert by_name["group number 0 of many"][0] == "group of even"
    near = read(tmp_path / "separation.csv")
    assert near[0][:3] == ["group", "within", "nearest group"]
    assert all(row[0] != row[2] for row in near[1:])


def test_a_sweep_s_trials_come_by_their_objective(tmp_path: Path) -> None:
    trials = [
        TrialLine(
            f"t{n}",
            {"loss": "triplet", "margin": 0.1 * (n + 1), "hidden": (8,), "note": "<b>"},
            {"macro_accuracy": 0.5 + 0.1 * (n % 3), "separation": 1.0 + n},
        )
        for n in range(6)
    ]
    page, table, picture = write_sweep_report(trials, "macro_accuracy", tmp_path)
    rows = read(table)
    assert rows[0] == ["trial", "macro_accuracy", "separation", "margin"]
    assert [row[0] for row in rows[1:]] == ["t2", "t5", "t1", "t4", "t0", "t3"]
    assert picture.read_bytes()[:4] == PNG
    assert f'src="{picture.name}"' in page.read_text()
    same = [TrialLine("t0", {"loss": "supcon"}, {"macro_accuracy": float("nan")})]
    assert len(write_sweep_report(same, "macro_accuracy", tmp_path)) == 2
    assert write_sweep_report([], "macro_accuracy", tmp_path) == ()
