"""On SmolLM2 real contrast pairs move a classifier's score with strength, and fluency is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.kind import TrialContext
from jobs.steer import Steer
from steering.measures.answers import AnswerTable, read_answers
from steering.measures.curves import curve_points, read_curve

pytestmark = pytest.mark.long

LAYER, STRENGTHS = 12, (-0.3, 0.3)


@pytest.mark.parametrize("contrast", ["formal", "sentiment"])
def test_effect_rises_with_strength(contrast: str, tmp_path: Path) -> None:
    setup = {
        "model": {"builtin": "smollm2-135m"},
        "layers": [LAYER],
        "contrast": {"builtin": contrast},
        "prompts": "neutral",
        "num_prompts": 8,
        "strengths": STRENGTHS,
        "generation": {"max_new_tokens": 20, "temperature": 0.7},
    }
    config = {"method": "mean_difference", "layer": LAYER}
    runner = Steer().runner(TrialContext("sweep", "t0", config, setup, 0, 1, "cpu"))
    runner.attach(None)
    runner.advance(8, 8, 3600.0)
    finished = runner.finish(tmp_path)
    low, middle, high = read_curve(tmp_path / "report" / "curve.csv")
    assert (low.strength, middle.strength, high.strength) == (-0.3, 0.0, 0.3)
    assert low.effect < middle.effect < high.effect
    assert high.effect > low.effect + 0.1
    assert middle.fluency == 1.0
    assert 0 < high.fluency <= 1
    assert finished.record["strength"] == 0.3
    table = AnswerTable(read_answers(tmp_path / "answers.jsonl"))
    assert len(curve_points(table, "selection")) == 3
