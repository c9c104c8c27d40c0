"""One `saeq serve` (or `saeq run`) of a storm, started again and again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.processes import MARK, Kind, Process, kill_all, marked

ROOT = Path(__file__).parents[2]


class Served:
    """A command that is kept running, with everything that it starts.

    Args:
        name: for messages.
        folder: its output and its temporary files go there.
        environment: added to this process's own.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self._folder = name, folder
        scratch = folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(scratch),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._marks: list[str] = []
        self._ray_folders: set[Path] = set()

    @property
    def output_path(self) -> Path:
        return self._folder / f"{self.name}.txt"

    def output(self, num_characters: int = 3000) -> str:
        """End of what it printed."""
        return self.output_path.read_text(errors="replace")[-num_characters:]

    @property
    def has_started(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, arguments: Sequence[str]) -> None:
        """`saeq` with these arguments, in a session of its own."""
        assert self.poll() is not None or self._process is None, f"{self.name} runs already"
        self._marks.append(uuid.uuid4().hex)
        with open(self.output_path, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._folder,
                env={**self._environment, MARK: self._marks[-1]},
                preexec_fn=_listen_to_ctrl_c,
            )

    def poll(self) -> int | None:
        """Exit code; None while it runs, and before it was started."""
        return self._process.poll() if self._process is not None else None

    def processes(self, kind: Kind | None = None) -> list[Process]:
        """What the newest start of it runs now."""
        found = marked(self._marks[-1]) if self._marks else []
        self._ray_folders.update(p.ray_folder for p in found if p.ray_folder is not None)
        return [process for process in found if kind is None or process.kind == kind]

    def kill(self) -> None:
        """As the out-of-memory killer would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_everything(self) -> int:
        """The machine is switched off: nobody is left to say so. How many processes it took."""
        found = self.processes()
        for process in found:
            process.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        return len(found)

    def stop(self, within_s: float) -> int | None:
        """SIGTERM; the exit code, or None (and killed) when it took longer."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def leftovers(self, within_s: float) -> list[Process]:
        """What outlives all its starts by that long."""
        deadline = time.monotonic() + within_s
        while True:
            left = [process for mark in self._marks for process in marked(mark)]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)

    def clear(self) -> None:
        """Kill whatever is left and remove its Ray's folders."""
        self.processes()
        for mark in self._marks:
            kill_all(mark)
        if self._process is not None:
            self._process.wait()
        for folder in self._ray_folders:
            shutil.rmtree(folder, ignore_errors=True)


def _listen_to_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would what is started from one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
