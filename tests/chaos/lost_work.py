"""What the kills cost: how far each resume fell behind what its trial had reached before.

Everything here is measured by the writers' clocks, which are one clock: a storm is one machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.log.events import AnyEvent, Checkpointed, Reported, Started
from tests.chaos.segments import Broken, Damage
from tests.chaos.stories import Story

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Resume:
    """One time that a trial was taken up again."""

    trial: str
    epoch: int
    from_tokens: int
    reached_tokens: int
    """The last that the log knows of the work before."""
    lost_seconds: float
    """Wall time in which what was lost had been trained."""
    lost_device_seconds: float
    """Device time of it."""
    away_seconds: float
    """From the last sign of life before to the new start."""
    safe_tokens: tuple[int, ...]
    """Checkpoints that were complete before, newest first."""
    num_cut: int
    """How many of those kept were truncated on purpose."""

    @property
    def lost_tokens(self) -> int:
        return max(0, self.reached_tokens - self.from_tokens)


@dataclass
class _Standing:
    """The work of a trial that still counts: where it was after how many seconds."""

    tokens: list[int] = field(default_factory=lambda: [0])
    seconds: list[float] = field(default_factory=lambda: [0.0])
    device_seconds: list[float] = field(default_factory=lambda: [0.0])

    def add(self, tokens: int, seconds: float, device_seconds: float) -> None:
        if tokens >= self.tokens[-1]:
            self.tokens.append(tokens)
            self.seconds.append(max(seconds, self.seconds[-1]))
            self.device_seconds.append(max(device_seconds, self.device_seconds[-1]))

    def go_back_to(self, tokens: int) -> tuple[float, float]:
        """Forget what lies beyond; returns the (wall, device) seconds that went with it."""
        reached = (self.seconds[-1], self.device_seconds[-1])
        place = bisect_right(self.tokens, tokens)
        if place == len(self.tokens):  # a checkpoint beyond the last report: nothing known is lost
            self.add(tokens, *reached)
            return 0.0, 0.0
        low, high = self.tokens[place - 1], self.tokens[place]
        share = (tokens - low) / (high - low)
        here = [
            column[place - 1] + share * (column[place] - column[place - 1])
            for column in (self.seconds, self.device_seconds)
        ]
        for known in (self.tokens, self.seconds, self.device_seconds):
            del known[place:]
        self.add(tokens, here[0], here[1])
        return reached[0] - here[0], reached[1] - here[1]


def resumes_of(story: Story, damage: Damage) -> Iterator[Resume]:
    """Every resume of a trial, in order, with what it cost."""
    standing = _Standing()
    starts = [event for event in story.events if isinstance(event, Started)]
    for index, start in enumerate(starts):
        reached, heard_at = standing.tokens[-1], _heard_before(story, start)
        lost, lost_device = standing.go_back_to(start.tokens)
        if index > 0:
            yield Resume(
                trial=story.trial,
                epoch=start.epoch,
                from_tokens=start.tokens,
                reached_tokens=reached,
                lost_seconds=lost,
                lost_device_seconds=lost_device,
                away_seconds=max(0.0, start.at - heard_at),
                safe_tokens=(safe := _safe_before(story, start)),
                num_cut=_num_cut(story, start, safe, damage),
            )
        until = starts[index + 1].at if index + 1 < len(starts) else float("inf")
        _train(standing, story, start, until, damage)


def lost_work_faults(
    resumes: Sequence[Resume], *, interval_s: float, slack_s: float
) -> Iterator[Broken]:
    """Resumes that fell behind a complete checkpoint, or lost more than one interval."""
    for resume in resumes:
        where = f"{resume.trial} epoch {resume.epoch}"
        if resume.num_cut >= KEPT_CHECKPOINTS:
            continue
        if len(resume.safe_tokens) > resume.num_cut:
            safe = resume.safe_tokens[resume.num_cut]
            if resume.from_tokens < safe:
                detail = f"it went on from {resume.from_tokens} tokens with {safe} safe"
                yield Broken("a resume goes on from the newest checkpoint", where, detail)
        allowed_s = (1 + resume.num_cut) * interval_s + slack_s
        if resume.lost_seconds > allowed_s:
            detail = (
                f"{resume.lost_seconds:.1f} s of work lost ({resume.lost_tokens} tokens); one "
                f"checkpoint interval and slack are {allowed_s:.1f} s"
            )
            yield Broken("a kill costs at most one checkpoint interval", where, detail)


def _train(standing: _Standing, story: Story, start: Started, until: float, damage: Damage) -> None:
    """What the reports of one epoch add, up to when the next holder began."""
    seconds, device_seconds = standing.seconds[-1], standing.device_seconds[-1]
    for event in story.events:
        if isinstance(event, Reported) and event.epoch == start.epoch and event.at <= until:
            at_work = event.at - start.at - _stalled(damage, start.at, event.at)
            standing.add(event.tokens, seconds + at_work, device_seconds + event.busy_seconds)


def _stalled(damage: Damage, first: float, last: float) -> float:
    """Seconds of an interval in which a driver was kept from taking reports in."""
    return sum(max(0.0, min(last, b) - max(first, a)) for a, b in damage.stalls)


def _heard_before(story: Story, start: Started) -> float:
    """When somebody last said something of the trial's work under an earlier lease."""
    working = (Started, Reported, Checkpointed)
    return max((e.at for e in _before(story, start) if isinstance(e, working)), default=start.at)


def _before(story: Story, start: Started) -> list[AnyEvent]:
    return [
        event
        for event in story.events
        if getattr(event, "epoch", 0) < start.epoch and event.at <= start.at
    ]


def _safe_before(story: Story, start: Started) -> tuple[int, ...]:
    tokens = {e.tokens for e in _before(story, start) if isinstance(e, Checkpointed)}
    return tuple(sorted(tokens, reverse=True))


def _num_cut(story: Story, start: Started, safe: tuple[int, ...], damage: Damage) -> int:
    """Truncations of this trial's checkpoints that may still lie there at a resume."""
    kept = safe[KEPT_CHECKPOINTS] if len(safe) > KEPT_CHECKPOINTS else 0
    since = max(
        (e.at for e in _before(story, start) if isinstance(e, Checkpointed) and e.tokens == kept),
        default=0.0,
    )
    return sum(
        trial == story.trial and since <= at <= start.at for trial, at in damage.cut_checkpoints
    )
