"""What is S3's own: its URLs, its refusals in words, many objects, big files."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import NotWritable, Store, StoreError, Unreachable
from orchestrator.store.folder import FolderBackend
from orchestrator.store.s3 import S3Backend
from orchestrator.store.s3_errors import is_transient, refusal
from orchestrator.store.s3_place import S3Place
from tests.orchestrator.store.servers import S3Server

NUM_MANY = 1203
"""More than a page of a listing and more than one batch of a deletion."""

# URLs


@pytest.mark.parametrize(
    ("url", "environ", "again", "root"),
    [
        ("s3://lab", {}, "s3://lab", "s3://lab"),
        ("s3://lab/a/b/", {}, "s3://lab/a/b", "s3://lab/a/b"),
        (
            "s3://lab/a?endpoint_url=http://10.0.0.1:8333/&region=eu-west-1",
            {"SAEQ_S3_ENDPOINT": "http://other"},
            "s3://lab/a?endpoint_url=http://10.0.0.1:8333&region=eu-west-1",
            "s3://lab/a",
        ),
        (
            "s3://lab/a",
            {"SAEQ_S3_ENDPOINT": "http://one:1", "AWS_ENDPOINT_URL_S3": "http://two:2"},
            "s3://lab/a?endpoint_url=http://one:1",
            "s3://lab/a",
        ),
        (
            "s3://lab/a?deadline_s=5",
            {"AWS_ENDPOINT_URL": "https://three/x?y"},
            "s3://lab/a?endpoint_url=https://three/x%3Fy&deadline_s=5",
            "s3://lab/a",
        ),
    ],
)
def test_a_url_is_read_and_opens_the_same_place_without_the_environment(
    url: str, environ: dict[str, str], again: str, root: str
) -> None:
    place = S3Place.parse(url, environ)
    assert (place.url, place.root) == (again, root)
    assert S3Place.parse(place.url, {}) == place


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://me:secret@lab/a", "names a user or a password.*AWS_SECRET_ACCESS_KEY"),
        ("s3://lab/a?endpoint_url=http://me:secret@host", "names a user or a password"),
        ("s3:///a", "names no bucket; write s3://BUCKET/PREFIX"),
        ("s3://lab/a/../b", "not a plain path"),
        ("s3://lab/a?endpoint=http://x", "endpoint is unknown; known settings: .*endpoint_url"),
        ("s3://lab/a?endpoint_url=host:1", "'host:1' is no URL; write http://HOST:PORT"),
        ("s3://lab/a?deadline_s=soon", "deadline_s=soon is no number of seconds"),
    ],
)
def test_a_wrong_url_is_refused_with_the_way_out(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(url)
    assert "secret" not in str(caught.value)


def test_what_a_person_opens_has_no_settings_in_it() -> None:
    store = Store.open("s3://lab/a?endpoint_url=http://host:1")
    assert store.local_path("artefacts/sae/x/") == "s3://lab/a/artefacts/sae/x"


def test_boto3_is_only_asked_for_when_a_bucket_is_used() -> None:
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from orchestrator.store import Store, StoreError\n"
        "store = Store.open('s3://lab/a')\n"
        "assert 'botocore' not in sys.modules\n"
        "try:\n    store.backend.get('x')\n"
        "except StoreError as error:\n    sys.stdout.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("S3 needs boto3, which is not installed; pip install 'saeq[s3]'")


# Many objects, big files


@pytest.fixture
def backend(moto: S3Server) -> S3Backend:
    return S3Backend(S3Place.parse(moto.url(f"s3/{uuid.uuid4().hex}")))


@pytest.mark.slow
def test_listings_and_deletions_go_over_many_pages(backend: S3Backend) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: backend.put(f"many/{n:05d}/x", b"x"), range(NUM_MANY)))
    assert len(list(backend.entries("many/"))) == NUM_MANY
    assert backend.children("many/") == [f"{n:05d}" for n in range(NUM_MANY)]
    backend.delete_prefix("many/")
    assert backend.children("") == []


def test_several_keys_are_read_side_by_side(backend: S3Backend) -> None:
    for number in range(40):
        backend.put(f"a/{number}", b"%d" % number)
    wanted = {f"a/{number}": 0 for number in range(41)}
    assert backend.get_many(wanted) == {f"a/{n}": b"%d" % n for n in range(40)}
    assert backend.get_many({"a/12": 1, "a/7": 1}) == {"a/12": b"2", "a/7": b""}


def test_a_folder_marker_of_another_tool_is_no_object(backend: S3Backend, moto: S3Server) -> None:
    moto.client().put_object(Bucket=moto.bucket, Key=backend.place.key("a/"), Body=b"")
    backend.put("a/b", b"x")
    assert [entry.key for entry in backend.entries("")] == ["a/b"]
    assert (backend.children("a/"), backend.children("")) == (["b"], ["a"])


@pytest.mark.slow
@pytest.mark.parametrize("where", ["moto", "seaweedfs"])
def test_a_big_file_goes_up_in_parts_that_have_checksums(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: S3Server = request.getfixturevalue(where)
    backend = S3Backend(S3Place.parse(server.url(f"s3/{uuid.uuid4().hex}")))
    (tmp_path / "up").write_bytes(os.urandom(1 << 20) * 40)
    backend.upload(tmp_path / "up", "big")
    head = server.client().head_object(
        Bucket=server.bucket, Key=backend.place.key("big"), ChecksumMode="ENABLED"
    )
    assert head["ETag"].strip('"').endswith("-3"), "three parts"
    assert head["ChecksumCRC32"]
    backend.download("big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()
    with pytest.raises(FileNotFoundError):
        backend.upload(tmp_path / "nothing", "x")


def test_an_append_reads_first_what_another_process_left(backend: S3Backend) -> None:
    backend.append("log", b"one\n")
    other = pickle.loads(pickle.dumps(backend))
    other.append("log", b"two\n")
    backend.append("log", b"three\n")
    other.append("log", b"four\n")
    assert backend.get("log") == b"one\ntwo\nthree\nfour\n"


def test_threads_append_without_losing_a_line(backend: S3Backend) -> None:
    barrier = threading.Barrier(4)

    def work(me: int) -> None:
        barrier.wait()
        for turn in range(10):
            backend.append("log", b"%d-%d\n" % (me, turn))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    lines = backend.get("log").split()
    assert len(lines) == len(set(lines)) == 40


# Refusals


def client_error(code: str, status: int = 400) -> Exception:
    from botocore.exceptions import ClientError

    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutObject",
    )


REFUSALS = {
    "NoSuchBucket": "'lab' does not exist at AWS; create it .aws s3 mb s3://lab., or name another",
    "InvalidAccessKeyId": "does not take these credentials .*correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "does not take these credentials",
    "ExpiredToken": "renew them, then run again",
    "AccessDenied": "allow them s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on",
    "QuotaExceeded": "is full .*raise its quota",
    "PermanentRedirect": r"add \?region=REGION to --store",
    "NotImplemented": "cannot write on condition",
    "RequestTimeTooSkewed": "this machine's clock",
}


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_a_refusal_is_one_sentence_with_the_way_out_and_no_fault_of_a_trial(code: str) -> None:
    error = client_error(code, 403)
    assert not is_transient(error)
    with pytest.raises(NotWritable, match=REFUSALS[code]) as caught:
        raise refusal(error, S3Place("lab"), "a/b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "status"),
    [("SlowDown", 503), ("InternalError", 500), ("ConditionalRequestConflict", 409), ("x", 502)],
)
def test_what_passes_is_tried_again(code: str, status: int) -> None:
    assert is_transient(client_error(code, status))


def test_what_nobody_foresaw_is_told_as_it_is() -> None:
    answer = refusal(client_error("Odd"), S3Place("lab", "x"), "a/b")
    assert str(answer) == "the store s3://lab/x refused a/b: Odd (no)"
    assert type(answer) is StoreError


def test_a_conflict_with_another_writer_is_tried_again(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = backend._calls.client(), Counter[str]()
    put = client.put_object

    def conflicting(**parameters: Any) -> Any:
        asked["put"] += 1
        if asked["put"] < 3:
            raise client_error("ConditionalRequestConflict", 409)
        return put(**parameters)

    monkeypatch.setattr(client, "put_object", conflicting)
    assert backend.create("a", b"x")
    assert asked["put"] == 3


@pytest.mark.slow
def test_a_real_server_refuses_in_the_same_words(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Store.open(f"s3://no-such-bucket/x?endpoint_url={seaweedfs.endpoint}")
    for ask in (
        lambda: nowhere.backend.put("a", b"x"),
        lambda: nowhere.backend.get("a"),
        lambda: nowhere.backend.children(""),
    ):
        with pytest.raises(NotWritable, match="'no-such-bucket' does not exist"):
            ask()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(NotWritable, match="does not take these credentials .InvalidAccessKeyId"):
        Store.open(seaweedfs.url("x")).backend.put("a", b"x")


def test_without_credentials_it_is_said_what_to_set(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "nowhere")
    with pytest.raises(NotWritable, match="needs credentials and none are found; set AWS_ACCESS"):
        Store.open(moto.url("x")).backend.put("a", b"x")


# A folder whose file system is gone


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_file_system_that_is_gone_is_no_fault_of_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    backend = FolderBackend(tmp_path)
    backend.put("log/a", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", gone)
        with pytest.raises(Unreachable, match="see to the disk or the server behind it"):
            backend.put("a", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", gone)
        patch.setattr(os, "listdir", gone)
        with pytest.raises(Unreachable):
            list(backend.entries("log/"))
        with pytest.raises(Unreachable):
            backend.children("log/")
