"""Times, memory, devices and lists of hosts as SLURM's users write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobs.units import BadQuantity, parse_seconds

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY = re.compile(r"\d+[KMGT]?")
_GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?\d+")
_HOSTS = re.compile(r"[A-Za-z0-9._-]+(?:\[[0-9,-]+\][A-Za-z0-9._-]*)*")


def parse_time(value: Any) -> int:
    """Read a time limit in seconds: `04:00:00`, `2-12`, `240` (minutes, as sbatch has it), `4h`.

    Raises BadQuantity.
    """
    rule, way_out = "must be a time", "write 04:00:00, 2-12:00:00, 240 (minutes) or 4h"
    text = str(value).strip()
    found = _CLOCK.fullmatch(text)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadQuantity(rule, repr(value), way_out)
    if found is None:
        try:
            seconds = int(parse_seconds(text))
        except BadQuantity as error:
            raise BadQuantity(rule, repr(value), way_out) from error
    else:
        seconds = _clock_seconds(*found.groups())
    if seconds < 1:
        raise BadQuantity(f"{rule} above zero", repr(value), way_out)
    return seconds


def _clock_seconds(days: str | None, *parts: str | None) -> int:
    """SLURM reads `M`, `M:S`, `H:M:S`, and after days `H`, `H:M`, `H:M:S`."""
    numbers = [int(part) for part in parts if part is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_whole_seconds(value: Any) -> int:
    """Read a time in seconds: `180`, `3m`. Raises BadQuantity."""
    return int(parse_seconds(value))


def format_time(seconds: int) -> str:
    """A time as sbatch takes it: 1-04:00:00."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02d}:{minutes:02d}:{seconds:02d}"


def parse_memory(value: Any) -> str:
    """Memory of a node as sbatch takes it: `64G`; `0` is all of it. Raises BadQuantity."""
    text = str(value).strip().upper()
    if isinstance(value, bool) or not _MEMORY.fullmatch(text):
        way_out = "write 64G, 512M, or 0 for all of a node's"
        raise BadQuantity("must be memory with a unit of K, M, G or T", repr(value), way_out)
    return text


def parse_gpus(value: Any) -> str:
    """GPUs of a node: `2`, or `a100:2` with their type. Raises BadQuantity."""
    text = str(value).strip()
    if isinstance(value, bool) or not _GPUS.fullmatch(text):
        way_out = "write 2, or a100:2 where a cluster has several types"
        raise BadQuantity("must be a number of GPUs, perhaps with a type", repr(value), way_out)
    return text


def parse_hosts(value: Any) -> tuple[str, ...]:
    """Names of hosts: `n1,n[3-5]`, or a list of such. Raises BadQuantity."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise BadQuantity("must be names of nodes", repr(value), "write n1,n[3-5]")
    # A comma separates hosts only outside brackets.
    names = [name.strip() for part in parts for name in re.split(r",(?![^\[]*\])", str(part))]
    names = [name for name in names if name]
    for name in names:
        if not _HOSTS.fullmatch(name):
            raise BadQuantity("must be names of nodes", repr(name), "write n1,n[3-5]")
    return tuple(dict.fromkeys(names))


def parse_elastic(value: Any) -> tuple[int, int]:
    """Least and most jobs: `0:8`. Raises BadQuantity."""
    text = ":".join(map(str, value)) if isinstance(value, list | tuple) else str(value).strip()
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or int(found[1]) > int(found[2]) or int(found[2]) < 1:
        way_out = "write 0:8 for none to eight, as there is work"
        raise BadQuantity("must be the least and the most jobs, MIN:MAX", repr(value), way_out)
    return int(found[1]), int(found[2])


def parse_sbatch_option(text: str) -> tuple[str, str]:
    """An option as it stands on sbatch's command line: `--reservation=x`, `reservation=x`, `wait`.

    Raises BadQuantity.
    """
    name, _, value = text.strip().removeprefix("--").partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        way_out = "write reservation=NAME, or exclusive for one without a value"
        raise BadQuantity("must be an option of sbatch by its long name", repr(text), way_out)
    return name, value


def parse_sbatch_options(value: Any) -> Mapping[str, str]:
    """A table of such options; `true` stands for one without a value. Raises BadQuantity."""
    if isinstance(value, list | tuple):
        return dict(parse_sbatch_option(str(part)) for part in value)
    if not isinstance(value, Mapping):
        way_out = 'write {reservation = "NAME"}'
        raise BadQuantity("must be a table of sbatch options", repr(value), way_out)
    texts = (name if given is True else f"{name}={given}" for name, given in value.items())
    return dict(parse_sbatch_option(text) for text in texts)
