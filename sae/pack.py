"""Many members on one activation stream, each with its own life.

Threads. One thread calls `run_step`. Any other may call everything else at the same time: a
member is locked while it is stepped, reported, saved or finished, the others go on. A member that
is being finished is not due. `finish` holds the language model's lock a batch at a time, so
stepping interleaves with it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

import torch

from sae.activation_source import ActivationSource
from sae.architectures import ArchitectureConfig
from sae.batched.backend import default_backend
from sae.downstream import DEFAULT_CE_TOKENS
from sae.evaluation import report_metrics
from sae.export import FinishReport, finish_member
from sae.member import Member
from sae.member_snapshot import snapshot_room
from sae.member_state import load_member
from sae.step_backend import MemberStepFailed, StepBackend


class UnknownMember(ValueError):
    """A member that is not attached to this pack.

    Args:
        member_id: what was asked for.
        attached: who is there.
    """

    def __init__(self, member_id: str, attached: tuple[str, ...]) -> None:
        super().__init__(member_id, attached)
        self.member_id, self.attached = member_id, attached

    def __str__(self) -> str:
        there = ", ".join(self.attached) or "nobody"
        return f"member {self.member_id!r} is not attached to this pack; attached: {there}"


@dataclass
class _Slot:
    """A member in the pack."""

    member: Member
    target_tokens: int
    lm_seconds: float = 0.0
    """Its share of the language model's time."""
    lm_alone_seconds: float = 0.0
    """The language model's time at its steps, undivided."""
    finishing: bool = False
    error: MemberStepFailed | None = None
    lock: RLock = field(default_factory=RLock)

    @property
    def busy_seconds(self) -> float:
        attached = self.member.step_seconds - self.member.earlier_step_seconds
        return attached + self.lm_seconds

    @property
    def is_due(self) -> bool:
        waits = self.finishing or self.error is not None
        return not waits and self.member.tokens < self.target_tokens


