"""Classifiers and margins that say how much of what was wanted an answer has; one file each."""
