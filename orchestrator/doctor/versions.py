"""Installed packages against what saeq asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from orchestrator.doctor.base import Check, Finding
from orchestrator.store import Store

SHOWN = ("torch", "ray", "sae-lens", "transformers", "boto3")
"""Told even when they are right."""
_NAME = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?")


class Versions(Check):
    """Of this environment alone; a cluster's are the Ray check's."""

    name = "versions"
    order = 40

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        try:
            asked, own = requires("saeq") or [], version("saeq")
        except PackageNotFoundError:
            yield Finding("note", "saeq runs from its source folder: nothing says which versions")
            asked, own = [], ""
        wrong = [fault for each in asked if (fault := wrong_version(each)) is not None]
        yield from wrong
        found = {name: _installed(name) for name in SHOWN}
        words = ", ".join(f"{name} {number}" for name, number in found.items() if number)
        if not wrong:
            yield Finding("ok", ", ".join(word for word in (own and f"saeq {own}", words) if word))
        if found["boto3"] is None:
            what = "boto3 is not installed: no S3 store, no spot prices of AWS"
            yield Finding("note", what, "pip install 'saeq[s3]'")


def wrong_version(requirement: str) -> Finding | None:
    """What is wrong with one requirement of a distribution; None where it is met or optional.

    Args:
        requirement: as metadata has it: `ray[tune]==2.60.0`, `boto3>=1.40; extra == "s3"`.
    """
    asked, _, marker = requirement.partition(";")
    named = _NAME.match(asked.strip())
    if named is None or marker.strip():
        return None
    name, wanted = named[1], asked.strip()[named.end() :].strip()
    found = _installed(name)
    way_out = f"pip install '{name}{wanted}'"
    if found is None:
        return Finding("fault", f"{name} is not installed; saeq needs {name}{wanted}", way_out)
    if all(_meets(found, one.strip()) for one in wanted.split(",") if one.strip()):
        return None
    return Finding("fault", f"{name} {found} is installed; saeq needs {name}{wanted}", way_out)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _meets(found: str, condition: str) -> bool:
    """Of `>=`, `<`, `==`; what is worded otherwise is taken to be met."""
    split = re.fullmatch(r"(>=|<|==)\s*([0-9.]+)", condition)
    if split is None:
        return True
    have, want = _numbers(found), _numbers(split[2])
    width = max(len(have), len(want))
    have, want = (each + (0,) * (width - len(each)) for each in (have, want))
    return {">=": have >= want, "<": have < want, "==": have == want}[split[1]]


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version: (2, 13, 0) of `2.13.0+cpu`, (2, 13) of `2.13rc1`."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, release[0].split("."))) if release else (0,)
