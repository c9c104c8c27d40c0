"""Machines over a real ssh: brought up, cut off in the middle, taken down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.log.state import SweepState
from orchestrator.log.sweep_log import SweepLog
from orchestrator.log.sweep_status import is_over, sweep_status
from orchestrator.nodes.records import read_node
from orchestrator.queue import Queue
from orchestrator.spec.sweep import parse_sweep
from orchestrator.ssh_nodes.code_here import PACKAGES
from orchestrator.store import Store
from tests.chaos.verdict import judge
from tests.cluster.ssh_hosts import (
    Rental,
    SshHost,
    reachable_at,
    shared_folder,
    sshd_on_loopback,
    two_rented_hosts,
)
from tests.orchestrator.running import SWEEP
from tests.orchestrator.store.servers import SECRET_KEY, S3Server, free_ports, s3_server
from tests.sae.tiny_model import build_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

LONG_S = 500.0
"""For what takes seconds on a quiet machine."""
ROOT = Path(__file__).parents[2]
ENVIRONMENT = str(Path(sys.executable).parents[1])
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "OMP_NUM_THREADS")


@dataclass
class Lab:
    """Two rented hosts and a store that they and this machine reach."""

    folder: Path
    rental: Rental
    server: S3Server
    url: str
    """The store, as the hosts reach it."""

    def __post_init__(self) -> None:
        """The code as it is now: a node tells whether it was changed between two calls of `up`."""
        self.source.mkdir()
        shutil.copy(ROOT / "pyproject.toml", self.source)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, self.source / package)

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.server.environment, "OMP_NUM_THREADS": "1"}

    @property
    def store(self) -> Store:
        return Store.open(self.url)

    def saeq(self, *arguments: str, within_s: float = LONG_S) -> subprocess.CompletedProcess[str]:
        """The real command, from this machine."""
        return run_saeq(
            *arguments,
            environment={**self.environment, "SAEQ_STORE": self.url},
            cwd=self.source,
            within_s=within_s,
        )

    def up(self, host: SshHost, *more: str) -> subprocess.CompletedProcess[str]:
        """`saeq node up` on a host, with all that the test's environment needs."""
        env = [word for name in KEYS for word in ("--env", name)]
        cache = self.folder / "cache.env"
        cache.write_text(f"SAEQ_CACHE={self.folder / 'cache'}\n")
        return self.saeq(
            "node", "up", f"root@{host.address}", *self.rental.ssh_options, "--name", host.name,
            "--environment", ENVIRONMENT, "--env-file", str(cache), *env, *more,
        )  # fmt: skip

    def down(self, host: SshHost, *more: str) -> subprocess.CompletedProcess[str]:
        return self.saeq("node", "down", host.name, *self.rental.ssh_options, *more)

    def submit(self, **changes: object) -> str:
        """A sweep of a tiny model; its id."""
        values: dict[str, object] = {
            "name": "tiny",
            "model": build_tiny_model(self.folder / "model"),
            "tokens": "400k",
            "lrs": "1.0e-3, 3.0e-3",
            "early_stop": "{scheduler: none}",
            "report": "25k",
            "checkpoint_seconds": 1,
            "members": 2,
        }
        text = SWEEP.format(**{**values, **changes})
        return Queue(self.store).submit(parse_sweep(text), text)[0].id


