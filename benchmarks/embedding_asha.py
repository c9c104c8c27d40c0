"""What early stopping by epochs keeps and what it saves, on real style embeddings.

64 random configurations of loss, distance, margin and head are trained in full on the topics of
Python's manual (MiniLM features), once for each of three seeds of the draw and of the training;
each reports its validation macro accuracy after every epoch. The very rules a sweep uses are then
played over these curves, four trials live at a time, in ten orders of the trials.

A rule keeps the best if, of the trials that it let run to their end, the best one ends no further
below the best of all 64 than that one's own spread over other training seeds (one standard
deviation of five).

    python -m benchmarks.embedding_asha            trains (minutes on 2 cores), then plays
    python -m benchmarks.embedding_asha --replay   plays the recorded curves again
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import RESULTS, save_report
from orchestrator.spec.space import Space
from orchestrator.stopping import StoppingConfig, parse_stopping
from orchestrator.stopping.simulate import Curve, Simulation, simulate

EPOCHS = 24
TRIALS = 64
SLOTS = 4
ORDERS = 10
METRIC = "macro_accuracy"
CURVES = RESULTS / "embedding_asha-curves.json"

SETUP = {
    "data": {"builtin": "python-docs", "min_per_group": 40, "drop_small_groups": True},
    "encoder": {"builtin": "minilm"},
    "epochs": EPOCHS,
}
SPACE = {
    "loss": {"choice": ["triplet", "soft_margin", "batch_hard", "semi_hard", "supcon"]},
    "distance": {"choice": ["euclidean", "cosine"]},
    "margin": {"loguniform": [0.02, 1.5]},
    "temperature": {"loguniform": [0.03, 0.5]},
    "lr": {"loguniform": [1e-4, 1e-2]},
    "hidden": {"choice": [64, 128, 256]},
    "dropout": {"uniform": [0.0, 0.4]},
    "d_out": {"choice": [16, 64]},
}
ASHA = {"scheduler": "asha", "strata": []}
RULES: dict[str, dict[str, Any]] = {
    "asha (the defaults)": ASHA,
    "asha, first rung at 2": {**ASHA, "grace": 2},
    "asha, first rung at 2, reduction 4": {**ASHA, "grace": 2, "reduction": 4},
    "asha, first rung at 3": {**ASHA, "grace": 3},
    "asha, first rung at 3, reduction 4": {**ASHA, "grace": 3, "reduction": 4},
    "asha by value": {**ASHA, "judge_by": "value"},
    "asha by value, first rung at 2": {**ASHA, "grace": 2, "judge_by": "value"},
    "asha by value, first rung at 3": {**ASHA, "grace": 3, "judge_by": "value"},
    "asha by value, first rung at 4": {**ASHA, "grace": 4, "judge_by": "value"},
    "asha by value, first rung at 3, reduction 4": {
        **ASHA,
        "grace": 3,
        "reduction": 4,
        "judge_by": "value",
    },
    "asha, first rung at 3, judged once": {**ASHA, "grace": 3, "rejudge": False},
    "asha, first rung at 6, reduction 2": {**ASHA, "grace": 6, "reduction": 2},
}


class Bench:
    """Trains configurations on one table, in this process."""

    def __init__(self) -> None:
        from jobs.embedding import Embedding
        from jobs.runners.embedding_table import table_of

        self.kind = Embedding()
        setup = Embedding.Setup.model_validate(SETUP)
        self.setup = setup.model_dump(mode="json")
        self.table = table_of(setup.model_dump_json())

    def configs(self, seed: int) -> list[dict[str, Any]]:
        """The draw of one seed."""
        space = Space.parse(SPACE).for_kind(self.kind)
        rng = random.Random(seed)
        return [dict(space.sample(rng)) for _ in range(TRIALS)]

    def curve(self, config: Mapping[str, Any], seed: int) -> list[tuple[int, dict[str, float]]]:
        """Macro accuracy after every epoch, by the very runner of a sweep."""
        from jobs.kind import TrialContext

        seeded = {**config, "seed": seed}
        runner = self.kind.runner(TrialContext("bench", "t", seeded, self.setup, seed, 1, "cpu"))
        runner.attach(None)
        found = []
        for epoch in range(1, EPOCHS + 1):
            metrics = runner.advance(epoch, epoch, 1e9).metrics
            assert metrics is not None
            found.append((epoch, {METRIC: metrics[METRIC]}))
        runner.detach()
        return found

    def train(self, seed: int) -> dict[str, Any]:
        """All curves of one seed, and how far the best one's end spreads over training seeds."""
        configs = self.configs(seed)
        curves = {}
        for number, config in enumerate(configs):
            curves[f"t{number:02d}"] = self.curve(config, seed)
            if number % 8 == 7:
                print(f"seed {seed}: {number + 1} of {TRIALS} trained", flush=True)
        best = max(curves, key=lambda name: curves[name][-1][1][METRIC])
        again = [
            self.curve(configs[int(best[1:])], 1000 + other)[-1][1][METRIC] for other in range(5)
        ]
        return {"curves": curves, "best": best, "best_with_other_seeds": again}


