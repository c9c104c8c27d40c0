"""Compile a C++ source with this machine's compiler, once for each source, compiler and CPU."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
COMPILE_TIMEOUT_S = 300.0


class CannotCompile(RuntimeError):
    """No library could be made of a source; torch operations do the same, slower.

    Args:
        reason: what was missing, or what the compiler said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the C++ kernels cannot be compiled here: {self.reason}"


def compiled(source: Path) -> tuple[Path, str]:
    """The shared library of a source, from the cache or compiled now, and its hash.

    The hash covers the source, the flags, the compiler's version and the CPU's features.

    Raises:
        CannotCompile: there is no compiler, it refuses, or the cache cannot be written.
    """
    compiler = _compiler()
    digest = hashlib.sha256()
    for part in (source.read_bytes(), " ".join(FLAGS).encode(), _version(compiler), _cpu()):
        digest.update(part)
    identity = digest.hexdigest()[:16]
    library = kernel_cache() / identity / f"{source.stem}.so"
    if not library.is_file():
        try:
            _compile_once(compiler, source, library)
        except OSError as error:
            raise CannotCompile(str(error)) from error
    return library, identity


def kernel_cache() -> Path:
    """`$SAEQ_CACHE/kernels`, else `~/.cache/saeq/kernels`."""
    root = os.environ.get("SAEQ_CACHE") or Path.home() / ".cache" / "saeq"
    return Path(root) / "kernels"


def _compiler() -> str:
    named = os.environ.get("CXX")
    for name in (named,) if named else COMPILERS:
        found = shutil.which(name)
        if found:
            return found
    raise CannotCompile(
        f"CXX={named!r} is not on the PATH"
        if named
        else f"none of {', '.join(COMPILERS)} is on the PATH; install one"
    )


@cache
def _version(compiler: str) -> bytes:
    try:
        return subprocess.run(
            [compiler, "--version"], capture_output=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotCompile(f"{compiler} --version: {error}") from error


@cache
def _cpu() -> bytes:
    """What `-march=native` goes by: a cache may be shared between machines that differ."""
    info = Path("/proc/cpuinfo")
    kept = ("model name", "cpu family", "model", "flags", "Features", "CPU part")
    if info.is_file():
        first = info.read_text(errors="replace").split("\n\n")[0]
        lines = [line for line in first.splitlines() if line.split(":")[0].strip() in kept]
        return "\n".join(lines).encode()
    return f"{platform.machine()} {platform.processor()} {platform.node()}".encode()


def _compile_once(compiler: str, source: Path, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with (library.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.is_file():
            return
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            _run([compiler, *FLAGS, str(source), "-o", str(made)])
            os.replace(made, library)
        logger.info(
            "compiled %s with %s in %.1f s into %s",
            source.name,
            compiler,
            time.monotonic() - started_s,
            library,
        )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotCompile(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = next((line for line in lines if "error" in line), lines[-1] if lines else "nothing")
        raise CannotCompile(f"{command[0]} ended with code {done.returncode}: {said}")
