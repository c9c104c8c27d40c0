"""The files that `saeq results` leaves: table, figure, page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.results.table import Results, results_csv


@dataclass(frozen=True)
class ResultPlaces:
    """Where each file goes; None for one that is not wanted."""

    csv: Path | None
    png: Path
    html: Path


def default_places(sweep: str, csv: Path | None, plot: Path | None) -> ResultPlaces:
    """Beside the table that was asked for, else in ./<sweep>-results/.

    Args:
        csv: `--csv`.
        plot: `--plot`; given alone, only the figure and the page beside it are written.
    """
    folder = csv.parent if csv is not None else Path(f"{sweep}-results")
    png = plot if plot is not None else folder / "frontier.png"
    if csv is None and plot is None:
        csv = folder / "results.csv"
    return ResultPlaces(csv, png, png.with_suffix(".html"))


def write_results(results: Results, places: ResultPlaces) -> list[Path]:
    """Write the files; returns them. Raises OSError where a folder cannot be written.

    A frontier is drawn of job kinds that have an L0.
    """
    from orchestrator.results.frontier_page import frontier_html
    from orchestrator.results.frontier_plot import frontier_png

    contents: dict[Path | None, bytes] = {places.csv: results_csv(results).encode()}
    if "l0" in results.facts.metrics:
        png = frontier_png(results)
        contents |= {places.png: png, places.html: frontier_html(results, png).encode()}
    written = []
    for path, content in contents.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(path)
    return written
