"""Fits and reports on arrays that a test makes up, without a network.

`asked` are the fields of `Terms` and `Sampled`, and `strange` passes with `ood_features`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from dubito.calibration.choices import DEFAULTS
from dubito.calibration.fit import fit
from dubito.calibration.heads import Head
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.heads.labels import LabelHead
from dubito.calibration.heads.numbers import NumberHead
from dubito.calibration.heads.positions import PositionHead
from dubito.calibration.judge import judge
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.report import Evaluation, no_check

HEADS: dict[str, Head] = {
    "classification": ClassHead(),
    "multilabel": LabelHead(),
    "dense": PositionHead(),
    "regression": NumberHead(),
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
