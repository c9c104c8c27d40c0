"""Trials as people name them: by id, or by number."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from orchestrator.log.state import SweepState, TrialState


class UnknownTrial(ValueError):
    """The sweep has no such trial."""

    def __init__(self, trial: str, sweep: str, known: Sequence[str]) -> None:
        super().__init__(trial, sweep, known)
        self.trial, self.sweep, self.known = trial, sweep, known

    def __str__(self) -> str:
        if not self.known:
            return f"sweep {self.sweep!r} has no trials yet, so none is {self.trial!r}"
        near = get_close_matches(self.trial, self.known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        some = ", ".join([*self.known[:6], *(["..."] if len(self.known) > 6 else [])])
        return f"sweep {self.sweep!r} has no trial {self.trial!r}; it has: {some}.{hint}"


def find_trial(sweep: str, trial: str, state: SweepState) -> TrialState:
    """Look a trial up by id, or by its number. Raises UnknownTrial."""
    if trial in state.trials:
        return state.trials[trial]
    by_number = [t for t in state.by_number() if trial.isdecimal() and t.number == int(trial)]
    if by_number:
        return by_number[0]
    raise UnknownTrial(trial, sweep, [t.id for t in state.by_number()])
