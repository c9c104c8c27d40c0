"""What the keeper decides, as a function of what it sees."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.slurm.keeper import (
    MAX_FAILED_STARTS,
    Action,
    Blame,
    Cancel,
    JobMemory,
    Memory,
    Release,
    Rules,
    Say,
    Sight,
    Submit,
    decide,
    has_work,
    is_started,
)
from orchestrator.slurm.sight import Worker
from tests.orchestrator.slurm.invented_jobs import NOW, worker

RULES = Rules()


def seen(*workers: Worker, free: int = 5, now: float = NOW, down: bool = False) -> Sight:
    return Sight(now, workers, free, down)


def of(actions: Sequence[Action], kind: type[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def remembered(key: str = "7", host: str = "", **changes: object) -> Memory:
    return Memory(jobs={key: JobMemory(at=NOW - 100.0, host=host)}).model_copy(update=changes)


def test_each_stage_is_told_once() -> None:
    first, memory = decide(seen(worker(until="script")), Memory(), RULES)
    again, memory = decide(seen(worker(until="script")), memory, RULES)
    later, _ = decide(seen(worker(until="environment")), memory, RULES)

    assert [action.text for action in first if isinstance(action, Say)] == [
        "allocated on n1 after 1s",
        "script started after 2s",
    ]
    assert again == []
    assert [action.text for action in later if isinstance(action, Say)] == [
        "environment ready after 3s"
    ]


def test_a_start_that_misses_its_deadline_is_cancelled_blamed_and_tried_elsewhere() -> None:
    hangs = worker(until="script", at=NOW - 2000.0)

    actions, memory = decide(seen(hangs), Memory(), RULES)

    kinds = [type(action) for action in actions if not isinstance(action, Say)]
    assert kinds == [Cancel, Blame, Submit]
    assert of(actions, Blame) == [Blame("n1", "SLURM job 7: not 'environment ready' within 15m")]
    assert memory.excluded == ("n1",)
    assert decide(seen(hangs), memory, RULES)[0] == [], "once is enough"


def test_a_deadline_that_was_asked_for_counts() -> None:
    rules = Rules(within_s={"environment": None, "script": 1.0})

    slow, _ = decide(seen(worker(until="script", at=NOW - 2000.0)), Memory(), rules)
    late, _ = decide(seen(worker(until="allocated")), Memory(), rules)

    assert of(slow, Cancel) == []
    assert len(of(late, Cancel)) == 1


def test_ray_and_a_lease_are_due_only_while_there_is_work() -> None:
    idle = worker(until="probe", at=NOW - 5000.0)

    without_work, memory = decide(seen(idle, free=0), Memory(), RULES)
    work_came, memory = decide(seen(idle, free=3, now=NOW + 100.0), memory, RULES)
    in_vain, _ = decide(seen(idle, free=3, now=NOW + 500.0), memory, RULES)

    assert of(without_work, Cancel) == of(work_came, Cancel) == []
    assert len(of(in_vain, Cancel)) == 1


def test_a_node_whose_trial_was_paused_before_its_first_report_is_left_alone() -> None:
    paused = worker(until="lease", slots=0, at=NOW - 50_000.0)
    hangs = worker(until="lease", slots=1, at=NOW - 50_000.0)

    assert of(decide(seen(paused), Memory(), RULES)[0], Cancel) == []
    assert len(of(decide(seen(hangs), Memory(), RULES)[0], Cancel)) == 1


def test_three_failed_starts_in_a_row_are_no_fault_of_a_node() -> None:
    memory, submitted = Memory(), 0
    for number in range(1, 6):
        failed = worker(str(number), "FAILED", "script", failed="environment", host=f"n{number}")
        actions, memory = decide(seen(failed), memory, RULES)
        submitted += len(of(actions, Submit))

    assert submitted == MAX_FAILED_STARTS - 1
    assert "it is not one node" in memory.given_up


def test_once_a_job_has_worked_more_failures_are_forgiven() -> None:
    _, memory = decide(seen(worker("1", until="lease", slots=1)), Memory(), RULES)
    for number in range(2, 7):
        failed = worker(str(number), "FAILED", "script", failed="environment", host=f"n{number}")
        actions, memory = decide(seen(failed), memory, RULES)
        assert len(of(actions, Submit)) == 1
    assert memory.given_up == ""


def test_a_job_that_dies_after_it_worked_is_replaced_and_nobody_is_blamed() -> None:
    actions, memory = decide(seen(worker("7", "NODE_FAIL", "report")), Memory(), RULES)

    assert of(actions, Blame) == []
    assert len(of(actions, Submit)) == 1
    assert memory.excluded == ()


def test_a_job_that_was_cancelled_or_ended_by_itself_is_not_replaced() -> None:
    for state in ("CANCELLED", "COMPLETED"):
        actions, memory = decide(seen(worker("7", state, "report")), Memory(), RULES)
        assert of(actions, Submit) == []
        assert memory.jobs["7"].settled


def test_a_time_limit_is_an_end_only_where_jobs_do_not_come_back() -> None:
    by_limit = worker("7", "TIMEOUT", "report")

    assert of(decide(seen(by_limit), Memory(), Rules(requeues=False))[0], Submit) == []
    assert len(of(decide(seen(by_limit), Memory(), Rules(requeues=True))[0], Submit)) == 1


def test_a_launch_that_failed_is_released_once_and_then_replaced() -> None:
    held = worker("7", "PENDING", reason="launch failed requeued held")

    first, memory = decide(seen(held), remembered(host="n1"), RULES)
    second, memory = decide(seen(held), memory, RULES)

    assert of(first, Release) == [Release("7", "n1")]
    assert of(first, Cancel) == []
    assert of(second, Release) == []
    assert [type(a) for a in second if not isinstance(a, Say)] == [Cancel, Blame, Submit]
    assert memory.jobs["7"].settled.startswith("failed")


def test_a_job_held_by_its_owner_is_not_released() -> None:
    actions, _ = decide(seen(worker("7", "PENDING", reason="JobHeldUser")), Memory(), RULES)

    assert [type(action) for action in actions] == [Say]


def test_why_a_job_waits_is_told_once_however_often_it_changes() -> None:
    memory, told = Memory(), 0
    for reason in ("Priority", "Resources", "Priority", "Resources"):
        actions, memory = decide(seen(worker("7", "PENDING", reason=reason)), memory, RULES)
        told += len(actions)
    assert told == 2


def test_a_job_that_squeue_does_not_list_yet_is_waited_for_and_later_reported() -> None:
    gone = worker("7", "GONE", "environment")

    soon, memory = decide(seen(gone), Memory(), RULES)
    later, memory = decide(seen(gone, now=NOW + 120.0), memory, RULES)

    assert soon == []
    (said,) = of(later, Say)
    assert isinstance(said, Say)
    assert "environment ready" in said.text
    assert of(later, Submit) == [], "nobody knows whether somebody cancelled it"
    assert memory.jobs["7"].settled


def test_a_requeued_job_tells_its_stages_anew() -> None:
    _, memory = decide(seen(worker(until="report", slots=1)), Memory(), RULES)
    _, memory = decide(seen(worker("7", "PENDING", reason="BeginTime")), memory, RULES)
    actions, _ = decide(seen(worker(until="script")), memory, RULES)

    assert len(of(actions, Say)) == 2


def test_nothing_is_submitted_while_going_down() -> None:
    failed = worker("7", "FAILED", "script", failed="environment")

    actions, _ = decide(seen(failed, down=True), Memory(), RULES)

    assert of(actions, Submit) == []


# Elastic

ELASTIC = Rules(elastic=(0, 3), slots_guess=2)


def test_jobs_come_for_the_work_that_nobody_holds_up_to_the_most() -> None:
    assert of(decide(seen(free=0), Memory(), ELASTIC)[0], Submit) == []
    for free, wanted in ((1, 1), (3, 2), (100, 3)):
        (submit,) = of(decide(seen(free=free), Memory(), ELASTIC)[0], Submit)
        assert isinstance(submit, Submit)
        assert submit.jobs == wanted


def test_jobs_that_are_coming_count_for_the_work() -> None:
    coming = worker("1", "PENDING", reason="Priority")

    assert of(decide(seen(coming, free=2), Memory(), ELASTIC)[0], Submit) == []
    assert len(of(decide(seen(coming, free=3), Memory(), ELASTIC)[0], Submit)) == 1


def test_slots_of_a_job_are_learned_from_one_that_works() -> None:
    full = worker("1", until="report", slots=4)
    _, memory = decide(seen(full, free=0), Memory(), ELASTIC)
    actions, memory = decide(seen(full, free=8), memory, ELASTIC)

    assert memory.slots_per_job == 4
    assert of(actions, Submit) == [Submit(2, "8 trials wait that nobody holds")]


def test_a_job_with_room_is_given_a_minute_to_take_the_work() -> None:
    with_room = worker("1", until="report", slots=1)
    memory = Memory(slots_per_job=4)

    soon, memory = decide(seen(with_room, free=3), memory, ELASTIC)
    later, _ = decide(seen(with_room, free=3, now=NOW + 90.0), memory, ELASTIC)

    assert of(soon, Submit) == []
    assert len(of(later, Submit)) == 1


def test_waiting_jobs_go_when_the_work_is_gone_and_the_least_stay() -> None:
    waiting = [worker(str(n), "PENDING", reason="Priority") for n in (1, 2, 3)]

    none_left, _ = decide(seen(*waiting, free=0), Memory(), ELASTIC)
    one_stays, _ = decide(seen(*waiting, free=0), Memory(), Rules(elastic=(1, 3)))

    assert [a.key for a in none_left if isinstance(a, Cancel)] == ["1", "2", "3"]
    assert [a.key for a in one_stays if isinstance(a, Cancel)] == ["2", "3"]


def test_a_waiting_job_that_was_cancelled_is_not_reported_as_lost() -> None:
    waiting = worker("1_2", "PENDING", reason="Priority")
    _, memory = decide(seen(waiting, free=0), Memory(), ELASTIC)

    actions, memory = decide(seen(worker("1_2", "GONE"), free=0, now=NOW + 200.0), memory, ELASTIC)

    assert actions == []
    assert memory.jobs["1_2"].settled == "cancelled: no work is left for it"


def test_a_working_job_is_never_cancelled_for_lack_of_work() -> None:
    works = worker("1", until="report", slots=1)

    assert of(decide(seen(works, free=0), Memory(), ELASTIC)[0], Cancel) == []


def test_a_failed_start_is_not_replaced_twice_when_jobs_follow_the_work() -> None:
    failed = worker("7", "FAILED", "script", failed="environment")

    actions, memory = decide(seen(failed, free=2), Memory(), ELASTIC)

    assert of(actions, Submit) == [Submit(1, "2 trials wait that nobody holds")]
    assert memory.excluded == ("n1",)


def test_jobs_that_leave_the_work_lying_are_not_submitted_for_ever() -> None:
    memory, submitted = Memory(), 0
    for number in range(6):
        idle = worker(str(number), "COMPLETED", "probe")
        actions, memory = decide(seen(idle, free=1), memory, ELASTIC)
        submitted += len(of(actions, Submit))

    assert submitted == MAX_FAILED_STARTS - 1
    assert "without taking the work" in memory.given_up


def test_work_that_was_just_taken_still_counts_until_its_holder_can_have_said_so() -> None:
    _, memory = decide(seen(free=4), Memory(), RULES)
    _, memory = decide(seen(free=0, now=NOW + 3.0), memory, RULES)

    assert has_work(memory, NOW + 5.0)
    assert not has_work(memory, NOW + 20.0)


def test_a_job_is_started_when_it_holds_trials_or_there_are_none_to_hold() -> None:
    assert is_started(worker(until="lease", slots=1), has_work=True)
    assert is_started(worker(until="probe", slots=0), has_work=False)
    assert not is_started(worker(until="probe", slots=0), has_work=True)
    assert not is_started(worker(until="environment"), has_work=False)
    assert not is_started(worker("7", "PENDING"), has_work=False)
