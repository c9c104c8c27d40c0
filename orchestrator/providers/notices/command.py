"""Any other provider: a shell command that prints when this machine goes, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from orchestrator.providers.notices.base import Notice, NoticeSource, NoticesUnavailable

TIMEOUT_S = 10.0
SMALLEST_UNIX_TIME = 1e9
"""Numbers below are seconds from now: no machine is announced to go in thirty years."""


class CommandNotices(NoticeSource):
    """Runs the command each time; only its first line counts.

    Nothing: no notice. A number: seconds from now, or a unix time. Else an ISO time, which without
    an offset is this machine's local time. A failing command could not be asked.
    """

    name = "command"
    takes = "CMD"

    def __init__(
        self,
        argument: str,
        wall: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(argument)
        self._wall, self._timeout_s = wall, timeout_s

    def poll(self) -> Notice | None:
        said = self._run().strip()
        if not said:
            return None
        left_s = seconds_left(said.splitlines()[0].strip(), self._wall())
        return Notice("terminate", max(left_s, 0.0), "notice of the command", self.name)

    def _run(self) -> str:
        process = subprocess.Popen(
            self.argument,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, complaint = process.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise NoticesUnavailable(
                f"the notice command did not end within {self._timeout_s:g} s: {self.argument}"
            ) from error
        if process.returncode != 0:
            last = (complaint.strip().splitlines() or [""])[-1]
            raise NoticesUnavailable(
                f"the notice command ended with exit code {process.returncode}"
                f"{f' ({last})' if last else ''}: {self.argument}"
            )
        return output


def seconds_left(text: str, now: float) -> float:
    """Seconds from `now` that a number (seconds, or a unix time) or an ISO time stands for.

    Raises NoticesUnavailable.
    """
    try:
        number = float(text)
    except ValueError:
        number = None
    if number is not None and number == number and abs(number) != float("inf"):
        return number - now if number >= SMALLEST_UNIX_TIME else number
    try:
        return datetime.fromisoformat(text).timestamp() - now
    except (ValueError, OverflowError) as error:
        raise NoticesUnavailable(
            f"the notice command printed {text[:80]!r}; it should print nothing, seconds from now, "
            "a unix time or an ISO time"
        ) from error
