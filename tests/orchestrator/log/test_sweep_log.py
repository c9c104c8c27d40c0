"""Reading and appending: nothing lost, nothing twice, nothing half, and fast enough."""

from __future__ import annotations

import logging
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.log.events import (
    AnyEvent,
    Checkpointed,
    Finished,
    Leased,
    Reported,
    Started,
    Suggested,
    finite,
    parse_event,
)
from orchestrator.log.sweep_log import (
    SEGMENT_BYTES,
    LogReader,
    LogWriter,
    SweepLog,
    refresh_all,
)
from orchestrator.store import Store, StoreError
from orchestrator.store.folder import FolderBackend

NUM_TRIALS = 2000
NUM_REPORTS = 25
REPLAY_LIMIT_S = 5.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def leased(number: int) -> Leased:
    return Leased(trial=f"t{number:04d}", epoch=1)


def key_of(store: Store, writer: LogWriter) -> str:
    return store.layout.segment("s", writer.id)


def test_what_writers_append_is_read_once_in_their_order(store: Store) -> None:
    reader, writers = LogReader(store, "s"), [LogWriter(store, "s") for _ in range(3)]
    assert reader.poll() == []
    appended: list[AnyEvent] = []
    for turn in range(9):
        appended += writers[turn % 3].append(leased(turn), leased(turn + 100))
    read = reader.poll()
    assert sorted(read, key=str) == sorted(appended, key=str)
    for writer in writers:
        assert [event.seq for event in read if event.writer == writer.id] == list(range(1, 7))
    assert reader.poll() == []
    writers[0].append(leased(7))
    assert [event.seq for event in reader.poll()] == [7]


def test_events_are_stamped_with_writer_number_and_clock(store: Store) -> None:
    writer = LogWriter(store, "s", role="supervisor", clock=lambda: 12.3456)
    (event,) = writer.append(leased(1))
    assert event.writer == writer.id and writer.id.startswith("supervisor-")
    assert (event.seq, event.at) == (1, 12.346)
    assert LogReader(store, "s").poll() == [event]


def test_a_torn_last_line_waits_for_its_rest(store: Store) -> None:
    reader, writer = LogReader(store, "s"), LogWriter(store, "s")
    writer.append(leased(1))
    line = leased(2).model_copy(update={"writer": "w", "seq": 2}).model_dump_json().encode()
    store.backend.append(key_of(store, writer), line[:20])
    assert len(reader.poll()) == 1
    assert reader.poll() == []
    store.backend.append(key_of(store, writer), line[20:])
    assert reader.poll() == []
    store.backend.append(key_of(store, writer), b"\n")
    assert [event.seq for event in reader.poll()] == [2]


