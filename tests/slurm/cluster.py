"""A real SLURM of two nodes on this machine: munged, slurmctld, two slurmd, all in one folder.

By hand, until Ctrl-C: `python -m tests.slurm.cluster`, then paste the exports that it prints.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.slurm.daemons import processes_below

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
NODES = ("n1", "n2")
CPUS_PER_NODE = 8
GPUS_PER_NODE = 2
UP_WITHIN_S = 90.0
"""It takes 3 s on a quiet machine."""

CONFIG = """
ClusterName=saeq
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for as long as its old credentials may still be good: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_delay_s}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=60
MessageTimeout=20
KillWait={kill_wait_s}
MinJobAge={forget_jobs_after_s}
UnkillableStepTimeout=60
SlurmdParameters=config_overrides
Prolog={folder}/prolog.sh
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} {size}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} {size}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=1-00:00:00 PriorityTier=1 \
PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=urgent Nodes=n1,n2 MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=n1,n2 MaxTime=00:02:00 PriorityTier=1 PreemptMode=OFF
"""


class SlurmCluster:
    """One SLURM; nothing on the machine knows of it but through `environment`.

    Args:
        folder: for sockets too, so its path has to be short.
        requeue_delay_s: a requeued job waits so long (`BeginTime`); SLURM ignores less than 5.
        grace_s: from the SIGTERM of a preemption to its SIGKILL.
        kill_wait_s: the same at a time limit and for `scancel`.
        forget_jobs_after_s: `scontrol` knows an ended job for so long.
    """

    nodes = NODES

    def __init__(
        self,
        folder: Path,
        requeue_delay_s: int = 5,
        grace_s: int = 20,
        kill_wait_s: int = 15,
        forget_jobs_after_s: int = 30,
    ) -> None:
        self.folder = folder
        self._values = {
            "requeue_delay_s": requeue_delay_s,
            "grace_s": grace_s,
            "kill_wait_s": kill_wait_s,
            "forget_jobs_after_s": forget_jobs_after_s,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._cleared: set[str] = set()

    @property
    def config_file(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to talk to this SLURM and no other."""
        return {"SLURM_CONF": str(self.config_file)}

    def start(self) -> None:
        """Up and both nodes idle; raises AssertionError with the daemons' logs otherwise."""
        for attempt in range(3):  # somebody may take a port between our look and the bind
            self._write_files()
            self._launch()
            if self._is_up() or attempt == 2:
                break
            self.stop()
        if not self._is_up(within_s=1.0):
            logs = self.logs()
            self.stop()
            raise AssertionError(f"SLURM did not come up in {UP_WITHIN_S:.0f} s\n{logs}")

    def stop(self) -> None:
        """Everything that it started is gone, jobs included."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def run(self, *command: str, check: bool = True) -> str:
        """A SLURM command as a user would give it; its stdout."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60.0,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of each job since `clear` that is listed, by id: PENDING, RUNNING, ..."""
        text = self.run("squeue", "-a", "-r", "-h", "-t", "all", "-o", "%i|%T|%r")
        rows = [line.split("|", 2) for line in text.splitlines()]
        # A submission that was refused is listed, too.
        taken = [row for row in rows if row[1:] != ["FAILED", "BadConstraints"]]
        return {job: state for job, state, _ in taken if job not in self._cleared}

    def clear(self) -> None:
        """Cancel every job, put the nodes back to work, wait until all of it is idle."""
        self.run("scancel", "--quiet", "--user=root", check=False)
        for node in NODES:
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        if not self._wait(self._is_idle, 30.0):
            self.run("scancel", "--quiet", "--signal=KILL", "--full", "--user=root", check=False)
            assert self._wait(self._is_idle, 60.0), self.run("squeue", "-a") + self.logs()
        self._cleared |= set(self.states())

    @contextmanager
    def failing_prolog(self, node: str) -> Iterator[None]:
        """Until the end of the block jobs cannot be launched there; SLURM drains it then."""
        flag = self.folder / f"fails-{node}"
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    def processes_of_jobs(self) -> list[str]:
        """Command lines of all that jobs have running, whoever their parents are now."""
        if self._process is None:
            return []
        lines = []
        for pid in processes_below(self._process.pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            name = Path(line.split(" ", 1)[0]).name if line else ""
            if name and name not in ("munged", "slurmctld", "slurmd", "slurmctld:"):
                lines.append(line.strip())
        return lines

    def logs(self, num_lines: int = 30) -> str:
        """The end of each daemon's log."""
        parts = []
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-num_lines:]
            parts.append("\n".join([f"--- {log.name}", *lines]))
        return "\n".join(parts)

    def _write_files(self) -> None:
        for name in ("state", "spool-n1", "spool-n2", "gpu"):
            (self.folder / name).mkdir(exist_ok=True)
        ports = dict(zip(("controller_port", "n1_port", "n2_port"), _free_ports(3), strict=True))
        text = CONFIG.format(
            folder=self.folder,
            host=socket.gethostname().partition(".")[0],
            size=f"CPUS={CPUS_PER_NODE} RealMemory=8000 Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN",
            **ports,
            **self._values,
        )
        self.config_file.write_text(text)
        lines = []
        for node in NODES:
            for device in range(GPUS_PER_NODE):
                _make_device(self.folder / "gpu" / f"{node}-{device}")
            files = f"{self.folder}/gpu/{node}-[0-{GPUS_PER_NODE - 1}]"
            lines.append(f"NodeName={node} Name=gpu File={files}\n")
        (self.folder / "gres.conf").write_text("".join(lines))
        prolog = self.folder / "prolog.sh"
        prolog.write_text(f'#!/bin/sh\n[ ! -e "{self.folder}/fails-$SLURMD_NODENAME" ]\n')
        prolog.chmod(0o755)
        # With a cgroup.conf of the system's, or none, some versions refuse to start.
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        key = self.folder / "munge.key"
        if not key.exists():
            subprocess.run([_path("mungekey"), "--create", f"--keyfile={key}"], check=True)

    def _launch(self) -> None:
        commands = [self._munged(), [_path("slurmctld"), "-D", "-f", str(self.config_file)]]
        commands += [[_path("slurmd"), "-D", "-N", n, "-f", str(self.config_file)] for n in NODES]
        with open(self.folder / "daemons.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.slurm.daemons", str(self.folder)]
                + [json.dumps(command) for command in commands],
                cwd=Path(__file__).parents[2],
                env={**_clean_environment(), **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _munged(self) -> list[str]:
        folder = self.folder
        return [
            _path("munged"),
            "--foreground",
            "--force",
            f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
            "--num-threads=2",
        ]

    def _is_up(self, within_s: float = UP_WITHIN_S) -> bool:
        return self._wait(self._is_idle, within_s)

    def _is_idle(self) -> bool:
        """No job anywhere, every node idle."""
        nodes = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False).split("\n")
        jobs = self.run("squeue", "-a", "-h", check=False).strip()
        return not jobs and {"n1 idle", "n2 idle"} <= set(nodes)

    def _wait(self, seen: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            if seen():
                return True
            time.sleep(0.1)
        return False


def why_not_here() -> str:
    """Why a SLURM cannot be started on this machine; empty where it can."""
    missing = [name for name in PROGRAMS if _found(name) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine (Debian: apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "starting a SLURM needs root"
    return ""


@contextmanager
def running_cluster(**settings: int) -> Iterator[SlurmCluster]:
    """A SLURM until the end of the block, in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="saeq-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = SlurmCluster(folder, **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_device(path: Path) -> None:
    """Another name of /dev/null: SLURM hands out character devices only."""
    if path.exists():
        return
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # in some containers; jobs then get GPUs without CUDA_VISIBLE_DEVICES
        path.touch()


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _path(program: str) -> str:
    found = _found(program)
    assert found is not None, program
    return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _clean_environment() -> dict[str, str]:
    """Daemons pass theirs on to nobody, but a SLURM around this one must not confuse them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}


def main() -> None:
    """Print the exports and stay up until Ctrl-C."""
    why = why_not_here()
    if why:
        sys.exit(why)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_cluster() as cluster:
        lines = [f"export {name}={value}" for name, value in cluster.environment.items()]
        sys.stdout.write("\n".join([*lines, "# up; Ctrl-C ends it and all its jobs", ""]))
        sys.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
