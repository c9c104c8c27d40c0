"""A Hugging Face dataset, streamed: from the hub, or from a local folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sae.hub import NotOnHub, hub_commit
from sae.sources.base import Document, Source, chunks_of
from sae.stream_errors import OFFLINE_TEXT, BadData

if TYPE_CHECKING:
    from sae.stream_spec import DataSpec

logger = logging.getLogger(__name__)


class HubDataset(Source):
    """Rows of one split, in the dataset's own order."""

    name: ClassVar[str] = "dataset"

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self._name = data.dataset or ""

    @cached_property
    def _commit(self) -> str | None:
        """The commit that is read, None for a local folder; pinned once for the whole stream."""
        if Path(self._name).expanduser().exists():
            return None
        try:
            commit = hub_commit("dataset", self._name, self.data.revision)
        except NotOnHub as error:
            raise BadData(
                f"dataset {self._name!r} cannot be had: {error}; {OFFLINE_TEXT}"
            ) from None
        if commit is None:
            raise BadData(
                f"dataset {self._name!r} cannot be had: the hub cannot be reached from here; "
                f"{OFFLINE_TEXT}"
            )
        return commit

    def documents(self) -> Iterator[Document]:
        """Walk over the rows. Raises BadData if the dataset, split or column does not exist."""
        num_without_text = 0
        for row in self._rows():
            text = _text_of(row, self.data.column, self._name)
            if text is None:
                num_without_text += 1
                if num_without_text == 1:
                    logger.warning("dataset %s: rows without text are skipped", self._name)
                continue
            yield chunks_of(text)

    def check(self) -> None:
        """Ask the hub whether the dataset is there, once. Raises BadData."""
        _ = self._commit

    def fingerprint(self) -> dict[str, Any]:
        """Name, configuration, split, column and the commit that was read."""
        return {
            "source": self.name,
            "dataset": self._name,
            "config": self.data.config,
            "split": self.data.split,
            "column": self.data.column,
            "commit": self._commit,
        }

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        commit = self._commit
        from datasets import load_dataset

        path = str(Path(self._name).expanduser()) if commit is None else self._name
        try:
            rows = load_dataset(
                path,
                self.data.config,
                split=self.data.split,
                revision=commit,
                streaming=True,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BadData(
                f"dataset {self._name!r} (config {self.data.config!r}, split "
                f"{self.data.split!r}) cannot be had: {reason}; {OFFLINE_TEXT}"
            ) from error
        yield from rows


def _text_of(row: Mapping[str, Any], column: str, name: str) -> str | None:
    if column not in row:
        near = get_close_matches(column, row, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; set `column:` to one of them"
        raise BadData(
            f"dataset {name!r} has no column {column!r}; its columns are "
            f"{', '.join(map(repr, row))}{hint}"
        )
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise BadData(
            f"dataset {name!r}: column {column!r} holds {type(text).__name__}, not text; "
            f"set `column:` to one of {', '.join(map(repr, row))}"
        )
    return text
