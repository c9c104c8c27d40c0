"""Streaming means: parts merged equal the whole, from arrays and from a model; kept and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.errors import BadSteeringInput
from steering.means import Means, Moments, load_means, merge_means, read_means, save_means
from steering.reading import read_activations
from tests.steering.probes.tiny_saes import HOOK, random_sae, tiny_lm, word_data


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=6), seed=st.integers(0, 100))
def test_merged_moments_equal_the_whole_to_ten_digits(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x_ND = rng.normal(size=(300, 7)) * 10 + 1000
    x_ND[rng.random((300, 7)) < 0.2] = 0
    merged = Moments.empty(7)
    for part in np.split(x_ND, sorted(cuts)):
        merged = merged.merged(Moments.of(part))
    assert merged.count == 300
    np.testing.assert_allclose(merged.mean_D, x_ND.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(merged.variance_D, x_ND.var(axis=0, ddof=1), rtol=1e-10)
    np.testing.assert_array_equal(merged.active_D, (x_ND != 0).sum(axis=0))


def test_a_large_mean_does_not_eat_a_small_spread() -> None:
    x_ND = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    merged = Moments.of(x_ND[:10])
    for row in x_ND[10:]:
        merged = merged.merged(Moments.of(row[None]))
    np.testing.assert_allclose(merged.variance_D, x_ND.var(axis=0, ddof=1), rtol=1e-6)


def test_parts_of_the_texts_merge_to_the_whole(tmp_path: Path) -> None:
    lm, texts, saes = tiny_lm(tmp_path / "m"), word_data(30).texts, {"a": random_sae()}
    whole = read_means(lm, texts, [HOOK, "resid_post.0"], saes, max_tokens=128)
    parts = [
        read_means(lm, some, [HOOK, "resid_post.0"], saes, max_tokens=128)
        for some in (texts[:3], texts[3:17], texts[17:])
    ]
    merged = merge_means(parts)
    assert merged.texts == 30
    for name in (HOOK, "resid_post.0", "a"):
        assert merged[name].count == whole[name].count
        scale = np.abs(whole[name].mean_D).max()
        # Batches of other texts round the model's activations otherwise in the last bits.
        np.testing.assert_allclose(merged[name].mean_D, whole[name].mean_D, atol=1e-6 * scale)
    rows = [
        acts[HOOK][batch.is_text_NT]
        for batch, acts in read_activations(lm, texts, [HOOK], max_tokens=128)
    ]
    expected = np.concatenate([part.numpy() for part in rows])
    np.testing.assert_allclose(whole[HOOK].mean_D, expected.mean(axis=0), atol=1e-6)
    latents = np.concatenate([saes["a"].encode(part).numpy() for part in rows])
    np.testing.assert_allclose(whole["a"].active_rate_D, (latents != 0).mean(axis=0), atol=1e-3)


def test_a_reading_that_was_stopped_goes_on(tmp_path: Path) -> None:
    lm, texts = tiny_lm(tmp_path / "m"), word_data(20).texts

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        del total
        if done >= 12:
            raise Stopped

    state = tmp_path / "state"
    with pytest.raises(Stopped):
        read_means(lm, texts, [HOOK], state=state, max_tokens=128, texts_a_part=4, on_progress=stop)
    assert load_means(state).texts == 12
    seen: list[int] = []
    again = read_means(
        lm,
        texts,
        [HOOK],
        state=state,
        max_tokens=128,
        texts_a_part=4,
        on_progress=lambda done, total: seen.append(done),  # noqa: ARG005
    )
    assert seen == [16, 20]
    whole = read_means(lm, texts, [HOOK], max_tokens=128, texts_a_part=4)
    np.testing.assert_array_equal(again[HOOK].mean_D, whole[HOOK].mean_D)
    np.testing.assert_array_equal(load_means(state)[HOOK].m2_D, whole[HOOK].m2_D)
    with pytest.raises(BadSteeringInput, match="other texts"):
        read_means(lm, texts[:5], [HOOK], state=state, max_tokens=128)


def test_means_survive_the_disk_and_damage_is_noticed(tmp_path: Path) -> None:
    means = Means({"h": Moments.of(np.arange(12.0).reshape(4, 3))}, {"model": "m"}, 2)
    save_means(tmp_path, means)
    save_means(tmp_path, means)
    again = load_means(tmp_path)
    assert (again.texts, dict(again.about)) == (2, {"model": "m"})
    np.testing.assert_array_equal(again["h"].m2_D, means["h"].m2_D)
    with pytest.raises(BadSteeringInput, match="there is h"):
        again["g"]
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BadSteeringInput, match="damaged"):
        load_means(tmp_path)
    with pytest.raises(BadSteeringInput, match="holds no means"):
        load_means(tmp_path / "no")


def test_means_of_different_things_are_not_merged() -> None:
    moments = {"h": Moments.empty(3)}
    with pytest.raises(BadSteeringInput, match="differ in max_tokens"):
        merge_means([Means(moments, {"max_tokens": 1}, 1), Means(moments, {"max_tokens": 2}, 1)])
    with pytest.raises(BadSteeringInput, match="no means to merge"):
        merge_means([])
