"""Labelled rows to a report: take all passes, judge them as they would be served.

Dimensions: T samples, B labelled rows, N strange rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.asked import EvaluateOrder
from dubito.calibration.evaluate import evaluate_classification, evaluate_regression
from dubito.calibration.evaluate_positions import evaluate_positions
from dubito.calibration.promises import draws
from dubito.calibration.promises.positions import PositionHead
from dubito.calibration.record import Calibration
from dubito.engine import Sampling
from dubito.engine.heads import class_logits
from dubito.engine.heads.numbers import log_variance, mean_and_variance
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.report import Evaluation
from dubito.serving.judging.calibrating import Features, Labelled, check_features
from dubito.serving.outputs import covering
from dubito.serving.worker import Check
from dubito_nn import Manifest


@dataclass(frozen=True)
class Judged:
    """A report, with the raw one beside it where that was asked, and what it was made with."""

    evaluation: Evaluation
    raw: Evaluation | None
    is_calibrated: bool
    coverage: float | None
    warnings: tuple[str, ...]


def check_evaluated(sampling: Sampling) -> None:
    """Refuse to judge rows that stop early.

    Raises:
        InputError: there is a tolerance.
    """
    if sampling.tolerance is not None:
        raise InputError(
            "`tolerance`: a report is made of equally many passes of every row, and rows that stop "
            "early have not: leave it out, and evaluate with num_samples, the most that a row takes"
        )


def judge(
    engine: Network,
    rows: Labelled,
    order: EvaluateOrder,
    sampling: Sampling,
    calibration: Calibration | None,
    check: Check,
    max_values: int,
) -> Judged:
    """The report of the rows.

    Args:
        engine: of the version, or of several.
        rows: checked, with their truths.
        order: calibration, coverage, and whether to compare with the raw figures.
        sampling: what to draw.
        calibration: the active one.
        check: called between chunks; whatever it raises ends the evaluation.
        max_values: most numbers that features of all rows may be, where the score reads them.

    Raises:
        InputError: there are more.
    """
    warnings: list[str] = []
    applied = covering(order.calibration, sampling, calibration, warnings)
    coverage = None
    if applied is not None:
        coverage = applied.coverage if order.coverage is None else order.coverage
    features = Features()
    if applied is not None and applied.needs_features and engine.shares_features:
        check_features(engine, rows, max_values)
        features = Features.take(engine, rows, check)
    take = _classes if engine.manifest.family == "classification" else _numbers
    evaluate = take(engine, rows, sampling, coverage, features, check)
    evaluation = evaluate(applied)
    return Judged(
        evaluation=evaluation,
        raw=evaluate(None) if order.compare and applied is not None else None,
        is_calibrated=applied is not None,
        coverage=coverage,
        warnings=(*warnings, *evaluation.warnings),
    )


def _classes(
    engine: Network,
    rows: Labelled,
    sampling: Sampling,
    coverage: float | None,
    features: Features,
    check: Check,
) -> Callable[[Calibration | None], Evaluation]:
    """How to judge a classification, once its passes are taken."""

    def taken(inputs: Mapping[str, Tensor]) -> NDArray[np.float64]:
        passes = _passes(engine, inputs, sampling, check)
        every: NDArray[np.float64] = torch.cat(
            [class_logits(raw, manifest) for manifest, raw in passes]
        ).numpy()
        return every

    logits_TBC = taken(rows.inputs)
    strange_TNC = None if rows.ood_inputs is None else taken(rows.ood_inputs)
    if engine.manifest.has_positions:
        return lambda calibration: evaluate_positions(
            logits_TBC,
            rows.truths,
            cast(PositionHead, engine.manifest.head),
            calibration=calibration,
            coverage=coverage,
            ood_logits_TNPC=strange_TNC,
            feature_BF=features.labelled,
            ood_feature_NF=features.strange,
            check=check,
        )
    uniform_B = draws.by_content(
        {name: tensor.numpy() for name, tensor in rows.inputs.items()}, sampling.seed
    )
    return lambda calibration: evaluate_classification(
        logits_TBC,
        rows.truths,
        calibration=calibration,
        coverage=coverage,
        ood_logits_TNC=strange_TNC,
        feature_BF=features.labelled,
        ood_feature_NF=features.strange,
        uniform_B=uniform_B,
        check=check,
    )


def _numbers(
    engine: Network,
    rows: Labelled,
    sampling: Sampling,
    coverage: float | None,
    features: Features,
    check: Check,
) -> Callable[[Calibration | None], Evaluation]:
    """How to judge a regression, once its passes are taken."""

    def taken(
        inputs: Mapping[str, Tensor],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        means, own = [], []
        for manifest, raw in _passes(engine, inputs, sampling, check):
            means.append(mean_and_variance(raw, manifest)[0])
            if (found := log_variance(raw, manifest)) is not None:
                own.append(found)
        return torch.cat(means).numpy(), torch.cat(own).numpy() if own else None

    mean_TBD, log_variance_TBD = taken(rows.inputs)
    strange_TND = None if rows.ood_inputs is None else taken(rows.ood_inputs)[0]
    return lambda calibration: evaluate_regression(
        mean_TBD,
        log_variance_TBD,
        rows.truths,
        calibration=calibration,
        coverage=coverage,
        ood_mean_TND=strange_TND,
        feature_BF=features.labelled,
        ood_feature_NF=features.strange,
        check=check,
    )


def _passes(
    engine: Network, inputs: Mapping[str, Tensor], sampling: Sampling, check: Check
) -> Iterator[tuple[Manifest, Tensor]]:
    """What every pass of every network says, network by network."""
    for member, own in engine.drawn(sampling):
        yield member.manifest, member.sample(inputs, sampling=own, check=check)