@pytest.mark.parametrize(
    "damage", [b"not json", b"\xff\x00\xfe", b'{"event": "unheard of"}', b"[]", b"\x00" * 40]
)
def test_a_damaged_line_is_skipped_with_a_warning_and_hides_nothing(
    store: Store, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    writer = LogWriter(store, "s")
    writer.append(leased(1))
    store.backend.append(key_of(store, writer), damage + b"\n")
    writer.append(leased(2))
    with caplog.at_level(logging.WARNING):
        read = LogReader(store, "s").poll()
    assert [event.seq for event in read] == [1, 2]
    assert "skipped a line that is no event" in caplog.text and writer.id in caplog.text


def test_a_newer_version_may_add_fields_to_an_event() -> None:
    event = parse_event(b'{"event": "leased", "trial": "t1", "epoch": 2, "mood": "good"}')
    assert event == Leased(trial="t1", epoch=2)


def test_what_is_not_finite_is_none_in_the_log(store: Store) -> None:
    metrics = finite({"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 0.5})
    assert metrics == {"a": None, "b": None, "c": None, "d": 0.5}
    writer = LogWriter(store, "s")
    writer.append(Reported(trial="t", tokens=1, metrics=metrics))
    (read,) = LogReader(store, "s").poll()
    assert isinstance(read, Reported) and dict(read.metrics) == metrics


def test_a_log_opened_for_reading_cannot_be_written(store: Store) -> None:
    with pytest.raises(RuntimeError, match="opened for reading only"):
        SweepLog(store, "s").append(leased(1))


def test_what_is_appended_is_in_the_state_at_once_and_not_twice_after_a_refresh(
    store: Store,
) -> None:
    log = SweepLog(store, "s", LogWriter(store, "s"))
    other = SweepLog(store, "s")
    log.append(leased(1))
    assert log.state.counts == {"running": 1}
    assert log.refresh().trials == other.refresh().trials


class FullDisk(FolderBackend):
    """Refuses appends while it is full, having written the first line of them."""

    is_full = False

    def append(self, key: str, data: bytes) -> None:
        if not self.is_full:
            return super().append(key, data)
        super().append(key, data[: data.index(b"\n") + 1] + b'{"torn')
        raise StoreError("the disk is full")


def test_after_a_failed_append_nothing_more_is_lost_or_mixed_up(tmp_path: Path) -> None:
    backend = FullDisk(tmp_path)
    store = Store(backend, "test")
    reader, writer = LogReader(store, "s"), LogWriter(store, "s")
    writer.append(leased(1))
    backend.is_full = True
    with pytest.raises(StoreError, match="full"):
        writer.append(leased(2), leased(3))
    read = reader.poll()
    backend.is_full = False
    writer.append(leased(4))
    read += reader.poll()
    assert [event.seq for event in read] == [1, 2, 4]
    assert {event.writer for event in read} == {writer.id}


class Rewriting(FolderBackend):
    """Appends as S3 does, and remembers what was read from where."""

    append_rewrites = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[tuple[str, int]] = []

    def get(self, key: str, offset: int = 0) -> bytes:
        self.read.append((key, offset))
        return super().get(key, offset)


def test_where_appends_rewrite_a_writer_goes_on_in_small_segments(tmp_path: Path) -> None:
    backend = Rewriting(tmp_path)
    store = Store(backend, "test")
    reader, writer = LogReader(store, "s"), LogWriter(store, "s")
    appended: list[AnyEvent] = []
    while len(list(backend.entries("sweeps/s/log/"))) < 3:
        appended += writer.append(*(leased(number) for number in range(100)))
    sizes = [entry.num_bytes for entry in backend.entries("sweeps/s/log/")]
    assert max(sizes) <= SEGMENT_BYTES
    assert [event.seq for event in reader.poll()] == [event.seq for event in appended]
    big = [leased(number) for number in range(3 * SEGMENT_BYTES // 100)]
    assert len(writer.append(*big)) == len(reader.poll()), "more at once than fits stays together"


def test_a_reader_asks_only_for_what_grew_and_only_for_its_new_end(tmp_path: Path) -> None:
    backend = Rewriting(tmp_path)
    store = Store(backend, "test")
    reader, writers = LogReader(store, "s"), [LogWriter(store, "s") for _ in range(3)]
    for writer in writers:
        writer.append(leased(1))
    reader.poll()
    size = len(backend.get(key_of(store, writers[1])))
    backend.read.clear()
    assert reader.poll() == [] and backend.read == []
    writers[1].append(leased(2))
    assert len(reader.poll()) == 1
    assert backend.read == [(key_of(store, writers[1]), size)]


def test_several_sweeps_are_refreshed_side_by_side(tmp_path: Path) -> None:
    store = Store(Rewriting(tmp_path), "test")
    store.backend.reads_at_once = 4
    logs = [SweepLog(store, f"s{number}") for number in range(9)]
    for log in logs:
        LogWriter(store, log.sweep).append(leased(1))
    refresh_all(logs)
    assert [list(log.state.trials) for log in logs] == [["t0001"]] * 9
    refresh_all([])


def write_many(root: Path, num: int, done: Any) -> None:
    writer = LogWriter(Store.open(str(root)), "s")
    for number in range(num):
        writer.append(leased(number))
    done.put(writer.id)


def test_a_reader_beside_writing_processes_sees_every_event_once(
    store: Store, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    processes = [context.Process(target=write_many, args=(tmp_path, 150, done)) for _ in range(3)]
    for process in processes:
        process.start()
    reader = LogReader(store, "s")
    read: list[AnyEvent] = []
    deadline = time.monotonic() + 60
    while len(read) < 450 and time.monotonic() < deadline:
        read += reader.poll()
    for process in processes:
        process.join()
    assert len({(event.writer, event.seq) for event in read}) == len(read) == 450
    for writer in {done.get(timeout=10) for _ in processes}:
        assert [e.seq for e in read if e.writer == writer] == list(range(1, 151))


def fill(store: Store) -> None:
    """A sweep of 2,000 trials with 25 reports each, over four drivers."""
    names = ("fvu", "explained_variance", "l0", "dead_fraction", "mse", "cosine", "loss")
    writers = [LogWriter(store, "s") for _ in range(4)]
    by_writer: list[list[Any]] = [[] for _ in writers]
    for number in range(NUM_TRIALS):
        trial = f"t{number:04d}"
        about: dict[str, Any] = {"trial": trial, "epoch": 1}
        config = {"architecture": "topk", "d_sae": 1024, "k": 16, "lr": 1e-3 + number / 1e6}
        events: list[Any] = [
            Suggested(trial=trial, number=number, config=config, total_tokens=50_000),
            Leased(**about),
            Started(**about, node="n1", device="cpu", pack="p1", usd_per_hour=1.0),
        ]
        for turn in range(1, NUM_REPORTS + 1):
            metrics = dict.fromkeys(names, 0.123456789 / turn)
            at = {"pack": "p1", "pid": 1, "members": 4, "lm_tokens_per_second": 1234.5}
            place: dict[str, Any] = {**about, "tokens": 2000 * turn}
            rung = 2000 * turn if turn in (3, 9) else None
            events.append(
                Reported(**place, metrics=metrics, rung=rung, stratum="k=16", at_place=at)
            )
            events.append(Checkpointed(**place))
        events.append(Finished(**about, artefact=trial, metrics=metrics, tokens=50_000))
        by_writer[number % len(writers)] += events
    for writer, written in zip(writers, by_writer, strict=True):
        writer.append(*written)


def test_two_thousand_trials_are_replayed_in_under_five_seconds(store: Store) -> None:
    fill(store)
    log = SweepLog(store, "s")
    before = time.process_time()
    state = log.refresh()
    spent_s = time.process_time() - before
    assert state.counts == {"finished": NUM_TRIALS}
    assert len(state.trials["t1999"].history) == NUM_REPORTS
    assert len(state.rung(6000, "k=16")) == NUM_TRIALS
    assert spent_s < REPLAY_LIMIT_S
