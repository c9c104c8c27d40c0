"""Probing: which SAE, hook and token carries a concept, from labelled text."""
