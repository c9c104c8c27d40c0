"""The command compare: which value of a parameter is better, with a verdict that may be a tie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from orchestrator.cli.errors import RequestError
from orchestrator.cli.options import JsonOption, StoreOption, SweepArgument
from orchestrator.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from jobs.kind import JobKind, Metric
    from orchestrator.results.comparison import Comparison
    from orchestrator.view.facts import WatchedSweep


def compare(
    sweep: SweepArgument,
    by: Annotated[
        str,
        typer.Option("--by", metavar="NAME", help="The parameter whose values are compared."),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="NAME", help="Compared in this; else in the sweep's own metric."
        ),
    ] = None,
    within: Annotated[
        float, typer.Option("--within", min=0.0, help="Differences up to this size count as none.")
    ] = 0.0,
    at_best: Annotated[
        list[str] | None,
        typer.Option(
            "--at-best",
            metavar="NAME",
            help="Compare each value at its own best setting of this; may be given again.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a line a comparison here.")
    ] = None,
) -> None:
    """Which value of a parameter is better: paired over seeds, with a verdict that may be a tie.

    Finished trials that differ in nothing else that both values have are pairs; a bootstrap over
    seeds gives the interval of their difference. Reads the log only.

        saeq compare embedding-compare --by distance
        saeq compare embedding-compare --by distance --metric test_macro_accuracy --within 0.01
        saeq compare heads --by loss --at-best margin --at-best temperature
        saeq compare heads --by pool --json | jq -r .comparisons[0].winner

    Three seeds at least: `space: {distance: {choice: [euclidean, cosine]}, seed: {choice: [0, 1,
    2]}}` with `search: {sampler: grid}`, as in examples/embedding_compare.yaml.
    """
    from orchestrator.queue import Queue
    from orchestrator.store import Store
    from orchestrator.view.comparison_page import comparison_page
    from orchestrator.view.facts import WatchedSweep

    opened = Store.open(store)
    kind = Queue(opened).get(sweep).spec.kind
    watched = WatchedSweep.open(opened, sweep)
    found = _compared(watched, kind, by, metric, within, tuple(dict.fromkeys(at_best or ())))
    if csv is not None:
        _write(csv, found.to_csv())
    if as_json:
        print_json(found.to_json())
    else:
        print_table(lambda width, asc: comparison_page(found, width, ascii_only=asc))


def _compared(
    watched: WatchedSweep,
    kind: JobKind,
    by: str,
    metric: str | None,
    within: float,
    at_best: tuple[str, ...],
) -> Comparison:
    from orchestrator.needs.selection import all_metrics, direction_of
    from orchestrator.results.comparison import Question
    from orchestrator.results.comparison import compare as compare_trials

    facts = watched.facts
    trials = watched.log.state.by_number()
    parameters = sorted({name for trial in trials for name in trial.config})
    for name in (by, *at_best):
        if trials and name not in parameters:
            raise RequestError(_no_such_parameter(name, facts.id, parameters, kind))
    if by in at_best:
        raise RequestError(f"--at-best {by} is what is compared; name another parameter")
    name = metric or facts.metric
    try:
        direction = direction_of(kind, name)
    except ValueError:
        known = ", ".join(m.name for m in all_metrics(kind) if m.direction is not None)
        raise RequestError(
            f"--metric {name}: {kind.name} has no such metric with a better side; it has {known}"
        ) from None
    chosen = next(one for one in all_metrics(kind) if one.name == name)
    _refuse_incomparable(chosen, by, facts.metric)
    return compare_trials(
        trials,
        Question(facts.id, by, name, direction, facts.metric, facts.direction, within, at_best),
    )


def _refuse_incomparable(metric: Metric, by: str, instead: str) -> None:
    if by in metric.not_comparable_while_searching:
        raise RequestError(
            f"--metric {metric.name} cannot be compared by {by}: {metric.name} is measured in "
            f"units that {by} changes; use --metric {instead}"
        )


def _no_such_parameter(name: str, sweep: str, parameters: list[str], kind: JobKind) -> str:
    from difflib import get_close_matches

    from orchestrator.results.comparison import how_to_pair

    near = get_close_matches(name, parameters, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = ", ".join(parameters)
    message = f"no trial of {sweep} has a parameter {name!r}; they have {known}.{hint}"
    choices = _choices_of(kind, name)
    if choices is None:
        return message
    return f"{message} To compare it, put it into the space:\n{how_to_pair(name, choices)}"


def _choices_of(kind: JobKind, name: str) -> list[Any] | None:
    """Values that a sweep file may list for a parameter of the kind; None if it has none such."""
    for model in kind.parameters().values():
        field = model.model_fields.get(name)
        if field is not None:
            is_listed = get_origin(field.annotation) is Literal
            return list(get_args(field.annotation)) if is_listed else []
    return None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise RequestError(f"--csv {path}: cannot be written ({error.strerror})") from error
    typer.echo(f"wrote {path}", err=True)
