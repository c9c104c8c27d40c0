"""Notices for a machine that works a queue off: polled beside the work, and counted down."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.providers.notices import BadNotices, Notice, NoticesUnavailable
from orchestrator.serving.notice_watch import NoticeWatch, leave_within_s, watched_notices


class Announced:
    """Answers what it was given, one after the other; the last for ever."""

    name = "announced"

    def __init__(self, *answers: Notice | NoticesUnavailable | None) -> None:
        self._answers = list(answers)

    def poll(self) -> Notice | None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, NoticesUnavailable):
            raise answer
        return answer


def until(watch: NoticeWatch, what: str) -> None:
    deadline = time.monotonic() + 60
    while not getattr(watch, what):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_the_first_answer_is_there_before_any_work_begins() -> None:
    with NoticeWatch(Announced(Notice("terminate", 60.0, "spot notice", "aws"))) as watch:
        notice = watch.due()
        assert notice is not None and notice.deadline_s is not None
        assert 0 < notice.deadline_s <= 60.0


def test_what_is_left_grows_less_between_two_answers() -> None:
    with NoticeWatch(Announced(Notice("terminate", 60.0, "w", "aws")), every_s=600) as watch:
        first = watch.notice
        time.sleep(0.05)
        later = watch.notice
        assert first is not None and later is not None
        assert (later.deadline_s or 0) <= (first.deadline_s or 0) - 0.05


def test_a_machine_that_goes_later_is_not_left_yet_and_a_recommendation_is_no_end() -> None:
    for notice in (Notice("terminate", 1e5, "w", "gcp"), Notice("rebalance", None, "w", "aws")):
        with NoticeWatch(Announced(notice)) as watch:
            assert watch.notice is not None and watch.due() is None


def test_a_source_that_falls_silent_takes_no_notice_back() -> None:
    answers = (Notice("terminate", 60.0, "w", "aws"), NoticesUnavailable("away"))
    with NoticeWatch(Announced(*answers), every_s=0.01) as watch:
        until(watch, "problem")
        assert watch.due() is not None and watch.problem == "away"


def test_leaving_is_over_before_the_machine_is_and_takes_a_moment_at_least() -> None:
    assert leave_within_s(None, 50.0) == 50.0
    assert leave_within_s(Notice("terminate", None, "w", "aws"), 50.0) == 50.0
    assert leave_within_s(Notice("terminate", 110.0, "w", "aws"), 50.0) == 50.0
    assert leave_within_s(Notice("terminate", 30.0, "w", "gcp"), 50.0) == 25.0
    assert leave_within_s(Notice("terminate", 0.0, "w", "aws"), 50.0) == 3.0


def test_the_option_comes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setenv("SAEQ_NOTICES", f"command:touch {tmp_path / 'asked'}")
    with watched_notices("none", said.append) as watch:
        assert watch is None
    with watched_notices(None, said.append) as watch:
        assert watch is not None and watch.source == "command"
    assert said == ["notices of command are heeded"]
    assert (tmp_path / "asked").exists()
    monkeypatch.delenv("SAEQ_NOTICES")
    with watched_notices(None, said.append) as watch:
        assert watch is None
    with pytest.raises(BadNotices), watched_notices("nobody", said.append):
        raise AssertionError("not reached")
