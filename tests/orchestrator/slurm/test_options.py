from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.units import BadQuantity
from orchestrator.slurm.options import WorkerOptions, keys
from orchestrator.slurm.quantities import (
    format_time,
    parse_elastic,
    parse_gpus,
    parse_hosts,
    parse_memory,
    parse_sbatch_option,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("240", 14_400),
        (240, 14_400),
        ("1:30", 90),
        ("04:00:00", 14_400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("2-12:30:05", 217_805),
        ("4h", 14_400),
        ("1h30m", 5_400),
    ],
)
def test_times_are_read_as_sbatch_reads_them(text: str | int, seconds: int) -> None:
    assert parse_time(text) == seconds
    assert parse_time(format_time(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "four", "0", "-1", "1:2:3:4", True, None])
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(BadQuantity, match="must be a time"):
        parse_time(text)


def test_quantities_that_sbatch_would_refuse_are_refused_before() -> None:
    parsers: list[tuple[Callable[[Any], object], object]] = [
        (parse_memory, "64GB"),
        (parse_gpus, "two"),
        (parse_gpus, True),
        (parse_hosts, "n1;rm"),
        (parse_hosts, 3),
        (parse_elastic, "8:0"),
        (parse_elastic, "8"),
        (parse_sbatch_option, "-C x"),
    ]
    for parse, value in parsers:
        with pytest.raises(BadQuantity):
            parse(value)


def test_hosts_are_separated_by_the_commas_outside_of_brackets() -> None:
    assert parse_hosts("n1,n[3,5-7], gpu-a,n1") == ("n1", "n[3,5-7]", "gpu-a")
    assert parse_hosts(["n1,n2", "n3"]) == ("n1", "n2", "n3")


def test_options_survive_json() -> None:
    options = WorkerOptions.model_validate(
        {
            "jobs": "4",
            "gpus": "a100:2",
            "time": "04:00:00",
            "signal": "3m",
            "idle": 600,
            "elastic": "0:8",
            "exclude": "n1,n2",
            "setup": "/home/a/env.sh",
            "environment": {"HF_HOME": "/scratch/hf"},
            "sbatch": ["reservation=course", "--exclusive"],
        }
    )
    again = WorkerOptions.model_validate(options.model_dump(mode="json", by_alias=True))
    assert again == options
    assert (again.time_s, again.signal_s, again.idle_s) == (14_400, 180, 600)
    assert again.num_gpus == 2
    assert again.sbatch == {"reservation": "course", "exclusive": ""}


def test_every_option_is_known_by_the_name_that_people_write() -> None:
    assert {"time", "signal", "idle", "array_throttle"} <= set(keys())
    assert not [key for key in keys() if key.endswith("_s")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sbatch": {"gres": "gpu:2"}}, "use gpus"),
        ({"sbatch": {"output": "x.log"}}, "use folder"),
        ({"environment": {"HF_TOKEN": "x"}}, "export it before"),
        ({"environment": {"A B": "x"}}, "no name of a variable"),
        ({"partition": "gpu; rm"}, "one word"),
        ({"time": "2m"}, "raise time or lower signal"),
        ({"jobs": 0}, "greater than or equal to 1"),
    ],
)
def test_what_would_break_a_job_is_refused_with_a_way_out(
    values: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        WorkerOptions.model_validate(values)
