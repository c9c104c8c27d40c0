"""Latents in a model: planted from text to rank 1, in context, switched, attributed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae.language_model import LanguageModel
from sae.trained_sae import TrainedSae
from steering.errors import BadSteeringInput
from steering.probes.data import LabelledTexts
from steering.probes.features import ExtractSettings, FeatureSpec, FeatureTable, extract
from steering.probes.latents.attribution import attribute_yes_no
from steering.probes.latents.causal import ProbeReading, causal_check, high_values
from steering.probes.latents.contexts import texts_by_latent, top_contexts
from steering.probes.latents.ranking import rank_latents
from steering.probes.latents.yes_no import (
    YesNoSpec,
    answer_tokens,
    encode_questions,
    logit_difference_N,
)
from tests.steering.probes.tiny_saes import (
    HOOK,
    dense_sae,
    planted_sae,
    separating,
    tiny_lm,
    word_data,
)

SETTINGS = ExtractSettings(max_tokens=128)
BY_TOKEN = FeatureSpec(sae="planted", pooling="tokens")
BY_TEXT = FeatureSpec(sae="planted", pooling="max")
ASKED = YesNoSpec(question="A mill?", yes=(" the",), no=(".",), max_tokens=60)


@dataclass(frozen=True)
class Planted:
    lm: LanguageModel
    sae: TrainedSae
    data: LabelledTexts
    table: FeatureTable


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Latent 7 fires at the word that makes a text positive, and nowhere else."""
    folder = tmp_path_factory.mktemp("planted")
    lm, data = tiny_lm(folder / "model"), word_data(60)
    raw = FeatureSpec(hook=HOOK, pooling="tokens")
    acts = extract(lm, {}, data, [raw], folder / "cache", settings=SETTINGS)
    sae = planted_sae(*separating(np.array(acts.matrix(raw)), acts.y(raw)[:, 0]))
    specs = [BY_TOKEN, BY_TEXT]
    table = extract(lm, {"planted": sae}, data, specs, folder / "cache", settings=SETTINGS)
    return Planted(lm, sae, data, table)


@pytest.mark.parametrize("spec", [BY_TOKEN, BY_TEXT])
def test_the_planted_latent_is_found_by_token_and_by_text(
    planted: Planted, spec: FeatureSpec
) -> None:
    ranks = rank_latents(planted.table.matrix(spec), planted.table.y(spec)[:, 0], top=3)
    assert ranks[0].latent == 7
    assert ranks[0].auroc > 0.99


def test_contexts_show_the_token_that_fires(planted: Planted) -> None:
    wanted = texts_by_latent(planted.table, BY_TEXT, [7, 3], top=4)
    assert wanted[7] == texts_by_latent(planted.table, BY_TOKEN, [7], top=4)[7]
    found = top_contexts(planted.lm, planted.sae, planted.data, wanted, window=3, max_tokens=128)
    assert len(found[7]) == len(found[3]) == 4
    for one in found[7]:
        assert one.tokens[one.peak].strip() == "mill"
        assert "".join(one.tokens) in planted.data.texts[one.text]
        assert one.labels == ("has_mill",)
        assert one.value == max(one.values)
        assert len(one.tokens) <= 7
    assert [one.text for one in found[7]] == wanted[7]
    values = planted.table.matrix(BY_TEXT)[wanted[7], 7].toarray().ravel()
    assert [one.value for one in found[7]] == pytest.approx(values.tolist(), rel=1e-3)


