"""SAE-tokens a second by the number of SAEs on one language model, and the picture of it.

The ways of `benchmarks.vs_saelens` on SmolLM2, topk SAEs of 2048 latents, k 32: one run of SAELens
after the other, SAELens's runner of several SAEs, and the pack. N runs one after the other take N
times as long as one, so that way is measured with one SAE and drawn as a level line.

    python -m benchmarks.by_number
    python -m benchmarks.by_number --draw     # the picture alone, from the results that are kept
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.report import RESULTS, save_report
from benchmarks.vs_saelens import (
    BATCH_TOKENS,
    HOOK,
    IDLE_LOAD,
    MULTI,
    OURS,
    SINGLE,
    Row,
    Setting,
    measure,
    tokenized,
)
from sae.language_model import LanguageModel, resolve_device
from sae.stream_spec import ModelSpec

BENCH = "by_number"
COUNTS = (1, 2, 4, 8, 16)
D_SAE = 2048
K = 32
NAMES = {
    SINGLE: "SAELens LanguageModelSAETrainingRunner, one run after the other",
    MULTI: "SAELens MultiSAETrainingRunner",
}
STYLES = {OURS: ("saeq", "#0072B2", "o-"), MULTI: ("SAELens, multi-SAE runner", "#D55E00", "s-")}
ALONE = ("SAELens, one run after the other", "#555555")


def measured(
    device: str, counts: Sequence[int], num_tokens: int, repeats: int
) -> dict[int, dict[str, list[float]]]:
    """SAE-tokens a second of every way at every repeat, by the number of SAEs."""
    language_model = LanguageModel.load(ModelSpec(builtin="smollm2-135m"), device, (HOOK,))
    dataset = tokenized(language_model)
    found = {}
    for count in counts:
        ways = (SINGLE, MULTI, OURS) if count == 1 else (MULTI, OURS)
        row = Row(D_SAE, (K,) * count, ways)
        setting = Setting(row, language_model, dataset, device)
        seconds = measure(setting, ways, num_tokens=num_tokens, repeats=repeats)
        found[count] = {
            way: [count * num_tokens / run for run in runs] for way, runs in seconds.items()
        }
    return found


def reported(found: dict[int, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """A row for each number of SAEs and rival."""
    alone = found[1][SINGLE]
    rows = []
    for count, rates in found.items():
        for way, theirs in ((SINGLE, alone), (MULTI, rates[MULTI])):
            medians = [statistics.median(rates[OURS]), statistics.median(theirs)]
            rows.append(
                {
                    "work": f"{count} topk SAEs, d_sae {D_SAE}, k {K}, SmolLM2-135M layer 10",
                    "saes": count,
                    "against": NAMES[way],
                    "way": way,
                    "ours": round(medians[0], 1),
                    "theirs": round(medians[1], 1),
                    "unit": "SAE-tokens/s",
                    "ratio": round(medians[0] / medians[1], 3),
                    "runs": {OURS: _rounded(rates[OURS]), way: _rounded(theirs)},
                }
            )
    return rows


def _rounded(rates: Sequence[float]) -> list[float]:
    return [round(rate, 1) for rate in rates]


def draw(device: str) -> None:
    """The kept results as a picture beside them: medians as lines, single runs as dots."""
    from matplotlib.figure import Figure

    rows = json.loads((RESULTS / f"{BENCH}-{device}.json").read_text())["rows"]
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    multi = [row for row in rows if row["way"] == MULTI]
    counts = [row["saes"] for row in multi]
    for way, side in ((OURS, "ours"), (MULTI, "theirs")):
        label, colour, line = STYLES[way]
        axes.plot(counts, [row[side] for row in multi], line, color=colour, label=label, zorder=3)
        for row in multi:
            runs = row["runs"][way]
            axes.plot([row["saes"]] * len(runs), runs, ".", color=colour, alpha=0.4)
    alone = next(row["theirs"] for row in rows if row["way"] == SINGLE)
    axes.axhline(alone, color=ALONE[1], linestyle="--", linewidth=1.2, label=ALONE[0])
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("SAEs on one forward pass")
    axes.set_ylabel("SAE-tokens a second")
    axes.grid(color="#e8e8e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(RESULTS / f"{BENCH}-{device}.png", dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="1 among them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16 * BATCH_TOKENS, help="for each SAE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--draw", action="store_true", help="draw the kept results, run nothing")
    parser.add_argument("--no-save", action="store_true", help="print the rows only")
    arguments = parser.parse_args()
    if 1 not in arguments.counts:
        parser.error(
            f"one SAE is what runs one after the other are measured by; got {arguments.counts}"
        )
    device = resolve_device(arguments.device).type
    if not arguments.draw:
        load = os.getloadavg()[0]
        if load > IDLE_LOAD:
            print(f"the machine is busy (load {load:.1f}): these figures compare its neighbours")
        logging.getLogger("sae_lens").setLevel(logging.ERROR)
        found = measured(device, arguments.counts, arguments.tokens, arguments.repeats)
        rows = [{**row, "load_at_start": round(load, 2)} for row in reported(found)]
        save_report(BENCH, device, rows, keep=not arguments.no_save)
    if not arguments.no_save:
        draw(device)


if __name__ == "__main__":
    main()
