"""A request to stop is answered like Ctrl-C, and not in the middle of Ray's start."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from orchestrator.serving.interrupts import stop_signals_deferred, stop_signals_interrupt


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Whoever starts tests in the background of a script has them ignore Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in numbers[1:]:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_asks_to_stop_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_signals_interrupt():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_waits_for_the_end_of_the_block_and_a_second_one_does_not() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), stop_signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt), stop_signals_deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("not here")
    assert reached == ["the end"]


def test_handlers_taken_over_inside_are_put_back() -> None:
    with stop_signals_interrupt():
        ours = signal.getsignal(signal.SIGTERM)
        with stop_signals_deferred():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        assert signal.getsignal(signal.SIGTERM) is ours


def test_a_library_that_exits_when_asked_to_stop_is_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals_deferred():
        sys.exit(15)
