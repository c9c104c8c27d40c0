"""moto's EC2 behind a front that hears every request, and in which zones can be sold out."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.orchestrator.store.servers import ACCESS_KEY, SECRET_KEY, moto_server

Answer = tuple[int, bytes, dict[str, str]]

REGION = "us-east-1"
OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "transfer-encoding", "date", "server"}
)
SOLD_OUT = """<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>InsufficientInstanceCapacity</Code>
<Message>We currently do not have sufficient capacity in the Availability Zone you requested.
</Message></Error></Errors><RequestID>of-a-test</RequestID></Response>"""


@dataclass
class Ec2:
    """What the tests and Ray's provider talk to."""

    endpoint: str
    zone_of_subnet: dict[str, str] = field(default_factory=dict)
    sold_out: set[str] = field(default_factory=set)
    """Zones in which nothing can be started."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """Every request, as EC2 and IAM get them: Action and its flattened parameters."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take this for AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str = "ec2") -> Any:
        """A plain boto3 client."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
        )

    def asked(self, action: str) -> list[dict[str, str]]:
        """Every request of one kind so far."""
        return [request for request in self.requests if request.get("Action") == action]

    def zones_tried(self) -> list[str]:
        """Zones in which machines were asked for, in that order."""
        return [self.zone_of_subnet[request["SubnetId"]] for request in self.asked("RunInstances")]


@contextmanager
def fake_ec2() -> Iterator[Ec2]:
    """EC2, IAM and S3 with a default VPC, a subnet a zone, and nothing in them."""
    with moto_server() as moto:
        ec2 = Ec2("")
        server = ThreadingHTTPServer(("127.0.0.1", 0), _front(ec2, moto.endpoint))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        ec2.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        subnets = ec2.client().describe_subnets()["Subnets"]
        ec2.zone_of_subnet = {s["SubnetId"]: s["AvailabilityZone"] for s in subnets}
        ec2.requests.clear()
        try:
            yield ec2
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _front(ec2: Ec2, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            ec2.requests.append(request)
            zone = ec2.zone_of_subnet.get(request.get("SubnetId", ""))
            if request.get("Action") == "RunInstances" and zone in ec2.sold_out:
                self._answer(500, SOLD_OUT.encode(), {"Content-Type": "text/xml"})
            else:
                self._answer(*_ask(upstream + self.path, self.command, dict(self.headers), body))

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass_on

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in OF_THE_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    return Front


def _ask(url: str, method: str, headers: dict[str, str], body: bytes) -> Answer:
    """Not by urllib: it adds a Content-Type of its own, and moto believes it."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        path = f"{place.path}?{place.query}" if place.query else place.path
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    finally:
        connection.close()
