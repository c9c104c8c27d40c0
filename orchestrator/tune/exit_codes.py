"""What a driver's exit code tells its supervisor."""

EXIT_DONE = 0
"""Nothing left to do here: the sweep is over, or others hold what remains."""
EXIT_UNUSABLE = 3
"""The sweep cannot run here (no model, no data, does not fit); the log says why."""
EXIT_DRAINED = 75
"""Asked to stop; trials are checkpointed and free."""
