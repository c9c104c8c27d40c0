"""A list in a sweep file that may be written as its only member: `hooks: resid_post.10`."""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator

__all__ = ["ONE_OR_MANY"]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


ONE_OR_MANY = BeforeValidator(_listed)
