"""How much of an answer's group comes from the question alone. numpy.

Questions that are tied to the groups' topics tell the groups apart before anything is steered: a
table over them shows topics, not styles. Measured on unsteered answers to the plain prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steering.errors import BadSteeringInput
from steering.intervals import Interval
from steering.prompt_banks.bank import Bank
from steering.table.statistics import cluster_mean

__all__ = ["Leak", "topic_leak"]


@dataclass(frozen=True)
class Leak:
    """What a bank's prompts alone say about the groups of the answers."""

    bank: str
    num_prompts: int
    num_on_topic: int
    """Prompts that are about a group."""
    accuracy: Interval | None
    """Share of unsteered answers to them whose group is the prompt's; None without such prompts."""
    chance: float
    """1 / number of groups."""
    agreement: Interval | None
    """How often two answers to one prompt, with different seeds, are of the same group."""
    agreement_by_chance: float
    """The same for answers to any two prompts: the sum of the groups' squared shares."""
    share_by_group: dict[str, float]
    """Of all unsteered answers; a group that has nearly all of them is where everything begins."""

    @property
    def score(self) -> float | None:
        """Accuracy over chance: 1 is no leak; None for a bank without topics."""
        return None if self.accuracy is None else self.accuracy.estimate / self.chance

    @property
    def warning(self) -> str | None:
        """What a reader of the table has to know of this bank."""
        if self.accuracy is not None and self.accuracy.low > self.chance:
            return (
                f"bank {self.bank}: the topic leaks: unsteered answers are of their prompt's group "
                f"in {self.accuracy} of the cases, by chance {self.chance:.3f} (score "
                f"{self.score:.1f}); read the table of a neutral bank instead"
            )
        if self.agreement is not None and self.agreement.low > self.agreement_by_chance:
            return (
                f"bank {self.bank}: the prompt tells the group: unsteered answers to one prompt "
                f"agree in {self.agreement} of the cases, to any two in "
                f"{self.agreement_by_chance:.3f}"
            )
        return None


def topic_leak(
    bank: Bank,
    groups: Sequence[str],
    prompt_ids: Sequence[str],
    predicted: Sequence[int],
    *,
    seed: int = 0,
) -> Leak:
    """Measure a bank.

    Args:
        groups: their names, by number.
        prompt_ids: of each unsteered answer.
        predicted: the number of the group of each, negative for none.

    Raises:
        BadSteeringInput: an answer to a prompt that is not in the bank, or fewer than two prompts.
    """
    by_id = {prompt.id: prompt for prompt in bank.prompts}
    if unknown := [one for one in prompt_ids if one not in by_id]:
        raise BadSteeringInput(f"prompt {unknown[0]!r} is not in bank {bank.name!r}")
    asked = list(dict.fromkeys(prompt_ids))
    on_topic = [row for row, one in enumerate(prompt_ids) if by_id[one].group in groups]
    names = [groups[number] if number >= 0 else "" for number in predicted]
    shares = Counter(names)
    topics = {prompt_ids[row] for row in on_topic}
    accuracy = None
    if len(topics) > 1:
        right = [float(names[row] == by_id[prompt_ids[row]].group) for row in on_topic]
        accuracy = cluster_mean(np.array(right), [prompt_ids[row] for row in on_topic], seed=seed)
    return Leak(
        bank.name,
        len(asked),
        len(topics),
        accuracy,
        1.0 / len(groups),
        _agreement(prompt_ids, names, seed),
        float(sum((count / len(names)) ** 2 for count in shares.values())),
        {group: shares[group] / len(names) for group in groups},
    )


def _agreement(prompt_ids: Sequence[str], names: Sequence[str], seed: int) -> Interval | None:
    """Mean over pairs of answers to one prompt."""
    same, units = [], []
    for one in dict.fromkeys(prompt_ids):
        own = [name for other, name in zip(prompt_ids, names, strict=True) if other == one]
        pairs = [(a, b) for at, a in enumerate(own) for b in own[at + 1 :]]
        same += [float(a == b) for a, b in pairs]
        units += [one] * len(pairs)
    return cluster_mean(np.array(same), units, seed=seed) if len(set(units)) > 1 else None
