"""Which source of notices is meant, and what each makes of the answers that it gets."""

from __future__ import annotations

import shlex
import sys
import time

import pytest

from orchestrator.providers.notices import (
    BadNotices,
    NoticeSource,
    NoticesUnavailable,
    find_source,
    notice_source,
)
from orchestrator.providers.notices.aws import ENDPOINT_VARIABLE, TOKEN_LIVES_S, AwsNotices
from orchestrator.providers.notices.command import CommandNotices, seconds_left
from orchestrator.providers.notices.gcp import HOST_VARIABLE, GcpNotices
from tests.orchestrator.providers.notices.metadata_server import (
    ACTION,
    REBALANCE,
    MetadataServer,
)

GCP = "/computeMetadata/v1/instance"
NOBODY = "127.0.0.1:9"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Which one


@pytest.mark.parametrize("name", sorted(NoticeSource.by_name))
def test_every_source_is_found_by_its_name(name: str) -> None:
    takes = NoticeSource.by_name[name].takes
    source = notice_source(f"{name}:something" if takes else name)
    assert source is not None and source.name == name


@pytest.mark.parametrize("text", ["", "none", " none "])
def test_none_is_no_source(text: str) -> None:
    assert notice_source(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("awz", "Did you mean 'aws'?"),
        ("azure", "known: auto, none, aws, command:CMD, gcp"),
        ("command", "command takes CMD; write command:CMD"),
        ("command:  ", "write command:CMD"),
        ("aws:eu-west-1", "aws takes nothing; write aws"),
    ],
)
def test_a_source_that_is_none_is_refused_with_those_there_are(text: str, says: str) -> None:
    with pytest.raises(BadNotices) as refused:
        notice_source(text)
    assert says in str(refused.value)


def test_auto_finds_aws_by_its_tokens_and_google_by_its_header(metadata: MetadataServer) -> None:
    assert isinstance(find_source(), AwsNotices)
    metadata.gives_tokens = False
    assert notice_source("auto") is None
    metadata.pages[f"{GCP}/id"] = "123"
    assert notice_source("auto") is None, "a page of that name could be anybody's"
    metadata.headers["Metadata-Flavor"] = "Google"
    assert isinstance(notice_source("auto"), GcpNotices)


def test_auto_on_a_machine_of_nobody_answers_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_VARIABLE, f"http://{NOBODY}")
    monkeypatch.setenv(HOST_VARIABLE, NOBODY)
    assert find_source() is None