def test_zeroing_the_latent_silences_its_probe_and_a_random_one_does_not(planted: Planted) -> None:
    probe = ProbeReading(BY_TEXT, lambda x: x[:, 7].toarray())
    some = planted.data.take(range(16))
    clamp = high_values(planted.table.matrix(BY_TOKEN), [7])
    told: list[tuple[int, int]] = []
    effects = causal_check(
        planted.lm,
        planted.sae,
        some,
        [7],
        probe=probe,
        question=ASKED,
        clamp_to=clamp,
        controls=[3],
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (3, 3)
    by = {(one.latent, one.action, one.measure): one for one in effects}
    assert len(by) == 6
    before = planted.table.matrix(BY_TEXT)[:16, 7].toarray().ravel()
    positive = some.y_NL[:, 0]
    zeroed = by[7, "zero", "probe"]
    assert zeroed.on_positive.estimate == pytest.approx(-before[positive].mean(), rel=1e-3)
    assert zeroed.on_negative.estimate == 0.0
    assert zeroed.on_positive.high < 0
    assert by[7, "clamp", "probe"].set_to == clamp[7]
    assert by[7, "clamp", "probe"].on_positive.estimate > 0
    assert by[3, "zero", "probe"].is_control
    assert abs(by[3, "zero", "probe"].on_positive.estimate) < 0.2 * before[positive].mean()
    assert by[7, "clamp", "yes_no"].on_negative.estimate != 0.0


def test_the_causal_check_says_what_it_lacks(planted: Planted) -> None:
    arguments: dict[str, Any] = {"lm": planted.lm, "sae": planted.sae, "latents": [7]}
    with pytest.raises(BadSteeringInput, match="a probe or a question"):
        causal_check(labelled=planted.data, **arguments)
    by_token = ProbeReading(BY_TOKEN, lambda x: x[:, 7])
    with pytest.raises(BadSteeringInput, match="one row a text"):
        causal_check(labelled=planted.data, probe=by_token, **arguments)
    with pytest.raises(BadSteeringInput, match="with the label and without"):
        causal_check(labelled=planted.data.take([0, 1]), question=ASKED, **arguments)


def test_attribution_is_the_slope_that_finite_differences_give(tmp_path: Path) -> None:
    # A Llama normalises in single precision whatever its own, which differences would show.
    lm, sae, data = tiny_lm(tmp_path, family="gpt2"), dense_sae(), word_data(4)
    lm.model.double()
    sae.sae.double()
    found = attribute_yes_no(lm, sae, data.texts, ASKED, batch_tokens=100)
    prompts, (yes, no) = encode_questions(lm, data.texts, ASKED), answer_tokens(lm, ASKED)
    text, place = 2, 3
    ids_1T = torch.tensor([prompts[text].ids])
    column = prompts[text].text_places[place]
    (x_1TD,) = lm.activations(ids_1T, [HOOK]).values()
    latents_F = sae.encode(x_1TD[0, column])

    def difference(latent: int, step: float) -> float:
        def move(h_1TD: torch.Tensor) -> torch.Tensor:
            moved = h_1TD.clone()
            moved[0, column] += step * sae.W_dec_FD[latent]
            return moved

        with lm.hooked([(HOOK, move)]):
            return float(logit_difference_N(lm.logits(ids_1T)[:, -1], yes, no))

    row = int(found.offset_N1[text]) + place
    ours_F = found.matrix_SF[row].toarray().ravel()
    step = 1e-5
    for latent in range(sae.d_sae):
        slope = (difference(latent, step) - difference(latent, -step)) / (2 * step)
        expected = float(latents_F[latent]) * slope
        assert ours_F[latent] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert found.difference_N[text] == pytest.approx(difference(0, 0.0), abs=1e-6)
    assert (ours_F != 0).sum() > 3


def test_attribution_does_not_depend_on_the_batch(planted: Planted) -> None:
    texts = planted.data.texts[:6]
    together = attribute_yes_no(planted.lm, planted.sae, texts, ASKED)
    alone = [attribute_yes_no(planted.lm, planted.sae, [text], ASKED) for text in texts]
    np.testing.assert_allclose(
        together.difference_N, [float(one.difference_N[0]) for one in alone], atol=1e-4
    )
    rows = np.concatenate([one.matrix_SF.toarray() for one in alone])
    np.testing.assert_allclose(together.matrix_SF.toarray(), rows, atol=1e-5)


def test_shares_are_sums_over_tokens_and_say_which_token(planted: Planted) -> None:
    found = attribute_yes_no(planted.lm, planted.sae, planted.data.texts[:8], ASKED)
    y_N = planted.data.y_NL[:8, 0]
    by_text = found.by_text().toarray()
    share = {one.latent: one for one in found.top(y_N, 32)}[7]
    assert share.mean_positive == pytest.approx(by_text[y_N, 7].mean(), abs=1e-9)
    assert share.mean_negative == 0.0
    tokens = found.tokens_of(0, 7)
    (fired,) = [chars for chars, value in tokens if value]
    assert planted.data.texts[0][slice(*fired)].strip() == "mill"


def test_questions_find_the_text_s_own_tokens_and_cut_long_ones(planted: Planted) -> None:
    spec = ASKED.model_copy(update={"max_tokens": 5})
    text = planted.data.texts[0]
    (whole,) = encode_questions(planted.lm, [text], ASKED)
    (cut,) = encode_questions(planted.lm, [text], spec)
    assert text.startswith("".join(text[a:b] for a, b in cut.chars))
    assert len(cut.text_places) <= 6 < len(whole.text_places)
    assert len(whole.chars) == len(whole.text_places)
    assert planted.lm.tokenizer.decode(whole.ids).endswith("Answer:")


def test_answers_that_are_no_token_are_refused(planted: Planted) -> None:
    with pytest.raises(BadSteeringInput, match="is one token"):
        answer_tokens(planted.lm, YesNoSpec(question="?", yes=(" wheelbarrow",)))
    with pytest.raises(BadSteeringInput, match="means yes and no"):
        answer_tokens(planted.lm, YesNoSpec(question="?", yes=(".",), no=(".", "a")))
    long = YesNoSpec(question="a long way to go " * 30, yes=(".",), no=("a",))
    with pytest.raises(BadSteeringInput, match="was made for 256"):
        encode_questions(planted.lm, planted.data.texts[:1], long)
    with pytest.raises(ValueError, match="must hold"):
        YesNoSpec(question="?", template="{question}")
