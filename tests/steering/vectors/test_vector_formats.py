"""Files of IBM's activation-steering, of repeng and of llama.cpp: round trips, and what l means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from sae.language_model import LanguageModel
from steering.vector_formats.block_hooks import entered_block, left_block
from steering.vector_formats.control_vector import read_control_vector, write_control_vector
from steering.vector_formats.svec import read_svec, write_svec
from steering.vectors import About, BadVectors, ModelIdentity, SteeringVectors
from tests.sae.tiny_model import D_MODEL
from tests.steering.directions.planted_model import tiny_lm

TOKENS = torch.tensor([[5, 9, 40, 41, 7, 100]])


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_lm(tmp_path_factory.mktemp("model"))


@pytest.fixture
def repeng(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package as of 0.4.0 names a type that numpy 2 no longer has."""
    monkeypatch.setattr(np, "float_", np.float64, raising=False)
    import repeng

    return repeng


def _vectors(*hooks: str) -> SteeringVectors:
    numbers = torch.randn(len(hooks), D_MODEL, generator=torch.Generator().manual_seed(1))
    model = ModelIdentity(name="tiny", family="llama", d_model=D_MODEL)
    return SteeringVectors(numbers, hooks, torch.full((len(hooks),), 2.0), About(model=model))


def _steered(lm: LanguageModel, hook: str, vector_D: Tensor) -> Tensor:
    return lm.logits(TOKENS, {hook: lambda acts_CTD: acts_CTD + vector_D})


def test_our_control_vector_is_read_by_repeng(repeng: Any, tmp_path: Path) -> None:
    vectors, path = _vectors("resid_post.1", "resid_post.2"), tmp_path / "v.gguf"
    write_control_vector(path, vectors)
    theirs = repeng.ControlVector.import_gguf(path)
    assert theirs.model_type == "llama"
    assert sorted(theirs.directions) == [1, 2]
    for row, layer in enumerate((1, 2)):
        assert np.array_equal(theirs.directions[layer], vectors.vector_LD[row].numpy())


def test_repengs_control_vector_is_read_by_us_and_goes_back(repeng: Any, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal((2, D_MODEL)).astype(np.float32)
    theirs = repeng.ControlVector("llama", {2: numbers[0], 1: numbers[1]})
    theirs.export_gguf(tmp_path / "theirs.gguf")
    ours = read_control_vector(tmp_path / "theirs.gguf")
    assert ours.hooks == ("resid_post.1", "resid_post.2")
    assert np.array_equal(ours.vector_LD.numpy(), numbers[::-1])
    assert ours.about.formula == "unknown"
    write_control_vector(tmp_path / "ours.gguf", ours)
    assert repeng.ControlVector.import_gguf(tmp_path / "ours.gguf") == theirs


def test_repeng_adds_vector_l_behind_block_l(
    repeng: Any, lm: LanguageModel, tmp_path: Path
) -> None:
    vectors, path = _vectors("resid_post.1"), tmp_path / "v.gguf"
    write_control_vector(path, vectors, strength=0.5)
    added_D = vectors.displacement("resid_post.1", 0.5)
    ours = _steered(lm, "resid_post.1", added_D)
    controlled = repeng.ControlModel(lm.model, [1])
    try:
        controlled.set_control(repeng.ControlVector.import_gguf(path))
        with torch.inference_mode():
            theirs = controlled(input_ids=TOKENS, use_cache=False).logits
    finally:
        controlled.reset()
        controlled.unwrap()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, lm.logits(TOKENS), atol=1e-3)


def test_a_control_vector_is_what_the_gguf_package_and_llama_cpp_expect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.gguf"
    write_control_vector(path, _vectors("resid_pre.2", "resid_post.2"))
    reader = gguf.GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "controlvector"
    assert said["controlvector.model_hint"] == "llama"
    assert said["controlvector.layer_count"] == 2
    kinds = {t.name: (t.tensor_type, list(t.shape)) for t in reader.tensors}
    float32 = gguf.GGMLQuantizationType.F32
    assert kinds == {"direction.1": (float32, [D_MODEL]), "direction.2": (float32, [D_MODEL])}
    assert not caplog.messages
    write_control_vector(tmp_path / "zero.gguf", _vectors("resid_post.0"))
    assert "llama.cpp refuses the file" in caplog.text
    assert read_control_vector(tmp_path / "zero.gguf").hooks == ("resid_post.0",)


