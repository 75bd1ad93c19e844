"""Fits and reports on arrays that a test makes up, without a network.

`asked` are the fields of `Terms` and `Sampled`, and `strange` passes with `ood_features`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration.choices import DEFAULTS
from dubito.calibration.fit import fit
from dubito.calibration.heads import Head, Request
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.heads.labels import LabelHead
from dubito.calibration.heads.number_positions import NumberPositionHead
from dubito.calibration.heads.numbers import NumberHead
from dubito.calibration.heads.positions import PositionHead
from dubito.calibration.judge import judge
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Prediction
from dubito.report import (
    Evaluation,
    Report,
    classification_statistics,
    figures,
    no_check,
    ood_statistics,
    regression_statistics,
)

HEADS: dict[str, Head] = {
    "classification": ClassHead(),
    "multilabel": LabelHead(),
    "dense": PositionHead(),
    "regression": NumberHead(),
    "dense_regression": NumberPositionHead(),
}


def fitted(kind: str, passes: tuple[Any, ...], truth: ArrayLike, **asked: Any) -> Calibration:
    """A calibration of a kind of head."""
    rows, strange = _rows(passes, truth, asked)
    check = asked.pop("check", no_check)
    return fit(HEADS[kind], rows, Terms(**asked), strange=strange, check=check)


def judged(kind: str, passes: tuple[Any, ...], truth: ArrayLike, **asked: Any) -> Evaluation:
    """A report on rows of a kind of head."""
    rows, strange = _rows(passes, truth, asked)
    return judge(HEADS[kind], rows, asked.pop("calibration"), strange=strange, **asked)


def fit_classification(logits_TBC: ArrayLike, label_B: ArrayLike, **asked: Any) -> Calibration:
    """A calibration of one class per row."""
    return fitted("classification", (logits_TBC,), label_B, **asked)


def fit_positions(
    logits_TBPC: ArrayLike, label_BP: ArrayLike, head: str, *, share: float = 1.0, **asked: Any
) -> Calibration:
    """A calibration of labels, or of a class at every position."""
    asked["choices"] = replace(asked.get("choices", DEFAULTS), position_share=share)
    return fitted(head, (logits_TBPC,), label_BP, **asked)


def fit_regression(
    mean_TBD: ArrayLike,
    log_variance_TBD: ArrayLike | None,
    target_BD: ArrayLike,
    *,
    noise_precision: float | None = None,
    **asked: Any,
) -> Calibration:
    """A calibration of numbers."""
    asked["choices"] = replace(asked.get("choices", DEFAULTS), noise_precision=noise_precision)
    return fitted("regression", _numbers(mean_TBD, log_variance_TBD), target_BD, **asked)


def evaluate_classification(logits_TBC: ArrayLike, label_B: ArrayLike, **asked: Any) -> Evaluation:
    """A report on one class per row."""
    return judged("classification", (logits_TBC,), label_B, **asked)


def evaluate_positions(
    logits_TBPC: ArrayLike, label_BP: ArrayLike, head: str, **asked: Any
) -> Evaluation:
    """A report on labels, or on a class at every position."""
    return judged(head, (logits_TBPC,), label_BP, **asked)


def evaluate_regression(
    mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None, target_BD: ArrayLike, **asked: Any
) -> Evaluation:
    """A report on numbers."""
    return judged("regression", _numbers(mean_TBD, log_variance_TBD), target_BD, **asked)


def _numbers(mean_TBD: ArrayLike, log_variance_TBD: ArrayLike | None) -> tuple[ArrayLike, ...]:
    return (mean_TBD,) if log_variance_TBD is None else (mean_TBD, log_variance_TBD)


def _rows(
    passes: tuple[Any, ...], truth: Any, asked: dict[str, Any]
) -> tuple[Sampled, Sampled | None]:
    """Labelled rows and strange ones, of what was asked, which keeps the rest."""
    features, uniform = asked.pop("features", None), asked.pop("uniform_B", None)
    strange, ood_features = asked.pop("strange", None), asked.pop("ood_features", None)
    rows = Sampled(passes, truth, features, uniform)
    return rows, None if strange is None else Sampled((strange,), None, ood_features)


def served_scores(
    calibration: Calibration, prediction: Prediction, features: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """The out-of-distribution score of each row of a prediction at the head's scaling."""
    request = Request(features=features)
    return calibration.ood_scores(calibration.head.served(prediction, request).source)


def classification_figures(mean_BC: Any, label_B: Any, sets_BC: Any) -> Report:
    """Every figure of a classification, without intervals."""
    return figures(classification_statistics(mean_BC, label_B, sets_BC), len(label_B))


def regression_figures(
    mean_TBD: Any, variance_TBD: Any, target_BD: Any, interval: Any, coverage: float | None
) -> Report:
    """Every figure of a regression, without intervals of their own."""
    statistics = regression_statistics(mean_TBD, variance_TBD, target_BD, interval, coverage)
    return figures(statistics, len(target_BD))


def ood_figures(flag_B: Any, score_B: Any, ood_score_N: Any) -> Report:
    """Every figure of the flag, without intervals."""
    num_strange = 0 if ood_score_N is None else len(ood_score_N)
    return figures(ood_statistics(flag_B, score_B, ood_score_N), len(score_B), num_strange)
