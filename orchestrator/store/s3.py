"""A bucket as a store: AWS S3, or any server that speaks its protocol and has conditional writes.

Exclusive create is a PUT with If-None-Match, compare-and-swap one with If-Match. Each such write
leaves its own random number in the object's metadata, before those of the writes it was made upon:
a writer whose answer was lost finds there whether it had won.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from orchestrator.store.backend import (
    TEMPORARY,
    Backend,
    Entry,
    KeyMissing,
    LeftOver,
    StoreError,
    check_key,
)
from orchestrator.store.s3_calls import NUM_THREADS, S3Calls, pool
from orchestrator.store.s3_errors import LOST_RACE, MISSING, PAST_THE_END, code_of
from orchestrator.store.s3_place import S3Place
from orchestrator.store.s3_transfer import transfer

NONCES = "saeq-nonces"
NUM_NONCES = 16
"""How many writes may pass a lost answer by before its writer cannot tell any more."""
DELETED_AT_ONCE = 1000
"""The most that one DeleteObjects takes."""
NUM_APPENDED = 64
"""Objects that are grown and kept in memory; the one grown longest ago is read again."""


@dataclass(frozen=True)
class _Version:
    """An object's ETag, and the numbers of the conditional writes that led to it."""

    etag: str
    nonces: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> _Version:
        nonces = answer.get("Metadata", {}).get(NONCES, "")
        return cls(answer["ETag"], tuple(nonces.split(",")) if nonces else ())

    @classmethod
    def parse(cls, text: str) -> _Version:
        etag, _, nonces = text.partition(" ")
        return cls(etag, tuple(nonces.split(",")) if nonces else ())

    def __str__(self) -> str:
        return f"{self.etag} {','.join(self.nonces)}"


