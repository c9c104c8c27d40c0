"""How old objects are by the store's own clock, and what writes that were cut off leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import Backend, KeyMissing
from orchestrator.store.folder import FolderBackend
from orchestrator.store.s3 import S3Backend
from orchestrator.store.s3_place import S3Place
from tests.orchestrator.store.servers import S3Server


def test_age_counts_from_the_last_write(backend: Backend) -> None:
    backend.put("a/b", b"1")
    assert -2 < backend.age_s("a/b") < 60
    with pytest.raises(KeyMissing):
        backend.age_s("a/missing")


def test_whole_writes_leave_nothing_behind(backend: Backend, tmp_path: Path) -> None:
    backend.put("a", b"1")
    assert backend.create("b", b"2")
    (tmp_path / "file").write_bytes(b"3")
    backend.upload(tmp_path / "file", "c")
    assert list(backend.left_overs()) == []


@pytest.mark.parametrize("where", ["moto", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def test_an_upload_that_was_cut_off_is_found_and_removed(
    where: str, request: pytest.FixtureRequest
) -> None:
    server: S3Server = request.getfixturevalue(where)
    backend = S3Backend(S3Place.parse(server.url("cut-off")))
    client, bucket = server.client(), server.bucket
    key = backend.place.key("x/state")
    upload_id = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=1, Body=b"12345")
    (found,) = backend.left_overs()
    assert (found.name, found.num_bytes, found.upload_id) == ("x/state", 5, upload_id)
    backend.remove_left_over(found)
    backend.remove_left_over(found)
    assert list(backend.left_overs()) == []


def test_a_temporary_file_is_found_and_removed_and_a_lock_is_not(tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path)
    backend.put("a/b", b"1")
    assert backend.compare_and_swap("a/b", b"2", backend.get_versioned("a/b")[1])
    (tmp_path / "a" / "b.~0123").write_bytes(b"half")
    (found,) = backend.left_overs()
    assert (found.name, found.num_bytes) == ("a/b.~0123", 4)
    backend.remove_left_over(found)
    backend.remove_left_over(found)
    assert list(backend.left_overs()) == []
    assert backend.get("a/b") == b"2"
