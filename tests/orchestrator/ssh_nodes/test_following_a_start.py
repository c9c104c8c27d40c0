"""A start as it is told: by the host's files, by the store, and by what is missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.nodes.records import NodeSide, read_side, write_side
from orchestrator.nodes.stages import WITHIN_S, Mark
from orchestrator.ssh_nodes import start_watch
from orchestrator.ssh_nodes.connection import Answer, SshConnection
from orchestrator.ssh_nodes.down import DownOptions, take_down
from orchestrator.ssh_nodes.inventory import (
    SshNode,
    UnknownNode,
    node_table,
    resolve,
    ssh_nodes,
)
from orchestrator.ssh_nodes.ssh_faults import ConnectionLost
from orchestrator.ssh_nodes.start_watch import Seen, StartFailed, StartWatch
from orchestrator.ssh_nodes.starter_record import StarterRecord
from orchestrator.ssh_nodes.target import SshTarget
from orchestrator.store import Store

NOW = 1_795_000_000.0
LABELS = {"ssh-target": "root@box", "ssh-port": "2222", "saeq-usd-per-hour": "1.5"}


class ToldHost(SshConnection):
    """A host whose looks were written down; the last one is seen again and again."""

    def __init__(self, looks: Sequence[str], on_look: Callable[[int], None] | None = None) -> None:
        super().__init__(SshTarget.parse("root@box"))
        self._looks, self._on_look, self._num = list(looks), on_look, 0

    def run(self, script: str, arguments: Sequence[str] = (), *, within_s: float = 60.0) -> Answer:
        del arguments, within_s
        if "tail -n" in script and "stages" not in script:
            return Answer(0, "the last line of the log, with hush-hush in it\n", "")
        look = self._looks[min(self._num, len(self._looks) - 1)]
        if self._on_look is not None:
            self._on_look(self._num)
        self._num += 1
        if look == "cut":
            raise ConnectionLost("box", "the connection was lost", "what runs there goes on")
        return Answer(0, look, "")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watch, "LOOK_EVERY_S", 0.0)


def look(*stages: str, **words: str) -> str:
    lines = [f"now {NOW + 100}", *(f"stage {NOW + i} box {s}" for i, s in enumerate(stages))]
    return "\n".join([*lines, *(f"{word} {value}".rstrip() for word, value in words.items())])


def watching(store: Store, host: ToldHost, said: list[str]) -> tuple[StartWatch, StarterRecord]:
    record = StarterRecord(
        store, "box", "box", LABELS, lambda text: text.replace("hush-hush", "<KEY>")
    )
    record.mark("asked")
    watch = StartWatch(host, store, record, "~/.saeq", say=said.append, began=time.monotonic())
    return watch, record


def itself(*stages: str, state: str, since: float = NOW + 50, **facts: object) -> NodeSide:
    marks = tuple(Mark(stage, since) for stage in stages)  # type: ignore[arg-type]
    side = NodeSide(id="box", kind="ssh", marks=marks, state=state, since=since, beat=3)
    return side.model_copy(update=facts)


def test_stages_come_from_the_host_and_then_from_the_node_itself(store: Store) -> None:
    said: list[str] = []
    both = look("script saeq 1", "environment Python 3.11", starting="yes", serving="yes")

    def on_look(number: int) -> None:
        if number == 2:
            write_side(
                store, "self", itself("environment", "probe", "ray", "lease", state="serving")
            )

    host = ToldHost([look("script saeq 1", starting="yes"), "cut", both], on_look)
    watch, _ = watching(store, host, said)
    watch.follow()
    words = ["script started", "goes on there", "environment ready", "device probed", "Ray up"]
    assert [any(word in line for line in said) for word in words] == [True] * 5
    assert "first lease" in said[-1]
    starter = read_side(store, "box", "starter")
    assert starter is not None
    assert [mark.stage for mark in starter.marks] == ["asked", "script", "environment"]
    assert abs(starter.marks[-1].at - time.time()) < 200, "by this machine's clock"


def test_what_an_earlier_start_left_does_not_count_and_an_idle_node_is_enough(
    store: Store,
) -> None:
    write_side(store, "self", itself("probe", "ray", "lease", state="serving", since=NOW - 9))
    up = look("script", "environment", serving="yes")

    def on_look(number: int) -> None:
        if number == 3:
            write_side(store, "self", itself("probe", state="idle"))

    said: list[str] = []
    watch, _ = watching(store, ToldHost([up], on_look), said)
    watch.follow()
    assert watch.rests
    assert not any("first lease" in line for line in said)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (look("script", failure="environment pip said no: hush-hush"), "pip said no: <KEY>"),
        (look("script", "environment", serving="yes", deaths="3 2"), "ended 3 times"),
        (look("script"), "it was killed, or the machine restarted"),
    ],
)
def test_a_start_that_failed_says_where_and_shows_the_log(
    store: Store, told: str, words: str
) -> None:
    watch, _ = watching(store, ToldHost([told]), [])
    with pytest.raises(StartFailed) as failed:
        watch.follow()
    message = str(failed.value)
    assert words in message
    assert "the last line of the log, with <KEY> in it" in message
    assert "goes on where it stopped" in message
    starter = read_side(store, "box", "starter")
    assert starter is not None
    assert starter.failure is not None
    assert "hush" not in starter.model_dump_json()


def test_a_deadline_that_passes_is_a_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_watch, "WITHIN_S", {**WITHIN_S, "environment": 0.05})
    watch, _ = watching(store, ToldHost([look("script", starting="yes")]), [])
    with pytest.raises(StartFailed, match="environment ready: not within 0 s"):
        watch.follow()


def test_a_serve_whose_time_is_over_is_no_failure(store: Store) -> None:
    write_side(store, "self", itself("probe", "ended", state="draining"))
    watch, _ = watching(store, ToldHost([look("script", "environment")]), [])
    watch.follow()
    assert watch.has_ended


def test_broken_lines_of_a_host_are_left_out() -> None:
    assert Seen.parse("hello\nstage nonsense\nfailure x y\n").failure == "x y"


def test_a_record_that_is_held_changes_nothing(store: Store) -> None:
    record = StarterRecord(store, "box", "box", LABELS, str, is_held=True)
    record.mark("asked")
    record.fail("allocated", "no", "")
    assert read_side(store, "box", "starter") is None
    record.release()
    assert read_side(store, "box", "starter") is not None


def _brought_up(store: Store, *stages: str, slots: int | None = None) -> SshNode:
    record = StarterRecord(store, "box", "box", LABELS, str)
    for stage in ("asked", *stages):
        record.mark(stage, at=time.time())  # type: ignore[arg-type]
    if slots is not None:
        write_side(store, "self", itself("probe", state="serving", slots=slots))
    (node,) = ssh_nodes(store, with_down=True)
    return node


def test_what_is_known_of_a_node_is_said_in_a_few_words(store: Store) -> None:
    now = time.time()
    assert "since asked for" in _brought_up(store).state(now)
    assert _brought_up(store, slots=2).state(now) == "serving, 2 trials"
    assert _brought_up(store, slots=1).state(now + 300).startswith("silent for ")
    assert _brought_up(store, "ended").state(now) == "down"
    table = "\n".join(line.plain for line in node_table(ssh_nodes(store, with_down=True), now, 100))
    assert "root@box:2222" in table
    assert "$1.50" in table
    assert ssh_nodes(store) == []


def test_cost_counts_from_when_it_was_asked_for_to_when_it_was_taken_down(store: Store) -> None:
    node = _brought_up(store)
    assert node.usd(node.up_since + 7200) == pytest.approx(3.0)
    row = node.to_json(node.up_since + 7200)
    assert row["target"] == "root@box:2222"
    assert row["hours"] == 2.0


def test_a_node_is_found_by_name_and_by_address(store: Store) -> None:
    _brought_up(store)
    name, target = resolve(store, "box", None, None, ())
    assert (name, target.destination, target.port) == ("box", "root@box", 2222)
    assert resolve(store, "root@box", 2222, None, ())[0] == "box"
    assert resolve(store, "root@box", 2223, None, ())[0] == "box-2223"
    with pytest.raises(UnknownNode, match="Did you mean 'box'"):
        resolve(store, "boxx", None, None, ())


def test_a_machine_that_is_gone_leaves_the_list_without_being_asked(store: Store) -> None:
    _brought_up(store, slots=1)
    said: list[str] = []
    target = SshTarget.parse("root@box")
    take_down(store, "box", target, None, DownOptions(gone=True), said.append)
    assert ssh_nodes(store) == []
    assert read_side(store, "box", "self") is None
    assert "nothing was looked at" in said[0]
