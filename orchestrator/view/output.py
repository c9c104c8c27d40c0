"""What the drivers of a sweep printed, and what was printed for its trials, read as it grows."""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable

from orchestrator.store import KeyMissing, Store
from orchestrator.store.backend import Entry

_new_decoder = getincrementaldecoder("utf-8")


class OutputReader:
    """Follows texts in the store; each `read` gives only what is new.

    Args:
        writer: only what this driver printed; else all drivers of the sweep.
    """

    def __init__(self, store: Store, sweep: str, writer: str | None = None) -> None:
        self._store, self._prefix = store, store.layout.output(sweep)
        self._only = f"{self._prefix}{writer}.log" if writer is not None else None
        self._headline: Callable[[str], str] = str
        self._offset: dict[str, int] = {}
        self._decoders: dict[str, IncrementalDecoder] = {}
        self._last = ""

    @classmethod
    def of_trial(
        cls, store: Store, sweep: str, trial: str, epoch: int | None = None
    ) -> OutputReader:
        """What was printed for a trial under all its leases, or under one of them."""
        reader = cls(store, sweep)
        last_part = store.layout.trial_output(sweep, trial, epoch or 0)
        reader._prefix = f"{last_part.rpartition('/')[0]}/"
        reader._only = last_part if epoch is not None else None
        reader._headline = lambda name: f"{trial}, lease {int(name.partition('.')[0])}"
        return reader

    def read(self) -> str:
        """New text, with a headline wherever it goes on with another file."""
        parts: list[str] = []
        for entry in self._store.backend.entries(self._prefix):
            if self._only not in (None, entry.key):
                continue
            text = self._new_text(entry)
            if text and entry.key != self._last:
                name = entry.key.removeprefix(self._prefix)
                parts.append(f"==> {self._headline(name)} <==\n")
                self._last = entry.key
            parts.append(text)
        return "".join(parts)

    def _new_text(self, entry: Entry) -> str:
        start = self._offset.get(entry.key, 0)
        if entry.num_bytes <= start:
            return ""
        try:
            data = self._store.backend.get(entry.key, offset=start)
        except KeyMissing:
            return ""
        self._offset[entry.key] = start + len(data)
        decoder = self._decoders.setdefault(entry.key, _new_decoder("replace"))
        return decoder.decode(data)


def last_lines(text: str, count: int) -> str:
    """The end of a text, in whole lines."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[len(lines) - count :] if count < len(lines) else lines)
