"""One ssh connection that many commands share: the system's `ssh`, never asking anything."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from orchestrator.ssh_nodes.ssh_faults import ConnectionLost, SshFailed, explained
from orchestrator.ssh_nodes.target import SshTarget

CONNECT_WITHIN_S = 20
SSH_FAILED = 255
QUIET = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_WITHIN_S}",
    "StrictHostKeyChecking=accept-new",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=4",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "RequestTTY=no",
)
"""Never asks; a new host's key is remembered, a changed one is refused; notices a dead line."""


@dataclass(frozen=True)
class Answer:
    """How a command on the host ended."""

    exit_code: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line that it said."""
        lines = (self.errors.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.exit_code}"


class SshConnection(ExitStack):
    """A connection that is opened once (a control master of our own) and closed with the block.

    Raises, on entering, SshFailed: the machine cannot be reached or does not let us in.
    """

    def __init__(self, target: SshTarget) -> None:
        super().__init__()
        self.target = target
        self._socket: Path | None = None
        self._master: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SshConnection:
        super().__enter__()
        if shutil.which("ssh") is None:
            raise SshFailed(str(self.target), "there is no `ssh` here", "install OpenSSH's client")
        # Not below $TMPDIR, which may be too long for a socket's name.
        folder = Path(tempfile.mkdtemp(prefix="saeq-ssh-", dir="/tmp"))
        self.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            self._open(folder)
        except BaseException:
            self.close()
            raise
        return self

    def _open(self, folder: Path) -> None:
        self._socket = folder / "s"
        said = folder / "said"
        with open(said, "wb") as errors:
            self._master = subprocess.Popen(
                [*self._ssh("-M", "-N", "-o", "ControlPersist=no"), self.target.destination],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        self.callback(_end, self._master)
        deadline = time.monotonic() + 2 * CONNECT_WITHIN_S
        while not self._socket.exists():
            if self._master.poll() is not None or time.monotonic() > deadline:
                raise explained(self.target, said.read_text(errors="replace") or "timed out")
            time.sleep(0.02)

    def _ssh(self, *more: str) -> list[str]:
        # The first value of an option counts, so what the user gives comes first.
        quiet = [word for option in QUIET for word in ("-o", option)]
        return ["ssh", *self.target.arguments, *quiet, "-S", str(self._socket), *more]

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        within_s: float = 60.0,
    ) -> Answer:
        """A bash script, over stdin: nothing of it is on a command line, here or there.

        Raises:
            ConnectionLost: the line is dead, or it took longer than that.
        """
        head = "set -- " + " ".join(map(shlex.quote, arguments)) + "\n"
        return self.feed("exec bash -s", (head + script).encode(), within_s=within_s)

    def feed(self, command: str, stdin: bytes, *, within_s: float = 60.0) -> Answer:
        """One command line of the host's shell, fed with bytes. Raises ConnectionLost."""
        line = [*self._ssh("-o", "ControlMaster=no"), self.target.destination, command]
        try:
            done = subprocess.run(
                line, input=stdin, capture_output=True, timeout=within_s, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            self._lost(f"it did not answer within {within_s:.0f} s")
        if done.returncode == SSH_FAILED:
            self._lost(str(explained(self.target, done.stderr.decode(errors="replace")).why))
        output, errors = (out.decode(errors="replace") for out in (done.stdout, done.stderr))
        return Answer(done.returncode, output, errors)

    def _lost(self, why: str) -> NoReturn:
        raise ConnectionLost(
            str(self.target), f"the connection was lost: {why}", "what runs there goes on"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
