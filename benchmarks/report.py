"""The end of every benchmark: one line of JSON, also kept in `benchmarks/results/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save_report(
    bench: str, device: str, rows: Sequence[Mapping[str, Any]], *, keep: bool = True
) -> None:
    """Print {"bench", "device", "rows"} as the last line and write it to results/.

    Args:
        bench: name of the script.
        device: `cpu`, `cuda`: results of different devices are kept side by side.
        rows: {"work", "against", "ours", "theirs", "unit", "ratio"} and whatever else.
        keep: whether to write it; not for a run that only tries the script out.
    """
    report = {"bench": bench, "device": device, "rows": list(rows)}
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{bench}-{device}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
