"""The check before steering: a fitting SAE passes, each way of not fitting is named."""

from __future__ import annotations

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from sae.trained_sae import TrainedSae
from steering.errors import BadSteeringInput
from steering.generation.spec import GenerationSpec
from steering.sae_check import SaeUnfit, check_model_name, check_sae
from steering.sae_limits import SaeLimits
from tests.sae.tiny_model import D_MODEL, build_tiny_model

SPEC = GenerationSpec(chat=False)
PROMPTS = [
    "The river ran past the old mill, and the children of the village watched",
    "A measure of grain was weighed in the morning; by night the flour was sold",
    "Nobody knew why the miller sang, but everyone agreed that the bread was better",
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    return LanguageModel.load(ModelSpec(name=str(folder)), "cpu")


def whole_space_sae(hook: str | None = "blocks.1.hook_resid_post", **config: str) -> TrainedSae:
    """Latents are the positive and the negative parts of each coordinate: nothing is lost."""
    said = StandardSAEConfig(d_in=D_MODEL, d_sae=2 * D_MODEL, **config)
    if hook is not None:
        said.metadata["hook_name"] = hook
    sae = StandardSAE(said)
    rows_FD = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    sae.W_dec.data, sae.W_enc.data = rows_FD.clone(), rows_FD.T.contiguous()
    sae.b_enc.data.zero_()
    sae.b_dec.data.zero_()
    return TrainedSae(sae, "the-sae")


def mean_of(lm: LanguageModel, hook: str) -> torch.Tensor:
    ids = [lm.bos_token_id, *lm.tokenizer(PROMPTS[0])["input_ids"]]
    return lm.activations(torch.tensor([ids]), [hook])[hook][0, 1:].float()


def fitting_only(lm: LanguageModel, hook: str, rank: int = 6) -> TrainedSae:
    """An SAE that knows the subspace in which the prompts' activations at one hook vary."""
    x_ND = torch.cat(
        [
            lm.activations(
                torch.tensor([[lm.bos_token_id, *lm.tokenizer(text)["input_ids"]]]), [hook]
            )[hook][0, 1:].float()
            for text in PROMPTS
        ]
    )
    centre_D = x_ND.mean(0)
    _, _, axes_DD = torch.linalg.svd(x_ND - centre_D)
    axes_KD = axes_DD[:rank]
    found = whole_space_sae(None)
    rows_FD = torch.zeros(2 * D_MODEL, D_MODEL)
    rows_FD[:rank], rows_FD[rank : 2 * rank] = axes_KD, -axes_KD
    found.sae.W_dec.data, found.sae.W_enc.data = rows_FD.clone(), rows_FD.T.contiguous()
    found.sae.b_dec.data = centre_D.clone()
    return found


def test_an_sae_that_fits_passes_with_its_numbers(lm: LanguageModel) -> None:
    checked = check_sae(lm, whole_space_sae(), PROMPTS, SPEC)
    assert checked.hook == "blocks.1.hook_resid_post"
    assert checked.fit.fvu < 1e-6
    assert checked.fit.l0 == pytest.approx(D_MODEL, abs=0.5)
    assert checked.record["fvu"] == checked.fit.fvu
    assert checked.input_scale is None


def test_an_unfolded_scale_is_estimated_and_folded(
    lm: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    sae = whole_space_sae(normalize_activations="expected_average_only_in")
    checked = check_sae(lm, sae, PROMPTS, SPEC)
    assert checked.input_scale is not None
    assert checked.fit.fvu < 1e-6
    assert not checked.sae.needs_input_scale
    assert "its files do not say the scale" in caplog.text


def test_a_wrong_hook_is_named(lm: LanguageModel) -> None:
    sae = fitting_only(lm, "resid_post.2")
    limits = SaeLimits(max_fvu=0.6)
    assert check_sae(lm, sae, PROMPTS, SPEC, hook="resid_post.2", limits=limits).fit.fvu < 0.6
    with pytest.raises(SaeUnfit, match=r"at resid_post\.\d it does .*hook is probably wrong"):
        check_sae(lm, sae, PROMPTS, SPEC, hook="mlp_out.2", limits=limits)


def test_a_wrong_scale_is_named(lm: LanguageModel) -> None:
    hook = "resid_post.1"
    norm = float(mean_of(lm, hook).norm(dim=1).mean())
    wrong = fitting_only(lm, hook, rank=20).with_input_scale(norm / D_MODEL**0.5)
    with pytest.raises(SaeUnfit, match="normalisation is probably not folded in"):
        check_sae(lm, wrong, PROMPTS, SPEC, hook=hook, limits=SaeLimits(max_fvu=0.2))


def test_an_sae_that_knows_nothing_of_it_is_refused_with_both_names(lm: LanguageModel) -> None:
    sae = whole_space_sae()
    sae.sae.W_dec.data = torch.randn(sae.sae.W_dec.shape, generator=torch.manual_seed(0))
    with pytest.raises(SaeUnfit, match=r"(?s)FVU .*max_fvu=0.5 .*nothing nearby fits") as caught:
        check_sae(lm, sae, PROMPTS, SPEC)
    assert "blocks.1.hook_resid_post" in str(caught.value)


def test_the_message_says_what_may_be_wrong_and_the_way_out_of_who_asked(
    lm: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    sae = whole_space_sae()
    sae.sae.W_dec.data = torch.randn(sae.sae.W_dec.shape, generator=torch.manual_seed(0))
    with pytest.raises(SaeUnfit, match=r"does not say its model.*loosen sae_limits \(max_fvu"):
        check_sae(lm, sae, PROMPTS, SPEC)
    sae.sae.cfg.metadata["model_name"] = "gemma-2-2b"
    with pytest.raises(SaeUnfit, match="trained on gemma-2-2b, and may be so weakly.*or do so if"):
        check_sae(lm, sae, PROMPTS, SPEC, way_out="do so")
    with pytest.raises(SaeUnfit, match="tokens, which are few: longer prompts say more"):
        check_sae(lm, sae, ["The river ran"], SPEC)
    assert not caplog.text
    checked = check_sae(lm, sae, PROMPTS, SPEC, refuse=False)
    assert checked.fit.fvu > 0.5
    assert "the-sae does not explain these prompts" in caplog.text
    with pytest.raises(BadSteeringInput, match="allow it with --other-model if the transfer"):
        check_model_name(sae, ModelSpec(name="gemma-2-9b"), way_out="allow it with --other-model")


def test_an_sae_that_never_fires_is_refused(lm: LanguageModel) -> None:
    sae = whole_space_sae()
    sae.sae.b_enc.data.fill_(-1e6)
    with pytest.raises(SaeUnfit, match=r"L0 0\.0"):
        check_sae(lm, sae, PROMPTS, SPEC, limits=SaeLimits(max_fvu=10.0))


def test_an_sae_without_a_hook_has_to_be_told(lm: LanguageModel) -> None:
    with pytest.raises(BadSteeringInput, match="give it, as in resid_post.12"):
        check_sae(lm, whole_space_sae(None), PROMPTS, SPEC)


def test_an_sae_of_another_model_is_refused_by_name_unless_meant() -> None:
    sae = whole_space_sae()
    sae.sae.cfg.metadata["model_name"] = "google/gemma-2-2b"
    check_model_name(sae, ModelSpec(name="gemma-2-2b"))
    tuned = ModelSpec(name="google/gemma-2-2b-it")
    with pytest.raises(BadSteeringInput, match="trained on google/gemma-2-2b.*other_model: true"):
        check_model_name(sae, tuned)
    check_model_name(sae, tuned, other_model=True)
    sae.sae.cfg.metadata["model_name"] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    check_model_name(sae, ModelSpec(builtin="smollm2-135m"))


def test_an_sae_of_another_width_is_refused(lm: LanguageModel) -> None:
    sae = whole_space_sae()
    sae.sae.cfg.d_in = 64
    with pytest.raises(BadSteeringInput, match="64 wide, and .* has 32"):
        check_sae(lm, sae, PROMPTS, SPEC)
