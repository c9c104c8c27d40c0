"""Directions, edits of a running model, style groups, probes. No Ray, no rich."""
