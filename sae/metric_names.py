"""Names of the numbers that a member reports, for those who must know them without torch."""

REPORTED = (
    "fvu",
    "explained_variance",
    "l0",
    "dead_fraction",
    "silent_fraction",
    "mse",
    "cosine",
    "norm_ratio",
    "loss",
    "loss_max",
)
"""In every report."""

AT_THE_END = (
    "ce_clean",
    "ce_sae",
    "ce_zero",
    "ce_mean",
    "ce_recovered",
    "ce_recovered_mean",
    "kl_sae",
    "kl_zero",
)
"""Beside the others when a member is finished."""
