"""What the drivers of a sweep printed, read as it grows."""

from __future__ import annotations

from orchestrator.store import KeyMissing, Store


class OutputReader:
    """Follows every file under a sweep's output; each `read` gives only what is new."""

    def __init__(self, store: Store, sweep: str) -> None:
        self._store, self._prefix = store, store.layout.output(sweep)
        self._offset: dict[str, int] = {}
        self._last = ""

    def read(self) -> str:
        """New text, with a headline wherever it goes on with another file."""
        parts: list[str] = []
        for entry in self._store.backend.entries(self._prefix):
            start = self._offset.get(entry.key, 0)
            if entry.num_bytes <= start:
                continue
            try:
                data = self._store.backend.get(entry.key, offset=start)
            except KeyMissing:
                continue
            self._offset[entry.key] = start + len(data)
            if entry.key != self._last:
                parts.append(f"==> {entry.key.removeprefix(self._prefix)} <==\n")
                self._last = entry.key
            parts.append(data.decode("utf-8", errors="replace"))
        return "".join(parts)
