"""`python -m orchestrator.cli`: the command where it is not on the PATH."""

from orchestrator.cli import main

main()
