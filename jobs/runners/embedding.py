"""A trial of `embedding`, in its actor's own process: a step takes a millisecond.

Features are read from the local disk, where the first trial of a machine puts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from jobs.embedding import Embedding, EmbeddingSetup
from jobs.kind import TrialContext, TrialFailed
from jobs.runners.in_process import InProcessRunner

if TYPE_CHECKING:
    from torch import Tensor

    from steering.styles.centroids import Distance
    from steering.styles.evaluation import Labelled
    from steering.styles.training import HeadTraining, Recipe


@dataclass(frozen=True)
class Table:
    """What all trials of a sweep share on a machine."""

    x_by_part: Mapping[str, Tensor]
    """Features [rows, D] of train, validation and test, standardised if asked for."""
    group_by_part: Mapping[str, Tensor]
    corpora_by_part: Mapping[str, list[str] | None]
    groups: tuple[str, ...]
    mean_D: Tensor
    deviation_D: Tensor
    catalogue_sha256: str | None
    dropped: Mapping[str, int]

    def raw(self, part: str) -> Tensor:
        """Features as the encoder gave them."""
        return self.x_by_part[part] * self.deviation_D + self.mean_D


@lru_cache(maxsize=2)
def table_of(setup_json: str) -> Table:
    """Read, check, encode and split; once a process. Raises BadStyleData."""
    import torch

    from sae.model_files import cache_dir
    from steering.styles.catalogue import read_catalogue
    from steering.styles.encoders import features_of
    from steering.styles.rows import read_rows
    from steering.styles.splits import PARTS, check_no_leak, split_by_item

    setup = EmbeddingSetup.model_validate_json(setup_json)
    rows = read_rows(setup.data)
    catalogue = read_catalogue(Path(setup.catalogue)) if setup.catalogue else None
    if catalogue is not None and rows.vectors is not None:
        catalogue.check_length(rows.vectors.shape[1])
    split = split_by_item(rows.items, rows.groups, setup.split.shares, setup.split.seed)
    check_no_leak(split, rows.items, rows.texts)
    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "encoding.lock"):  # one trial of the machine encodes, the others wait
        features = torch.from_numpy(features_of(setup.encoder, rows, folder).copy())
    groups = tuple(sorted(set(rows.groups)))
    numbers = {group: number for number, group in enumerate(groups)}
    group_N = torch.tensor([numbers[group] for group in rows.groups])
    rows_of = {part: torch.tensor(split.rows[part]) for part in PARTS}
    train_ND = features[rows_of["train"]]
    mean_D, deviation_D = torch.zeros(features.shape[1]), torch.ones(features.shape[1])
    if setup.encoder.standardize:
        mean_D, deviation_D = train_ND.mean(0), train_ND.std(0).clamp(min=1e-6)
    corpora = rows.corpora
    return Table(
        {part: (features[own] - mean_D) / deviation_D for part, own in rows_of.items()},
        {part: group_N[own] for part, own in rows_of.items()},
        {p: [corpora[r] for r in split.rows[p]] if corpora is not None else None for p in PARTS},
        groups,
        mean_D,
        deviation_D,
        catalogue.sha256 if catalogue is not None else None,
        dict(rows.dropped),
    )


class EmbeddingRunner(InProcessRunner):
    """One head; see `InProcessRunner`."""

    artefact_kind = "embedding"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = EmbeddingSetup.model_validate(context.setup)
        self._recipe = recipe_of(context.config)
        self._losses: list[float] = []
        self._table: Table | None = None
        self._training: HeadTraining | None = None

    def open(self) -> None:
        from steering.styles.training import HeadTraining

        self._table = table_of(self._setup.model_dump_json())
        self._training = HeadTraining(
            self._recipe, self._table.x_by_part["train"], self._table.group_by_part["train"]
        )

    @property
    def units_done(self) -> int:
        """Epochs."""
        assert self._training is not None
        return self._training.num_steps // self._training.steps_per_epoch

    def step(self) -> None:
        assert self._training is not None
        self._losses.append(self._training.step())

    def measure(self) -> Mapping[str, float]:
        metrics = {**self._objective("validation"), "loss": _mean(self._losses)}
        self._losses = self._losses[-1:]
        return metrics

    def write_state(self, folder: Path) -> None:
        assert self._training is not None
        self._training.save(folder)

    def read_state(self, folder: Path) -> None:
        assert self._training is not None
        self._training.load(folder)

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Export, load back, and measure what was loaded: it has to be what was trained."""
        import torch

        from steering.styles import load
        from steering.styles.centroids import centroids
        from steering.styles.evaluation import report
        from steering.styles.model import StyleModel, save

        assert self._training is not None
        assert self._table is not None
        train, test = self._labelled("train"), self._labelled("test")
        measured = {**self._objective("validation"), "loss": _mean(self._losses)}
        tested = self._objective("test")
        table, setup = self._table, self._setup
        shares = report(train, test, table.groups, setup.centroid, self._distance, setup.parents)
        record = self._record(shares)
        point_GE = centroids(train.embedding_NE, train.group_N, len(table.groups), setup.centroid)
        head, groups = self._training.head, table.groups
        model = StyleModel(
            head, groups, point_GE, self._distance, table.mean_D, table.deviation_D, record
        )
        save(folder, model)
        again_NE = load(folder).embed(table.raw("test"))
        if not torch.allclose(again_NE, test.embedding_NE, atol=1e-3, rtol=1e-3):
            raise TrialFailed("export differs from what was trained: other embeddings when loaded")
        metrics = {
            **measured,
            "test_macro_accuracy": tested["macro_accuracy"],
            "test_parent_accuracy": float(shares["parent_accuracy"]),
        }
        return metrics, record

    def close(self) -> None:
        self._training = None

    @property
    def _distance(self) -> Distance:
        cosine = self._recipe.distance == "cosine" or self._recipe.loss in (
            "supcon",
            "multi_similarity",
        )
        return "cosine" if cosine else "euclidean"

    def _labelled(self, part: str) -> Labelled:
        from steering.styles.evaluation import Labelled

        assert self._training is not None
        assert self._table is not None
        embedding_NE = self._training.embed(self._table.x_by_part[part])
        corpora = self._table.corpora_by_part[part]
        return Labelled(embedding_NE, self._table.group_by_part[part], corpora)

    def _objective(self, part: str) -> dict[str, float]:
        from steering.styles.evaluation import objective

        assert self._table is not None
        return objective(
            self._labelled("train"),
            self._labelled(part),
            len(self._table.groups),
            self._setup.centroid,
            self._distance,
        )

    def _record(self, shares: Mapping[str, Any]) -> dict[str, Any]:
        assert self._table is not None
        assert self._training is not None
        return {
            "recipe": self._recipe.__dict__ | {"hidden": list(self._recipe.hidden)},
            "encoder": self._setup.encoder.model_dump(mode="json"),
            "centroid": self._setup.centroid,
            "catalogue_sha256": self._table.catalogue_sha256,
            "num_triplets": self._training.num_triplets,
            "dropped_groups": dict(self._table.dropped),
            "report": dict(shares),
        }


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """A trial's configuration, defaults filled in."""
    from steering.styles.training import Recipe

    model = Embedding().parameters()[config.get("loss", "triplet")]
    values = model.model_validate(config).model_dump()
    return Recipe(**values)


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if losses else float("nan")
