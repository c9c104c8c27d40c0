"""Whether the machine that works the queue off is about to be taken away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.providers.notices import (
    Announcer,
    Notice,
    NoticesUnavailable,
    notice_source,
)

NOTICES_VARIABLE = "SAEQ_NOTICES"
"""Whom `saeq serve` and `saeq run` ask, unless told."""
EVERY_S = 3.0
FIRST_WITHIN_S = 5.0
LEAVE_BEFORE_S = 5.0
"""Gone by so long before the machine is."""
LEAVE_WITHIN_S = 3.0
"""At least, however little is left."""


class NoticeWatch:
    """Polls a source from a thread of its own, for as long as the block lasts."""

    def __init__(self, source: Announcer, every_s: float = EVERY_S) -> None:
        self._source, self._every_s = source, every_s
        self._lock = threading.Lock()
        self._notice: Notice | None = None
        self._at = 0.0
        self._problem = ""
        self._has_looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __enter__(self) -> NoticeWatch:
        """Waits for the first answer: nothing should begin on a machine that goes."""
        self._thread.start()
        self._has_looked.wait(FIRST_WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    @property
    def source(self) -> str:
        """Name of whom it asks."""
        return self._source.name

    @property
    def problem(self) -> str:
        """Why the source could not be asked last; empty when it could."""
        return self._problem

    @property
    def notice(self) -> Notice | None:
        """What was announced last, with the seconds that are left now."""
        with self._lock:
            notice, at = self._notice, self._at
        if notice is None or notice.deadline_s is None:
            return notice
        return replace(notice, deadline_s=max(notice.deadline_s - (time.monotonic() - at), 0.0))

    def due(self) -> Notice | None:
        """The notice, once it is time to leave."""
        notice = self.notice
        return notice if notice is not None and notice.is_due else None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                notice = self._source.poll()
            except NoticesUnavailable as error:  # what was announced before still holds
                self._problem = str(error)
            else:
                with self._lock:
                    self._notice, self._at = notice, time.monotonic()
                self._problem = ""
            self._has_looked.set()
            self._stop.wait(self._every_s)


@contextmanager
def watched_notices(text: str | None, say: Callable[[str], None]) -> Iterator[NoticeWatch | None]:
    """The notices that a person asked for, else those of $SAEQ_NOTICES; None where there are none.

    Args:
        text: as `notice_source` takes it.
        say: told who is asked.

    Raises BadNotices.
    """
    wanted = text if text is not None else os.environ.get(NOTICES_VARIABLE, "none")
    source = notice_source(wanted)
    if source is None:
        if wanted.strip() == "auto":
            say("this is no machine of a cloud that announces its end: no notices")
        yield None
        return
    with NoticeWatch(source) as watch:
        say(f"notices of {source.name} are heeded")
        yield watch


def leave_within_s(notice: Notice | None, at_most_s: float) -> float:
    """How long leaving may take."""
    if notice is None or notice.deadline_s is None:
        return at_most_s
    return min(at_most_s, max(notice.deadline_s - LEAVE_BEFORE_S, LEAVE_WITHIN_S))
