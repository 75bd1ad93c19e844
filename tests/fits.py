"""Fits and reports on arrays that a test makes up, without a network."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from dubito.calibration import evaluate, fit
from dubito.calibration import evaluate_positions as of_positions
from dubito.calibration.fit_positions import fit_positions as _fit_positions
from dubito.calibration.flags.flagging import Flagging
from dubito.calibration.record import Calibration
from dubito.report import Evaluation


def _flagging(asked: dict[str, Any]) -> dict[str, Any]:
    names = ("score", "features", "ood_features")
    return asked | {"flagging": Flagging(*(asked.pop(name, None) for name in names))}


def fit_classification(logits_TBC: ArrayLike, label_B: ArrayLike, **asked: Any) -> Calibration:
    """A calibration of one class per row."""
    return fit.fit_classification(logits_TBC, label_B, **_flagging(asked))


def fit_positions(
    logits_TBPC: ArrayLike, label_BP: ArrayLike, head: str, **asked: Any
) -> Calibration:
    """A calibration of labels, or of a class at every position."""
    return _fit_positions(logits_TBPC, label_BP, head, **_flagging(asked))  # type: ignore[arg-type]


def fit_regression(
    mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None, target_BD: ArrayLike, **asked: Any
) -> Calibration:
    """A calibration of numbers."""
    return fit.fit_regression(mean_TBD, log_variance_TBD, target_BD, **_flagging(asked))


def evaluate_classification(logits_TBC: ArrayLike, label_B: ArrayLike, **asked: Any) -> Evaluation:
    """A report on one class per row."""
    return evaluate.evaluate_classification(logits_TBC, label_B, **asked)


def evaluate_positions(
    logits_TBPC: ArrayLike, label_BP: NDArray[Any], head: str, **asked: Any
) -> Evaluation:
    """A report on labels, or on a class at every position."""
    return of_positions.evaluate_positions(logits_TBPC, label_BP, head, **asked)  # type: ignore[arg-type]


def evaluate_regression(
    mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None, target_BD: ArrayLike, **asked: Any
) -> Evaluation:
    """A report on numbers."""
    return evaluate.evaluate_regression(mean_TBD, log_variance_TBD, target_BD, **asked)
