"""What this machine computes with: torch, its devices, compilers, Triton, flash attention.

`python -m sae.capabilities` prints one JSON object and exits 0 whatever is broken. torch is
imported inside functions: a broken one is an answer like any other.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sae.compilers import Compiler, cannot_find, find_compiler, output_of

MATMUL_WIDTH = 256
FLASH_FROM = (8, 0)
"""Compute capability from which flash-attn 2 runs: Ampere, Ada, Hopper (its README)."""
BFLOAT16_FROM = (8, 0)


@dataclass(frozen=True)
class Library:
    """An installed package, and whether it works."""

    version: str
    works: bool
    error: str = ""


@dataclass(frozen=True)
class Device:
    """One GPU as torch sees it."""

    index: int
    name: str = ""
    capability: str = ""
    """Such as `8.0`."""
    memory_bytes: int = 0
    free_bytes: int = 0
    bf16: bool = False
    ok: bool = False
    """A small matrix product came out right."""
    error: str = ""


@dataclass(frozen=True)
class Cuda:
    """The driver, the version of CUDA that torch was built for, and whether they get on."""

    available: bool = False
    driver: str | None = None
    """By nvidia-smi; None where it does not answer: no NVIDIA GPU, or no driver."""
    runtime: str | None = None
    """None: torch was built without CUDA."""
    error: str = ""


@dataclass(frozen=True)
class Torch:
    """The installed torch."""

    version: str | None = None
    build: str = ""
    """`cpu`, `cuda 12.8` or `rocm 6.4`."""
    error: str = ""


@dataclass(frozen=True)
class Capabilities:
    """All of it."""

    torch: Torch
    cuda: Cuda
    devices: tuple[Device, ...]
    cc: Compiler | None
    """A C compiler: Triton builds its launchers with it."""
    cxx: Compiler | None
    """A C++ compiler: torch.compile on a CPU and our kernels need it."""
    triton: Library | None
    flash_attn: Library | None
    """`works`: it imports, and every device is new enough."""
    bf16: bool
    """Every device has it in hardware; on a machine without any, the CPU computes it, slowly."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@cache
def capabilities() -> Capabilities:
    """Look at everything, once a process. Takes the seconds of importing torch; never raises."""
    driver = driver_version()
    torch, found = _torch()
    cuda = Cuda(driver=driver) if found is None else _cuda(found, driver)
    devices = _devices(found) if cuda.available else ()
    return Capabilities(
        torch=torch,
        cuda=cuda,
        devices=devices,
        cc=find_compiler("C"),
        cxx=find_compiler("C++"),
        triton=_triton(),
        flash_attn=_flash_attn([(each.name, _numbers(each.capability)) for each in devices]),
        bf16=all(device.bf16 for device in devices) and found is not None,
    )


def cannot_compile(device_type: str) -> str:
    """Why torch.compile cannot work on a kind of device here; empty where it should.

    Args:
        device_type: `cpu` or `cuda`.
    """
    if device_type == "cpu":
        return "" if find_compiler("C++") else cannot_find("C++")
    triton = _triton()
    if triton is None:
        return "Triton is not installed"
    if not triton.works:
        return f"Triton does not load ({triton.error})"
    return "" if find_compiler("C") else cannot_find("C")


def cannot_flash(device: str, dtype: str) -> str:
    """Why flash attention cannot work on a device; empty where it should.

    Args:
        device: `cpu`, or a CUDA device that is there.
        dtype: of the model, such as `bfloat16`.
    """
    if not device.startswith("cuda"):
        return f"flash-attn needs a CUDA device, and this is {device}"
    if dtype not in ("bfloat16", "float16"):
        return f"flash-attn takes bfloat16 and float16, and the model is {dtype}"
    torch: Any = importlib.import_module("torch")
    found = torch.cuda.get_device_properties(torch.device(device))
    library = _flash_attn([(found.name, (found.major, found.minor))])
    if library is None:
        return "flash-attn is not installed"
    return "" if library.works else library.error


def driver_version() -> str | None:
    """Of NVIDIA's driver, by nvidia-smi; None where it does not answer."""
    said = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.splitlines()[0].strip() if said else None


