"""A trial of `embedding`, in its actor's own process: a head on features, or an encoder with one.

Features are read from the local disk, where the first trial of a machine puts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.embedding import Embedding, EmbeddingSetup
from jobs.kind import Finished, Progress, TrialContext, TrialFailed, TrialOutOfMemory
from jobs.runners.embedding_table import Table, table_of
from jobs.runners.in_process import InProcessRunner

if TYPE_CHECKING:
    from torch import Tensor

    from steering.styles.centroids import Aggregator, Distance
    from steering.styles.encoders import EncoderSpec
    from steering.styles.evaluation import Labelled
    from steering.styles.fine_tuning import TextTraining, Tuning
    from steering.styles.model import StyleModel
    from steering.styles.text_encoder import TextEncoder
    from steering.styles.training import HeadTraining, Recipe

__all__ = ["EmbeddingRunner", "recipe_of", "tuning_of"]

CHECKED_TEXTS = 64
"""Embedded again with the loaded export: more would only take longer."""


class EmbeddingRunner(InProcessRunner):
    """One head, or one encoder with its head; see `InProcessRunner`."""

    artefact_kind = "embedding"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = EmbeddingSetup.model_validate(context.setup)
        self._recipe = recipe_of(context.config)
        self._values = parameters_of(context.config)
        self._centroid: Aggregator = self._values["centroid"]
        self._losses: list[float] = []
        self._table: Table | None = None
        self._training: HeadTraining | TextTraining | None = None
        self._embedded: dict[str, tuple[int, Tensor]] = {}

    def attach(self, checkpoint: Path | None) -> int:
        with _memory_said():
            return super().attach(checkpoint)

    def advance(self, until_tokens: int, run_on_to: int, max_seconds: float) -> Progress:
        with _memory_said():
            return super().advance(until_tokens, run_on_to, max_seconds)

    def finish(self, folder: Path) -> Finished:
        with _memory_said():
            return super().finish(folder)

    def open(self) -> None:
        self._table = table_of(self._setup.model_dump_json())
        spec = self._setup.encoder
        if spec.tune == "frozen":
            from steering.styles.training import HeadTraining

            self._training = HeadTraining(
                self._recipe, self._table.x_by_part["train"], self._table.group_by_part["train"]
            )
            return
        from steering.styles.fine_tuning import TextTraining
        from steering.styles.text_encoder import load_encoder

        self._training = TextTraining(
            self._recipe,
            tuning_of(self._setup, self.context.config),
            load_encoder(spec),
            self._table.texts_by_part["train"],
            self._table.group_by_part["train"],
            self._table.mean_D,
            self._table.deviation_D,
        )

    @property
    def _opened(self) -> tuple[Table, HeadTraining | TextTraining]:
        assert self._table is not None
        assert self._training is not None
        return self._table, self._training

    @property
    def units_done(self) -> int:
        """Epochs."""
        _, training = self._opened
        return training.num_steps // training.steps_per_epoch

    def step(self) -> None:
        _, training = self._opened
        self._losses.append(training.step())

    def measure(self) -> Mapping[str, float]:
        metrics = {**self._objective("validation"), "loss": _mean(self._losses)}
        self._losses = self._losses[-1:]
        return metrics

    def write_state(self, folder: Path) -> None:
        self._opened[1].save(folder)

    def read_state(self, folder: Path) -> None:
        self._opened[1].load(folder)

    def export(self, folder: Path) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """Export, load back, and measure what was loaded: it has to be what was trained."""
        from steering.styles.card import write_card
        from steering.styles.evaluation import report
        from steering.styles.model import save
        from steering.styles.pictures import write_report

        table, _ = self._opened
        train, test = self._labelled("train"), self._labelled("test")
        measured = {**self._objective("validation"), "loss": _mean(self._losses)}
        tested = self._objective("test")
        shares = report(
            train,
            test,
            table.groups,
            self._centroid,
            self._distance,
            self._setup.parents,
            items=table.items_by_part["test"],
        )
        metrics = {
            **measured,
            "test_macro_accuracy": tested["macro_accuracy"],
            "test_parent_accuracy": float(shares["parent_accuracy"]),
        }
        record = {**self._record(shares), "metrics": {n: _json(v) for n, v in metrics.items()}}
        model = self._model(train, record)
        save(folder, model)
        self._check(folder, test)
        write_report(folder / "report", shares)
        write_card(folder, model)
        return metrics, record

    def close(self) -> None:
        self._training = None
        self._embedded = {}

    @property
    def _distance(self) -> Distance:
        cosine = self._recipe.distance == "cosine" or self._recipe.loss in (
            "supcon",
            "multi_similarity",
        )
        return "cosine" if cosine else "euclidean"

    def _embedding(self, part: str) -> Tensor:
        """Embeddings of a part as they are now, computed once between two steps."""
        from steering.styles.training import HeadTraining

        table, training = self._opened
        step, found = self._embedded.get(part, (-1, None))
        if found is None or step != training.num_steps:
            if isinstance(training, HeadTraining):
                found = training.embed(table.x_by_part[part])
            else:
                texts = None if part == "train" else table.texts_by_part[part]
                found = training.embed(training.features(texts))
            self._embedded[part] = (training.num_steps, found)
        return found

    def _labelled(self, part: str) -> Labelled:
        from steering.styles.evaluation import Labelled

        table, _ = self._opened
        corpora = table.corpora_by_part[part]
        return Labelled(self._embedding(part), table.group_by_part[part], corpora)

    def _objective(self, part: str) -> dict[str, float]:
        from steering.styles.evaluation import objective

        return objective(
            self._labelled("train"),
            self._labelled(part),
            len(self._opened[0].groups),
            self._centroid,
            self._distance,
        )

    def _model(self, train: Labelled, record: Mapping[str, Any]) -> StyleModel:
        from steering.styles.centroids import centroids
        from steering.styles.fine_tuning import TextTraining
        from steering.styles.model import StyleModel

        table, training = self._opened
        point_GE = centroids(train.embedding_NE, train.group_N, len(table.groups), self._centroid)
        encoder = None
        if isinstance(training, TextTraining):
            encoder = training.encoder
        elif not self._setup.encoder.features:
            encoder = _frozen_encoder(self._setup.encoder)
        return StyleModel(
            training.head.cpu(),
            table.groups,
            point_GE,
            self._distance,
            table.mean_D,
            table.deviation_D,
            dict(record),
            encoder,
        )

    def _check(self, folder: Path, test: Labelled) -> None:
        """Raises TrialFailed if what is loaded back embeds otherwise than what was trained."""
        import torch

        from steering.styles import load

        table, _ = self._opened
        if self._setup.encoder.tune == "frozen":
            again_NE = load(folder).embed(table.raw("test"))
        else:
            again_NE = load(folder).embed_texts(table.texts_by_part["test"][:CHECKED_TEXTS])
        tolerance = 1e-3 if self._setup.encoder.dtype == "float32" else 5e-2
        expected_NE = test.embedding_NE[: len(again_NE)]
        if not torch.allclose(again_NE, expected_NE, atol=tolerance, rtol=tolerance):
            raise TrialFailed("export differs from what was trained: other embeddings when loaded")

    def _record(self, shares: Mapping[str, Any]) -> dict[str, Any]:
        table, training = self._opened
        setup = self._setup
        return {
            "recipe": self._recipe.__dict__ | {"hidden": list(self._recipe.hidden)},
            "encoder": setup.encoder.model_dump(mode="json"),
            "tuning": self._tuning_record(),
            "centroid": self._centroid,
            "catalogue_sha256": table.catalogue_sha256,
            "data": setup.data.model_dump(mode="json", exclude_none=True),
            "split": setup.split.model_dump(mode="json"),
            "rows": {part: len(own) for part, own in table.group_by_part.items()},
            "epochs": self.units_done,
            "num_triplets": training.num_triplets,
            "dropped_groups": dict(table.dropped),
            "report": dict(shares),
        }

    def _tuning_record(self) -> dict[str, Any] | None:
        """How the encoder was trained; None for one that was not."""
        from steering.styles.fine_tuning import TextTraining

        _, training = self._opened
        if not isinstance(training, TextTraining):
            return None
        tuning = training.tuning
        found: dict[str, Any] = {
            "kind": tuning.kind,
            "lr": tuning.lr,
            "trained_parameters": training.num_trained,
            "parameters": training.num_parameters,
            "pass_tokens": training.encoder.batch_tokens,
            "fallbacks": list(training.encoder.fallbacks),
            "cut_texts": training.num_cut,
        }
        if tuning.kind == "lora":
            lora = tuning.lora
            targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
            found["lora"] = {
                "r": lora.r,
                "alpha": lora.alpha,
                "scale": lora.scale,
                "dropout": lora.dropout,
                "targets": targets,
            }
        return found


@lru_cache(maxsize=1)
def _frozen_encoder(spec: EncoderSpec) -> TextEncoder:
    """For exports: what is written of it is the same for all trials."""
    from steering.styles.text_encoder import load_encoder

    return load_encoder(spec, device="cpu")


NOT_OF_THE_HEAD = frozenset(
    {"centroid", "encoder_lr", "lora_r", "lora_alpha", "lora_dropout", "lora_targets"}
)


def parameters_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's configuration, checked, defaults filled in."""
    model = Embedding().parameters()[config.get("loss", "triplet")]
    return model.model_validate(config).model_dump()


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """How a head is trained."""
    from steering.styles.training import Recipe

    values = parameters_of(config)
    return Recipe(**{name: v for name, v in values.items() if name not in NOT_OF_THE_HEAD})


def tuning_of(setup: EmbeddingSetup, config: Mapping[str, Any]) -> Tuning:
    """How the encoder is trained; for one that is."""
    from steering.styles.fine_tuning import Tuning
    from steering.styles.lora import Lora

    values = parameters_of(config)
    assert setup.encoder.tune != "frozen"
    return Tuning(
        setup.encoder.tune,
        values["encoder_lr"],
        Lora(
            values["lora_r"], values["lora_alpha"], values["lora_dropout"], values["lora_targets"]
        ),
        setup.encoder.gradient_checkpointing,
    )


@contextmanager
def _memory_said() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; it is not imported here
            raise
        first = str(error).splitlines()[0]
        raise TrialOutOfMemory(
            f"{first} Lower encoder.batch_tokens or encoder.max_tokens, or set "
            "encoder.gradient_checkpointing: true"
        ) from error


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if losses else float("nan")


def _json(value: float) -> float | None:
    return value if value == value else None
