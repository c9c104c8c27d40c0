"""Probe methods: one module here is one method, and `fit` chooses its settings on validation rows.

Importing the folder finds them; none imports scikit-learn before it fits. Features are numpy
[N, D] or scipy CSR; labels are bool [N, L], a column a label or a class (one against the rest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from steering.errors import BadSteeringInput
from steering.probes.imbalance import (
    ImbalanceMode,
    ImbalanceSpec,
    best_f1_threshold,
    sample_weights,
)
from steering.probes.logistic import calibration
from steering.probes.matrices import Bags, Matrix, as_features, as_labels
from steering.probes.method import (
    FittedProbe,
    LabelProbe,
    Prepared,
    ProbeMethod,
    SelectBy,
    choose,
    unlearnable,
)

__all__ = ["METHODS", "FittedProbe", "ProbeMethod", "fit", "parse_method"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

METHODS: Mapping[str, type[ProbeMethod]] = ProbeMethod.by_name
"""Name -> class, whose fields are the method's parameters."""


def parse_method(name: str, parameters: Mapping[str, Any] | None = None) -> ProbeMethod:
    """A method with its parameters.

    Raises:
        BadSteeringInput: an unknown method or parameter, or a value that it does not take.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise BadSteeringInput(
            f"method={name!r} is unknown; known methods: {', '.join(sorted(METHODS))}{hint}"
        )
    kind = METHODS[name]
    try:
        return kind.model_validate(dict(parameters or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields)
        raise BadSteeringInput(
            f"{name}: {where}={first.get('input')!r}: {first['msg']}; parameters: {known}"
        ) from None


def fit(
    method: str | ProbeMethod,
    parameters: Mapping[str, Any] | None,
    x_train: Matrix,
    y_train: Any,
    x_validation: Matrix,
    y_validation: Any,
    *,
    imbalance: ImbalanceSpec | ImbalanceMode = "none",
    seed: int = 0,
    select_by: SelectBy = "auroc",
    label_names: Sequence[str] | None = None,
) -> FittedProbe:
    """Fit a probe a label on training rows; its setting and threshold are chosen on validation.

    Args:
        method: a name of `METHODS`, with `parameters`; or a method, and None.
        label_names: for messages; default their numbers.

    Raises:
        BadSteeringInput: features or labels that cannot be used; a label with one class only.
    """
    chosen_method = parse_method(method, parameters) if isinstance(method, str) else method
    x_train = as_features(x_train, "x_train")
    x_validation = as_features(x_validation, "x_validation")
    if x_train.shape[1] != x_validation.shape[1]:
        raise BadSteeringInput(
            f"x_train has {x_train.shape[1]} columns, x_validation {x_validation.shape[1]}; "
            "both must come from the same features"
        )
    if isinstance(x_train, Bags) != chosen_method.reads_bags:
        raise BadSteeringInput(
            f"method={chosen_method.name!r} reads "
            + ("texts as bags of tokens" if chosen_method.reads_bags else "single rows")
            + "; multiple_instance methods go with pooling: attention, all others with another"
        )
    y_NL = as_labels(y_train, x_train.shape[0], "y_train")
    y_VL = as_labels(y_validation, x_validation.shape[0], "y_validation")
    _check_labels(y_NL, y_VL, label_names)
    prepared = chosen_method.prepare(x_train, x_validation, seed)
    labels = [
        _fit_label(prepared, y_NL[:, label], x_validation, y_VL[:, label], imbalance, seed, by)
        for label, by in enumerate([select_by] * y_NL.shape[1])
    ]
    return FittedProbe(chosen_method.name, x_train.shape[1], tuple(labels), select_by)


def _fit_label(
    prepared: Prepared,
    y_N: Any,
    x_validation: Matrix,
    y_V: Any,
    imbalance: ImbalanceSpec | ImbalanceMode,
    seed: int,
    select_by: SelectBy,
) -> LabelProbe:
    weight_N = sample_weights(y_N, imbalance, seed)
    best, score_V, tried = choose(prepared.candidates(y_N, weight_N), x_validation, y_V, select_by)
    value = max(score for _, score in tried)
    return LabelProbe(
        best.scorer,
        best.setting,
        value,
        best_f1_threshold(score_V, y_V),
        calibration(score_V, y_V),
        tried,
    )


def _check_labels(y_NL: Any, y_VL: Any, label_names: Sequence[str] | None) -> None:
    if y_NL.shape[1] != y_VL.shape[1]:
        raise BadSteeringInput(
            f"y_train has {y_NL.shape[1]} labels, y_validation {y_VL.shape[1]}; they must be equal"
        )
    names = label_names or [f"label {number}" for number in range(y_NL.shape[1])]
    for where, labels in (("training", y_NL), ("validation", y_VL)):
        if single := unlearnable(labels, names):
            raise BadSteeringInput(
                f"{', '.join(single)}: only one class among the {len(labels)} {where} rows; drop "
                "the label, gather more data, or split with it in mind"
            )
