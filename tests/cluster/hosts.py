"""Two hosts on this machine: own processes, own network, own /tmp, /etc and home; sudo is play.

They see this machine's programs and nothing of its processes, so even `ray stop` does no harm.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

HOME = "/home/ubuntu"
SHARED = "/home/shared"
METADATA_AT = "169.254.169.254"
STARTS_WITHIN_S = 60.0
ROOT = Path(__file__).parents[2]
NEEDED = ("unshare", "nsenter", "ip", "mount", "curl")

# pid 1 of the host: lays out its folders, says so, and reaps what its children leave behind.
FIRST = """
set -e
exec 9<"{root}"
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount -t tmpfs none /home
mkdir /home/ubuntu /home/shared
mount --bind "$1/home" /home/ubuntu
mount --bind "$2" /home/shared
mount -t tmpfs none /tmp
# A checkout below /tmp or /home is seen all the same.
[ -e "{root}" ] || { mkdir -p "{root}"; mount --no-canonicalize --bind /proc/self/fd/9 "{root}"; }
exec 9<&-
ip link set lo up
ip address add 169.254.169.254/32 dev lo
touch /home/ubuntu/.is-up
while :; do sleep 1; done
""".replace("{root}", str(ROOT))
SUDO = '#!/bin/sh\nexec "$@"\n'
SYSTEMCTL = f'#!/bin/sh\necho "$@" >> {HOME}/systemctl.log\n'


class Host:
    """One of them, as Ray's cluster launcher would meet it over ssh."""

    def __init__(self, name: str, address: str, folder: Path, process: subprocess.Popen[bytes]):
        self.name, self.address, self._folder, self._process = name, address, folder, process

    @property
    def home(self) -> Path:
        """Its home, seen from here."""
        return self._folder / "home"

    @property
    def metadata(self) -> Path:
        """What its metadata server serves."""
        return self.home / "metadata"

    def run(
        self, command: str, environment: Mapping[str, str] | None = None, within_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the shell that Ray runs its commands in; it may fail."""
        exports = "".join(f"export {k}={shlex.quote(v)};" for k, v in (environment or {}).items())
        quiet = "export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore"
        shell = f"cd; source ~/.bashrc; {quiet} && ({exports}{command})"
        return subprocess.run(
            self._inside("bash", "--login", "-c", "-i", shell),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def must_run(self, command: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a command that has to succeed; what it printed."""
        answer = self.run(command, environment)
        assert answer.returncode == 0, f"{self.name}: {command}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def spawn(self, *command: str) -> None:
        """Start what stays; it ends with the host."""
        subprocess.Popen(
            self._inside(*command),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _inside(self, *command: str) -> list[str]:
        apart = ["--pid", "--mount", "--net", "--uts"]
        return ["nsenter", "--target", str(self.pid), *apart, *command]

    @property
    def pid(self) -> int:
        """Of its first process, as this machine counts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(children.read_text().split()[0])

    def end(self) -> None:
        """With its first process all others end."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except (IndexError, OSError, ValueError):
            self._process.kill()
        self._process.wait()


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Hosts at 10.77.0.1 and 10.77.0.2, with metadata servers; skips where that cannot be had.

    `folder`/shared is /home/shared on both: what a store in S3 would be.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"hosts of one's own need root and {', '.join(NEEDED)}")
    with ExitStack() as undo:
        hosts = []
        (folder / "shared").mkdir()
        for name, address in (("first", "10.77.0.1"), ("second", "10.77.0.2")):
            hosts.append(_host(name, address, folder / name))
            undo.callback(hosts[-1].end)
        for host in hosts:
            _wait(host)
        _connect(*hosts)
        for host in hosts:
            program = str(Path(__file__).with_name("imds.py"))
            served = f"{HOME}/metadata"
            host.spawn(sys.executable, program, METADATA_AT, "80", served)
            host.must_run(f"curl -s --retry 50 --retry-connrefused http://{METADATA_AT}/")
        yield hosts[0], hosts[1]


def _host(name: str, address: str, folder: Path) -> Host:
    home = folder / "home"
    (home / "metadata").mkdir(parents=True)
    (home / "bin").mkdir()
    for program, text in (("sudo", SUDO), ("systemctl", SYSTEMCTL)):
        (home / "bin" / program).write_text(text)
        (home / "bin" / program).chmod(0o755)
    (home / ".bashrc").write_text("export PATH=$HOME/bin:$PATH\n")
    apart = ["--pid", "--mount", "--net", "--uts", "--fork", "--mount-proc", "--kill-child"]
    process = subprocess.Popen(
        [
            "unshare",
            *apart,
            "bash",
            "-c",
            FIRST,
            "host",
            str(folder),
            str(folder.parent / "shared"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return Host(name, address, folder, process)


def _wait(host: Host) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not (host.home / ".is-up").exists():
        if host._process.poll() is not None:
            assert host._process.stderr is not None
            pytest.skip(f"no hosts of one's own here: {host._process.stderr.read().decode()}")
        assert time.monotonic() < deadline, f"{host.name} did not come up"
        time.sleep(0.05)


def _connect(first: Host, second: Host) -> None:
    names = [f"sq{os.getpid()}a", f"sq{os.getpid()}b"]
    _call("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
    for host, name in zip((first, second), names, strict=True):
        _call("ip", "link", "set", name, "netns", str(host.pid), "name", "eth0")
        _call(*host._inside("ip", "address", "add", f"{host.address}/24", "dev", "eth0"))
        _call(*host._inside("ip", "link", "set", "eth0", "up"))
        _call(*host._inside("ip", "route", "add", "default", "dev", "eth0"))


def _call(*command: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{shlex.join(command)}: {answer.stderr}"


def _environment() -> dict[str, str]:
    path: Sequence[str] = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin")
    return {"HOME": HOME, "USER": "root", "PATH": ":".join(path), "LANG": "C.UTF-8"}
