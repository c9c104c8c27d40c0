"""What a host has, before anything is put there, and what keeps a node from coming up on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Python:
    """An interpreter on the host."""

    version: str
    can_venv: bool
    path: str

    @property
    def minor(self) -> str:
        """`3.11` of `3.11.7`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def is_new_enough(self) -> bool:
        return tuple(int(part) for part in self.minor.split(".")) >= OLDEST_PYTHON


@dataclass(frozen=True)
class Gpu:
    """A GPU by nvidia-smi."""

    name: str
    memory_gib: float
    driver: str


class Machine(BaseModel):
    """The answers of the survey."""

    model_config = ConfigDict(frozen=True)

    clock: float = 0.0
    """The host's, in seconds since 1970."""
    hostname: str = ""
    system: str = ""
    user: str = ""
    root: str = ""
    """The node's folder, with the home folder put in."""
    free_mib: int | None = None
    not_writable: str = ""
    memory_mib: int = 0
    lacks: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    gpu_fault: str = ""
    cuda: str = ""
    """The newest CUDA that the driver takes."""
    pythons: tuple[Python, ...] = ()
    uv: str = ""
    pip: str = ""
    reach: str = ""
    """Whether the store's endpoint can be reached: yes, by-proxy, or no and why."""
    store_folder: Literal["", "yes", "no"] = ""
    under: str = ""
    ready: tuple[str, ...] = ()
    """Environments that are complete."""
    node: str = ""
    """Which node's files are there."""
    serving: bool = False
    starting: bool = False

    @classmethod
    def parse(cls, text: str) -> Machine:
        """Read the lines `<word> <value>` of survey.sh; other lines are left out."""
        found: dict[str, list[str]] = {}
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            found.setdefault(word, []).append(value.strip())
        last = {word: values[-1] for word, values in found.items()}
        plain = ("hostname", "system", "user", "root", "not_writable", "gpu_fault", "cuda", "uv",
                 "pip", "reach", "under", "node")  # fmt: skip
        return cls(
            clock=_number(last.get("now")) or 0.0,
            free_mib=_whole(last.get("free_mib")),
            memory_mib=_whole(last.get("memory_mib")) or 0,
            lacks=tuple(found.get("lacks", ())),
            gpus=tuple(gpu for gpu in map(_gpu, found.get("gpu", ())) if gpu is not None),
            pythons=tuple(_pythons(found.get("python", []))),
            store_folder="yes" if last.get("store_folder") == "yes"
            else "no" if "store_folder" in last else "",
            ready=tuple(found.get("ready", ())),
            serving=last.get("serving") == "yes",
            starting=last.get("starting") == "yes",
            **{word: last[word] for word in plain if word in last},
        )  # fmt: skip

    @property
    def driver_major(self) -> int | None:
        """Of the oldest driver; None without a GPU."""
        drivers = [_whole(gpu.driver.partition(".")[0]) for gpu in self.gpus]
        return min((driver for driver in drivers if driver is not None), default=None)

    def fit_pythons(self, wanted: str | None) -> list[Python]:
        """Those that an environment can be made with; of that version, where one is wanted."""
        fit = [python for python in self.pythons if python.is_new_enough and python.can_venv]
        if wanted and wanted[0].isdigit():
            fit = [p for p in fit if p.version == wanted or p.minor == wanted]
        return fit

    def described(self) -> str:
        """In one line, for people."""
        names = [gpu.name for gpu in self.gpus]
        parts = [
            f"{names.count(gpu.name)} x {gpu.name} ({gpu.memory_gib:.0f} GiB, "
            f"driver {gpu.driver}, CUDA {self.cuda or '?'})"
            for gpu in {gpu.name: gpu for gpu in self.gpus}.values()
        ]
        parts = parts or ["no GPU"]
        if self.memory_mib:
            parts.append(f"{self.memory_mib / 1024:.0f} GiB memory")
        if self.free_mib is not None:
            parts.append(f"{self.free_mib / 1024:.0f} GiB free disk")
        return ", ".join([self.hostname or "?", *parts])


def _gpu(line: str) -> Gpu | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != 3:
        return None
    return Gpu(parts[0], (_number(parts[1]) or 0.0) / 1024, parts[2])


def _pythons(lines: list[str]) -> Iterator[Python]:
    seen = set()
    for line in lines:
        version, _, rest = line.partition(" ")
        can_venv, _, path = rest.partition(" ")
        numbers = version.split(".")
        if path in seen or len(numbers) != 3 or not all(part.isdigit() for part in numbers):
            continue
        seen.add(path)
        yield Python(version, can_venv == "venv", path)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    found = _number(text)
    return None if found is None else int(found)
