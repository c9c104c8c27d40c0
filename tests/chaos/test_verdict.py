"""The verdict finds each promise that is broken, and nothing in a sweep that is sound."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.log.events import DriverStarted, Reported, Started, Suggested
from tests.chaos.invented_store import (
    FIRST,
    METRICS,
    SAFE_TOKENS,
    SECOND,
    SWEEP,
    TOTAL_TOKENS,
    InventedStore,
    config_of,
    finished,
    stopped,
)
from tests.chaos.segments import Broken, Damage
from tests.chaos.verdict import Verdict, judge

THIRD = "driver-dddddddddd"


@pytest.fixture
def invented(tmp_path: Path) -> InventedStore:
    return InventedStore(tmp_path)


def verdict_of(invented: InventedStore, damage: Damage | None = None) -> Verdict:
    return judge(invented.store, SWEEP, damage, slack_s=1.0, load_weights=False)


def test_a_sound_sweep_holds_and_says_what_its_kill_cost(invented: InventedStore) -> None:
    verdict = verdict_of(invented)
    assert verdict.broken == ()
    assert verdict.counts == {"finished": 1, "stopped": 1}
    (resume,) = verdict.resumes
    assert (resume.reached_tokens, resume.from_tokens) == (60_000, SAFE_TOKENS)
    assert resume.lost_seconds == pytest.approx(21.0)
    assert "1 finished, 1 stopped; 1 resumes, 21.0 s of training lost" in str(verdict)


# Breaking one promise at a time


def a_line_that_is_no_event(invented: InventedStore) -> None:
    invented.edit_log(FIRST, b'"event":"driver_started"', b'"event":"drivel"')


def a_second_writer(invented: InventedStore) -> None:
    invented.put_lines(FIRST, invented.lines(FIRST) + invented.lines("supervisor-cccccccccc"))


def numbers_out_of_order(invented: InventedStore) -> None:
    first, second, *rest = invented.lines(FIRST)
    invented.put_lines(FIRST, [second, first, *rest])


def a_line_twice(invented: InventedStore) -> None:
    first, *rest = invented.lines(FIRST)
    invented.put_lines(FIRST, [first, first, *rest])


def a_hole_in_a_sequence(invented: InventedStore) -> None:
    invented.put_lines(FIRST, [x for x in invented.lines(FIRST) if b'"checkpointed"' not in x])


def an_epoch_without_a_lease(invented: InventedStore) -> None:
    invented.store.backend.delete(invented.layout.lease(SWEEP, "t0001", 1))


def an_epoch_of_somebody_else(invented: InventedStore) -> None:
    reported = Reported(trial="t0001", epoch=1, tokens=10_000, metrics=METRICS)
    invented.say(FIRST, reported)


def no_end_object(invented: InventedStore) -> None:
    invented.store.backend.delete(invented.layout.end(SWEEP, "t0001"))


def another_end_object(invented: InventedStore) -> None:
    end = finished("t0000", 2, metrics={"fvu": 0.2})
    invented.store.write_json(invented.layout.end(SWEEP, "t0000"), end.model_dump(mode="json"))


def an_end_object_of_nonsense(invented: InventedStore) -> None:
    invented.store.write_json(invented.layout.end(SWEEP, "t0000"), {"event": "over"})


def no_end_in_the_log(invented: InventedStore) -> None:
    invented.put_lines(SECOND, [x for x in invented.lines(SECOND) if b'"stopped"' not in x])


def finished_twice(invented: InventedStore) -> None:
    invented.lease(THIRD, "t0000", 3)
    invented.say(THIRD, finished("t0000", 3, metrics={"fvu": 0.09}))


def stopped_and_finished(invented: InventedStore) -> None:
    invented.lease(THIRD, "t0000", 3)
    invented.say(THIRD, stopped("t0000", 3))


def run_again_after_its_end(invented: InventedStore) -> None:
    invented.lease(THIRD, "t0001", 2)
    invented.say(THIRD, Started(trial="t0001", epoch=2))


def a_checkpoint_left_over(invented: InventedStore) -> None:
    prefix = invented.layout.checkpoint(SWEEP, "t0000", SAFE_TOKENS, 1)
    invented.store.write_json(f"{prefix}manifest.json", {"files": {}})


def a_trial_that_was_never_run(invented: InventedStore) -> None:
    for writer in (FIRST, SECOND):
        lines = [line for line in invented.lines(writer) if b'"t0001"' not in line]
        invented.put_lines(writer, lines)


def another_configuration_than_claimed(invented: InventedStore) -> None:
    invented.edit_log(FIRST, b'"k":8', b'"k":16')


def a_configuration_twice(invented: InventedStore) -> None:
    invented.suggest(THIRD, 2, k=8)


def a_number_twice(invented: InventedStore) -> None:
    claim = {"number": 1, "config": config_of(32)}
    invented.store.create_json(invented.layout.claim(SWEEP, "t0009"), claim)
    event = Suggested(trial="t0009", number=1, config=config_of(32), total_tokens=TOTAL_TOKENS)
    invented.say(THIRD, event)


def a_trial_nobody_claimed(invented: InventedStore) -> None:
    invented.store.backend.delete(invented.layout.claim(SWEEP, "t0001"))


def an_artefact_cut_short(invented: InventedStore) -> None:
    key = invented.layout.artefact("sae", f"{SWEEP}-t0000") + "sae_weights.safetensors"
    invented.store.backend.put(key, b"weigh")


def no_artefact(invented: InventedStore) -> None:
    invented.store.delete_files(invented.layout.artefact("sae", f"{SWEEP}-t0000"))


def a_record_of_another_trial(invented: InventedStore) -> None:
    invented.register(config=config_of(8))


def a_record_with_other_metrics(invented: InventedStore) -> None:
    """As when a trial was measured twice, and the first artefact stayed."""
    invented.register(metrics={"fvu": 0.2})


def segments_that_do_not_add_up(invented: InventedStore) -> None:
    invented.register(lineage={"segments": [[0, 40], [55, 104]]})


def a_batch_twice(invented: InventedStore) -> None:
    invented.register(lineage={"segments": [[0, 40], [39, 89]]})


def resumed_from_the_start(invented: InventedStore) -> None:
    invented.edit_log(SECOND, b'"tokens":40000', b'"tokens":0')


RULES: dict[Callable[[InventedStore], None], str] = {
    a_line_that_is_no_event: "a whole line of the log is an event",
    a_second_writer: "a log object has one writer",
    numbers_out_of_order: "a writer's numbers grow",
    a_line_twice: "a writer's numbers grow",
    a_hole_in_a_sequence: "no event is lost",
    an_epoch_without_a_lease: "an epoch is taken by its exclusive lease",
    an_epoch_of_somebody_else: "an epoch is taken by its exclusive lease",
    no_end_object: "a trial has exactly one end",
    another_end_object: "a trial has exactly one end",
    an_end_object_of_nonsense: "a trial has exactly one end",
    no_end_in_the_log: "a trial has exactly one end",
    finished_twice: "a trial has exactly one end",
    stopped_and_finished: "a trial has exactly one end",
    run_again_after_its_end: "nothing happens to a trial after its end",
    a_checkpoint_left_over: "an ended trial has no checkpoints",
    a_trial_that_was_never_run: "every trial of a sweep is run",
    another_configuration_than_claimed: "the log has the configuration that was claimed",
    a_configuration_twice: "a configuration is tried once",
    a_number_twice: "a number is one trial's",
    a_trial_nobody_claimed: "a trial is claimed before it is begun",
    an_artefact_cut_short: "a finished artefact verifies",
    no_artefact: "a finished artefact verifies",
    a_record_of_another_trial: "an artefact is what its end says",
    a_record_with_other_metrics: "an artefact is what its end says",
    segments_that_do_not_add_up: "an artefact is what its end says",
    a_batch_twice: "no batch is trained on twice",
    resumed_from_the_start: "a resume goes on from the newest checkpoint",
}


@pytest.mark.parametrize("violate", RULES, ids=lambda violate: violate.__name__)
def test_a_broken_promise_is_found(
    invented: InventedStore, violate: Callable[[InventedStore], None]
) -> None:
    violate(invented)
    verdict = verdict_of(invented)
    assert RULES[violate] in {broken.rule for broken in verdict.broken}, str(verdict)
    assert "BROKEN" in str(verdict)


# What is no fault


def test_a_torn_last_line_of_a_dead_writer_is_legal(invented: InventedStore) -> None:
    invented.put_lines(FIRST, [*invented.lines(FIRST), b'{"writer":"driver-aaaaaaaaaa","se'])
    assert verdict_of(invented).broken == ()


def test_an_end_told_again_by_whoever_found_it_is_legal(invented: InventedStore) -> None:
    invented.lease(THIRD, "t0000", 3)
    invented.say(THIRD, finished("t0000", 3))
    assert verdict_of(invented).broken == ()


def test_a_writer_that_went_on_in_another_object_is_one_writer(invented: InventedStore) -> None:
    lines = invented.lines(SECOND)
    invented.put_lines(SECOND, lines[:5])
    invented.put_lines(f"{SECOND}-2", lines[5:])
    assert verdict_of(invented).broken == ()


def test_events_that_the_store_refused_are_counted_and_excused(invented: InventedStore) -> None:
    a_hole_in_a_sequence(invented)
    verdict = verdict_of(invented, Damage(may_lose_events=True))
    assert verdict.num_lost_events == 1
    assert verdict.broken == ()


def rules_of(verdict: Verdict) -> set[str]:
    return {broken.rule for broken in verdict.broken}


def test_more_than_an_interval_of_lost_work_is_found(invented: InventedStore) -> None:
    a_hole_in_a_sequence(invented)  # the checkpoint that the log knew
    invented.edit_log(SECOND, b'"tokens":40000', b'"tokens":10000')
    verdict = verdict_of(invented, Damage(may_lose_events=True))
    assert rules_of(verdict) == {"a kill costs at most one checkpoint interval"}
    assert [round(resume.lost_seconds, 1) for resume in verdict.resumes] == [51.0]


def test_a_truncated_checkpoint_excuses_one_interval_more(invented: InventedStore) -> None:
    invented.edit_log(SECOND, b'"tokens":40000', b'"tokens":10000')
    cut = Damage(cut_checkpoints=[("t0000", 1062.0)])
    assert verdict_of(invented, cut).broken == ()
    of_another = Damage(cut_checkpoints=[("t0001", 1062.0)])
    assert len(rules_of(verdict_of(invented, of_another))) == 2


def test_time_in_which_a_driver_was_stopped_is_no_lost_work(invented: InventedStore) -> None:
    a_hole_in_a_sequence(invented)
    invented.edit_log(SECOND, b'"tokens":40000', b'"tokens":10000')
    asleep = Damage(may_lose_events=True, stalls=[(1030.0, 1055.0)])
    assert verdict_of(invented, asleep).broken == ()


@pytest.fixture
def living_driver() -> Iterator[int]:
    """A process with the command line of the second driver."""
    command = [sys.executable, "-c", "input()", "--writer", SECOND]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process.pid


def test_a_driver_that_still_lives_is_found(invented: InventedStore, living_driver: int) -> None:
    invented.say(SECOND, DriverStarted(host="here", pid=living_driver))
    deadline = time.monotonic() + 30
    while "no driver is left" not in rules_of(verdict_of(invented)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow  # imports sae_lens
def test_weights_that_do_not_load_are_found(invented: InventedStore) -> None:
    verdict = judge(invented.store, SWEEP, slack_s=1.0)
    (broken,) = verdict.broken
    assert broken.rule == "a finished artefact verifies"
    assert "sae_lens does not load it" in broken.detail


def test_a_broken_promise_is_told_in_one_line() -> None:
    broken = Broken("a trial has exactly one end", "t0003", "it is queued")
    assert str(broken) == "a trial has exactly one end: t0003: it is queued"
