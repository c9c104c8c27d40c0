"""Versions of what an SAE was made with, for its record."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("saeq", "torch", "sae-lens", "transformers", "safetensors")


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Distribution name to installed version."""
    return {name: _version(name) for name in RECORDED}
