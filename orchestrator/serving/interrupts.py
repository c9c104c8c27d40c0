"""Signals that ask a command to stop, all answered in the way of Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""What SLURM, systemd and `kill` send, and what a terminal sends that goes away."""


@contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt for the signals above; one that is ignored (nohup) stays so."""

    def interrupt(signum: int, frame: object) -> None:
        del signum, frame
        raise KeyboardInterrupt

    with ExitStack() as undo:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                undo.callback(signal.signal, number, signal.signal(number, interrupt))
        yield


@contextmanager
def stop_signals_deferred() -> Iterator[None]:
    """Hold a stop back to the end of the block: Ray crashes when stopped while it starts.

    A second one is not held back. Puts the handlers back that a library takes over inside.
    """
    asked: list[int] = []

    def note(signum: int, frame: object) -> None:
        del frame
        asked.append(signum)
        if len(asked) > 1:
            raise KeyboardInterrupt

    with ExitStack() as undo:
        for number in (signal.SIGINT, *STOP_SIGNALS):
            before = signal.getsignal(number)
            if callable(before):  # else it is ignored, or nobody asked for it to be answered
                undo.callback(signal.signal, number, signal.signal(number, note))
            elif before is not None:
                undo.callback(signal.signal, number, before)
        try:
            yield
        except SystemExit as error:  # how Ray's own handler answers SIGTERM
            raise KeyboardInterrupt from error
    if asked:
        raise KeyboardInterrupt