def play(rule: StoppingConfig, curves: Mapping[str, Curve], order_seed: int) -> Simulation:
    """One sweep under a rule, its trials started in an order of its own."""
    names = list(curves)
    random.Random(order_seed).shuffle(names)
    return simulate(
        rule,
        {name: curves[name] for name in names},
        metric=METRIC,
        direction="max",
        strata=rule.strata_or(()),
        slots=SLOTS,
    )


def row(name: str, settings: Mapping[str, Any], by_seed: Sequence[Any]) -> dict[str, Any]:
    """A rule's figures over seeds and orders."""
    rule = parse_stopping(settings)
    shares, regrets, kept, kept_by_seed = [], [], 0, []
    for trained in by_seed:
        curves: dict[str, Curve] = trained["curves"]
        final = {trial: float(curve[-1][1][METRIC] or 0) for trial, curve in curves.items()}
        noise = statistics.stdev(trained["best_with_other_seeds"])
        own = 0
        for order in range(ORDERS):
            run = play(rule, curves, order)
            regret = max(final.values()) - max((final[trial] for trial in run.kept), default=0.0)
            shares.append(run.share)
            regrets.append(regret)
            own += regret <= noise
        kept += own
        kept_by_seed.append(own)
    return {
        "work": f"{TRIALS} embeddings, {EPOCHS} epochs, {name}",
        "against": "all 64 in full",
        "ours": round(statistics.median(shares), 3),
        "theirs": 1.0,
        "unit": "share of the epochs, median",
        "ratio": round(1 / statistics.median(shares), 2),
        "share_worst": round(max(shares), 3),
        "regret_median": round(statistics.median(regrets), 4),
        "regret_worst": round(max(regrets), 4),
        "runs_within_seed_noise": kept,
        "runs_within_seed_noise_by_seed": kept_by_seed,
        "runs": len(shares),
        "seed_noise": [round(statistics.stdev(t["best_with_other_seeds"]), 4) for t in by_seed],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replay", action="store_true", help="Use the curves recorded before.")
    arguments = parser.parse_args()
    if not arguments.replay:
        RESULTS.mkdir(exist_ok=True)
        bench = Bench()
        trained = [bench.train(seed) for seed in range(arguments.seeds)]
        CURVES.write_text(json.dumps(trained) + "\n")
    by_seed = json.loads(CURVES.read_text())
    rows = [row(name, settings, by_seed) for name, settings in RULES.items()]
    for each in rows:
        kept = f"best kept in {each['runs_within_seed_noise']} of {each['runs']}"
        print(
            f"{each['work']:66s} {each['ours']:4.0%} of the epochs (worst "
            f"{each['share_worst']:.0%}); {kept}; worse by {each['regret_median']:.3f} (median), "
            f"{each['regret_worst']:.3f} (worst)"
        )
    save_report("embedding_asha", "cpu", rows)


if __name__ == "__main__":
    main()
