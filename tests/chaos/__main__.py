"""`python -m tests.chaos --minutes 10 --seed 7`: a storm over a sweep of a tiny model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.store import Store
from tests.chaos.faults import Fault
from tests.chaos.storm import Storm, Weather, known_faults

ALL_FAULTS = ",".join(sorted(Fault.by_name))


def main(
    minutes: Annotated[float, typer.Option(help="How long blows fall.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the blows.")] = 0,
    serves: Annotated[int, typer.Option(help="Commands that work the sweep off.", min=1)] = 2,
    command: Annotated[str, typer.Option(help="`serve` or `run`.")] = "serve",
    store: Annotated[str, typer.Option(help="`folder`, or `s3` (a local server).")] = "folder",
    faults: Annotated[str, typer.Option(help="Which, with commas between.")] = ALL_FAULTS,
    trials: Annotated[int, typer.Option(help="Trials of a sweep.", min=2)] = 24,
    tokens: Annotated[int, typer.Option(help="Length of a trial.", min=4096)] = 2_000_000,
    keep: Annotated[bool, typer.Option(help="Keep store and outputs in any case.")] = False,
) -> None:
    """Blow, wait for the end of the sweep, judge what is left. Exit code 1: a promise is broken."""
    if command not in ("run", "serve"):
        raise typer.BadParameter(f"--command={command!r} is neither run nor serve")
    try:
        names = known_faults(faults.split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    weather = Weather(
        seed=seed,
        storm_seconds=60 * minutes,
        num_serves=serves,
        command="serve" if command == "serve" else "run",
        faults=names,
        trials=trials,
        tokens=tokens,
    )
    folder = Path(tempfile.mkdtemp(prefix="saeq-storm-"))
    with _opened(store, folder) as (opened, environment):
        model = _tiny_model(folder / "model")
        storm = Storm(weather, opened, folder, model, environment=environment, say=typer.echo)
        report = storm.run()
    typer.echo(str(report))
    if keep or not report.holds:
        typer.echo(f"store and outputs: {folder}")
    else:
        shutil.rmtree(folder)
    if not report.holds:
        raise typer.Exit(1)


@contextmanager
def _opened(kind: str, folder: Path) -> Iterator[tuple[Store, dict[str, str]]]:
    """A fresh store, and the environment in which a command reaches it."""
    if kind == "folder":
        yield Store.open(str(folder / "store")), {}
        return
    if kind != "s3":
        raise typer.BadParameter(f"--store={kind!r} is neither folder nor s3")
    from tests.orchestrator.store.servers import s3_server

    with s3_server(folder / "s3") as server:
        os.environ.update(server.environment)
        yield Store.open(server.url("storm")), server.environment


def _tiny_model(folder: Path) -> Path:
    from tests.sae.tiny_model import build_tiny_model

    return build_tiny_model(folder)


if __name__ == "__main__":
    typer.run(main)
