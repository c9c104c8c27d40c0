"""What a probe of a machine found, as its record keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from jobs.units import format_bytes
from orchestrator.nodes.gpus import Gpu


class Record(BaseModel):
    """Fields that a reader does not know, of a newer saeq, are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class ProbeFault(Record):
    """Why a machine is kept out."""

    what: str
    """The rule and the value."""
    way_out: str
    of_device: bool
    """A device or its driver is broken: starting again will not help."""

    def __str__(self) -> str:
        return f"{self.what}; {self.way_out}"


class ProbedGpu(Gpu):
    """One GPU that may be used here, by nvidia-smi and by torch."""

    capability: str = ""
    """Compute capability, such as `9.0`."""
    computes: bool | None = None
    """Whether a small matrix product came out right; None: it was not tried."""
    error: str = ""


class Folder(Record):
    """A local folder that trials write to."""

    path: str
    free_bytes: int
    total_bytes: int
    is_writable: bool


class ProbeReport(Record):
    """One look at one machine."""

    at: float
    """Seconds since 1970."""
    seconds: float
    """How long the look took."""
    gpus: tuple[ProbedGpu, ...] = ()
    gpus_expected: int = 0
    expected_by: str = ""
    """Who says that there are so many."""
    cores: int = 0
    free_memory_bytes: int = 0
    shared_memory_bytes: int | None = None
    """Free in /dev/shm, where Ray keeps its objects."""
    folders: tuple[Folder, ...] = ()
    torch: str = ""
    """Version and build; empty where no GPU made it worth importing."""
    c_compiler: str = ""
    cxx_compiler: str = ""
    triton: str = ""
    """Its version, where it works."""
    flash_attn: str = ""
    """Its version, where it works on every GPU."""
    faults: tuple[ProbeFault, ...] = ()
    notes: tuple[str, ...] = ()
    """What is worth a word, and keeps nobody out."""

    @property
    def is_fit(self) -> bool:
        return not self.faults

    @property
    def device_faults(self) -> Sequence[ProbeFault]:
        return [fault for fault in self.faults if fault.of_device]

    @property
    def summary(self) -> str:
        """In a few words: `2 x NVIDIA H100 80GB HBM3`, `4 cores, 15 GB free`."""
        if not self.gpus:
            cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
            return f"{cores}, {format_bytes(self.free_memory_bytes)} free"
        names = [gpu.name or "GPU" for gpu in self.gpus]
        kinds = [(names.count(name), name) for name in dict.fromkeys(names)]
        return ", ".join(f"{count} x {name}" for count, name in kinds)
