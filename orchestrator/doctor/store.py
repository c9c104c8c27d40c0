"""The store: there, writable, quick, and really able to decide a race."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.doctor.base import Check, Finding
from orchestrator.store import Backend, Store, StoreError, Unreachable
from orchestrator.store.backend import TEMPORARY
from orchestrator.store.folder import FolderBackend
from orchestrator.store.s3 import S3Backend

DEADLINE_S = 8.0
NUM_RACES = 4
NUM_TIMES = 4
SLOW_S = 1.0
"""A lease, a report and a heartbeat are a write or two each."""
CLOCK_OFF_S = 5.0
"""Ages and costs are then off by as much; decisions do not depend on clocks."""
FOLDER_HELP = (
    "two machines could run the same trial: use a file system with locks (NFS 4, Lustre with "
    "-o flock), or an S3 store"
)
S3_HELP = "use a server with conditional writes (AWS, MinIO from 2024-09 on), or a folder"


class StoreCheck(Check):
    """Writes a handful of small objects into a scratch place of it, and removes them."""

    name = "store"
    order = 50
    within_s = 40.0

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        with _scratch(store) as scratch:
            write_s, read_s = _times(scratch)
            yield _reached(store, write_s, read_s)
            yield from _races(scratch, store)
            yield from _clock(scratch)


@contextmanager
def _scratch(store: Store) -> Iterator[Backend]:
    """A place beside the store's own objects, seen by no listing of it, and gone afterwards."""
    backend = store.backend
    if isinstance(backend, S3Backend):
        place = backend.place
        hidden = f"{place.prefix}/doctor-{uuid.uuid4().hex[:12]}".lstrip("/")
        scratch = S3Backend(replace(place, prefix=hidden))
        try:
            yield scratch
        except Unreachable:
            raise  # to ask it to remove something would take as long again
        except BaseException:
            scratch.delete_prefix("")
            raise
        scratch.delete_prefix("")
        return
    assert isinstance(backend, FolderBackend)
    root = backend.root
    parent = next(each for each in (root, *root.parents) if each.is_dir())
    folder = Path(tempfile.mkdtemp(prefix=f".{TEMPORARY}saeq-doctor-", dir=parent))
    try:
        yield type(backend)(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reached(store: Store, write_s: float, read_s: float) -> Finding:
    times = f"a write takes {_ms(write_s)}, a read {_ms(read_s)}"
    where = place_of(store)
    if isinstance(store.backend, FolderBackend) and not store.backend.root.is_dir():
        return Finding("note", f"{where} is not there yet, and can be made; {times}")
    if write_s > SLOW_S:
        way_out = "a store nearer to the machines: same region, or a faster file system"
        return Finding("warning", f"{where} is slow: {times}", way_out)
    return Finding("ok", f"{where} can be written to; {times}")


def place_of(store: Store) -> str:
    """As a person would say it: without the settings of its URL."""
    backend = store.backend
    return backend.place.root if isinstance(backend, S3Backend) else store.url


def _times(scratch: Backend) -> tuple[float, float]:
    """Seconds of a write and of a read, the median of a few; the first pair finds the way."""
    data = b"x" * 1024
    writes, reads = [], []
    for number in range(NUM_TIMES + 1):
        start = time.perf_counter()
        scratch.put(f"times/{number}", data)
        middle = time.perf_counter()
        if scratch.get(f"times/{number}") != data:
            raise ValueError("the store gave back other bytes than were written to it")
        writes.append(middle - start)
        reads.append(time.perf_counter() - middle)
    return statistics.median(writes[1:]), statistics.median(reads[1:])


def _races(scratch: Backend, store: Store) -> Iterable[Finding]:
    """Two writers at once, of whom one has to win: create, and compare-and-swap."""
    way_out = S3_HELP if isinstance(store.backend, S3Backend) else FOLDER_HELP
    created = [_race(scratch, f"create/{n}", scratch.create) for n in _RACES]
    swapped = []
    for number in _RACES:
        key = f"swap/{number}"
        scratch.put(key, b"before")
        version = scratch.get_versioned(key)[1]
        swapped.append(_race(scratch, key, partial(scratch.compare_and_swap, version=version)))
    wrong = [
        f"{what}: of two writers at once {words}"
        for what, outcomes in (("exclusive create", created), ("compare-and-swap", swapped))
        if (words := next((one for one in outcomes if one), ""))
    ]
    for each in wrong:
        yield Finding("fault", each, way_out)
    if not wrong:
        times = f"{2 * NUM_RACES} races"
        yield Finding("ok", f"exclusive create and compare-and-swap: one winner in each of {times}")


_RACES = range(NUM_RACES)


def _race(scratch: Backend, key: str, write: Callable[[str, bytes], bool]) -> str:
    """What was wrong with one race; empty where there was one winner, whose bytes are there."""
    start = threading.Barrier(2)
    won: dict[bytes, bool] = {}
    errors: list[BaseException] = []

    def take_part(who: bytes) -> None:
        try:
            start.wait(timeout=DEADLINE_S)
            won[who] = write(key, who)
        except (StoreError, OSError, RuntimeError) as error:
            errors.append(error)

    writers = [threading.Thread(target=take_part, args=(who,)) for who in (b"one", b"two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    if errors:
        raise errors[0]
    winners = [who for who, has_won in won.items() if has_won]
    if len(winners) != 1:
        return "both won" if winners else "nobody won"
    return "" if scratch.get(key) == winners[0] else "the loser's bytes are there"


def _clock(scratch: Backend) -> Iterable[Finding]:
    off_s = _seconds_ahead(scratch)
    if off_s is None or abs(off_s) < CLOCK_OFF_S:
        if off_s is not None:
            yield Finding("ok", "this machine's clock and the store's agree")
        return
    side = "ahead of" if off_s > 0 else "behind"
    what = f"this machine's clock is {abs(off_s):.0f} s {side} the store's"
    yield Finding("warning", what, "`timedatectl set-ntp true`: ages and costs are off by as much")


def _seconds_ahead(scratch: Backend) -> float | None:
    """This machine's clock less the store's; None where the store does not tell."""
    scratch.put("clock", b"")
    if isinstance(scratch, FolderBackend):
        return time.time() - scratch.path("clock").stat().st_mtime
    at = _time_of(scratch)
    return None if at is None else time.time() - at


def _time_of(scratch: Backend) -> float | None:
    """What the server's answer says the time is; None where it says nothing."""
    assert isinstance(scratch, S3Backend)
    from email.utils import parsedate_to_datetime

    from orchestrator.store.s3_calls import S3Calls

    calls = S3Calls(scratch.place)
    answer = calls.until_answered(
        "clock",
        lambda: calls.client().head_object(
            Bucket=scratch.place.bucket, Key=scratch.place.key("clock")
        ),
    )
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return None if date is None else parsedate_to_datetime(date).timestamp()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 else f"{seconds * 1000:.1f} ms"