def run_saeq(
    *arguments: str, environment: Mapping[str, str], cwd: Path = ROOT, within_s: float = LONG_S
) -> subprocess.CompletedProcess[str]:
    """`saeq` as a process of its own; its output for people."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *arguments],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def until(seen: Callable[[], bool], what: str, within_s: float = LONG_S) -> None:
    """Poll for a state."""
    deadline = time.monotonic() + within_s
    while not seen():
        assert time.monotonic() < deadline, f"not seen within {within_s:.0f} s: {what}"
        time.sleep(0.5)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    with ExitStack() as undo:
        folder = undo.enter_context(shared_folder())
        server = undo.enter_context(s3_server())
        rental = undo.enter_context(two_rented_hosts(folder))
        port = undo.enter_context(
            reachable_at(rental.gateway, int(server.endpoint.rpartition(":")[2]))
        )
        url = server.url("rented", f"http://{rental.gateway}:{port}") + "&deadline_s=15"
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield Lab(folder, rental, server, url)


def test_two_nodes_share_a_sweep_and_one_is_cut_off_in_the_middle(lab: Lab) -> None:
    left, right = lab.rental.hosts
    for host in (left, right):
        came = lab.up(host, "--usd-per-hour", "1.49", "--label", "saeq-provider=colleague")
        assert came.returncode == 0, came.stdout + came.stderr + host.log
        for words in ("asked for", "allocated", "script started", "environment ready"):
            assert words in came.stdout
    sweep = lab.submit()
    log = SweepLog(lab.store, sweep)
    until(lambda: _work_on_two_nodes(log.refresh()), "checkpointed trials on both nodes")

    right.cut_off()
    until(lambda: is_over(sweep_status(4, log.refresh())), "the other node finishes everything")
    assert dict(log.state.counts) == {"finished": 4}
    before = _written(lab, sweep)

    right.plug_in()
    until(lambda: _is_idle(lab, right), "the node that was cut off is back and idle")
    listed = lab.saeq("node", "ls")
    assert "left" in listed.stdout
    assert "right" in listed.stdout
    for host in (left, right):
        went = lab.down(host)
        assert went.returncode == 0, went.stdout + went.stderr
        assert "nothing of it runs" in went.stdout
        assert host.commands() == [], "nothing is left running on the host"
        assert not (host.home / ".saeq/node/env").exists(), "the credentials are gone"
    _nothing_stale(before, _written(lab, sweep))
    # A request that was under way when the cable was pulled may arrive once it is in again.
    swept = lab.saeq("gc", "--yes")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    verdict = judge(lab.store, sweep, slack_s=120.0)
    assert verdict.holds, str(verdict)
    assert verdict.counts == {"finished": 4}
    prices = {e.usd_per_hour for t in log.refresh().trials.values() for e in t.epoch_times}
    assert prices == {1.49}


def _work_on_two_nodes(state: SweepState) -> bool:
    running = [trial for trial in state.trials.values() if trial.status == "running"]
    return len({t.holder for t in running}) == 2 and all(t.checkpoint_tokens for t in running)


def _is_idle(lab: Lab, host: SshHost) -> bool:
    record = read_node(lab.store, host.name)
    return (
        record is not None
        and record.is_fresh()
        and record.itself is not None
        and not record.itself.slots
        and not record.itself.sweeps
    )


def _written(lab: Lab, sweep: str) -> dict[str, str]:
    """Every object of trials and artefacts with its tag: what a stale write would change."""
    pages = lab.server.client().get_paginator("list_objects_v2")
    found = {}
    for prefix in (f"rented/sweeps/{sweep}/trials/", "rented/artefacts/"):
        for page in pages.paginate(Bucket=lab.server.bucket, Prefix=prefix):
            found.update({entry["Key"]: entry["ETag"] for entry in page.get("Contents", [])})
    return found


def _nothing_stale(before: dict[str, str], after: dict[str, str]) -> None:
    """A checkpoint may vanish, output may come late; ends, leases and artefacts stay."""
    fixed = {k: v for k, v in before.items() if "/output/" not in k and "/checkpoints/" not in k}
    assert fixed == {k: v for k, v in after.items() if k in fixed}
    new = [key for key in after if key not in before and "/output/" not in key]
    assert not [key for key in new if "/artefacts/" in key or "/end" in key or "/leases/" in key]
    assert not [key for key in new if key.endswith("manifest.json")]


def test_a_node_that_is_up_is_found_so_and_secrets_stay_hidden(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    first = lab.up(host)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "nothing waits for it" in first.stdout
    again = lab.up(host)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "already up" in again.stdout
    other = lab.up(host, "--usd-per-hour", "2")
    assert other.returncode == 2
    assert "--restart" in other.stderr
    assert _mode(host.home / ".saeq/node/env") == 0o600
    assert SECRET_KEY in (host.home / ".saeq/node/env").read_text()
    for command in host.commands():
        assert SECRET_KEY not in command
    assert SECRET_KEY not in first.stdout + again.stdout + other.stderr
    record = read_node(lab.store, host.name)
    assert record is not None
    assert SECRET_KEY not in record.model_dump_json()
    for log in (host.home / ".saeq/node").glob("*.log"):
        assert SECRET_KEY not in log.read_text()
    gone = lab.down(host, "--purge")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert not (host.home / ".saeq").exists()
    assert host.commands() == []


def test_up_looks_on_to_the_first_lease_and_serve_is_started_again_when_it_dies(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    lab.submit(tokens="20M")
    came = lab.up(host)
    assert came.returncode == 0, came.stdout + came.stderr
    assert "Ray up" in came.stdout
    assert "first lease" in came.stdout
    pattern = "orchestrator.cli serve"
    (first,) = _pids(host, pattern)
    host.run("kill", "-9", str(first))
    until(lambda: [p for p in _pids(host, pattern) if p != first] != [], "another serve")
    went = lab.down(host, "--now")
    assert went.returncode == 0, went.stdout + went.stderr
    assert "go on elsewhere" in went.stdout
    assert host.commands() == []


def test_a_machine_that_is_gone_is_taken_off_the_list(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    assert lab.up(host).returncode == 0
    host.switch_off()
    refused = lab.down(host)
    assert refused.returncode == 2
    assert "--gone" in refused.stderr
    assert lab.down(host, "--gone").returncode == 0
    assert "no node" in lab.saeq("node", "ls").stdout


def test_a_store_that_the_host_cannot_reach_is_said_before_anything_is_sent(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    refused = lab.saeq(
        "node", "up", f"root@{host.address}", *lab.rental.ssh_options,
        "--store", lab.server.url("x"), "--environment", ENVIRONMENT,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "means each machine itself" in refused.stderr
    assert not (host.home / ".saeq").exists()


def test_wrong_credentials_are_a_failure_that_says_so(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    wrong = lab.folder / "wrong.env"
    wrong.write_text("AWS_ACCESS_KEY_ID=nobody-knows-me\nAWS_SECRET_ACCESS_KEY=not-a-secret-key\n")
    came = lab.saeq(
        "node", "up", f"root@{host.address}", *lab.rental.ssh_options, "--name", "left",
        "--environment", ENVIRONMENT, "--env-file", str(wrong),
    )  # fmt: skip
    assert came.returncode == 1, came.stdout + came.stderr
    assert "not reached: device probed" in came.stderr
    assert "goes on where it stopped" in came.stderr
    assert "not-a-secret-key" not in came.stderr
    assert "failed before device probed" in lab.saeq("node", "ls").stdout


def test_two_ups_at_once_bring_up_one_node(lab: Lab) -> None:
    host, _ = lab.rental.hosts
    (lab.folder / "cache.env").write_text(f"SAEQ_CACHE={lab.folder / 'cache'}\n")
    arguments = [
        "node", "up", f"root@{host.address}", *lab.rental.ssh_options, "--name", "left",
        "--environment", ENVIRONMENT, "--env-file", str(lab.folder / "cache.env"),
        *(word for name in KEYS for word in ("--env", name)), "--store", lab.url,
    ]  # fmt: skip
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            env=lab.environment,
            cwd=lab.source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=LONG_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(_pids(host, "scripts/serve.sh")) == 1
    assert lab.down(host).returncode == 0


def test_changed_host_keys_wrong_keys_and_closed_ports_say_what_to_do(tmp_path: Path) -> None:
    port, closed = free_ports(2)
    environment = {**os.environ, "SAEQ_STORE": str(tmp_path / "store")}
    with sshd_on_loopback(tmp_path / "sshd", port) as options:
        target = ("node", "up", "root@127.0.0.1", "--dry-run")
        good = run_saeq(*target, *options, "--environment", ENVIRONMENT, environment=environment)
        # This store is a folder, and "the host" has it: it is this machine.
        assert "root" not in good.stderr or "folder that the host does not have" in good.stderr
        known = tmp_path / "sshd/known_hosts"
        host_key = (tmp_path / "sshd/key.pub").read_text().split()[:2]
        known.write_text(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")
        changed = run_saeq(*target, *options, environment=environment)
        assert "ssh-keygen -f" in changed.stderr
        assert f"-R '[127.0.0.1]:{port}'" in changed.stderr
        known.unlink()
        (tmp_path / "sshd/key.pub").write_text("")
        denied = run_saeq(*target, *options, environment=environment)
        assert "does not accept the key" in denied.stderr
        nobody = run_saeq(*target, "--port", str(closed), environment=environment)
        assert "nothing listens on that port" in nobody.stderr
    codes = {changed.returncode, denied.returncode, nobody.returncode}
    assert codes == {2}


def _pids(host: SshHost, part: str) -> list[int]:
    listed = host.run("ps", "-ww", "-eo", "pid=,args=").splitlines()
    rows = (line.split(None, 1) for line in listed)
    return [int(pid) for pid, args in rows if part in args and "tmux" not in args]


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
