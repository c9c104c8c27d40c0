"""Why is nothing happening? What `saeq slurm status` says of situations."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.nodes.stages import Mark
from orchestrator.slurm.folder import SlurmFolder, UpRecord
from orchestrator.slurm.keeper import JobMemory, Memory
from orchestrator.slurm.keeper_post import AlreadyKept, Beat, KeeperPost, read_beat
from orchestrator.slurm.keeping import all_keys
from orchestrator.slurm.next_step import next_step
from orchestrator.slurm.sight import Worker, see
from orchestrator.slurm.status import JobView, QueueView, StatusView, UpView, job_view, look
from orchestrator.slurm.status_page import status_page
from tests.orchestrator.slurm.invented_jobs import NOW, job, worker

KEEPER = Beat(os.getpid(), "login1", time.time(), time.time())


def shown(one: Worker, settled: str = "", *, has_work: bool = True) -> JobView:
    return job_view(one, JobMemory(at=NOW - 100.0, settled=settled), has_work, NOW)


def status_of(
    *jobs: JobView,
    keeper: Beat | None = KEEPER,
    waiting: int = 4,
    running: int = 0,
    elastic: bool = False,
    memory: Memory | None = None,
    down: bool = False,
) -> StatusView:
    up = UpView("w", "/up/w", "/store", jobs, 0, keeper, memory or Memory(), elastic, down)
    queues = {"/store": QueueView("/store", waiting, 0, running)}
    return StatusView([up], (), queues, (), {})


@pytest.mark.parametrize(
    ("one", "has_work", "doing", "why"),
    [
        (worker("7", "PENDING", reason="Priority"), True, "waits", "higher priority"),
        (worker(until="environment"), True, "starts", "device probed: due in"),
        (worker(until="script", at=NOW - 5000.0), True, "late", "environment ready: overdue"),
        (worker(until="probe", slots=0), False, "idle", "no work is left"),
        (worker(until="probe", slots=0, at=NOW - 60.0), True, "starts", "Ray up: due in"),
        (worker(until="lease", slots=2), True, "works", ""),
        (worker(until="report", slots=0), True, "works", ""),
        (worker("7", "COMPLETING", "report"), True, "stops", "cleared up"),
        (worker("7", "COMPLETED", "ended"), True, "ended", "ended by itself"),
        (worker("7", "CANCELLED", "report"), True, "ended", "cancelled"),
        (worker("7", "FAILED", "script", exit_code=2), True, "failed", "exit code 2"),
        (worker("7", "FAILED", "script", failed="environment"), True, "failed", "no such file"),
        (worker("7", "GONE", "environment"), True, "failed", "environment ready"),
        (worker("7", "GONE", "ended"), True, "ended", "ended"),
    ],
)
def test_each_situation_has_its_word_and_its_reason(
    one: Worker, has_work: bool, doing: str, why: str
) -> None:
    view = shown(one, has_work=has_work)

    assert view.doing == doing
    assert why in view.why
    json.dumps(view.to_json(), allow_nan=False)


HOPELESS = shown(worker("7", "PENDING", reason="PartitionTimeLimit"))
WAITS = shown(worker("7", "PENDING", reason="Priority", starts_at=time.time() + 3600.0))
WORKS = shown(worker(until="report", slots=1))
STARTS = shown(worker(until="environment"))
LATE = shown(worker(until="script", at=NOW - 5000.0))
ENDED = shown(worker("7", "COMPLETED", "ended"))
FAILED = shown(worker("7", "FAILED", "script", failed="environment"))


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (StatusView((), (), {}, (), {}), "No jobs were submitted"),
        (StatusView((), (), {}, (), {}, problem="away"), "could not be asked"),
        (status_of(HOPELESS), "lower --time"),
        (status_of(WAITS), "nothing has to be done"),
        (status_of(WAITS), "the first is expected at"),
        (status_of(WORKS, running=1), "saeq watch"),
        (status_of(STARTS), "its keeper acts"),
        (status_of(STARTS, keeper=None), "slurm keep w --detach"),
        (status_of(LATE, keeper=None), "hangs and nobody keeps watch"),
        (status_of(FAILED, keeper=None), "when it is mended"),
        (status_of(WORKS, waiting=0), "queue has no work"),
        (status_of(ENDED, waiting=0), "Nothing is left to do"),
        (status_of(ENDED, keeper=None), "4 trials wait for one: `saeq slurm up`"),
        (status_of(ENDED, elastic=True), "keeper submits a job"),
        (status_of(FAILED, memory=Memory(given_up="3 starts failed")), "Mend what the log above"),
        (status_of(WORKS, down=True), "is going down"),
    ],
)
def test_the_last_sentence_says_what_to_do(view: StatusView, words: str) -> None:
    assert words in next_step(view)
    assert lines_of(view, None)[-1] == f"next: {next_step(view)}"


def lines_of(view: StatusView, width: int | None) -> Sequence[str]:
    return [line.plain for line in status_page(view, width)]


@pytest.mark.parametrize("width", [40, 80, 120, None])
def test_the_table_fits_and_keeps_job_word_and_reason(width: int | None) -> None:
    lines = lines_of(status_of(WAITS, WORKS, STARTS, FAILED), width)

    table = lines[1:6]
    assert all(word in table[0] for word in ("job", "does", "why"))
    if width is not None:
        assert max(map(len, table)) <= width


def test_what_the_node_was_doing_under_an_earlier_start_does_not_count(tmp_path: Path) -> None:
    folder = SlurmFolder(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    old = [Mark("allocated", NOW - 4000.0, "n1"), Mark("script", NOW - 4000.0, "n1", "start 1"),
           Mark("report", NOW - 3000.0, "n1")]  # fmt: skip
    folder.job("7").stages.write_text("".join(f"{mark.to_line()}\n" for mark in old))

    (again,) = see(["7"], {"7": job(host="n2")}, folder, None, NOW)
    (waits,) = see(["7"], {"7": job("7", "PENDING")}, folder, None, NOW)
    (over,) = see(["7"], {}, folder, None, NOW)

    assert again.stage == "allocated"
    assert again.host == "n2"
    assert again.num_starts == 1
    assert waits.stage == "asked"
    assert over.stage == "report", "it is all that is known of it"


def test_the_log_that_tells_of_the_stage_is_the_one_that_is_shown(tmp_path: Path) -> None:
    folder = SlurmFolder(tmp_path)
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    folder.job("7").output_log.write_text("module: command not found\n")
    folder.job("7").serve_log.write_text("of the start before\n")
    stages = [Mark("allocated", NOW - 90.0, "n1"), Mark("script", NOW - 89.0, "n1")]
    folder.job("7").stages.write_text("".join(f"{mark.to_line()}\n" for mark in stages))

    (starts,) = see(["7"], {"7": job()}, folder, None, NOW)
    assert starts.tail() == "module: command not found"

    stages += [Mark("environment", NOW - 80.0), Mark("probe", NOW - 79.0), Mark("ray", NOW - 70.0)]
    folder.job("7").stages.write_text("".join(f"{mark.to_line()}\n" for mark in stages))
    (serves,) = see(["7"], {"7": job()}, folder, None, NOW)
    assert serves.tail() == "of the start before"


def test_an_array_stands_for_its_tasks_once_one_was_seen() -> None:
    assert all_keys(["5", "9"], {}, []) == ["5", "9"]
    assert all_keys(["5", "9"], {"5_1": job("5_1")}, ["5_0"]) == ["5_0", "5_1", "9"]


def test_without_slurm_the_jobs_own_files_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    folder = SlurmFolder(tmp_path / "w")
    folder.jobs_folder.mkdir(parents=True)
    folder.write_record(UpRecord(name="w", store=str(tmp_path / "store"), submitted=("7",)))

    view = look([folder], strays=True)

    assert "login node" in view.problem
    assert [up.name for up in view.ups] == ["w"]
    assert "login node" in lines_of(view, 80)[0]


def test_an_up_has_one_keeper(tmp_path: Path) -> None:
    folder = SlurmFolder(tmp_path)
    other = {**vars(KEEPER), "pid": 1, "host": "elsewhere", "at": time.time()}
    folder.keeper_beat.write_text(json.dumps(other))

    with pytest.raises(AlreadyKept, match="process 1 on elsewhere"), KeeperPost(folder):
        pass

    silent = {**other, "at": time.time() - 1000.0}
    folder.keeper_beat.write_text(json.dumps(silent))
    with KeeperPost(folder) as post:
        post.beat()
        beat = read_beat(folder)
        assert beat is not None
        assert beat.pid == os.getpid()
    assert read_beat(folder) is None
