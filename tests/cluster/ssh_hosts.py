"""Rented machines on this machine: own processes, network, /tmp, /etc and home; ssh leads there.

They hang on one bridge; this machine is on it, too, with a store that both reach. What they share
with it: its programs and packages, its cores, and its clock.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("unshare", "nsenter", "ip", "mount", "ssh", "ssh-keygen")
SSHD = "/usr/sbin/sshd"
STARTS_WITHIN_S = 60.0
HOME = "/home/rented"

# pid 1 of the host: lays out its folders, starts sshd once its network is there, and stays.
FIRST = """
set -e
exec 9<"{root}"
cp -a /etc "$1/etc"
sed -i 's#^root:.*#root:x:0:0:root:/home/rented:/bin/bash#' "$1/etc/passwd"
mount --bind "$1/etc" /etc
mount -t tmpfs none /home
mkdir /home/rented
mount --bind "$1/home" /home/rented
mount -t tmpfs none /tmp
# A checkout below /tmp or /home is seen all the same.
[ -e "{root}" ] || { mkdir -p "{root}"; mount --no-canonicalize --bind /proc/self/fd/9 "{root}"; }
exec 9<&-
mkdir -p /run/sshd
hostname "$2"
ip link set lo up
touch /home/rented/.is-up
while ! ip address show dev eth0 2>/dev/null | grep -q 'inet '; do sleep 0.1; done
exec {sshd} -D -e -f "$1/sshd_config"
""".replace("{sshd}", SSHD).replace("{root}", str(ROOT))

SSHD_CONFIG = """
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
SetEnv PATH={path}
"""


@dataclass
class SshHost:
    """One machine, as whoever rents it sees it."""

    name: str
    address: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    link: str
    """This machine's end of its cable."""

    @property
    def home(self) -> Path:
        """Its home, seen from here."""
        return self.folder / "home"

    @property
    def log(self) -> str:
        """What its sshd said."""
        return (self.folder / "sshd.txt").read_text(errors="replace")

    def cut_off(self) -> None:
        """Pull the cable: nothing of it is told, nothing ends."""
        _call("ip", "link", "set", self.link, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        _call("ip", "link", "set", self.link, "up")

    def switch_off(self) -> None:
        """Take the machine away: with its first process all others end."""
        with suppress(IndexError, OSError, ValueError):
            os.kill(first_process(self.process), signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def commands(self) -> list[str]:
        """Command lines of all that runs there, its own first process and sshd left out."""
        own = ("sshd", SSHD, "ps -ww", "bash -c")
        return [
            line
            for line in self.run("ps", "-ww", "-eo", "args=").splitlines()
            if not line.startswith(own)
        ]

    def run(self, *command: str) -> str:
        """A command there, past ssh; what it printed."""
        return subprocess.run(
            [*inside(self.process), *command], capture_output=True, text=True, check=True
        ).stdout


@dataclass(frozen=True)
class Rental:
    """Two hosts, the key that opens them, and where this machine is for them."""

    hosts: tuple[SshHost, SshHost]
    key: Path
    known_hosts: Path
    gateway: str

    @property
    def ssh_options(self) -> list[str]:
        """For `saeq node`, to leave this user's own keys and known hosts alone."""
        return [
            "--identity",
            str(self.key),
            "--ssh-option",
            f"UserKnownHostsFile={self.known_hosts}",
        ]


@contextmanager
def two_rented_hosts(folder: Path) -> Iterator[Rental]:
    """Whatever runs on them ends with the block. Skips where such hosts cannot be had."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not Path(SSHD).exists():
        pytest.skip(f"hosts of one's own need root, sshd and {', '.join(NEEDED)}")
    net = 1 + os.getpid() % 250
    gateway, bridge = f"10.78.{net}.1", f"sq{os.getpid()}"
    key = folder / "key"
    _new_key(key)
    with ExitStack() as undo:
        _call("ip", "link", "add", bridge, "type", "bridge")
        undo.callback(_call, "ip", "link", "delete", bridge)
        _call("ip", "address", "add", f"{gateway}/24", "dev", bridge)
        _call("ip", "link", "set", bridge, "up")
        hosts = []
        for number, name in enumerate(("left", "right"), 2):
            host = _host(name, f"10.78.{net}.{number}", folder / name, key, f"{bridge}{name[0]}")
            undo.callback(host.switch_off)
            _plug_in(host, bridge, gateway)
            hosts.append(host)
        for host in hosts:
            _wait_for_ssh(host)
        yield Rental((hosts[0], hosts[1]), key, folder / "known_hosts", gateway)


@contextmanager
def reachable_at(address: str, port: int) -> Iterator[int]:
    """A port of another address of this machine that leads to one on its loopback."""
    with socket.create_server((address, 0)) as server:
        threading.Thread(target=_accept, args=(server, port), daemon=True).start()
        yield int(server.getsockname()[1])


@contextmanager
def sshd_on_loopback(folder: Path, port: int) -> Iterator[list[str]]:
    """An sshd on this machine, with a key of its own; yields options for `saeq node`."""
    if os.geteuid() != 0 or not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip("needs root, sshd and ssh")
    folder.mkdir(parents=True)
    _new_key(folder / "host_key")
    _new_key(folder / "key")
    _write_config(folder, "127.0.0.1", port, folder / "key")
    Path("/run/sshd").mkdir(exist_ok=True)
    with open(folder / "sshd.txt", "wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while "listening" not in (folder / "sshd.txt").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        known = f"UserKnownHostsFile={folder / 'known_hosts'}"
        key = str(folder / "key")
        yield ["--port", str(port), "--identity", key, "--ssh-option", known]
    finally:
        process.terminate()
        process.wait()


def _host(name: str, address: str, folder: Path, key: Path, link: str) -> SshHost:
    (folder / "home").mkdir(parents=True)
    _new_key(folder / "host_key")
    port = 22
    _write_config(folder, address, port, key)
    apart = ["--pid", "--mount", "--net", "--uts", "--fork", "--mount-proc", "--kill-child"]
    command = ["unshare", *apart, "bash", "-c", FIRST, "host", str(folder), name]
    with open(folder / "sshd.txt", "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
        )
    host = SshHost(name, address, port, folder, process, link)
    _wait_until(lambda: (host.home / ".is-up").exists(), host)
    return host


def _plug_in(host: SshHost, bridge: str, gateway: str) -> None:
    _call("ip", "link", "add", host.link, "type", "veth", "peer", "name", f"{host.link}p")
    _call("ip", "link", "set", host.link, "master", bridge)
    _call("ip", "link", "set", host.link, "up")
    pid = str(first_process(host.process))
    _call("ip", "link", "set", f"{host.link}p", "netns", pid, "name", "eth0")
    # Up first: its first process takes an address for the sign that the network is there.
    for words in (
        ["link", "set", "eth0", "up"],
        ["address", "add", f"{host.address}/24", "dev", "eth0"],
        ["route", "add", "default", "via", gateway],
    ):
        _call(*inside(host.process), "ip", *words)


def first_process(unshare: subprocess.Popen[bytes]) -> int:
    """Pid of a host's first process, as this machine counts."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    return int(children.read_text().split()[0])


def inside(unshare: subprocess.Popen[bytes]) -> list[str]:
    """What to put in front of a command to run it on the host."""
    pid = str(first_process(unshare))
    return ["nsenter", "--target", pid, "--pid", "--mount", "--net", "--uts"]


def _wait_for_ssh(host: SshHost) -> None:
    def answers() -> bool:
        with suppress(OSError), socket.create_connection((host.address, host.port), 1):
            return True
        return False

    _wait_until(answers, host)


def _wait_until(seen: Callable[[], bool], host: SshHost) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not seen():
        if host.process.poll() is not None:
            pytest.skip(f"no hosts of one's own here: {host.log[-300:]}")
        assert time.monotonic() < deadline, f"{host.name} did not come up: {host.log[-2000:]}"
        time.sleep(0.05)


def _write_config(folder: Path, address: str, port: int, key: Path) -> None:
    (folder / "sshd_config").write_text(
        SSHD_CONFIG.format(
            address=address, port=port, folder=folder, key=key, path=os.environ["PATH"]
        )
    )


def _new_key(path: Path) -> None:
    _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))


def _accept(server: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return  # closed
        try:
            upstream = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            continue
        for one, other in ((client, upstream), (upstream, client)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _call(*command: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{' '.join(command)}: {answer.stderr}"


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that all hosts see: /tmp is each one's own."""
    folder = Path(tempfile.mkdtemp(prefix="saeq-rented-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