class Pack:
    """Trains every attached member on the batches of one source.

    Args:
        source: the activation stream, and the held-out tokens.
        device: where the members live.
        backend: how members of equal shape are stepped; what `SAEQ_BACKEND` says unless given,
            by itself the batched one on a CPU and on CUDA.
    """

    def __init__(
        self,
        source: ActivationSource,
        device: str | torch.device = "cpu",
        backend: StepBackend | None = None,
    ) -> None:
        self.source = source
        self.device = torch.device(device)
        self._backend = backend or default_backend(self.device)
        self._slots: dict[str, _Slot] = {}
        self._position = 0
        self._lm_seconds_seen = source.lm_seconds
        self._lock = RLock()

    @property
    def position(self) -> int:
        """Stream position of the next batch."""
        return self._position

    @property
    def members(self) -> tuple[str, ...]:
        """Ids of who is attached, in order of attaching."""
        with self._lock:
            return tuple(self._slots)

    @property
    def num_due(self) -> int:
        """Members that the next step would train."""
        with self._lock:
            return sum(slot.is_due for slot in self._slots.values())

    def attach(
        self,
        member_id: str,
        config: ArchitectureConfig,
        total_tokens: int,
        checkpoint: Path | None = None,
    ) -> int:
        """Take a member in; it waits until `set_target` asks for more.

        A member from a checkpoint is never fed a batch twice: the pack goes forward to where it
        left off, which is exactly its next batch if the pack has not come further meanwhile.

        Args:
            total_tokens: length of its whole training; fixes its schedules.
            checkpoint: folder to go on from.

        Returns:
            Tokens it has already trained on.

        Raises:
            ValueError: the id is taken, the configuration has faults, or the hook is unknown.
            BadCheckpoint: the folder cannot be gone on from.
        """
        self._refuse_duplicate(member_id)
        member = Member.from_source(config, self.source, total_tokens, self.device)
        if checkpoint is not None:
            load_member(member, checkpoint)
        with self._lock:
            self._refuse_duplicate(member_id)
            self._slots[member_id] = _Slot(member, target_tokens=member.tokens)
            self._position = max(self._position, member.end_position)
        return member.tokens

    def _refuse_duplicate(self, member_id: str) -> None:
        if member_id in self._slots:
            raise ValueError(f"member {member_id!r} is attached already; detach it first")

    def detach(self, member_id: str) -> None:
        """Drop a member and its memory. Raises UnknownMember; not what the member died of."""
        with self._lock:
            if member_id not in self._slots:
                raise UnknownMember(member_id, self.members)
            del self._slots[member_id]

    def set_target(self, member_id: str, tokens: int) -> None:
        """Ask for a member to be trained up to so many tokens, in whole batches.

        Raises:
            ValueError: more than its whole training.
        """
        slot = self._slot(member_id)
        if tokens > slot.member.total_tokens:
            raise ValueError(
                f"target of {tokens} tokens exceeds total_tokens={slot.member.total_tokens} of "
                f"member {member_id!r}, over which its schedules are laid out; attach it with a "
                "larger total"
            )
        slot.target_tokens = tokens

    def tokens(self, member_id: str) -> int:
        """Tokens a member has trained on."""
        return self._slot(member_id).member.tokens

    def busy_seconds(self, member_id: str) -> float:
        """Its steps' time since attaching, and its even share of the language model's.

        Known also of a member that failed.
        """
        return self._slot(member_id, even_failed=True).busy_seconds

    def lm_seconds(self, member_id: str) -> tuple[float, float]:
        """The language model's time since attaching: (its even share, undivided).

        The second is what a run of this member alone would have taken; their difference is what
        packing saved it.
        """
        slot = self._slot(member_id, even_failed=True)
        return slot.lm_seconds, slot.lm_alone_seconds

    def run_step(self) -> bool:
        """Train every due member on the batch at `position`; False if nobody is due.

        A member whose step raises is parked: its error is raised by the next call for it.
        """
        with self._lock:
            due = {name: slot for name, slot in self._slots.items() if slot.is_due}
            position = self._position
        if not due:
            return False
        batch_by_hook = self.source.batch_at(position)
        # Since the last step, not since the call before: on CUDA the clock runs behind the work.
        lm_seconds, self._lm_seconds_seen = self._lm_seconds_seen, self.source.lm_seconds
        lm_alone = self._lm_seconds_seen - lm_seconds
        for group in _groups(due):
            hook = next(iter(group.values())).member.hook
            self._step_group(group, batch_by_hook[hook], position)
        for slot in due.values():
            slot.lm_seconds += lm_alone / len(due)
            slot.lm_alone_seconds += lm_alone
        with self._lock:
            self._position = max(self._position, position + 1)
        return True

    def _step_group(self, group: dict[str, _Slot], batch_BD: torch.Tensor, position: int) -> None:
        with ExitStack() as held:
            for slot in group.values():
                held.enter_context(slot.lock)
            # Somebody may have been taken up by `finish` since the list of due ones was drawn.
            members = {name: slot.member for name, slot in group.items() if slot.is_due}
            failures = self._backend.step(members, batch_BD, position)
            for name, failure in failures.items():
                group[name].error = failure

    def report(self, member_id: str) -> dict[str, float]:
        """Held-out and training numbers: `sae.metric_names.REPORTED`."""
        with self._locked(member_id) as slot:
            return report_metrics(slot.member, self.source)

    def save(self, member_id: str, folder: Path) -> int:
        """Write a member's whole state into a folder; returns the tokens it stands for.

        The member stands still only while its state is copied, not while it is written.
        """
        slot = self._slot(member_id)
        with snapshot_room(slot.member, slot.lock) as room:
            with self._locked(member_id):
                state = room.take(slot.member)
            return state.write(folder)

    def finish(
        self, member_id: str, folder: Path, *, ce_tokens: int = DEFAULT_CE_TOKENS
    ) -> FinishReport:
        """Export a member into a folder and measure it. Raises ExportDiffers."""
        slot = self._slot(member_id)
        slot.finishing = True
        try:
            with slot.lock:
                return finish_member(slot.member, self.source, folder, ce_tokens=ce_tokens)
        finally:
            slot.finishing = False

    @contextmanager
    def _locked(self, member_id: str) -> Iterator[_Slot]:
        slot = self._slot(member_id)
        with slot.lock:
            yield slot

    def _slot(self, member_id: str, *, even_failed: bool = False) -> _Slot:
        with self._lock:
            slot = self._slots.get(member_id)
            if slot is None:
                raise UnknownMember(member_id, self.members)
        if slot.error is not None and not even_failed:
            raise slot.error
        return slot


def _groups(due: dict[str, _Slot]) -> list[dict[str, _Slot]]:
    """Due members by equal shape."""
    by_key: dict[Hashable, dict[str, _Slot]] = {}
    for name, slot in due.items():
        by_key.setdefault(slot.member.group_key, {})[name] = slot
    return list(by_key.values())
