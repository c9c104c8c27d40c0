"""The table that all trials of an embedding sweep share on a machine: read, checked, encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from jobs.embedding import EmbeddingSetup

if TYPE_CHECKING:
    from torch import Tensor

    from steering.styles.rows import Rows

__all__ = ["Table", "table_of"]


@dataclass(frozen=True)
class Table:
    """Rows in three parts; `x` is what heads are trained on."""

    x_by_part: Mapping[str, Tensor]
    """Features [rows, D] of train, validation and test, standardised if asked for; of a tuned
    encoder those before its tuning, and of train alone."""
    group_by_part: Mapping[str, Tensor]
    corpora_by_part: Mapping[str, Sequence[str] | None]
    items_by_part: Mapping[str, Sequence[str]]
    texts_by_part: Mapping[str, Sequence[str]]
    """For an encoder that is tuned; else empty."""
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

    from steering.styles.catalogue import read_catalogue
    from steering.styles.rows import read_rows
    from steering.styles.splits import PARTS, check_no_leak, split_by_item

    setup = EmbeddingSetup.model_validate_json(setup_json)
    rows = read_rows(setup.data)
    catalogue = read_catalogue(Path(setup.catalogue)) if setup.catalogue else None
    if catalogue is not None and rows.vectors is not None:
        catalogue.check_length(rows.vectors.shape[1])
    split = split_by_item(rows.items, rows.groups, setup.split.shares, setup.split.seed)
    check_no_leak(split, rows.items, rows.texts)
    groups = tuple(sorted(set(rows.groups)))
    numbers = {group: number for number, group in enumerate(groups)}
    group_N = torch.tensor([numbers[group] for group in rows.groups])
    rows_of = {part: torch.tensor(split.rows[part]) for part in PARTS}
    is_tuned = setup.encoder.tune != "frozen"
    features = _features(setup, rows)
    x_train_ND = features[rows_of["train"]]
    mean_D, deviation_D = torch.zeros(features.shape[1]), torch.ones(features.shape[1])
    if setup.encoder.standardize:
        mean_D, deviation_D = x_train_ND.mean(0), x_train_ND.std(0).clamp(min=1e-6)
    x_by_part = {"train": x_train_ND.sub_(mean_D).div_(deviation_D)}
    for part in () if is_tuned else PARTS[1:]:
        x_by_part[part] = features[rows_of[part]].sub_(mean_D).div_(deviation_D)

    def by_part(values: Sequence[str] | None) -> dict[str, list[str] | None]:
        if values is None:
            return dict.fromkeys(PARTS)
        return {part: [values[row] for row in split.rows[part]] for part in PARTS}

    texts = by_part(rows.texts if is_tuned else None)
    return Table(
        x_by_part,
        {part: group_N[own] for part, own in rows_of.items()},
        by_part(rows.corpora),
        {part: own or [] for part, own in by_part(rows.items).items()},
        {part: own or [] for part, own in texts.items()},
        groups,
        mean_D,
        deviation_D,
        catalogue.sha256 if catalogue is not None else None,
        dict(rows.dropped),
    )


def _features(setup: EmbeddingSetup, rows: Rows) -> Tensor:
    """[rows, D]; one trial of the machine encodes, the others wait for what it leaves."""
    import torch

    from sae.model_files import cache_dir
    from steering.styles.encoders import features_of

    folder = cache_dir() / "features"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "encoding.lock"):
        features = features_of(setup.encoder, rows, folder)
    return torch.from_numpy(features if features.flags.writeable else features.copy())
