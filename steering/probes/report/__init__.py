"""What a person reads of probes: numbers beside their controls, curves, latents with contexts."""

from __future__ import annotations

from steering.probes.report.sweep import write_sweep_report

__all__ = ["write_sweep_report"]
