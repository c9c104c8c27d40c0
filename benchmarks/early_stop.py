"""What early stopping keeps and what it saves, on a real language model.

A grid of 24 SAEs on SmolLM2 layer 10 (topk and batchtopk, k in 16, 32, 64, four learning rates)
is trained in full through the pack, once a seed, all members side by side on one stream, each
reporting every 2k tokens. The very rules a sweep uses are then played over these curves with four
trials live at a time. A rule is judged by what it keeps first: for each k, the best fraction of
variance unexplained among the trials that it let run to their end, against the full grid's; then
by the SAE-tokens it spent.

    python -m benchmarks.early_stop            trains (5 minutes a seed on 2 cores), then plays
    python -m benchmarks.early_stop --replay   plays the recorded curves again
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, save_report
from orchestrator.stopping import StoppingConfig, parse_stopping
from orchestrator.stopping.simulate import Curve, Simulation, simulate

HOOK = "model.layers.10"
TOKENS = 49_152
BATCH = 256
REPORT_EVERY = 2_048
D_SAE = 1024
SLOTS = 4
CURVES = RESULTS / "early_stop-curves.json"

Grid = dict[str, dict[str, Any]]

ASHA = {"scheduler": "asha", "strata": ["k"]}
PARETO = {"scheduler": "pareto"}
RULES: dict[str, dict[str, Any]] = {
    "asha (the defaults)": ASHA,
    "asha, reduction 4": {**ASHA, "reduction": 4},
    "asha, first rung at 1/6": {**ASHA, "grace": TOKENS // 6},
    "asha, judged once, on arrival": {**ASHA, "rejudge": False},
    "asha by value": {**ASHA, "judge_by": "value"},
    "asha by value, on arrival (as published)": {**ASHA, "judge_by": "value", "rejudge": False},
    "asha by value, first rung at 1/3": {**ASHA, "judge_by": "value", "grace": TOKENS // 3},
    "asha without strata": {**ASHA, "strata": []},
    "pareto (the defaults)": PARETO,
    "pareto, first rung at 1/6": {**PARETO, "grace": TOKENS // 6},
    "pareto by value": {**PARETO, "judge_by": "value"},
}


def grid() -> Grid:
    """Configurations by trial, in an order that deals out the values of k."""
    lrs, architectures, ks = [1e-4, 1e-3, 3e-3, 1e-2], ["topk", "batchtopk"], [16, 32, 64]
    return {
        f"{architecture}-k{k}-lr{lr:g}": {
            "architecture": architecture,
            "d_sae": D_SAE,
            "k": k,
            "lr": lr,
            "lr_warm_up_steps": 20,
        }
        for lr, architecture, k in product(lrs, architectures, ks)
    }


def train(seed: int) -> dict[str, Curve]:
    """Every configuration to its end on one stream; curves by trial."""
    from sae.architectures import parse_architecture
    from sae.pack import Pack
    from sae.stream import ActivationStream
    from sae.stream_spec import StreamSpec

    stream = {
        "model": {"builtin": "smollm2-135m"},
        "data": {"builtin": "python-docs", "context": 128},
        "hooks": [HOOK],
        "batch_tokens": BATCH,
        "seed": seed,
        "held_out_tokens": 2048,
    }
    pack = Pack(ActivationStream(StreamSpec.model_validate(stream)))
    configs = grid()
    for trial, config in configs.items():
        seeded = {**config, "init_seed": seed, "hook": HOOK}
        pack.attach(trial, parse_architecture(seeded), TOKENS)
    curves: dict[str, list[tuple[int, Mapping[str, float | None]]]] = {t: [] for t in configs}
    for until in range(REPORT_EVERY, TOKENS + 1, REPORT_EVERY):
        for trial in configs:
            pack.set_target(trial, until)
        while pack.run_step():
            pass
        for trial in configs:
            report = pack.report(trial)
            curves[trial].append((until, {name: report[name] for name in ("fvu", "l0", "loss")}))
        print(f"seed {seed}: {until} of {TOKENS} tokens", flush=True)
    return {trial: tuple(curve) for trial, curve in curves.items()}


def play(rule: StoppingConfig, curves: Mapping[str, Curve], order_seed: int) -> Simulation:
    """One sweep under a rule, its trials started in an order of its own."""
    import random

    names = list(curves)
    random.Random(order_seed).shuffle(names)
    return simulate(
        rule,
        {name: curves[name] for name in names},
        metric="fvu",
        direction="min",
        strata=rule.strata_or(()),
        slots=SLOTS,
        configs=grid(),
    )


def frontier_loss(kept: tuple[str, ...], curves: Mapping[str, Curve]) -> float:
    """How much worse the kept frontier is: the worst, over k, of best kept over best FVU, - 1."""
    configs, losses = grid(), []
    for k in sorted({config["k"] for config in configs.values()}):
        of_k = [trial for trial in curves if configs[trial]["k"] == k]
        final = {trial: float(curves[trial][-1][1]["fvu"] or "inf") for trial in of_k}
        nothing_kept = 1.0 + min(final.values())  # counts as all of the variance more
        best_kept = min((final[t] for t in of_k if t in kept), default=nothing_kept)
        losses.append(best_kept / min(final.values()) - 1)
    return max(losses)


def row(name: str, settings: Mapping[str, Any], by_seed: list[dict[str, Curve]]) -> dict[str, Any]:
    """A rule's figures over seeds of the training and ten orders of the trials each."""
    rule = parse_stopping(settings)
    runs = [(play(rule, curves, order), curves) for curves in by_seed for order in range(10)]
    losses = [frontier_loss(run.kept, curves) for run, curves in runs]
    shares = [run.share for run, _ in runs]
    return {
        "work": f"24 SAEs, {name}",
        "against": "full grid",
        "ours": round(statistics.median(shares), 3),
        "theirs": 1.0,
        "unit": "share of SAE-tokens, median",
        "ratio": round(1 / statistics.median(shares), 2),
        "share_worst": round(max(shares), 3),
        "frontier_worse_by_median": round(statistics.median(losses), 4),
        "frontier_worse_by_worst": round(max(losses), 4),
        "runs_within_2_percent": sum(loss <= 0.02 for loss in losses),
        "runs": len(runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replay", action="store_true", help="Use the curves recorded before.")
    arguments = parser.parse_args()
    if not arguments.replay:
        RESULTS.mkdir(exist_ok=True)
        trained = [train(seed) for seed in range(arguments.seeds)]
        CURVES.write_text(json.dumps(trained) + "\n")
    by_seed = json.loads(Path(CURVES).read_text())
    rows = [row(name, settings, by_seed) for name, settings in RULES.items()]
    for each in rows:
        kept = f"within 2% in {each['runs_within_2_percent']} of {each['runs']}"
        print(
            f"{each['work']:56s} {each['ours']:4.0%} of the tokens; frontier {kept}, worse by "
            f"{each['frontier_worse_by_median']:.1%} (median), "
            f"{each['frontier_worse_by_worst']:.1%} (worst)"
        )
    save_report("early_stop", "cpu", rows)


if __name__ == "__main__":
    main()
