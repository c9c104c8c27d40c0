"""How long training stands still while a member's state is saved.

A pack on ready activations (no language model), a large member and a small one, on the CPU. A
thread steps it as the pack's actor does; from another, one of the two is saved to disk. What
counts is the longest gap between the ends of two steps of a member while that goes on, less the
median gap when nothing is saved (`ours`); beside it the time for which the member was locked
(`locked`), which other work on the same cores disturbs less. One member is stepped at a time:
beside the large one's long steps the small one's gaps would show nothing else.

    python -m benchmarks.checkpoint_pause
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from benchmarks.report import save_report
from sae.architectures import parse_architecture
from sae.member import Member
from sae.member_snapshot import MemberSnapshot, SnapshotRoom
from sae.pack import Pack
from tests.sae.synthetic_source import SyntheticSource

D_IN = 512
BATCH_TOKENS = 64
TOTAL_STEPS = 1_000_000
GOAL_S = 0.5


class ReadySource(SyntheticSource):
    """The same few batches again and again: drawing them costs nothing."""

    def batch_at(self, position: int) -> dict[str, torch.Tensor]:
        return super().batch_at(position % 4)


class Stepping:
    """Steps a pack from a thread of its own and notes when each member's step was over."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.ended_at: dict[str, list[float]] = {name: [] for name in pack.members}

    @contextmanager
    def running(self, *members: str) -> Iterator[None]:
        """Until the end of the block these members are due, and the others are not."""
        for name in self.pack.members:
            due = TOTAL_STEPS * BATCH_TOKENS if name in members else self.pack.tokens(name)
            self.pack.set_target(name, due)
        over = threading.Event()
        thread = threading.Thread(target=self._step_until, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _step_until(self, over: threading.Event) -> None:
        tokens = {name: self.pack.tokens(name) for name in self.pack.members}
        while not over.is_set():
            self.pack.run_step()
            now = time.perf_counter()
            for name, before in tokens.items():
                tokens[name] = self.pack.tokens(name)
                if tokens[name] > before:
                    self.ended_at[name].append(now)

    def gaps_s(self, member: str, start: float, end: float) -> list[float]:
        """Between ends of steps, of those gaps that touch an interval of time."""
        ends = self.ended_at[member]
        pairs = zip(ends, ends[1:], strict=False)
        return [later - earlier for earlier, later in pairs if later > start and earlier < end]


def build_pack(large_d_sae: int) -> Pack:
    """A large member and a small one."""
    source = ReadySource(d_in=D_IN, batch_tokens=BATCH_TOKENS, held_out_contexts=2)
    pack = Pack(source)
    for name, d_sae in (("large", large_d_sae), ("small", 1024)):
        config = {"architecture": "topk", "k": 16, "d_sae": d_sae, "lr": 1e-4}
        pack.attach(name, parse_architecture(config), TOTAL_STEPS * BATCH_TOKENS)
        pack.set_target(name, 2 * BATCH_TOKENS)
    while pack.run_step():  # Adam's moments come with the first step
        pass
    return pack


def measure(stepping: Stepping, saved: str, watched: str, folder: Path) -> dict[str, float]:
    """Save one member while another, or itself, is stepped."""
    with stepping.running(watched), timed_copies() as copies_s:
        wait_for_steps(stepping, watched, 4)
        start = time.perf_counter()
        stepping.pack.save(saved, folder)
        end = time.perf_counter()
        wait_for_steps(stepping, watched, 2)
    undisturbed = stepping.gaps_s(watched, start - 3600, start)[-50:]
    median_s = statistics.median(undisturbed)
    longest_s = max(stepping.gaps_s(watched, start, end))
    mib = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    return {
        "step_s": median_s,
        "longest_gap_s": longest_s,
        "extra_s": max(0.0, longest_s - median_s),
        "locked_s": sum(copies_s),
        "save_s": end - start,
        "state_mib": mib,
    }


@contextmanager
def timed_copies() -> Iterator[list[float]]:
    """Seconds of each copy that is made under a member's lock in this block."""
    take, seconds = SnapshotRoom.take, []

    def timed(room: SnapshotRoom, member: Member) -> MemberSnapshot:
        start = time.perf_counter()
        try:
            return take(room, member)
        finally:
            seconds.append(time.perf_counter() - start)

    with mock.patch.object(SnapshotRoom, "take", timed):
        yield seconds


def wait_for_steps(stepping: Stepping, member: str, count: int) -> None:
    enough = len(stepping.ended_at[member]) + count
    while len(stepping.ended_at[member]) < enough:
        time.sleep(0.01)


def row(stepping: Stepping, saved: str, watched: str, repeats: int) -> dict[str, object]:
    """Medians over several saves, and the worst of them."""
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(stepping, saved, watched, Path(folder)))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    worst_s = max(run["extra_s"] for run in runs)
    size = f"{median['state_mib'] / 1024:.2f} GiB"
    return {
        "work": f"a member of {size} is saved, the {watched} one is stepped: longest extra gap",
        "against": f"goal {GOAL_S} s",
        "ours": round(median["extra_s"], 3),
        "theirs": GOAL_S,
        "unit": "s",
        "ratio": round(GOAL_S / max(median["extra_s"], 1e-3), 2),
        "worst": round(worst_s, 3),
        "locked": round(median["locked_s"], 3),
        "step": round(median["step_s"], 3),
        "whole_save": round(median["save_s"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-sae", type=int, default=87_000, help="of the large member")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    stepping = Stepping(build_pack(arguments.d_sae))
    rows = [
        row(stepping, saved, watched, arguments.repeats)
        for saved, watched in (("large", "small"), ("large", "large"), ("small", "small"))
    ]
    save_report("checkpoint_pause", "cpu", rows)


if __name__ == "__main__":
    main()
