"""Steering vectors of other tools, to and from ours; one module a format."""
