"""Short real measurements behind `saeq plan --calibrate`: one module a job kind, run by name.

A module here reads a request as JSON from stdin (`setup`, `configs`, `device`, `seconds`), works
for about that long and prints one line of JSON that
`orchestrator.planning.calibration.Calibration` reads.
"""
