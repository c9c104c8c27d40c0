"""Sweeps that take the artefacts of other sweeps: which, when, and how they reach a trial."""
