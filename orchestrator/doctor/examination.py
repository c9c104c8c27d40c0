"""All checks side by side, each with a deadline; what one does to itself is a finding."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.doctor.base import Check, Finding, Level
from orchestrator.redaction import redact
from orchestrator.store import Store, StoreError, Unreachable
from orchestrator.store.s3 import S3Backend

LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "fault")
STORE_WITHIN_S = 8.0
STORE_CHECK = "store"
"""The check that speaks for all others when the store does not answer."""


@dataclass(frozen=True)
class Examined:
    """What one check found."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def level(self) -> Level:
        """The worst of its findings."""
        return worst(self.findings)


def worst(findings: Iterable[Finding]) -> Level:
    """The highest level among findings; `ok` for none."""
    return max((each.level for each in findings), key=LEVELS.index, default="ok")


def impatient(store: Store) -> Store:
    """The same store, given up on sooner than a sweep would: a person waits."""
    backend = store.backend
    if not isinstance(backend, S3Backend):
        return store
    deadline_s = min(backend.place.deadline_s, STORE_WITHIN_S)
    return Store(S3Backend(replace(backend.place, deadline_s=deadline_s)), store.url)


def examine(store: Store, checks: Sequence[type[Check]] | None = None) -> list[Examined]:
    """Let the checks look; returns what they found, in their order.

    Takes as long as the slowest, its deadline at most. A check that hangs is left behind in a
    thread that does not keep the process from ending.

    Args:
        checks: those to run; not given: all there are.
    """
    chosen = list(Check.by_name.values()) if checks is None else list(checks)
    ordered = sorted(chosen, key=lambda check: (check.order, check.name))
    looks = [_Look(check, store) for check in ordered]
    for look in looks:
        look.start()
    found = [look.outcome() for look in looks]
    return [each for each in found if each is not None]


class _Look(threading.Thread):
    """One check in a thread of its own."""

    def __init__(self, check: type[Check], store: Store) -> None:
        super().__init__(name=f"doctor {check.name}", daemon=True)
        self._check, self._store = check, store
        self._started_at = time.monotonic()
        self._applies = True
        self._findings: list[Finding] = []
        self._seconds = 0.0

    def run(self) -> None:
        try:
            check = self._check()
            self._applies = check.applies(self._store)
            if self._applies:
                self._findings.extend(check.look(self._store))
        except Unreachable as error:
            self._findings.append(self._of_silent_store(error))
        except (StoreError, OSError, ValueError) as error:
            self._findings.append(Finding("fault", _words(error)))
        except Exception as error:  # a bug in one check must not hide what the others found
            what = f"this check broke: {type(error).__name__}: {_words(error)}"
            self._findings.append(Finding("warning", what, "report it as a bug of saeq"))
        self._seconds = time.monotonic() - self._started_at

    def outcome(self) -> Examined | None:
        """Waits for it, until its deadline; None where it does not apply."""
        left_s = self._started_at + self._check.within_s - time.monotonic()
        self.join(max(left_s, 0.0))
        findings = list(self._findings)
        if self.is_alive():
            waited_s = time.monotonic() - self._started_at
            findings.append(Finding("warning", f"no answer within {waited_s:.0f} s"))
        elif not self._applies:
            return None
        seconds = self._seconds or time.monotonic() - self._started_at
        return Examined(self._check.name, tuple(map(_redacted, findings)), seconds)

    def _of_silent_store(self, error: Unreachable) -> Finding:
        if self._check.name == STORE_CHECK:
            return Finding("fault", _words(error))
        return Finding("note", "not looked at: the store does not answer")


def _words(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def _redacted(finding: Finding) -> Finding:
    return Finding(finding.level, redact(finding.what), redact(finding.way_out))
