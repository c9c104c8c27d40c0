"""Google Cloud: preemption, about 30 s ahead, and maintenance that ends a machine.

https://cloud.google.com/compute/docs/instances/create-use-preemptible#handle_preemption
https://cloud.google.com/compute/docs/gpus/gpu-host-maintenance
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from orchestrator.providers.metadata_http import ADDRESS, Answer, NoAnswer, ask
from orchestrator.providers.notices.base import Notice, NoticeSource, NoticesUnavailable

HOST_VARIABLE = "GCE_METADATA_HOST"
"""Google's own name for it: a host, with a port if need be."""
TIMEOUT_S = 1.5
FIND_WITHIN_S = (0.3, 0.6)
"""Twice: a busy machine may miss the first answer."""
PREEMPTED_AFTER_S = 30.0
MAINTENANCE_AFTER_S = 3600.0
"""Machines with a GPU hear of it an hour ahead."""


class GcpNotices(NoticeSource):
    """Asks the machine's own metadata server."""

    name = "gcp"

    def __init__(
        self,
        argument: str = "",
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(argument)
        host = os.environ.get(HOST_VARIABLE)
        self._base = f"{f'http://{host}' if host else ADDRESS}/computeMetadata/v1/instance"
        self._clock, self._timeout_s = clock, timeout_s
        self._since: dict[str, float] = {}

    def poll(self) -> Notice | None:
        if self._value("preempted").upper() == "TRUE":
            left_s = self._left_s("preempted", PREEMPTED_AFTER_S)
            return Notice("terminate", left_s, "preemption notice", self.name)
        if self._value("maintenance-event").upper() == "TERMINATE_ON_HOST_MAINTENANCE":
            left_s = self._left_s("maintenance", MAINTENANCE_AFTER_S)
            return Notice("terminate", left_s, "host maintenance", self.name)
        self._since.pop("maintenance", None)
        return None

    def is_here(self) -> bool:
        return any(self._answers(within_s) for within_s in FIND_WITHIN_S)

    def _answers(self, within_s: float) -> bool:
        try:
            answer = self._ask("id", within_s)
        except NoticesUnavailable:
            return False
        return answer.status == 200 and answer.headers.get("metadata-flavor") == "Google"

    def labels(self) -> Mapping[str, str]:
        spot = self._value("scheduling/preemptible").upper() == "TRUE"
        places = {
            "instance-type": self._value("machine-type").rpartition("/")[2],
            "zone": self._value("zone").rpartition("/")[2],
            "instance": self._value("name"),
            "market": "spot" if spot else "on-demand",
        }
        return {"provider": "gcp", **{label: value for label, value in places.items() if value}}

    def _left_s(self, what: str, after_s: float) -> float:
        """The server says that, not when: counted from when it was first seen."""
        now = self._clock()
        return max(after_s - (now - self._since.setdefault(what, now)), 0.0)

    def _value(self, path: str) -> str:
        """Empty where there is none."""
        answer = self._ask(path, self._timeout_s)
        if answer.status == 404:
            return ""
        if answer.status != 200:
            raise NoticesUnavailable(f"{self._base}/{path} answered {answer.status}")
        return answer.text.strip()

    def _ask(self, path: str, timeout_s: float) -> Answer:
        try:
            return ask(f"{self._base}/{path}", {"Metadata-Flavor": "Google"}, timeout_s)
        except NoAnswer as error:
            raise NoticesUnavailable(f"this is no Google machine: {error}") from error
