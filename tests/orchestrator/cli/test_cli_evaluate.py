"""`saeq evaluate`: an embedding in a folder or in the store, put to tests on a second corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.store import Store
from steering.styles.head import Head
from steering.styles.model import StyleModel, save
from tests.orchestrator.cli.conftest import Saeq
from tests.steering.styles.evaluations.test_stel import write_tasks

GROUPS = ("a", "b", "c")


def write_rows(path: Path, groups: tuple[str, ...] = GROUPS) -> Path:
    random = np.random.default_rng(0)
    with path.open("w") as out:
        for row in range(120):
            place = row % 3
            vector = np.eye(4)[place] + 0.3 * random.normal(size=4)
            columns = {"style": vector.tolist(), "group": groups[place], "q": f"q{row // 6}"}
            said = {"text": f"the {['river', 'market', 'goal'][place]} number {row}"}
            out.write(json.dumps({**columns, **said, "job": ["x", "y"][row % 2]}) + "\n")
    return path


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """An embedding of given vectors that is close to the identity, with its record."""
    folder = tmp_path / "mine"
    folder.mkdir()
    head = Head((4, 4), normalize=False, seed=0)
    with torch.no_grad():
        next(iter(head.layers)).weight.copy_(torch.eye(4))  # type: ignore[operator]
        next(iter(head.layers)).bias.zero_()  # type: ignore[operator]
    save(folder, StyleModel(head, GROUPS, torch.eye(3, 4), "euclidean", torch.zeros(4),
                            torch.ones(4), {"encoder": {"features": True}}))  # fmt: skip
    data = {"files": str(write_rows(tmp_path / "own.jsonl")), "vector": "style", "item": "q"}
    (folder / "record.json").write_text(json.dumps({"sweep": "s", "setup": {"data": data}}))
    return folder


def test_without_data_its_own_unseen_rows_are_used(artefact: Path, saeq: Saeq) -> None:
    code, out, _ = saeq("evaluate", str(artefact), "--verification", "--few-shot")
    assert code == 0
    assert "roc_auc" in out and "k=1" in out
    assert "baselines" not in out
    files = sorted(path.name for path in Path("mine-evaluation").iterdir())
    assert files == ["evaluation.csv", "evaluation.json", "evaluation.md", "few_shot.png"]


def test_a_second_corpus_is_tried_on_the_centroids(
    artefact: Path, saeq: Saeq, tmp_path: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", ("A", "b", "c"))
    code, out, err = saeq(
        "evaluate", str(artefact), "--data", str(other), "--vector", "style", "--text", "text",
        "--item", "q", "--map", "A=a", "--metadata", "job", "--json", "--out", "found",
    )  # fmt: skip
    assert code == 0, err
    found = {one["name"]: one for one in json.loads(out)["evaluations"]}
    assert set(found) == {"second_corpus", "verification", "few_shot", "baselines"}
    assert found["second_corpus"]["figures"][0]["estimate"] > 0.8
    assert found["baselines"]["details"]["metadata"] == ["job"]
    assert (Path("found") / "evaluation.md").is_file()


def test_an_artefact_of_the_store_is_found_by_its_id(
    artefact: Path, saeq: Saeq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    store = Store.open(str(tmp_path / "store"))
    store.put_files(artefact, store.layout.artefact("embedding", "heads-t0001"))
    store.put_files(artefact, store.layout.artefact("sae", "demo-t0001"))
    shutil.rmtree(artefact)
    code, out, err = saeq("evaluate", "heads-t0001", "--verification")
    assert code == 0, err
    assert "roc_auc" in out
    code, _, err = saeq("evaluate", "heads-t0002")
    assert code == 2
    assert "Did you mean 'heads-t0001'?" in err
    code, _, err = saeq("evaluate", "demo-t0001")
    assert "is of kind sae" in err


def test_stel_alone_runs_alone_and_vectors_cannot_read_it(
    artefact: Path, saeq: Saeq, tmp_path: Path
) -> None:
    write_tasks(tmp_path / "tasks" / "a.tsv")
    code, out, _ = saeq("evaluate", str(artefact), "--stel", str(tmp_path / "tasks"))
    assert code == 0
    assert "skipped: this embedding reads given vectors" in out
    assert "few shot" not in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data", "nothing.jsonl", "--text", "text"), "no file matches"),
        (("--data", "nothing.jsonl"), "which column has the texts"),
        (("--text", "text"), "describe another corpus; name it with --data"),
        (("--map", "a=b"), "describe another corpus"),
        (("--stel", "nowhere"), "there is no such folder"),
        (("--metadata", "job", "--few-shot"), "is seen by --baselines alone"),
        (("--data", "own.jsonl", "--vector", "style", "--map", "ab"), "is not THEIRS=OURS"),
        (("--out", "own.jsonl"), "is a file; name a folder"),
        (("--data", "own.jsonl", "--vector", "styl"), "Did you mean 'style'?"),
        (("--data", "own.jsonl", "--text", "text"), "name the column that has them: --vector"),
    ],
)
def test_what_is_asked_wrongly_is_said_with_the_way_out(
    arguments: tuple[str, ...], told: str, artefact: Path, saeq: Saeq
) -> None:
    code, _, err = saeq("evaluate", str(artefact), *arguments)
    assert code == 2, err
    assert told in err


def test_a_folder_that_does_not_say_its_data_asks_for_some(artefact: Path, saeq: Saeq) -> None:
    (artefact / "record.json").unlink()
    code, _, err = saeq("evaluate", str(artefact))
    assert code == 2
    assert "give the rows to test on: --data FILE" in err
    code, _, err = saeq("evaluate", "nowhere")
    assert code == 2
    assert "no folder and no embedding of this store is called 'nowhere'" in err
