"""Extraction: right rows and tokens, shared, resumed after a kill, refused where nothing fits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.language_model import LanguageModel
from sae.stream_errors import UnknownHook
from steering.errors import BadSteeringInput
from steering.probes.features import ExtractSettings, FeatureSpec, FeatureTable, extract
from steering.probes.features.store import Arrays, StoredTable, make_room
from steering.reading import read_pooled
from tests.one_thread import one_thread
from tests.steering.probes.tiny_saes import HOOK, random_sae, tiny_lm, word_data

ROOT = Path(__file__).parents[3]
SETTINGS = ExtractSettings(max_tokens=128, shard_chars=600, batch_tokens=200, sae_tokens=7)
POOLINGS = ("last", "mean", "max", "first", "tokens")
ACTIVATIONS = {p: FeatureSpec(hook=HOOK, pooling=p) for p in POOLINGS}
LATENTS = {p: FeatureSpec(sae="a", pooling=p) for p in POOLINGS}
OTHER = FeatureSpec(sae="b", pooling="mean")
SPECS = [*ACTIVATIONS.values(), *LATENTS.values(), OTHER]


@pytest.fixture(scope="module", autouse=True)
def bits_do_not_hang_on_threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny_lm(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def table(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> FeatureTable:
    cache = tmp_path_factory.mktemp("cache")
    return extract(lm, SAES, word_data(), SPECS, cache, settings=SETTINGS)


SAES = {"a": random_sae(), "b": random_sae(128, hook="resid_post.0", seed=1)}


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "first"])
def test_pooled_activations_are_those_of_the_shared_reader(
    lm: LanguageModel, table: FeatureTable, pooling: str
) -> None:
    theirs = read_pooled(lm, table.labelled.texts, [HOOK], pooling)  # type: ignore[arg-type]
    ours = table.matrix(ACTIVATIONS[pooling])
    assert isinstance(ours, np.memmap)
    np.testing.assert_allclose(ours, theirs[HOOK].numpy(), atol=1e-5)


def test_latents_are_the_sae_s_own_and_pooled_after_encoding(table: FeatureTable) -> None:
    acts_SD = np.array(table.matrix(ACTIVATIONS["tokens"]))
    expected_SF = SAES["a"].encode(torch.from_numpy(acts_SD)).numpy()
    ours_SF = table.matrix(LATENTS["tokens"]).toarray()
    np.testing.assert_allclose(ours_SF, expected_SF, atol=1e-5)
    offset_N1 = table.offsets(LATENTS["tokens"])
    per_text = [ours_SF[a:b] for a, b in zip(offset_N1, offset_N1[1:], strict=False)]
    for pooling, pooled in (
        ("mean", [rows.mean(0) for rows in per_text]),
        ("max", [rows.max(0) for rows in per_text]),
        ("last", [rows[-1] for rows in per_text]),
        ("first", [rows[0] for rows in per_text]),
    ):
        ours = table.matrix(LATENTS[pooling]).toarray()
        np.testing.assert_allclose(ours, np.stack(pooled), atol=1e-5)


def test_an_sae_without_a_given_hook_reads_its_own(lm: LanguageModel, table: FeatureTable) -> None:
    acts = read_pooled(lm, table.labelled.texts, ["resid_post.0"], "last")["resid_post.0"]
    latents = SAES["b"].encode(acts).numpy()
    assert table.matrix(OTHER).shape == (len(table.labelled), latents.shape[1])


def test_token_rows_know_their_text_item_and_label(table: FeatureTable) -> None:
    spec = LATENTS["tokens"]
    texts, y_S = table.labelled.texts, table.y(spec)[:, 0]
    text_S, index = table.text_of(spec), table.tokens
    assert index is not None
    assert table.matrix(spec).shape[0] == len(y_S) == table.num_rows(spec) == len(text_S)
    marked: dict[int, str] = {}
    for row in np.flatnonzero(y_S):
        start, end = index.char_S2[row]
        text = int(text_S[row])
        marked[text] = marked.get(text, "") + texts[text][start:end]
    positives = np.flatnonzero(table.labelled.y_NL[:, 0]).tolist()
    assert {text: said.strip() for text, said in marked.items()} == dict.fromkeys(positives, "mill")
    assert [table.labelled.items[text] for text in text_S] == table.items(spec)
    assert table.rows_of(spec, [1]).tolist() == np.flatnonzero(text_S == 1).tolist()


def test_kept_tokens_bound_the_rows_of_a_text(lm: LanguageModel, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"kept_tokens": 5})
    specs = [ACTIVATIONS["tokens"], LATENTS["tokens"], LATENTS["max"]]
    few = extract(lm, SAES, word_data(8), specs, tmp_path, settings=settings)
    every = extract(lm, SAES, word_data(8), specs, tmp_path, settings=SETTINGS)
    counts = np.diff(few.offsets(specs[0]))
    assert counts.max() == 5
    assert few.tokens is not None
    places = few.tokens.place_S[:5].tolist()
    assert places[0] == 0
    assert places[-1] == np.diff(every.offsets(specs[0]))[0] - 1
    rows = [int(every.offsets(specs[0])[0]) + place for place in places]
    np.testing.assert_allclose(few.matrix(specs[0])[:5], every.matrix(specs[0])[rows], atol=1e-5)
    np.testing.assert_allclose(
        few.matrix(specs[1])[:5].toarray(), every.matrix(specs[1])[rows].toarray(), atol=1e-5
    )
    # Pooling over all tokens is not bounded by it.
    np.testing.assert_allclose(
        few.matrix(specs[2]).toarray(), every.matrix(specs[2]).toarray(), atol=1e-5
    )


def test_what_is_there_is_not_computed_again(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = word_data(8)
    first = extract(lm, SAES, data, [LATENTS["mean"]], tmp_path, settings=SETTINGS)
    passes: list[int] = []
    real = LanguageModel.activations
    monkeypatch.setattr(
        LanguageModel,
        "activations",
        lambda self, tokens, hooks: passes.append(len(hooks)) or real(self, tokens, hooks),  # type: ignore[func-returns-value]
    )
    again = extract(lm, SAES, data, [LATENTS["mean"]], tmp_path, settings=SETTINGS)
    assert not passes
    assert (first.matrix(LATENTS["mean"]) != again.matrix(LATENTS["mean"])).nnz == 0
    extract(lm, SAES, data, [*SPECS], tmp_path, settings=SETTINGS)
    assert set(passes) == {2}  # both hooks in each pass, for all SAEs and poolings


def test_of_two_that_ask_at_once_one_computes(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = StoredTable.write_part

    def note(self: StoredTable, part: int, arrays: Arrays) -> None:
        written.append(part)
        real(self, part, arrays)

    monkeypatch.setattr(StoredTable, "write_part", note)
    data, spec = word_data(12), ACTIVATIONS["mean"]
    extract(lm, {}, data, [spec], tmp_path / "one", settings=SETTINGS)
    alone, written[:] = list(written), []
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(extract, lm, {}, data, [spec], tmp_path / "two", settings=SETTINGS)
            for _ in range(2)
        ]
        first, second = (one.result().matrix(spec) for one in both)
    assert written == alone
    np.testing.assert_array_equal(first, second)


def test_latents_are_mapped_not_copied(table: FeatureTable) -> None:
    matrix, stored = table.matrix(LATENTS["tokens"]), table.arrays_by_spec[LATENTS["tokens"]]
    assert np.shares_memory(matrix.data, stored["values"])
    assert np.shares_memory(matrix.indices, stored["indices"])
    assert matrix.indices.dtype == np.int32


def test_spans_need_a_tokenizer_that_tells_characters(table: FeatureTable) -> None:
    assert table.tokens is not None
    blind = replace(table.tokens, char_S2=np.zeros_like(table.tokens.char_S2))
    with pytest.raises(BadSteeringInput, match="fast tokenizer"):
        replace(table, tokens=blind).y(LATENTS["tokens"])


def test_half_precision_halves_the_disk_and_keeps_three_digits(
    lm: LanguageModel, tmp_path: Path
) -> None:
    half = SETTINGS.model_copy(update={"precision": "float16"})
    specs = [ACTIVATIONS["mean"], LATENTS["tokens"]]
    exact = extract(lm, SAES, word_data(8), specs, tmp_path, settings=SETTINGS)
    rounded = extract(lm, SAES, word_data(8), specs, tmp_path, settings=half)
    assert rounded.matrix(specs[0]).dtype == np.float32
    np.testing.assert_allclose(
        rounded.matrix(specs[0]), exact.matrix(specs[0]), rtol=2e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        rounded.matrix(specs[1]).toarray(), exact.matrix(specs[1]).toarray(), rtol=2e-3, atol=1e-4
    )


KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tests.steering.probes.test_feature_extraction import SAES, SETTINGS, SPECS
from tests.one_thread import one_thread
from tests.steering.probes.tiny_saes import word_data
from sae.language_model import LanguageModel
from sae.stream_spec import ModelSpec
from steering.probes.features import extract

def die(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

lm = LanguageModel.load(ModelSpec(name=sys.argv[1]), "cpu")
extract(lm, SAES, word_data(), SPECS, Path(sys.argv[2]), settings=SETTINGS, on_progress=die)
"""