def _torch() -> tuple[Torch, Any]:
    """What there is, and the module itself if it can be imported."""
    installed = _installed("torch")
    try:
        torch: Any = importlib.import_module("torch")
        hip = getattr(torch.version, "hip", None)
        cuda = torch.version.cuda
        build = f"rocm {hip}" if hip else f"cuda {cuda}" if cuda else "cpu"
        return Torch(str(torch.__version__), build), torch
    except Exception as error:  # whatever is broken is the answer
        return Torch(installed, "", _words(error)), None


def _cuda(torch: Any, driver: str | None) -> Cuda:
    runtime = torch.version.cuda
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            available = bool(torch.cuda.is_available()) and torch.cuda.device_count() > 0
        error = "" if available or not caught else str(caught[-1].message).partition("(Trigger")[0]
    except Exception as raised:  # whatever is broken is the answer
        available, error = False, _words(raised)
    return Cuda(available, driver, runtime, " ".join(error.split()))


def _devices(torch: Any) -> tuple[Device, ...]:
    return tuple(_device(torch, index) for index in range(torch.cuda.device_count()))


def _device(torch: Any, index: int) -> Device:
    known: dict[str, Any] = {"index": index}
    try:
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        known |= {
            "name": properties.name,
            "capability": "{}.{}".format(*capability),
            "memory_bytes": int(properties.total_memory),
            "bf16": capability >= BFLOAT16_FROM or bool(torch.version.hip),
        }
        known["free_bytes"] = int(torch.cuda.mem_get_info(index)[0])
        wrong = _wrong_product(torch, f"cuda:{index}")
    except Exception as error:  # whatever is broken is the answer
        return Device(**known, ok=False, error=_words(error))
    return Device(**known, ok=not wrong, error=wrong)


def _wrong_product(torch: Any, device: str) -> str:
    """Multiply small whole numbers, which every precision keeps exactly; empty where it is right.

    The shared dimension is 256 and values are within 4: sums stay below 2^24.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (MATMUL_WIDTH, MATMUL_WIDTH)
    left = torch.randint(-4, 5, shape, generator=generator).float()
    right = torch.randint(-4, 5, shape, generator=generator).float()
    found = (left.to(device) @ right.to(device)).cpu()
    num_wrong = int((found != left @ right).sum())
    if not num_wrong:
        return ""
    return f"a {MATMUL_WIDTH} x {MATMUL_WIDTH} product came out wrong in {num_wrong} places"


def _numbers(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return (int(major), int(minor)) if minor else (0, 0)


@cache
def _triton() -> Library | None:
    installed = _installed("triton")
    return None if installed is None else _imported("triton", installed)


def _flash_attn(devices: Sequence[tuple[str, tuple[int, int]]]) -> Library | None:
    """Whether it works on all of these: (name, compute capability)."""
    installed = _installed("flash-attn")
    if installed is None:
        return None
    if not devices:
        return Library(installed, False, "flash-attn needs a CUDA device, and there is none")
    for name, capability in devices:
        if capability < FLASH_FROM:
            has, needed = (".".join(map(str, one)) for one in (capability, FLASH_FROM))
            return Library(installed, False, f"{name} has compute capability {has}, below {needed}")
    return _imported("flash_attn", installed)


def _imported(module: str, installed: str) -> Library:
    try:
        importlib.import_module(module)
    except Exception as error:  # built for another torch, a library missing
        return Library(installed, False, _words(error))
    return Library(installed, True)


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _words(error: BaseException) -> str:
    """The first line of an error, for a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _stdout_alone() -> Iterator[int]:
    """A descriptor for the answer; whatever libraries print meanwhile goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        yield answer
    finally:
        os.dup2(answer, 1)
        os.close(answer)


def _main() -> None:
    with _stdout_alone() as answer:
        text = json.dumps(capabilities().to_json(), indent=1) + "\n"
        with open(answer, "w", closefd=False) as file:
            file.write(text)
    sys.stderr.flush()
    # A broken driver may crash the interpreter's own end, after the answer was given.
    os._exit(0)


if __name__ == "__main__":
    _main()
