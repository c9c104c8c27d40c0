"""Files to and from S3, in parts side by side, begun again until they are whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.store.backend import KeyMissing
from orchestrator.store.s3_calls import S3Calls
from orchestrator.store.s3_errors import MISSING, code_of

PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 4


def transfer(calls: S3Calls, key: str, begin: Callable[[Any, Any], Any]) -> None:
    """Call `begin(transfer_manager, subscriber)` and wait for its future, until one succeeds.

    The deadline counts from when the transfer last came further than ever: a big file may take
    as long as it takes, and one whose connection is always cut at the same place ends.
    """
    furthest = _Furthest()

    def act() -> None:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager
        from botocore.exceptions import ClientError

        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
            preferred_transfer_client="classic",
        )
        try:
            with create_transfer_manager(calls.transfer_client(), config) as manager:
                begin(manager, furthest.watch()).result()
        except ClientError as error:
            if code_of(error) in MISSING:
                raise KeyMissing(key) from error
            raise

    calls.until_answered(key, act, lambda: furthest.num_bytes)


class _Furthest:
    """How far the best of several tries of a transfer came."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def watch(self) -> Any:
        """A subscriber for one try."""
        from s3transfer.subscribers import BaseSubscriber

        furthest = self

        class Watch(BaseSubscriber):
            moved = 0

            def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
                del future
                self.moved += bytes_transferred  # negative where a part is sent again
                furthest.num_bytes = max(furthest.num_bytes, self.moved)

        return Watch()
