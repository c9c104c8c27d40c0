from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.slurm.folder import BadFolder, UpRecord, all_folders, new_folder, node_of

STAGES = """\
100.0 n1 allocated n1
100.1 n1 script start 1
101.0 n1 failed environment: python cannot run saeq
"""


def test_a_name_that_is_taken_gets_a_number_and_folders_are_private(tmp_path: Path) -> None:
    first, second = new_folder("workers", tmp_path), new_folder("workers", tmp_path)
    assert (first.name, second.name) == ("workers", "workers-2")
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    assert first.jobs_folder.is_dir(), "a job whose output has no folder ends without a word"


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "a" * 70])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadFolder, match="must be letters"):
        new_folder(name, tmp_path)


def test_a_place_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadFolder, match="give --folder"):
        new_folder("workers", tmp_path / "file")


def test_the_record_survives_and_folders_are_found_again(tmp_path: Path) -> None:
    folder = new_folder("workers", tmp_path)
    assert folder.record() is None
    record = UpRecord(name="workers", store="/s", options={"jobs": 2}, submitted=("12",))
    folder.write_record(record)
    assert folder.record() == record
    assert [found.name for found in all_folders(tmp_path)] == ["workers"]
    assert all_folders(tmp_path / "none") == []


def test_the_script_is_kept_with_a_copy_of_the_setup(tmp_path: Path) -> None:
    folder, setup = new_folder("workers", tmp_path), tmp_path / "env.sh"
    setup.write_text("module load cuda\n")
    folder.write_script("#!/bin/bash\n", setup)
    assert folder.setup.read_text() == "module load cuda\n"
    assert stat.S_IMODE(folder.script.stat().st_mode) == 0o700
    with pytest.raises(BadFolder, match=r"setup=.*none.sh cannot be read"):
        folder.write_script("#!/bin/bash\n", tmp_path / "none.sh")


def test_jobs_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = new_folder("workers", tmp_path)
    for key in ("12_10", "12_9", "7"):
        folder.job(key).path.mkdir()
    assert [job.key for job in folder.jobs()] == ["7", "12_9", "12_10"]
    assert folder.job("12_9").node == node_of("12_9") == "slurm-12_9"
    assert folder.output_pattern(is_array=True).name == "%A_%a.log"
    assert folder.job("7").output_log == folder.jobs_folder / "7.log"


def test_a_failure_is_of_the_last_start_alone(tmp_path: Path) -> None:
    job = new_folder("workers", tmp_path).job("7")
    assert (job.marks(), job.failure(), job.tail()) == ([], None, "")
    job.path.mkdir()
    job.output_log.write_text("sourcing\nno such module\n")
    job.stages.write_text(STAGES)
    failure = job.failure()
    assert failure is not None
    assert (failure.stage, failure.why, failure.at) == (
        "environment", "python cannot run saeq", 101.0,
    )  # fmt: skip
    assert failure.tail == "sourcing\nno such module"
    job.stages.write_text(STAGES + "200.0 n2 allocated n2\n200.1 n2 script start 2\n")
    assert job.failure() is None
    assert [mark.stage for mark in job.marks()] == ["allocated", "script"]


def test_a_failure_in_no_stage_is_of_the_next_one(tmp_path: Path) -> None:
    job = new_folder("workers", tmp_path).job("7")
    job.path.mkdir()
    job.stages.write_text("1.0 n1 allocated\n1.1 n1 environment\n2.0 n1 failed serve: code 1\n")
    failure = job.failure()
    assert failure is not None
    assert (failure.stage, failure.why) == ("probe", "code 1")
