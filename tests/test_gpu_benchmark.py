"""The GPU benchmark can be started without one: to be told so, or to be tried out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import NO_GPU, row_of
from benchmarks.roofline import DRY, FULL, Rates, Roofline

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_fails() -> None:
    answer = run()
    assert answer.returncode == 1
    assert NO_GPU in answer.stderr
    assert not answer.stdout


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
def test_a_dry_run_has_every_row_and_keeps_none(autocast: bool) -> None:
    kept = sorted((ROOT / "benchmarks" / "results").iterdir())
    answer = run("--dry-run", *["--autocast"][:autocast])
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout.splitlines()[-1])
    assert report["bench"] == ("gpu-autocast" if autocast else "gpu") and report["device"] == "cpu"
    assert all(row["on"]["autocast"] == autocast for row in report["rows"])
    columns = {"work", "against", "ours", "theirs", "unit", "ratio"}
    assert all(columns <= row.keys() for row in report["rows"])
    whole = [row for row in report["rows"] if row["work"].endswith("whole")]
    steps = [row for row in report["rows"] if row["work"].endswith("steps alone")]
    assert len(whole) == 2 * len(DRY.counts)
    assert len(steps) == 2 * len(DRY.counts) * len(DRY.step_widths)
    assert all(row["ours"] > 0 for row in report["rows"])
    assert all(row["roofline"]["share_of_roofline"] > 0 for row in steps if "roofline" in row)
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == kept


def test_a_step_is_counted_as_by_hand() -> None:
    roofline = Roofline.of(FULL, 768)
    assert roofline.dense_flop == 2 * 4096 * 768 * 24576
    assert roofline.sparse_flop == 8 * 4096 * 768 * 32
    weights, latents, tokens = 2 * 768 * 24576 * 4, 4096 * 24576 * 4, 4096 * 768 * 4
    assert roofline.bytes == 10 * weights + 2 * latents + 4 * tokens
    rates = Rates(flop_s=roofline.dense_flop + roofline.sparse_flop, bf16_flop_s=1, bytes_s=1e30)
    row = roofline.row(rates, measured_s=2.0)
    assert row["compute_ms"] == 1000 and row["memory_ms"] == 0
    assert row["share_of_roofline"] == 0.5


def test_a_step_with_autocast_copies_its_weights_and_multiplies_in_bfloat16() -> None:
    roofline = Roofline.of(replace(FULL, autocast=True), 768)
    weights, latents, tokens = 2 * 768 * 24576 * 4, 4096 * 24576 * 2, 4096 * 768 * 4
    assert roofline.bytes == (10 + 1) * weights + 2 * latents + (4 + 1) * tokens
    rates = Rates(
        flop_s=roofline.sparse_flop, bf16_flop_s=roofline.dense_flop / 2, bytes_s=roofline.bytes
    )
    row = roofline.row(rates, measured_s=8.0)
    assert row["compute_ms"] == 3000 and row["memory_ms"] == 1000
    assert row["share_of_roofline"] == 0.5


def test_what_was_not_measured_is_said_and_no_ratio_made_of_it() -> None:
    row = row_of(FULL, "w", "a", 2, 0.5, "out of memory")
    assert row["ours"] == 2 * 4096 / 0.5
    assert row["theirs"] is None and row["ratio"] is None
    assert row["missing"] == {"theirs": "out of memory"}
    assert row_of(FULL, "w", "a", 2, 0.5, 1.0)["ratio"] == 2.0
