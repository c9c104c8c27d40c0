"""Calls to S3 that are tried again, with jitter, until one is answered or a deadline passes.

One boto3 client a process and endpoint (they are thread-safe and slow to make), made when first
needed. Two kinds: calls that we try again ourselves, since a conditional write has to know whether
an earlier try may have arrived, and transfers, whose parts botocore tries again one by one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from orchestrator.store.backend import StoreError, Unreachable
from orchestrator.store.s3_errors import in_words, is_transient, never_answered, refusal
from orchestrator.store.s3_place import S3Place

T = TypeVar("T")

CONNECT_WITHIN_S = 5.0
READ_WITHIN_S = 15.0
"""Of silence. Longer than any server thinks about one request, and several fit a deadline."""
MISTYPED_WITHIN_S = 10.0
"""Patience while nothing has ever answered: it is rather a wrong name than an outage."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
NUM_THREADS = 16
PART_TRIES = 3

_lock = threading.Lock()
_clients: dict[tuple[Any, ...], Any] = {}
_pools: dict[int, ThreadPoolExecutor] = {}


def pool() -> ThreadPoolExecutor:
    """Threads for requests side by side; one pool a process."""
    with _lock:
        if os.getpid() not in _pools:
            _pools[os.getpid()] = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="saeq-s3")
        return _pools[os.getpid()]


class S3Calls:
    """Asks one place until it answers."""

    def __init__(self, place: S3Place) -> None:
        self.place = place
        self._answered = False

    def client(self) -> Any:
        """For single requests: each call is one try."""
        return _client(self.place, num_tries=1)

    def transfer_client(self) -> Any:
        """For files in parts: each part is tried again by botocore, in its adaptive mode."""
        return _client(self.place, num_tries=PART_TRIES)

    def until_answered(
        self, key: str, act: Callable[[], T], progress: Callable[[], int] = int
    ) -> T:
        """Call `act` until it returns.

        Args:
            key: for the message.
            progress: bytes that ever arrived; while the number grows, the deadline starts anew.

        Raises:
            Unreachable: no answer within the deadline.
            StoreError: a refusal, in words; whatever `act` raises of it passes through.
        """
        errors = _errors_of_the_world(self.place)
        since, furthest, num_tries = time.monotonic(), progress(), 0
        while True:
            try:
                answer = act()
                self._answered = True
                return answer
            except StoreError:
                self._answered = True
                raise
            except errors as error:
                cause = _root(error)
                if not is_transient(cause):
                    raise refusal(cause, self.place, key) from error
                num_tries += 1
                if (now := progress()) > furthest:
                    since, furthest, num_tries = time.monotonic(), now, 1
                self._wait_or_give_up(cause, num_tries, time.monotonic() - since)

    def _wait_or_give_up(self, cause: BaseException, num_tries: int, waited_s: float) -> None:
        limit_s = self.place.deadline_s
        if never_answered(cause) and not self._answered:
            limit_s = min(limit_s, MISTYPED_WITHIN_S)
        # The whole range, so that many who failed together do not come back together.
        wait_s = random.uniform(0.0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**num_tries))
        if waited_s + wait_s >= limit_s:
            raise Unreachable(
                f"the store {self.place.root} does not answer: {in_words(cause)}; tried "
                f"{num_tries} times in {waited_s:.0f} s. See to the network and to the endpoint "
                f"({self.place.endpoint_url or 'AWS'}), then run again"
            ) from cause
        time.sleep(wait_s)


def _errors_of_the_world(place: S3Place) -> tuple[type[Exception], ...]:
    """What may go wrong without a mistake of ours. Raises StoreError where boto3 is missing."""
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from s3transfer.exceptions import RetriesExceededError
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise StoreError(
            f"store {place.root}: S3 needs boto3, which is not installed; pip install 'saeq[s3]'"
        ) from error
    of_libraries = (BotoCoreError, ClientError, Boto3Error, RetriesExceededError)
    return (*of_libraries, ResponseParserError, HTTPError, OSError)


def _root(error: BaseException) -> BaseException:
    """What a transfer manager wrapped."""
    return getattr(error, "last_exception", None) or error


def _client(place: S3Place, num_tries: int) -> Any:
    read_s = min(READ_WITHIN_S, max(place.deadline_s / 3, 0.5))
    who = (os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_PROFILE"))
    wanted = (os.getpid(), place.endpoint_url, place.region, num_tries, read_s, *who)
    with _lock:
        if wanted not in _clients:
            _clients[wanted] = _new_client(place, num_tries, read_s)
        return _clients[wanted]


def _new_client(place: S3Place, num_tries: int, read_s: float) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=min(CONNECT_WITHIN_S, read_s),
        read_timeout=read_s,
        # Adaptive after one SlowDown lets a request out every two seconds: a heartbeat would stop.
        retries={
            "mode": "adaptive" if num_tries > 1 else "standard",
            "total_max_attempts": num_tries,
        },  # fmt: skip
        max_pool_connections=2 * NUM_THREADS,
        tcp_keepalive=True,
        # A bucket is a part of the host's name on AWS; few other servers have such names.
        s3={"addressing_style": "path" if place.endpoint_url else "auto"},
    )
    session = boto3.session.Session()
    return session.client(
        "s3", endpoint_url=place.endpoint_url, region_name=place.region, config=config
    )