def test_a_proxy_is_not_asked_for_what_only_this_machine_can_say(
    metadata: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{NOBODY}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert AwsNotices().poll() is None
    assert len(metadata.asked) == 3


# AWS


def test_aws_says_nothing_until_it_does(metadata: MetadataServer) -> None:
    source = AwsNotices()
    assert source.poll() is None
    metadata.pages[REBALANCE] = '{"noticeTime": "2026-11-21T10:00:00Z"}'
    first = source.poll()
    assert first is not None and (first.kind, first.is_due) == ("rebalance", False)
    metadata.announce(in_s=120)
    notice = source.poll()
    assert notice is not None and notice.kind == "terminate" and notice.is_due
    assert notice.deadline_s is not None and 60 < notice.deadline_s <= 120
    assert str(notice).startswith("spot notice (terminate), 1") or "s are left" in str(notice)
    assert metadata.asked.count("PUT /latest/api/token") == 1, "one token for all of it"


def test_a_refused_token_is_replaced_and_so_is_one_that_runs_out(metadata: MetadataServer) -> None:
    clock = Clock()
    source = AwsNotices(clock=clock)
    source.poll()
    metadata.forget_tokens()
    metadata.announce(in_s=100)
    assert source.poll() is not None
    clock.now += TOKEN_LIVES_S
    assert source.poll() is not None
    assert metadata.asked.count("PUT /latest/api/token") == 3
    assert metadata.asked[-1] == f"GET {ACTION}", "renewed before it was refused"


@pytest.mark.parametrize("page", ["", "<html>login</html>", "[]", '"soon"', "{", "null"])
def test_an_answer_that_is_no_notice_is_none(metadata: MetadataServer, page: str) -> None:
    metadata.pages[ACTION] = page
    with pytest.raises(NoticesUnavailable, match="no JSON"):
        AwsNotices().poll()


@pytest.mark.parametrize("page", ['{"action": "stop"}', '{"action": "stop", "time": "tomorrow"}'])
def test_a_notice_without_a_time_is_one_all_the_same(metadata: MetadataServer, page: str) -> None:
    metadata.pages[ACTION] = page
    notice = AwsNotices().poll()
    assert notice is not None and notice.is_due and notice.deadline_s is None
    assert str(notice) == "spot notice (stop)"


def test_a_slow_answer_is_not_waited_for(metadata: MetadataServer) -> None:
    source = AwsNotices(timeout_s=0.2)
    assert source.poll() is None
    metadata.delay_s = 30.0
    begun = time.monotonic()
    with pytest.raises(NoticesUnavailable, match="does not answer"):
        source.poll()
    assert time.monotonic() - begun < 15
    metadata.delay_s = 0.0
    assert source.poll() is None


def test_a_machine_without_imdsv2_says_what_to_switch_on(metadata: MetadataServer) -> None:
    metadata.gives_tokens = False
    with pytest.raises(NoticesUnavailable, match="metadata options"):
        AwsNotices().poll()


def test_aws_labels_are_what_the_metadata_have(metadata: MetadataServer) -> None:
    metadata.pages["/latest/meta-data/instance-type"] = "p4d.24xlarge"
    metadata.pages["/latest/meta-data/placement/availability-zone"] = "us-east-1b"
    metadata.pages["/latest/meta-data/instance-life-cycle"] = "spot"
    assert AwsNotices().labels() == {
        "provider": "aws",
        "instance-type": "p4d.24xlarge",
        "zone": "us-east-1b",
        "market": "spot",
    }


# Google


def test_google_s_preemption_counts_down_from_when_it_was_seen(metadata: MetadataServer) -> None:
    clock = Clock()
    source = GcpNotices(clock=clock)
    metadata.pages[f"{GCP}/preempted"] = "FALSE"
    assert source.poll() is None
    metadata.pages[f"{GCP}/preempted"] = "TRUE"
    notice = source.poll()
    assert notice is not None and notice.is_due and notice.deadline_s == 30
    clock.now += 12
    notice = source.poll()
    assert notice is not None and notice.deadline_s == 18


def test_google_s_maintenance_is_due_near_its_end_and_may_be_called_off(
    metadata: MetadataServer,
) -> None:
    clock = Clock()
    source = GcpNotices(clock=clock)
    metadata.pages[f"{GCP}/maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    notice = source.poll()
    assert notice is not None and not notice.is_due and notice.deadline_s == 3600
    clock.now += 3500
    notice = source.poll()
    assert notice is not None and notice.is_due and notice.deadline_s == 100
    metadata.pages[f"{GCP}/maintenance-event"] = "NONE"
    assert source.poll() is None
    metadata.pages[f"{GCP}/maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert source.poll() is None


def test_google_labels_are_the_last_part_of_their_paths(metadata: MetadataServer) -> None:
    metadata.pages[f"{GCP}/machine-type"] = "projects/1/machineTypes/a2-highgpu-1g"
    metadata.pages[f"{GCP}/zone"] = "projects/1/zones/europe-west4-a"
    metadata.pages[f"{GCP}/scheduling/preemptible"] = "TRUE"
    labels = GcpNotices().labels()
    assert labels["instance-type"] == "a2-highgpu-1g"
    assert (labels["zone"], labels["market"]) == ("europe-west4-a", "spot")


def test_google_s_server_that_is_away_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST_VARIABLE, NOBODY)
    with pytest.raises(NoticesUnavailable, match="no Google machine"):
        GcpNotices().poll()


# A command


@pytest.mark.parametrize(
    ("text", "left_s"),
    [
        ("90", 90.0),
        ("90.5", 90.5),
        ("0", 0.0),
        ("-4", -4.0),
        ("1700000060", 60.0),
        ("2023-11-14T22:14:20Z", 60.0),
        ("2023-11-14T23:14:20+01:00", 60.0),
        ("2023-11-14 22:14:20.500+00:00", 60.5),
    ],
)
def test_what_a_command_prints_is_a_time(text: str, left_s: float) -> None:
    assert seconds_left(text, now=1.7e9) == pytest.approx(left_s)


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "12:00 tomorrow", "1 2"])
def test_what_is_no_time_is_no_notice(text: str) -> None:
    with pytest.raises(NoticesUnavailable, match="unix time or an ISO time"):
        seconds_left(text, now=1.7e9)


def test_a_command_is_run_by_the_shell_and_silence_is_no_notice() -> None:
    assert CommandNotices("true").poll() is None
    notice = CommandNotices("echo 100 | sed s/1/2/; echo and more").poll()
    assert notice is not None and notice.deadline_s == 200 and not notice.is_due
    notice = CommandNotices("echo -5").poll()
    assert notice is not None and notice.deadline_s == 0 and notice.is_due


def test_a_failing_command_could_not_be_asked() -> None:
    with pytest.raises(NoticesUnavailable, match=r"exit code 3 \(no such thing\)"):
        CommandNotices("echo 5; echo no such thing >&2; exit 3").poll()


def test_a_command_that_hangs_is_ended_with_its_children() -> None:
    sleeper = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(60)' & wait"
    begun = time.monotonic()
    with pytest.raises(NoticesUnavailable, match="did not end within"):
        CommandNotices(sleeper, timeout_s=0.5).poll()
    assert time.monotonic() - begun < 30, "the child kept the pipe open otherwise"