class S3Backend(Backend):
    """Keys are objects below a prefix of a bucket. Pickles; a client is made where it is needed."""

    append_rewrites = True
    reads_at_once = NUM_THREADS

    def __init__(self, place: S3Place) -> None:
        self.place = place
        self._set_up()

    def _set_up(self) -> None:
        self._calls = S3Calls(self.place)
        self._appended: OrderedDict[str, tuple[bytes, _Version]] = OrderedDict()
        self._append_lock = threading.Lock()

    def __getstate__(self) -> S3Place:
        return self.place

    def __setstate__(self, place: S3Place) -> None:
        self.place = place
        self._set_up()

    # Reading

    def get(self, key: str, offset: int = 0) -> bytes:
        wanted = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            return self._read(key, wanted)[0]
        except _PastTheEnd:
            return b""

    def get_many(self, offset_by_key: Mapping[str, int]) -> dict[str, bytes]:
        if len(offset_by_key) < 2:
            return super().get_many(offset_by_key)
        found = pool().map(lambda item: super(S3Backend, self).get_many(dict([item])),
                           offset_by_key.items())  # fmt: skip
        return {key: data for one in found for key, data in one.items()}

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        data, version = self._read(key, {})
        return data, str(version)

    def exists(self, key: str) -> bool:
        try:
            self._head(key)
        except KeyMissing:
            return False
        return True

    def _read(self, key: str, wanted: Mapping[str, str]) -> tuple[bytes, _Version]:
        def act() -> tuple[bytes, _Version]:
            answer = self._ask(key, "get_object", **wanted)
            return answer["Body"].read(), _Version.of(answer)

        return self._calls.until_answered(key, act)

    def _head(self, key: str) -> _Version:
        return self._calls.until_answered(key, lambda: _Version.of(self._ask(key, "head_object")))

    def _ask(self, key: str, operation: str, **parameters: Any) -> Any:
        """One request about one object. Raises KeyMissing, _LostRace, or what botocore says."""
        from botocore.exceptions import ClientError

        check_key(key)
        request = getattr(self._calls.client(), operation)
        try:
            return request(Bucket=self.place.bucket, Key=self.place.key(key), **parameters)
        except ClientError as error:
            if code_of(error) in MISSING:
                raise KeyMissing(key) from error
            if code_of(error) in LOST_RACE:
                raise _LostRace(key) from error
            if code_of(error) in PAST_THE_END:
                raise _PastTheEnd(key) from error
            raise

    # Writing

    def put(self, key: str, data: bytes) -> None:
        self._calls.until_answered(key, lambda: self._ask(key, "put_object", Body=data))

    def create(self, key: str, data: bytes) -> bool:
        return self._put_if(key, data, {"IfNoneMatch": "*"}, ()) is not None

    def compare_and_swap(self, key: str, data: bytes, version: str) -> bool:
        return self._swap(key, data, _Version.parse(version)) is not None

    def _swap(self, key: str, data: bytes, old: _Version) -> _Version | None:
        new = self._put_if(key, data, {"IfMatch": old.etag}, old.nonces)
        if new is None:
            self._head(key)  # raises KeyMissing: some servers call that a lost race, too
        return new

    def _put_if(
        self, key: str, data: bytes, condition: Mapping[str, str], before: tuple[str, ...]
    ) -> _Version | None:
        """A conditional PUT: the version it made, or None when the condition did not hold."""
        mine = uuid.uuid4().hex
        nonces = (mine, *before)[:NUM_NONCES]

        tries = count()

        def act() -> _Version | None:
            is_retry = next(tries) > 0
            metadata = {NONCES: ",".join(nonces)}
            try:
                answer = self._ask(key, "put_object", Body=data, Metadata=metadata, **condition)
            except _LostRace:
                found = _Version.of(self._ask(key, "head_object")) if is_retry else _Version("")
                return found if mine in found.nonces else None
            return _Version(answer["ETag"], nonces)

        return self._calls.until_answered(key, act)

    def append(self, key: str, data: bytes) -> None:
        """Write the whole object again, on condition that it is what this process last saw.

        So a delayed request cannot bring an old state back, and two writers do not lose a line.
        """
        with self._append_lock:
            known = self._appended.pop(key, None)
            while True:
                old, version = known if known is not None else (b"", None)
                whole = old + data
                new = (
                    self._swap(key, whole, version)
                    if version is not None
                    else self._put_if(key, whole, {"IfNoneMatch": "*"}, ())
                )
                if new is not None:
                    break
                known = self._read(key, {})
            self._appended[key] = (whole, new)
            while len(self._appended) > NUM_APPENDED:
                self._appended.popitem(last=False)

    def delete(self, key: str) -> None:
        self._calls.until_answered(key, lambda: self._ask(key, "delete_object"))

    def delete_prefix(self, prefix: str) -> None:
        names = [name for name, _ in self._listing(prefix)]
        for start in range(0, len(names), DELETED_AT_ONCE):
            batch = names[start : start + DELETED_AT_ONCE]
            self._calls.until_answered(prefix, partial(self._delete, batch))

    def _delete(self, names: list[str]) -> None:
        from botocore.exceptions import ClientError

        wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        answer = self._calls.client().delete_objects(Bucket=self.place.bucket, Delete=wanted)
        for error in answer.get("Errors", []):
            if error.get("Code") not in MISSING:
                raise ClientError({"Error": error}, "DeleteObjects")

    # Listing

    def entries(self, prefix: str) -> Iterator[Entry]:
        skip = len(self.place.key(""))
        found = [Entry(name[skip:], num_bytes) for name, num_bytes in self._listing(prefix)]
        yield from sorted(found, key=lambda entry: entry.key)

    def children(self, prefix: str) -> list[str]:
        start = len(self._folder(prefix))
        names = {
            name[start:].rstrip("/") for name, _ in self._listing(prefix, folders_only_by_name=True)
        }
        return sorted(name for name in names if name)

    def _listing(
        self, prefix: str, folders_only_by_name: bool = False
    ) -> Iterator[tuple[str, int]]:
        """Names in the bucket and sizes; a folder that is not entered ends in '/'."""
        wanted: dict[str, Any] = {"Bucket": self.place.bucket, "Prefix": self._folder(prefix)}
        if folders_only_by_name:
            wanted["Delimiter"] = "/"
        while True:
            page = self._calls.until_answered(
                prefix or "/", lambda: self._calls.client().list_objects_v2(**wanted)
            )
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):  # what some tools leave to mark a folder
                    yield found["Key"], int(found["Size"])
            for found in page.get("CommonPrefixes", []):
                yield found["Prefix"], 0
            if not page.get("IsTruncated"):
                return
            wanted["ContinuationToken"] = page["NextContinuationToken"]

    def age_s(self, key: str) -> float:
        answer = self._calls.until_answered(key, lambda: self._ask(key, "head_object"))
        return _now(answer) - float(answer["LastModified"].timestamp())

    def left_overs(self) -> Iterator[LeftOver]:
        """Multipart uploads that were neither completed nor aborted: their parts cost money."""
        wanted: dict[str, Any] = {"Bucket": self.place.bucket, "Prefix": self.place.key("")}
        skip = len(wanted["Prefix"])
        while True:
            page = self._calls.until_answered(
                "/", lambda: self._calls.client().list_multipart_uploads(**wanted)
            )
            for upload in page.get("Uploads", []):
                age_s = _now(page) - upload["Initiated"].timestamp()
                name, upload_id = upload["Key"][skip:], upload["UploadId"]
                yield LeftOver(name, self._num_bytes_of(name, upload_id), age_s, upload_id)
            if not page.get("IsTruncated"):
                return
            wanted["KeyMarker"] = page["NextKeyMarker"]
            wanted["UploadIdMarker"] = page["NextUploadIdMarker"]

    def _num_bytes_of(self, key: str, upload_id: str) -> int:
        """Of its first thousand parts."""
        try:
            parts = self._calls.until_answered(
                key, lambda: self._ask(key, "list_parts", UploadId=upload_id)
            )
        except KeyMissing:
            return 0
        return sum(int(part["Size"]) for part in parts.get("Parts", []))

    def remove_left_over(self, left_over: LeftOver) -> None:
        key, upload_id = left_over.name, left_over.upload_id
        with suppress(KeyMissing):
            self._calls.until_answered(
                key, lambda: self._ask(key, "abort_multipart_upload", UploadId=upload_id)
            )

    def _folder(self, prefix: str) -> str:
        if prefix:
            check_key(prefix.removesuffix("/"))
        return self.place.key(prefix)

    # Files

    def upload(self, local: Path, key: str) -> None:
        check_key(key)
        if not local.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(local))
        extra = {"ChecksumAlgorithm": "CRC32"}  # of each part: the server refuses a damaged one
        transfer(
            self._calls,
            key,
            lambda manager, watch: manager.upload(
                str(local), self.place.bucket, self.place.key(key), extra, [watch]
            ),
        )

    def download(self, key: str, local: Path) -> None:
        check_key(key)
        temporary = local.with_name(f"{local.name}{TEMPORARY}{uuid.uuid4().hex}")
        local.parent.mkdir(parents=True, exist_ok=True)
        try:
            transfer(
                self._calls,
                key,
                lambda manager, watch: manager.download(
                    self.place.bucket, self.place.key(key), str(temporary), None, [watch]
                ),
            )
            os.replace(temporary, local)
        finally:
            temporary.unlink(missing_ok=True)


def _now(answer: Mapping[str, Any]) -> float:
    """The server's clock when it answered: ours may be wrong."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()


class _LostRace(StoreError):
    """The condition of a write did not hold."""


class _PastTheEnd(StoreError):
    """An object ends before the offset asked for."""
