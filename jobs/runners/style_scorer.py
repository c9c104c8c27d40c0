"""A trial of `style_scorer`, in its actor's own process: a step takes a millisecond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from jobs.kind import TrialContext, TrialFailed
from jobs.runners.in_process import InProcessRunner
from jobs.style_scorer import StyleScorer, StyleScorerSetup

if TYPE_CHECKING:
    from torch import Tensor

    from steering.styles.catalogue import Attribute
    from steering.styles.scorers.quality import AttributeQuality
    from steering.styles.scorers.regression import RegressionRecipe, RegressorTraining


@dataclass(frozen=True)
class Table:
    """What all trials of a sweep share on a machine."""

    x_by_part: Mapping[str, Tensor]
    """Features [rows, D] of train, validation and test, as the encoder gave them."""
    y_by_part: Mapping[str, Tensor]
    """Targets [rows, attributes]."""
    items_train: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    catalogue_sha256: str | None


@lru_cache(maxsize=2)
def table_of(setup_json: str) -> Table:
    """Read, check, encode and split; once a process. Raises BadStyleData."""
    import torch

    from sae.model_files import cache_dir
    from steering.styles.encoders import features_of
    from steering.styles.scorers.targets import read_targets
    from steering.styles.splits import PARTS, check_no_leak, split_by_item

    setup = StyleScorerSetup.model_validate_json(setup_json)
    targets = read_targets(setup.data, setup.catalogue)
    rows = targets.rows
    everyone = ["all"] * len(rows)
    split = split_by_item(rows.items, everyone, setup.split.shares, setup.split.seed)
    check_no_leak(split, rows.items, rows.texts)
    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "encoding.lock"):  # one trial of the machine encodes, the others wait
        features = torch.from_numpy(features_of(setup.encoder, rows, folder).copy())
    values = torch.from_numpy(targets.value_NA)
    rows_of = {part: torch.tensor(split.rows[part]) for part in PARTS}
    return Table(
        {part: features[own] for part, own in rows_of.items()},
        {part: values[own] for part, own in rows_of.items()},
        tuple(rows.items[row] for row in split.rows["train"]),
        targets.attributes,
        targets.catalogue_sha256,
    )


class StyleScorerRunner(InProcessRunner):
    """One regressor; see `InProcessRunner`."""

    artefact_kind = "style_scorer"

    def __init__(self, context: TrialContext) -> None:
        super().__init__(context)
        self._setup = StyleScorerSetup.model_validate(context.setup)
        self._recipe = recipe_of(context.config)
        self._losses: list[float] = []
        self._table: Table | None = None
        self._training: RegressorTraining | None = None

    def open(self) -> None:
        from steering.styles.errors import BadStyleData
        from steering.styles.scorers.regression import RegressorTraining

        table = self._table = table_of(self._setup.model_dump_json())
        try:
            self._training = RegressorTraining(
                self._recipe,
                table.x_by_part["train"],
                table.y_by_part["train"],
                table.items_train,
                standardize=self._setup.encoder.standardize,
            )
        except BadStyleData as error:  # of this trial's own values: the others may go on
            raise TrialFailed(str(error), final=True) from error

    @property
    def units_done(self) -> int:
        """Steps."""
        assert self._training is not None
        return self._training.num_steps

    def step(self) -> None:
        assert self._training is not None
        self._losses.append(self._training.step())

    def measure(self) -> Mapping[str, float]:
        metrics = {"r2": _r2(self._quality("validation")), "loss": _mean(self._losses)}
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

        from steering.styles.scorers.quality import mean_known, write_quality_csv
        from steering.styles.scorers.regressor import RegressorModel, load_regressor, save_regressor

        assert self._training is not None
        assert self._table is not None
        table, training = self._table, self._training
        tested = self._quality("test")
        metrics = {
            **self.measure(),
            "test_r2": _r2(tested),
            "test_auroc": mean_known([one.auroc for one in tested]),
            "rows": float(len(training.rows)),
        }
        record = self._record(tested)
        scaling = training.scaling
        model = RegressorModel(
            training.head,
            self._setup.encoder,
            table.attributes,
            self._recipe.is_probability,
            scaling.mean_D,
            scaling.deviation_D,
            scaling.target_mean_A,
            scaling.target_deviation_A,
            {**record, "metrics": {n: v for n, v in metrics.items() if v == v}},
        )
        save_regressor(folder, model)
        again_NA = load_regressor(folder).predict(table.x_by_part["test"])
        if not torch.allclose(
            again_NA, training.predict(table.x_by_part["test"]), atol=1e-4, rtol=1e-3
        ):
            raise TrialFailed("export differs from what was trained: other scores when loaded")
        (folder / "report").mkdir()
        write_quality_csv(folder / "report" / "attributes.csv", tested)
        return metrics, record

    def close(self) -> None:
        self._training = None

    def _quality(self, part: str) -> list[AttributeQuality]:
        from steering.styles.scorers.quality import quality

        assert self._training is not None
        assert self._table is not None
        predicted_NA = self._training.predict(self._table.x_by_part[part])
        target_NA = self._table.y_by_part[part]
        return quality(predicted_NA.numpy(), target_NA.numpy(), self._table.attributes)

    def _record(self, tested: list[AttributeQuality]) -> dict[str, Any]:
        assert self._table is not None
        assert self._training is not None
        return {
            "recipe": self._recipe.__dict__ | {"hidden": list(self._recipe.hidden)},
            "encoder": self._setup.encoder.model_dump(mode="json"),
            "catalogue_sha256": self._table.catalogue_sha256,
            "rows": len(self._training.rows),
            "attributes_test": [one.to_json() for one in tested],
        }


def recipe_of(config: Mapping[str, Any]) -> RegressionRecipe:
    """A trial's configuration, defaults filled in."""
    from steering.styles.scorers.regression import RegressionRecipe

    model = StyleScorer().parameters()[config.get("loss", "mse")]
    return RegressionRecipe(**model.model_validate(config).model_dump())


def _r2(found: list[AttributeQuality]) -> float:
    from steering.styles.scorers.quality import mean_known

    return mean_known([one.r2 for one in found])


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if losses else float("nan")
