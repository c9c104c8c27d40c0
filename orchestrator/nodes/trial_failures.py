"""Which ends of trials speak against the machine they ran on: a pure function of a sweep's log.

The user's own error fails everywhere and speaks against no machine. Nor does what was asked for: a
drain, a recall, a pause. What could be either counts only while it happened on one host alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.log.events import Failed, Preempted, Reported, Started, TrialEvent
from orchestrator.log.state import DriverState, SweepState
from orchestrator.nodes.quarantine import FAST_S

MACHINES_OWN = re.compile(
    r"ECC error|no kernel image|driver version is insufficient|NVIDIA driver|CUDA driver"
    r"|CUDA-capable device|CUDA unknown error|no CUDA GPUs are available|invalid device ordinal"
    r"|CUDA error: (?!device-side assert|an illegal memory|out of memory|CUBLAS_STATUS_INVALID)"
    r"|GPU is lost|fallen off the bus|Unable to determine the device|NVML|\bXid\b"
    r"|No space left on device|Disk quota exceeded|Input/output error|Read-only file system"
    r"|cannot allocate (?:a )?GPU|libcuda|undefined symbol|GLIBC",
    re.IGNORECASE,
)
PERHAPS = re.compile(
    r"device-side assert|illegal memory access|Bus error|SIGBUS|Segmentation fault|SIGSEGV"
    r"|Killed|SIGKILL|CUBLAS_STATUS|CUDNN_STATUS|NCCL error",
    re.IGNORECASE,
)
"""The machine's, or the configuration's: the same trial tells by failing elsewhere too."""
PROCESS_GONE = re.compile(r"trial process is gone|^its pack \S* ?is gone")
TRACEBACK_LINES = 3


@dataclass(frozen=True)
class Incident:
    """A trial that failed fast, and not by its own fault."""

    host: str
    device: str
    at: float
    what: str
    trial: str
    writer: str
    """The driver under which it failed."""
    is_certain: bool
    """Whether nothing but the machine can be the reason; else the trial itself may be."""


@dataclass(frozen=True)
class _Stay:
    """One trial under one lease."""

    end: Failed | Preempted
    started: Started | None
    has_reported: bool
    host: str
    device: str

    @property
    def is_fast(self) -> bool:
        """One that never started failed while it was being set up."""
        return self.started is None or self.end.at - self.started.at < FAST_S

    @property
    def is_certain(self) -> bool:
        """Whether nothing but the machine can be the reason."""
        return isinstance(self.end, Failed) and bool(MACHINES_OWN.search(_words(self.end)))

    @property
    def is_suspicious(self) -> bool:
        """Whether the machine may be the reason."""
        if isinstance(self.end, Failed):
            return bool(PERHAPS.search(_words(self.end)))
        gone = self.end.process_died and PROCESS_GONE.search(self.end.reason)
        return bool(gone) and not self.has_reported


def incidents(state: SweepState, trial: str) -> list[Incident]:
    """What one trial's ends say against machines, oldest first."""
    stays = list(_stays(state.events_of(trial), state.drivers))
    hosts = {stay.host for stay in stays if stay.is_suspicious}
    found = []
    for stay in sorted(stays, key=lambda stay: stay.end.at):
        perhaps = stay.is_suspicious and len(hosts) == 1
        if not (stay.host and stay.is_fast and (stay.is_certain or perhaps)):
            continue
        found.append(
            Incident(
                host=stay.host,
                device=stay.device,
                at=stay.end.at,
                what=f"trial {trial}: {stay.end.reason}",
                trial=trial,
                writer=stay.end.writer,
                is_certain=stay.is_certain,
            )
        )
    return found


def _stays(events: Sequence[TrialEvent], drivers: Mapping[str, DriverState]) -> Iterator[_Stay]:
    by_lease: dict[tuple[int, int, str], list[TrialEvent]] = {}
    for event in events:
        by_lease.setdefault((event.life, event.epoch, event.writer), []).append(event)
    for (_, epoch, writer), under_it in by_lease.items():
        end = next((e for e in under_it if isinstance(e, Failed | Preempted)), None)
        if end is None or epoch == 0:
            continue
        if isinstance(end, Failed) and end.out_of_memory:
            continue  # a matter of shares
        started = next((e for e in under_it if isinstance(e, Started)), None)
        yield _Stay(
            end=end,
            started=started,
            has_reported=any(isinstance(e, Reported) for e in under_it),
            host=end.host or (started and started.host) or _only_host(drivers.get(writer)),
            device=end.device or (started.device if started else ""),
        )


def _only_host(driver: DriverState | None) -> str:
    """Where a driver's trials are when nobody says so: on its own machine, if it has no other."""
    return driver.started.host if driver is not None and driver.started.num_nodes <= 1 else ""


def _words(end: Failed) -> str:
    """Its reason and the end of its traceback; the rest of that quotes code, and proves nothing."""
    return "\n".join([end.reason, *end.traceback.strip().splitlines()[-TRACEBACK_LINES:]])
