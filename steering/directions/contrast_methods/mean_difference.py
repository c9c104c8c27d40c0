"""Difference of the sides' means: the default. numpy only."""

from __future__ import annotations

from steering.directions.contrast_methods.base import Array, ContrastMethod


class MeanDifference(ContrastMethod):
    """Finds a consistent shift whatever else varies, and needs no pairs."""

    formula = "mean_difference"
    maths = "v = mean(h+) - mean(h-) (CAA, arXiv:2312.06681)"
    sign_rule = "from the mean of the negative side to that of the positive"
    needs_rows = False

    def direction(self, positive_PD: Array, negative_ND: Array) -> Array:
        difference_D: Array = positive_PD.mean(axis=0) - negative_ND.mean(axis=0)
        return difference_D
