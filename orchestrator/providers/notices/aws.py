"""AWS: the spot notice, two minutes ahead, and the rebalance recommendation, by IMDSv2.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from orchestrator.providers.metadata_http import ADDRESS, Answer, NoAnswer, ask
from orchestrator.providers.notices.base import Notice, NoticeSource, NoticesUnavailable

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""boto's name for it."""
TOKEN_LIVES_S = 21600
RENEW_BEFORE_S = 300.0
TIMEOUT_S = 1.5
FIND_WITHIN_S = (0.3, 0.6)
"""Twice: a busy machine may miss the first answer."""

LABELS = {
    "instance-type": "instance-type",
    "zone": "placement/availability-zone",
    "market": "instance-life-cycle",
    "instance": "instance-id",
}
"""Label -> where the metadata have it."""


class AwsNotices(NoticeSource):
    """Asks the instance's own metadata server."""

    name = "aws"

    def __init__(
        self,
        argument: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(argument)
        self._base = os.environ.get(ENDPOINT_VARIABLE, ADDRESS).rstrip("/") + "/latest"
        self._clock, self._wall, self._timeout_s = clock, wall, timeout_s
        self._token = ""
        self._renew_at = 0.0

    def poll(self) -> Notice | None:
        action = self._fields("meta-data/spot/instance-action")
        if action is not None:
            words = f"spot notice ({action.get('action', 'terminate')})"
            return Notice("terminate", self._seconds_until(action.get("time")), words, self.name)
        if self._fields("meta-data/events/recommendations/rebalance") is not None:
            return Notice("rebalance", None, "rebalance recommendation", self.name)
        return None

    def is_here(self) -> bool:
        return any(self._gives_a_token(within_s) for within_s in FIND_WITHIN_S)

    def _gives_a_token(self, within_s: float) -> bool:
        try:
            self._renew_token(within_s)
        except NoticesUnavailable:
            return False
        return True

    def labels(self) -> Mapping[str, str]:
        found = {"provider": "aws"}
        for label, path in LABELS.items():
            answer = self._get(f"meta-data/{path}")
            if answer.status == 200 and answer.text.strip():
                found[label] = answer.text.strip()
        return found

    def _fields(self, path: str) -> Mapping[str, object] | None:
        """A JSON document of the metadata; None where there is none."""
        answer = self._get(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise NoticesUnavailable(f"{self._base}/{path} answered {answer.status}")
        try:
            fields = json.loads(answer.text)
        except ValueError as error:
            said = answer.text[:80]
            raise NoticesUnavailable(f"{self._base}/{path} is no JSON: {said!r}") from error
        if not isinstance(fields, dict):
            raise NoticesUnavailable(f"{self._base}/{path} is no JSON object: {answer.text[:80]!r}")
        return fields

    def _get(self, path: str) -> Answer:
        """With a token; with a new one where the old is refused."""
        if not self._token or self._clock() >= self._renew_at:
            self._renew_token(self._timeout_s)
        answer = self._ask(path)
        if answer.status == 401:
            self._renew_token(self._timeout_s)
            answer = self._ask(path)
        return answer

    def _ask(self, path: str) -> Answer:
        headers = {"X-aws-ec2-metadata-token": self._token}
        try:
            return ask(f"{self._base}/{path}", headers, self._timeout_s)
        except NoAnswer as error:
            raise NoticesUnavailable(str(error)) from error

    def _renew_token(self, timeout_s: float) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIVES_S)}
        try:
            answer = ask(f"{self._base}/api/token", headers, timeout_s, method="PUT")
        except NoAnswer as error:
            raise NoticesUnavailable(f"this is no AWS instance: {error}") from error
        token = answer.text.strip()
        if answer.status != 200 or not token.isprintable() or not token:
            said = f"{self._base}/api/token answered {answer.status}"
            raise NoticesUnavailable(
                f"no IMDSv2 token: {said}; it is switched on by the instance's metadata options"
            )
        self._token, self._renew_at = token, self._clock() + TOKEN_LIVES_S - RENEW_BEFORE_S

    def _seconds_until(self, when: object) -> float | None:
        """None for a notice whose time cannot be read: it is one all the same."""
        try:
            at = datetime.fromisoformat(str(when))
        except ValueError:
            return None
        return max(at.timestamp() - self._wall(), 0.0)