@pytest.mark.slow
def test_a_killed_extraction_goes_on_and_gives_the_same(
    lm: LanguageModel, table: FeatureTable, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", KILLED, lm.files.name, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    parts = list(tmp_path.rglob("part-*.safetensors"))
    assert parts
    damaged = parts[0]
    damaged.write_bytes(damaged.read_bytes()[:-3])  # the disk lost its end, too
    written = {path: path.stat().st_mtime_ns for path in parts[1:]}
    seen: list[int] = []

    def note(done: int, total: int) -> None:
        del total
        seen.append(done)
        now = {path: path.stat().st_mtime_ns for path in written if path.exists()}
        assert now == {path: written[path] for path in now}  # what is done stays

    again = extract(lm, SAES, word_data(), SPECS, tmp_path, settings=SETTINGS, on_progress=note)
    assert seen[-1] == len(table.labelled)
    for spec in SPECS:
        ours, whole = again.matrix(spec), table.matrix(spec)
        same = (ours != whole).nnz == 0 if spec.sae else np.array_equal(ours, whole)
        assert same, spec
    assert not list(tmp_path.rglob("part-*"))


def test_a_damaged_table_is_made_again(
    lm: LanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = ACTIVATIONS["mean"]
    first = np.array(
        extract(lm, {}, word_data(8), [spec], tmp_path, settings=SETTINGS).matrix(spec)
    )
    (path,) = tmp_path.rglob("rows.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    again = extract(lm, {}, word_data(8), [spec], tmp_path, settings=SETTINGS).matrix(spec)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(first, again)


def test_other_texts_settings_or_weights_are_other_features(
    lm: LanguageModel, tmp_path: Path
) -> None:
    spec = LATENTS["mean"]

    def folders() -> int:
        return sum(path.is_dir() for path in tmp_path.iterdir())

    extract(lm, SAES, word_data(8), [spec], tmp_path, settings=SETTINGS)
    assert folders() == 1
    extract(lm, SAES, word_data(8, seed=1), [spec], tmp_path, settings=SETTINGS)
    extract(lm, {"a": random_sae(seed=9)}, word_data(8), [spec], tmp_path, settings=SETTINGS)
    shorter = SETTINGS.model_copy(update={"max_tokens": 9})
    extract(lm, SAES, word_data(8), [spec], tmp_path, settings=shorter)
    assert folders() == 4
    renamed = {"z": SAES["a"]}
    extract(lm, renamed, word_data(8), [FeatureSpec(sae="z")], tmp_path, settings=SETTINGS)
    assert folders() == 4


def test_tables_read_longest_ago_make_room(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "kept", "new")]
    for age, folder in enumerate(folders):
        folder.mkdir()
        (folder / "rows.npy").write_bytes(b"0" * 1000)
        (folder / "about.json").write_text("{}")
        os.utime(folder / "about.json", ns=(age, age))
    make_room(tmp_path, 1100, [folders[1]])
    assert [folder.exists() for folder in folders] == [False, True, False]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (FeatureSpec(sae="c"), "there is a, b"),
        (FeatureSpec(sae="a", hook="resid_post.2"), "was trained at resid_post.1"),
        (FeatureSpec(sae="nohook"), "does not say its hook"),
        (FeatureSpec(sae="wide"), "width 16"),
    ],
)
def test_an_sae_that_does_not_fit_is_refused(
    lm: LanguageModel, tmp_path: Path, spec: FeatureSpec, said: str
) -> None:
    saes = {**SAES, "nohook": random_sae(hook=None), "wide": random_sae(d_in=16)}
    with pytest.raises(BadSteeringInput, match=said):
        extract(lm, saes, word_data(4), [spec], tmp_path, settings=SETTINGS)


def test_a_hook_that_is_not_there_and_too_long_a_context_are_refused(
    lm: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(UnknownHook):
        extract(
            lm, {}, word_data(4), [FeatureSpec(hook="resid_post.9")], tmp_path, settings=SETTINGS
        )
    long = ExtractSettings(max_tokens=300)
    with pytest.raises(BadSteeringInput, match="256 tokens"):
        extract(lm, {}, word_data(4), [FeatureSpec(hook=HOOK)], tmp_path, settings=long)


def test_what_was_not_extracted_is_not_found(table: FeatureTable) -> None:
    with pytest.raises(BadSteeringInput, match="was not extracted"):
        table.matrix(FeatureSpec(hook="resid_post.2"))
