"""What people ask of sweeps that run: cancel, pause, retry, priority, extend."""
