"""Batches of rows from files and Hugging Face datasets, one in memory at a time."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae.hub import NotOnHub, hub_commit
from steering.styles.errors import BadStyleData

if TYPE_CHECKING:
    import pyarrow

    from steering.styles.rows import RowsSpec

BATCH_ROWS = 8192
FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
NOT_UTF8 = "is not UTF-8 text; `iconv -t UTF-8` converts other encodings"
OFFLINE = (
    "without a network give the folder of a copy (`hf download --repo-type dataset NAME "
    "--local-dir FOLDER`), or its files by `files:`"
)


@dataclass(frozen=True)
class TableBatch:
    """Some rows that follow each other."""

    place: str
    """File or dataset, for messages."""
    first: int
    """Number of its first row there, from one."""
    rows: pyarrow.RecordBatch | pyarrow.Table


def batches(spec: RowsSpec, wanted: Sequence[str], folder: Path) -> Iterator[TableBatch]:
    """The columns asked for, in the order of files and rows. Raises BadStyleData."""
    if spec.dataset is not None:
        yield from _dataset_batches(spec, wanted, folder)
        return
    assert spec.files is not None
    for path in paths_of(spec.files, folder):
        first = 1
        for rows in _file_batches(path, wanted):
            yield TableBatch(str(path), first, rows)
            first += rows.num_rows


def paths_of(files: str | tuple[str, ...], folder: Path) -> list[Path]:
    """What the globs stand for. Raises BadStyleData for one that nothing matches."""
    patterns = (files,) if isinstance(files, str) else files
    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob.glob(str(folder / pattern), recursive=True))
        if not matches:
            raise BadStyleData(f"no file matches {str(folder / pattern)!r}; name one that is there")
        found += [Path(match) for match in matches]
    return found


def _file_batches(path: Path, wanted: Sequence[str]) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow
    import pyarrow.dataset

    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join([*FORMATS, ".npy"])
        raise BadStyleData(f"{path}: cannot tell what it holds; known endings: {known}")
    form: Any = kind
    if path.suffix.lower() == ".tsv":
        import pyarrow.csv

        options = pyarrow.csv.ParseOptions(delimiter="\t")
        form = pyarrow.dataset.CsvFileFormat(parse_options=options)
    if kind == "parquet":
        # Asked for in advance, all of a file's row groups would be held at once.
        options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False)
        form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=options)
    try:
        table = pyarrow.dataset.dataset(path, format=form)
        _require(str(path), wanted, table.schema.names)
        yield from table.to_batches(
            columns=list(wanted),
            batch_size=BATCH_ROWS,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        )
    except pyarrow.ArrowException as error:
        raise BadStyleData(f"{path}: {_plain(error)}") from error
    except UnicodeDecodeError as error:
        raise BadStyleData(f"{path}: {NOT_UTF8}") from error


def _dataset_batches(spec: RowsSpec, wanted: Sequence[str], folder: Path) -> Iterator[TableBatch]:
    import pyarrow

    name, commit = _dataset_place(spec, folder)
    place = f"dataset {spec.dataset}, split {spec.split}"
    stream = _opened(spec, name, commit, place)
    if stream.column_names is not None:
        _require(place, wanted, stream.column_names)
    names = _class_names(stream.features, wanted)
    first = 1
    try:
        for table in stream.with_format("arrow").iter(batch_size=BATCH_ROWS):
            _require(place, wanted, table.column_names)
            rows = table.select(list(wanted)).combine_chunks()
            for column, labels in names.items():
                at = rows.column_names.index(column)
                values = [
                    None if value is None or value < 0 else labels[value]
                    for value in rows.column(column).to_pylist()
                ]
                rows = rows.set_column(at, column, pyarrow.array(values, pyarrow.string()))
            yield TableBatch(place, first, rows)
            first += rows.num_rows
    except UnicodeDecodeError as error:
        raise BadStyleData(f"{place}: {NOT_UTF8}") from error
    except pyarrow.ArrowException as error:
        raise BadStyleData(f"{place}: {_plain(error)}") from error


def _dataset_place(spec: RowsSpec, folder: Path) -> tuple[str, str | None]:
    """What `load_dataset` is told: a folder, or a hub name and the commit it stands for now."""
    assert spec.dataset is not None
    local = folder / Path(spec.dataset).expanduser()
    if local.exists():
        return str(local), None
    try:
        commit = hub_commit("dataset", spec.dataset, spec.revision)
    except NotOnHub as error:
        raise BadStyleData(f"dataset {spec.dataset!r} cannot be had: {error}; {OFFLINE}") from None
    if commit is None:
        raise BadStyleData(
            f"dataset {spec.dataset!r} cannot be had: it is no folder here, and the hub cannot be "
            f"reached; {OFFLINE}"
        )
    return spec.dataset, commit


def _opened(spec: RowsSpec, name: str, commit: str | None, place: str) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name, spec.config, split=spec.split, revision=commit, streaming=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadStyleData(
            f"{place} (config {spec.config!r}) cannot be opened: {reason}; name a split and a "
            "config that are there"
        ) from error


def _class_names(features: Any, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Names of columns that hold numbers of classes."""
    found = {}
    for column in wanted:
        labels = getattr((features or {}).get(column), "names", None)
        if labels:
            found[column] = list(labels)
    return found


def _require(place: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name in names:
            continue
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadStyleData(f"{place}: has no column {name!r}; it has {', '.join(names)}.{hint}")


def _plain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "UTF8" in text or "UTF-8" in text or "utf8" in text:
        return NOT_UTF8
    return f"is not readable ({text[:200]})"
