"""Hearing that the own node will go, and giving no trial to an actor there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from orchestrator.trials.recall import Recall
from orchestrator.tune.actor_places import ActorPlaces
from orchestrator.tune.draining import DrainWatch, drain_of


def test_a_node_that_stays_asks_nothing_back() -> None:
    assert drain_of("a", {}, now=0.0) is None
    assert drain_of("a", {"b": 0}, now=0.0) is None


def test_the_reason_says_how_much_time_is_left_if_anybody_knows() -> None:
    assert drain_of("a", {"a": 0}, now=100.0) == Recall("its node is draining", save=True)
    soon = drain_of("a", {"a": 197_400}, now=100.0)
    assert soon == Recall("its node is draining: 97 s are left", save=True)
    late = drain_of("a", {"a": 90_000}, now=100.0)
    assert late is not None and late.reason == "its node is draining: 0 s are left"


def test_the_first_look_is_over_before_anything_begins() -> None:
    watch = DrainWatch("a", look=lambda: {"a": 0}, every_s=600).start()
    assert watch.recall == Recall("its node is draining", save=True)


def test_a_drain_that_comes_later_is_found_also_past_looks_that_fail() -> None:
    answers = iter([{}, RaySystemError("the head is away"), {}, {"a": 0}])

    def look() -> Mapping[str, int]:
        answer: Any = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = DrainWatch("a", look=look, every_s=0.01).start()
    deadline = time.monotonic() + 60
    while watch.recall is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch.stop()


class Actor:
    """Tune's handle of one."""

    def __init__(self) -> None:
        self.on_stop: object = "told"

    def set_on_stop(self, callback: object) -> None:
        self.on_stop = callback

    def set_on_error(self, callback: object) -> None:
        del callback


@pytest.fixture
def controller() -> Any:
    """What of Tune's controller is touched, with its own cache of actors."""
    from ray.tune.utils.object_cache import _ObjectCache

    removed: list[Actor] = []
    return SimpleNamespace(
        _actor_cache=_ObjectCache(),
        _trial_to_actor={},
        _started_actors=set(),
        _remove_actor=lambda tracked_actor: removed.append(tracked_actor),
        removed=removed,
    )


def run(controller: Any, places: ActorPlaces, trial: str, node: str) -> Actor:
    """A trial starts on a node."""
    actor = Actor()
    controller._trial_to_actor[trial] = actor
    controller._started_actors.add(actor)
    places.note(controller, trial, {"kind": "started", "started": {"node_id": node}})
    return actor


def test_idle_actors_of_a_node_that_goes_are_let_go_and_no_others(controller: Any) -> None:
    places = ActorPlaces()
    actors = {name: run(controller, places, name, name[0]) for name in ("a1", "a2", "b1")}
    cache = controller._actor_cache
    cache.increase_max("slot", 3)
    for actor in actors.values():
        cache.cache_object("slot", actor)
    places.drop_cached_on_draining_nodes(controller)
    assert controller.removed == []
    places.note(controller, "a1", {"kind": "preempted", "draining_node": "a"})
    places.drop_cached_on_draining_nodes(controller)
    assert controller.removed == [actors["a1"], actors["a2"]]
    assert actors["a1"].on_stop is None, "no trial is behind it any more"
    assert cache.num_cached_objects == 1
    assert cache.pop_cached_object("slot") is actors["b1"]


def test_an_actor_that_gave_its_trial_back_at_once_is_known_too(controller: Any) -> None:
    places, actor = ActorPlaces(), Actor()
    controller._trial_to_actor["t"] = actor
    controller._started_actors.add(actor)
    places.note(controller, "t", {"kind": "preempted", "draining_node": "a"})
    controller._actor_cache.cache_object("slot", actor)
    places.drop_cached_on_draining_nodes(controller)
    assert controller.removed == [actor]


def test_actors_that_are_gone_are_forgotten(controller: Any) -> None:
    places = ActorPlaces()
    for number in range(50):
        gone = run(controller, places, f"t{number}", "a")
        controller._started_actors.discard(gone)
    assert len(places._node_of) == 1
