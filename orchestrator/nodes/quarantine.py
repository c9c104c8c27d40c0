"""Hosts that are kept out: three fast failures on one, or a device that fails its probe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.store import KeyMissing, Store

FAST_S = 120.0
"""A start or a trial that fails within this is a fast failure."""
MAX_FAST_FAILURES = 3
FORGET_AFTER_S = 24 * 3600.0
"""So long a fast failure counts; a good report of the host takes all of them back."""


BY_PROBE = "probe"


class HostFailure(BaseModel):
    """One fast failure on a host."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    at: float
    what: str
    device: str = ""
    """Which of the host's devices, if that is known: `gpu 3`."""


class HostStanding(BaseModel):
    """What is held against a host."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    host: str
    failures: tuple[HostFailure, ...] = ()
    kept_out_since: float | None = None
    """Seconds since 1970; None: it is not in quarantine."""
    why: str = ""
    by: str = ""
    """`failures`, `probe` (one that passes takes its own back), or empty: a person."""

    @property
    def is_kept_out(self) -> bool:
        return self.kept_out_since is not None

    @property
    def is_by_probe(self) -> bool:
        """Whether a node there is asked again by its own probe, instead of being refused."""
        return self.by == BY_PROBE


def note_failure(
    store: Store, host: str, what: str, now: float | None = None, device: str = ""
) -> HostStanding:
    """Hold a fast failure against a host; the third one puts it into quarantine.

    Several may call it at once: nothing is lost (compare-and-swap). Raises StoreError.
    """
    at = time.time() if now is None else now

    def held_against(standing: HostStanding) -> HostStanding:
        recent = [one for one in standing.failures if at - one.at < FORGET_AFTER_S]
        failures = (*recent, HostFailure(at=at, what=what, device=device))
        changed = standing.model_copy(update={"failures": failures})
        if len(failures) < MAX_FAST_FAILURES or standing.is_kept_out:
            return changed
        why = f"{len(failures)} fast failures; the last: {what}"
        return changed.model_copy(update={"kept_out_since": at, "why": why, "by": "failures"})

    return _change(store, host, held_against)


def keep_out(store: Store, host: str, why: str, by: str = "") -> HostStanding:
    """Put a host into quarantine at once: its device failed its probe. Raises StoreError."""
    since = {"kept_out_since": time.time(), "why": why, "by": by}
    return _change(store, host, lambda standing: standing.model_copy(update=since))


def note_success(store: Store, host: str, device: str = "") -> None:
    """A trial reported from it: fast failures are forgotten (a quarantine stays).

    Args:
        device: which one is good; failures of its neighbours are not forgotten for that.
    """

    def forgiven(standing: HostStanding) -> HostStanding:
        left = tuple(one for one in standing.failures if _is_of_another(one, device))
        return standing.model_copy(update={"failures": left})

    known = host_standing(store, host)
    if forgiven(known) != known:
        _change(store, host, forgiven)


def _is_of_another(failure: HostFailure, device: str) -> bool:
    return bool(device and failure.device) and failure.device != device


def release(store: Store, host: str) -> bool:
    """Let a host work again; False when it was not in quarantine. Raises StoreError."""
    if not host_standing(store, host).is_kept_out:
        return False
    _change(store, host, lambda _: HostStanding(host=host))
    return True


def _change(
    store: Store, host: str, change: Callable[[HostStanding], HostStanding]
) -> HostStanding:
    key = store.layout.quarantine(host)
    while True:
        try:
            data, version = store.backend.get_versioned(key)
        except KeyMissing:
            changed = change(HostStanding(host=host))
            if store.create_json(key, changed.model_dump(mode="json")):
                return changed
            continue
        changed = change(_parsed(host, data))
        text = json.dumps(changed.model_dump(mode="json"), indent=1)
        if store.backend.compare_and_swap(key, text.encode(), version):
            return changed


def _parsed(host: str, data: bytes) -> HostStanding:
    """What cannot be read holds nothing against anybody."""
    try:
        return HostStanding.model_validate_json(data)
    except ValidationError:
        return HostStanding(host=host)


def host_standing(store: Store, host: str) -> HostStanding:
    """What is held against one host; nothing where the store says nothing."""
    try:
        return _parsed(host, store.backend.get(store.layout.quarantine(host)))
    except KeyMissing:
        return HostStanding(host=host)


def hosts_kept_out(store: Store) -> Sequence[HostStanding]:
    """All hosts in quarantine, by name."""
    names = store.backend.children(store.layout.quarantines)
    standings = (host_standing(store, name.removesuffix(".json")) for name in sorted(names))
    return [standing for standing in standings if standing.is_kept_out]
