"""The command evaluate: a finished style embedding put to further tests."""

from __future__ import annotations

import glob
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption, StoreOption
from orchestrator.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from orchestrator.store import Store
    from steering.styles.evaluations.run import EvaluationRequest, Test
    from steering.styles.rows import RowsSpec

KIND = "embedding"

TextColumn = Annotated[str | None, typer.Option("--text", metavar="COL", help="With the text.")]
VectorColumn = Annotated[
    str | None,
    typer.Option("--vector", metavar="COL", help="With given vectors, for models that read them."),
]
GroupColumn = Annotated[str, typer.Option("--group", metavar="COL", help="With the group.")]
ItemColumn = Annotated[
    str | None,
    typer.Option("--item", metavar="COL", help="With what would leak: question, document."),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="COL", help="For the baseline without text; repeatable."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="THEIRS=OURS", help="Groups that correspond; repeatable."),
]


def evaluate(
    artefact: Annotated[
        str,
        typer.Argument(metavar="ARTEFACT", help="An embedding's id in the store, or its folder."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="FILE", help="Another corpus: .parquet, .jsonl, .csv or .tsv."
        ),
    ] = None,
    text: TextColumn = None,
    vector: VectorColumn = None,
    group: GroupColumn = "group",
    item: ItemColumn = None,
    group_map: Pairs = None,
    min_per_group: Annotated[
        int, typer.Option("--min-per-group", min=3, help="Groups with fewer rows are small.")
    ] = 8,
    drop_small_groups: Annotated[
        bool, typer.Option("--drop-small-groups", help="Leave small groups out.")
    ] = False,
    stel: Annotated[
        Path | None,
        typer.Option("--stel", metavar="FOLDER", help="STEL's task files: its repository."),
    ] = None,
    verification: Annotated[
        bool, typer.Option("--verification", help="Are two texts of one group? ROC-AUC, c@1.")
    ] = False,
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="A logistic head on 1 to 64 rows a group.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="The same split by topic and by metadata alone.")
    ] = False,
    metadata: Metadata = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where files go; else ./NAME-evaluation/."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """A finished style embedding put to other tests, each number with its interval.

    Without --data: on the rows of its own data that it was not trained on.

        saeq evaluate embedding-t0007
        saeq evaluate embedding-t0007 --baselines
        saeq evaluate ./my-embedding --data askx.jsonl --text answer --group job --item question
        saeq evaluate embedding-t0007 --data askx.jsonl --text answer --map "physics=physicist"
        saeq evaluate embedding-t0007 --stel ./STEL

    With --data the model's own centroids are tried on the second corpus, its groups matched by
    name or --map. Which tests: those named, else verification, few-shot and baselines; with --stel
    alone only that. STEL's files: git clone https://github.com/nlpsoc/STEL

    Writes evaluation.md, .csv, .json and few_shot.png.
    """
    from orchestrator.store import Store

    rows = _rows_spec(data, text, vector, group, item)
    if rows is not None:
        small = {"min_per_group": min_per_group, "drop_small_groups": drop_small_groups}
        rows = rows.model_copy(update=small)
    tests = _tests(verification, few_shot, baselines, no_others=data is None and stel is not None)
    _check(data, group_map, stel, metadata, text or vector or item, tests)
    out = _out_folder(out, artefact)
    folder, name = _folder_of(Store.open(store), artefact)
    request = _request(rows, tests, group_map, metadata, stel, seed)
    _run(folder, name, request, out, as_json)


def _run(folder: Path, name: str, request: EvaluationRequest, out: Path, as_json: bool) -> None:
    """All that imports torch."""
    from orchestrator.view.evaluation_page import evaluation_page
    from sae.model_files import cache_dir, quiet_transformers
    from steering.styles.evaluations.report import write_evaluation
    from steering.styles.evaluations.run import evaluate as evaluate_embedding

    with quiet_transformers():
        outcomes = evaluate_embedding(
            folder, request, cache_dir() / "features", lambda line: typer.echo(line, err=True)
        )
    shown = request.data.model_dump(mode="json", exclude_defaults=True) if request.data else "own"
    about = {"artefact": name, "data": shown, "seed": request.seed}
    written = write_evaluation(out, outcomes, about)
    if as_json:
        print_json({**about, "evaluations": [one.to_json() for one in outcomes]})
    else:
        print_table(lambda width, asc: evaluation_page(name, outcomes, width, ascii_only=asc))
    for path in written:
        typer.echo(f"wrote {path}", err=as_json)


def _request(
    rows: RowsSpec | None,
    tests: tuple[Test, ...],
    group_map: list[str] | None,
    metadata: list[str] | None,
    stel: Path | None,
    seed: int,
) -> EvaluationRequest:
    from steering.styles.evaluations.run import EvaluationRequest

    return EvaluationRequest(
        data=rows,
        tests=tests,
        group_map=dict(_pair(one) for one in group_map or ()),
        metadata=tuple(dict.fromkeys(metadata or ())),
        stel=stel,
        seed=seed,
    )


def _rows_spec(
    data: str | None,
    text: str | None,
    vector: str | None,
    group: str,
    item: str | None,
) -> RowsSpec | None:
    if data is None:
        return None
    if text is None and vector is None:
        raise RequestError(
            f"--data {data}: say which column has the texts (--text COL), or the vectors of a "
            "model that reads those (--vector COL)"
        )
    if not glob.glob(data, recursive=True):
        raise RequestError(f"--data {data}: no file matches; name one that is there")
    from steering.styles.rows import RowsSpec

    return RowsSpec(
        files=data,
        text=text,
        vector=vector,
        group=group,
        item=item,
    )


def _tests(
    verification: bool, few_shot: bool, baselines: bool, *, no_others: bool
) -> tuple[Test, ...]:
    from steering.styles.evaluations.run import TESTS

    asked = dict(zip(TESTS, (verification, few_shot, baselines), strict=True))
    named = tuple(name for name, wanted in asked.items() if wanted)
    return named or (() if no_others else TESTS)


def _check(
    data: str | None,
    group_map: list[str] | None,
    stel: Path | None,
    metadata: list[str] | None,
    column: str | None,
    tests: tuple[Test, ...],
) -> None:
    """What can be refused before anything is loaded."""
    if data is None and (group_map or column):
        raise RequestError(
            "--text, --vector, --item and --map describe another corpus; name it with --data FILE"
        )
    for one in group_map or ():
        _pair(one)
    if stel is not None and not stel.is_dir():
        raise RequestError(
            f"--stel {stel}: there is no such folder; "
            "get it with git clone https://github.com/nlpsoc/STEL"
        )
    if metadata and "baselines" not in tests:
        raise RequestError(f"--metadata {metadata[0]} is seen by --baselines alone; add that")


def _pair(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not (theirs and equals and ours):
        raise RequestError(
            f"--map {text}: is not THEIRS=OURS, the corpus's group and the model's group for it"
        )
    return theirs, ours


def _out_folder(out: Path | None, artefact: str) -> Path:
    folder = out or Path(f"{Path(artefact).name or 'embedding'}-evaluation")
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"--out {folder}: is a file; name a folder")
    return folder


def _folder_of(store: Store, artefact: str) -> tuple[Path, str]:
    """The artefact's files on this machine, and what it is called."""
    if Path(artefact).is_dir():
        return Path(artefact), Path(artefact).resolve().name
    from jobs.kind import InputArtefact
    from orchestrator.needs.inputs import with_files
    from orchestrator.trials.artefacts import RECORD

    prefix = store.layout.artefact(KIND, artefact)
    files = store.files(prefix) if "/" not in artefact else None
    if files is None:
        raise RequestError(_unknown(store, artefact))
    record: dict[str, Any] = store.read_json(prefix + RECORD)
    found = InputArtefact(artefact, KIND, str(record.get("sweep", "")), files.sha256, record)
    fetched = with_files(store, found)
    assert fetched.folder is not None
    return fetched.folder, artefact


def _unknown(store: Store, artefact: str) -> str:
    if "/" not in artefact:
        for kind in store.backend.children(store.layout.artefacts):
            if store.files(store.layout.artefact(kind, artefact)) is not None:
                return f"{artefact} is of kind {kind}; evaluate takes those of kind {KIND}"
    known = sorted(store.backend.children(store.layout.artefact_kind(KIND)))
    near = get_close_matches(artefact, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = "`saeq artefacts --kind embedding` lists them" if known else "it holds none"
    return f"no folder and no embedding of this store is called {artefact!r}; {listed}.{hint}"
