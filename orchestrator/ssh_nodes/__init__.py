"""Machines that only ssh reaches: `saeq serve` is brought up there, and goes on without us."""
