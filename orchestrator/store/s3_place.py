"""Where an S3 store is: `s3://bucket/prefix?endpoint_url=...`, as text that opens it anywhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from orchestrator.store.backend import StoreError

DEADLINE_S = 60.0
ENDPOINT_VARIABLES = ("SAEQ_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
SETTINGS = ("deadline_s", "endpoint_url", "region")


@dataclass(frozen=True)
class S3Place:
    """A prefix of a bucket. Holds no credentials: those are found by boto3 wherever it runs."""

    bucket: str
    prefix: str = ""
    """Without a slash at either end; empty for the whole bucket."""
    endpoint_url: str | None = None
    """None for AWS itself."""
    region: str | None = None
    deadline_s: float = DEADLINE_S
    """How long one operation is tried, over all its attempts, before the store is unreachable."""

    @classmethod
    def parse(cls, url: str, environ: Mapping[str, str] = os.environ) -> S3Place:
        """Read a URL; an endpoint that it does not name comes from the environment, if any.

        Raises StoreError for a URL with credentials, without a bucket, or with unknown settings.
        """
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise StoreError(
                "the store's URL names a user or a password, which would end up in logs; put them "
                "into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials"
            )
        if not parts.netloc:
            raise StoreError(f"store {url!r} names no bucket; write s3://BUCKET/PREFIX")
        prefix = parts.path.strip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise StoreError(f"store {url!r}: its prefix is not a plain path; write a/b/c")
        settings = _settings(url, parts.query)
        from_environment = (environ[name] for name in ENDPOINT_VARIABLES if environ.get(name))
        endpoint_url = settings.get("endpoint_url") or next(from_environment, None)
        _check_endpoint(endpoint_url)
        return cls(
            bucket=parts.netloc,
            prefix=prefix,
            endpoint_url=endpoint_url.rstrip("/") if endpoint_url else None,
            region=settings.get("region"),
            deadline_s=_seconds(settings.get("deadline_s")),
        )

    @property
    def root(self) -> str:
        """What a person opens, without the settings: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def url(self) -> str:
        """Opens the same store in any process on any node that has credentials."""
        settings = {"endpoint_url": self.endpoint_url, "region": self.region}
        if self.deadline_s != DEADLINE_S:
            settings["deadline_s"] = f"{self.deadline_s:g}"
        given = {name: value for name, value in settings.items() if value}
        query = urlencode(given, safe=":/", quote_via=quote)
        return f"{self.root}?{query}" if query else self.root

    def key(self, key: str) -> str:
        """Name of an object in the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key


def _settings(url: str, query: str) -> dict[str, str]:
    found = {name: values[-1] for name, values in parse_qs(query).items()}
    unknown = sorted(set(found) - set(SETTINGS))
    if unknown:
        raise StoreError(
            f"store {url!r}: {', '.join(unknown)} is unknown; known settings: {', '.join(SETTINGS)}"
        )
    return found


def _check_endpoint(endpoint_url: str | None) -> None:
    if endpoint_url is None:
        return
    try:
        parts = urlsplit(endpoint_url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise StoreError(f"endpoint_url {endpoint_url!r} is no URL; write http://HOST:PORT")
    if "@" in parts.netloc:
        raise StoreError(
            "endpoint_url names a user or a password, which would end up in logs; put them into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _seconds(text: str | None) -> float:
    if text is None:
        return DEADLINE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise StoreError(f"deadline_s={text} is no number of seconds from 0.1 to 3600")
    return seconds
