"""This machine's C and C++ compilers, as torch.compile and Triton look for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

WITHIN_S = 10.0
"""For a program to answer; a compiler on a sleepy network file system takes seconds."""

Language = Literal["C", "C++"]

# Triton's runtime/build.py and torch's _inductor/config.py: the variable, and what they try when it
# is not set.
_LOOKED_FOR: dict[Language, tuple[str, tuple[str, ...]]] = {
    "C": ("CC", ("gcc", "clang")),
    "C++": ("CXX", ("g++",)),
}


@dataclass(frozen=True)
class Compiler:
    """A compiler that answered when it was asked for its version."""

    path: str
    version: str


def find_compiler(language: Language) -> Compiler | None:
    """The compiler that Triton (C) or torch.compile on a CPU (C++) would take; None without one."""
    variable, names = _LOOKED_FOR[language]
    given = os.environ.get(variable)
    for name in (given,) if given else names:
        # $CC may carry flags, or a wrapper such as `ccache gcc`.
        words = name.split()
        path = shutil.which(words[0]) if words else None
        said = output_of(path, *words[1:], "--version") if path else None
        if path and said:
            return Compiler(" ".join([path, *words[1:]]), said.splitlines()[0])
    return None


def cannot_find(language: Language) -> str:
    """Words for a compiler that is not there."""
    variable, names = _LOOKED_FOR[language]
    given = os.environ.get(variable)
    looked = f"${variable}={given}" if given else f"${variable}, {', '.join(names)}"
    return f"there is no {language} compiler (looked for {looked})"


def output_of(*command: str) -> str | None:
    """What a program prints; None where it is missing, fails, hangs or says nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