def test_a_svec_file_of_ibm_adds_vector_l_at_what_enters_block_l(
    lm: LanguageModel, tmp_path: Path
) -> None:
    numbers = np.random.default_rng(0).standard_normal((2, D_MODEL))
    path = tmp_path / "theirs.svec"
    # As SteeringVector.save writes it: integers as keys of the dictionary.
    text = json.dumps(
        {
            "model_type": "llama",
            "directions": {2: numbers[1].tolist(), 0: numbers[0].tolist()},
            "explained_variances": {2: 0.5, 0: 0.25},
        }
    )
    path.write_text(text)
    ours = read_svec(path)
    assert ours.hooks == ("resid_pre.0", "resid_pre.2")
    assert ours.about.read_hooks == ("resid_post.0", "resid_post.2")
    assert read_svec(path, added="where_read").hooks == ("resid_post.0", "resid_post.2")
    for layer, row in ((0, 0), (2, 1)):
        vector_D = torch.from_numpy(numbers[row]).float()
        theirs = _as_ibm(lm, layer, vector_D)
        assert torch.allclose(_steered(lm, f"resid_pre.{layer}", vector_D), theirs, atol=1e-6)
    write_svec(tmp_path / "ours.svec", ours)
    there, back = json.loads(text), json.loads((tmp_path / "ours.svec").read_text())
    assert back["model_type"] == "llama"
    assert back["explained_variances"] == there["explained_variances"]
    assert set(back["directions"]) == {"0", "2"}
    for layer, numbers_D in back["directions"].items():
        assert numbers_D == pytest.approx(there["directions"][layer], rel=1e-6)


def test_what_leaves_block_l_goes_to_ibm_as_layer_l_plus_1(tmp_path: Path) -> None:
    vectors = _vectors("resid_post.1", "resid_pre.1")
    write_svec(tmp_path / "v.svec", vectors)
    read = read_svec(tmp_path / "v.svec")
    assert read.hooks == ("resid_pre.1", "resid_pre.2")
    assert torch.allclose(read.vector_LD, vectors.vector_LD.flip(0))


def _as_ibm(lm: LanguageModel, layer: int, vector_D: Tensor) -> Tensor:
    """LeashLayer.forward: hidden_states[0] = hidden_states[0] + vector, then the block."""

    def add(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        del module
        return (inputs[0] + vector_D, *inputs[1:])

    handle = lm.model.model.layers[layer].register_forward_pre_hook(add)
    try:
        return lm.logits(TOKENS)
    finally:
        handle.remove()


def test_block_numbers() -> None:
    assert left_block("resid_post.3") == left_block("resid_pre.4") == 3
    assert left_block("blocks.3.hook_resid_post") == 3
    assert entered_block("resid_pre.0") == 0


def test_what_cannot_be_written_or_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for write in (write_svec, write_control_vector):
        with pytest.raises(BadVectors, match="residual stream between blocks"):
            write(path, _vectors("mlp_out.1"))
    with pytest.raises(BadVectors, match="are one place"):
        write_svec(path, _vectors("resid_post.0", "resid_pre.1"))
    with pytest.raises(BadVectors, match="not outputs of blocks"):
        write_control_vector(path, _vectors("resid_pre.0"))
    with pytest.raises(BadVectors, match="is not there"):
        read_svec(path)
    with pytest.raises(BadVectors, match="cannot be read as a GGUF file"):
        read_control_vector(path)
    path.write_text("{}")
    with pytest.raises(BadVectors, match="it has no directions"):
        read_svec(path)
    with pytest.raises(BadVectors, match="cannot be read as a GGUF file"):
        read_control_vector(path)
    path.write_text('{"directions": {"0": [1, 2], "1": [1]}}')
    with pytest.raises(BadVectors, match="no lists of numbers of one length"):
        read_svec(path)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(BadVectors, match="architecture 'llama', not a control vector"):
        read_control_vector(path)
