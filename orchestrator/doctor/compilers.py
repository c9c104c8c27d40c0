"""Compilers, Triton and flash attention: without them jobs fall back, and are slower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.doctor.base import Check, Finding
from orchestrator.doctor.capabilities_here import WITHIN_S, NoCapabilities, capabilities_here
from orchestrator.store import Store


class Compilers(Check):
    """Never a fault: each of them has something that takes its place."""

    name = "compilers"
    order = 30
    within_s = WITHIN_S + 5

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        try:
            said = capabilities_here()
        except NoCapabilities as error:
            yield Finding("note", f"not known: {error}")
            return
        yield _cxx(said)
        if said["devices"]:
            yield from _on_gpus(said)


def _cxx(said: Mapping[str, Any]) -> Finding:
    found = said["cxx"]
    if found is not None:
        return Finding("ok", f"C++: {found['version']}")
    on_gpus = bool(said["devices"])
    what = "no C++ compiler: steps on the cores use torch operations, which is slower"
    if not on_gpus:
        what += ", and `compile: true` stays off"
    return Finding("note" if on_gpus else "warning", what, "install g++, or set CXX")


def _on_gpus(said: Mapping[str, Any]) -> Iterable[Finding]:
    triton, cc, flash = said["triton"], said["cc"], said["flash_attn"]
    stays_off = "`compile: true` stays off"
    if cc is None:
        what = f"no C compiler, which Triton needs: {stays_off}"
        yield Finding("warning", what, "install gcc, or set CC")
    else:
        yield Finding("ok", f"C: {cc['version']}")
    if triton is None or not triton["works"]:
        why = "not installed" if triton is None else f"does not load ({triton['error']})"
        yield Finding("warning", f"Triton {why}: {stays_off}", "pip install triton")
    else:
        yield Finding("ok", f"Triton {triton['version']}")
    if flash is None:
        yield Finding("note", "flash-attn is not installed: `attention: flash` becomes sdpa")
    elif not flash["works"]:
        what = f"flash-attn {flash['version']} does not work here ({flash['error']})"
        yield Finding("note", f"{what}: `attention: flash` becomes sdpa")
    else:
        yield Finding("ok", f"flash-attn {flash['version']}")
