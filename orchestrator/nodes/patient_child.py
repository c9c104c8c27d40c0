"""A child process that may hang in a driver, where not even SIGKILL reaches it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

POLL_S = 0.02
GOODBYE_S = 2.0


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    exit_code: int | None
    """None: it did not end in time, and was killed if it could be."""
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line that it said, of the errors if there are any."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else ""


def answer_within(command: Sequence[str], within_s: float) -> Answer:
    """Run a command; never waits longer than that and two seconds.

    Its output goes into files: a process that cannot be killed would keep a pipe open for ever.

    Raises:
        OSError: it cannot be started.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
        try:
            exit_code = _poll(process, within_s)
        finally:
            _kill(process)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Answer(exit_code, *texts)


def _poll(process: subprocess.Popen[bytes], within_s: float) -> int | None:
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if _poll(process, GOODBYE_S) is None:
        process.returncode = -signal.SIGKILL  # else its end would be warned of, or waited for
