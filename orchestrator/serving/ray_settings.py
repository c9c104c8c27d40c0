"""How a Ray that we start is set, in its processes' environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

HEALTH_CHECKS: Mapping[str, str] = {
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}
"""For the head: a frozen node counts as gone after 12 to 20 s; by Ray's own settings after 65 s.

At most period + threshold x timeout + (threshold - 1) x period. One answer within any check starts
the count anew, so a busy machine would have to be deaf for 12 s. A port that refuses at once, as of
a raylet that restarts, has 4 s to come back.
"""


def health_checks() -> dict[str, str]:
    """The above, but where this process's environment says otherwise."""
    return {name: os.environ.get(name, value) for name, value in HEALTH_CHECKS.items()}
