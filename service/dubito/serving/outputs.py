"""The columns of a reply, from the engine's prediction and the calibration that covers it.

Without one, `prediction_set`, `interval`, `quantiles`, `decision` and `ood` are null, with a
warning; they are never invented.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.asked import PredictOrder
from dubito.calibration.promises import draws, mixture
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine import Classification, Regression, Sampling
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.monitoring.kept import Kept
from dubito.monitoring.observing import observe
from dubito.serving.overflow import decided, flagged, warn_of_overflow
from dubito.serving.positions import (
    BY_POSITION,
    by_position,
    certain_sets,
    labels,
    shown,
    shown_sets,
)
from dubito.serving.worker import Check

_SHARED = ("mean", "variance", "standard_error", "num_samples_used")
_CLASSIFICATION = (
    "label",
    *_SHARED,
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "mutual_information_corrected",
    "variation_ratio",
    "prediction_set",
    "decision",
    "ood",
)
_REGRESSION = (
    *_SHARED,
    "epistemic_variance",
    "aleatoric_variance",
    "quantiles",
    "interval",
    "decision",
    "ood",
)
_OUTPUTS = {
    "classification": _CLASSIFICATION,
    "multilabel": (*_CLASSIFICATION, "certain_set", *BY_POSITION),
    "dense": (*_CLASSIFICATION, *BY_POSITION),
    "regression": _REGRESSION,
}
_ON_REQUEST = "samples"


@dataclass(frozen=True)
class Built:
    """Columns, warnings, and whether the samples differed (None where none were drawn).

    `kept` is what monitoring takes, where a calibration covers and the request has an id.
    """

    outputs: Mapping[str, Column]
    warnings: tuple[str, ...]
    varies: bool | None
    calibration: Calibration | None
    kept: Kept | None


@dataclass(frozen=True)
class _Request:
    """What the columns are made of."""

    order: PredictOrder
    calibration: Calibration | None
    inputs: Mapping[str, Tensor]
    features: NDArray[np.float32] | None = None
    warnings: list[str] = field(default_factory=list)


def check_outputs(names: Sequence[str] | None, head: str, sampling: Sampling) -> None:
    """Refuse names of outputs that a head or a method does not have.

    Raises:
        InputError: a name is unknown, or the list is empty.
    """
    if _ON_REQUEST in (names or ()) and sampling.method == "moments":
        raise InputError("method `moments` makes no masked passes: for `samples` use method `mc`")
    known = (*_OUTPUTS[head], _ON_REQUEST)
    unknown = [name for name in names or () if name not in known]
    if unknown or (names is not None and not names):
        raise InputError(
            f"`outputs` of a {head}: expected some of {', '.join(known)}, "
            f"got {', '.join(unknown)[:160] or 'none'}: correct the names or leave `outputs` out"
        )


def build_outputs(
    order: PredictOrder,
    engine: Network,
    inputs: Mapping[str, Tensor],
    sampling: Sampling,
    calibration: Calibration | None,
    check: Check,
    *,
    may_keep_samples: bool,
) -> Built:
    """Run the engine and make the columns that are asked for.

    Args:
        order: coverage, names of the outputs.
        engine: of the version, or of several.
        inputs: checked rows.
        sampling: what to draw.
        calibration: the active one, if it shall be used.
        check: called between chunks.
        may_keep_samples: whether all passes are few enough to keep them for `quantiles`.
    """
    injected = [one.manifest.injection_warning for one in engine.members]
    warnings = list(dict.fromkeys(line for line in injected if line is not None))
    applied = covering(order.calibration, sampling, calibration, warnings)
    names = order.outputs or _OUTPUTS[engine.manifest.head]
    prediction = engine.predict(
        dict(inputs),
        sampling=sampling,
        temperature=1.0 if applied is None else applied.logit_scaling,
        keep_samples=_ON_REQUEST in names
        or (may_keep_samples and sampling.tolerance is None and _needs_passes(names, applied)),
        check=check,
    )
    is_observed = order.request_id is not None
    is_scored = is_observed or not {"ood", "decision"}.isdisjoint(names)
    features = _features(engine, inputs, applied, check) if is_scored else None
    request = _Request(order, applied, inputs, features, warnings)
    columns: dict[str, Callable[[], Column]]
    if isinstance(prediction, Classification):
        columns = _classification(prediction, request)
    else:
        columns = _regression(prediction, request)
    columns[_ON_REQUEST] = lambda: _rows_first(prediction)
    outputs = {name: columns[name]() for name in names}
    warn_of_overflow({"mean": prediction.mean, **outputs}, warnings)
    varies = _varies(prediction) if sampling.method == "mc" else None
    kept = None
    if applied is not None and is_observed:
        kept = observe(prediction, applied, _draws(applied, request), features)
    return Built(outputs, tuple(warnings), varies, applied, kept)


def covering(
    choice: str,
    sampling: Sampling,
    calibration: Calibration | None,
    warnings: list[str],
) -> Calibration | None:
    """The calibration that a request is answered with; where there is none, a warning says why.

    Args:
        choice: `active` or `none`, as the request has it.
        sampling: what is drawn.
        calibration: the active one.
        warnings: to add to.
    """
    if choice == "none":
        warnings.append("raw figures: the request asked for no calibration")
        return None
    if sampling.method == "ensemble":
        warnings.append(
            "raw figures, and null where a calibration is needed: no calibration covers an ensemble"
        )
        return None
    if calibration is None:
        warnings.append(
            "no active calibration: sets, intervals, decision and ood are null; "
            "POST held-out rows to calibrate"
        )
        return None
    reason = calibration.covers(sampling)
    if reason is not None:
        warnings.append(f"raw figures, and null where a calibration is needed: {reason}")
        return None
    return calibration


def _classification(
    prediction: Classification, request: _Request
) -> dict[str, Callable[[], Column]]:
    found = request.calibration

    @cache
    def members() -> NDArray[np.bool_]:
        assert found is not None
        uniform_B = _draws(found, request)
        return found.prediction_sets(prediction.mean, uniform_B, request.order.coverage)

    @cache
    def strangeness() -> NDArray[np.float64]:
        assert found is not None
        return found.class_scores(prediction, request.features)

    def prediction_set() -> Column:
        if found is None:
            return None
        _warn_unbounded(found, request)
        return shown_sets(prediction, members())

    def ood() -> Column:
        return None if found is None else flagged(found.ood, strangeness())

    def decision() -> Column:
        if found is None:
            return None
        flag_B = found.ood.flags(strangeness())
        decisions = found.class_decisions(prediction.mean, flag_B, members())
        return decided(decisions, prediction.mean, strangeness())

    return {
        "label": lambda: labels(prediction),
        "mean": lambda: shown(prediction, prediction.mean),
        "variance": lambda: shown(prediction, prediction.variance),
        "standard_error": lambda: shown(prediction, prediction.standard_error),
        "num_samples_used": lambda: prediction.num_samples_used,
        "predictive_entropy": lambda: prediction.predictive_entropy,
        "expected_entropy": lambda: prediction.expected_entropy,
        "mutual_information": lambda: prediction.mutual_information,
        "mutual_information_corrected": lambda: prediction.mutual_information_corrected,
        "variation_ratio": lambda: prediction.variation_ratio,
        **by_position(prediction),
        "prediction_set": prediction_set,
        "certain_set": lambda: None if found is None else certain_sets(prediction, members()),
        "decision": decision,
        "ood": ood,
    }


def _regression(prediction: Regression, request: _Request) -> dict[str, Callable[[], Column]]:
    found = request.calibration
    aleatoric_BD = prediction.aleatoric_variance
    if found is not None:
        aleatoric_BD = found.aleatoric_variance(aleatoric_BD)
    variance_BD = prediction.epistemic_variance + aleatoric_BD

    def interval() -> Column:
        if found is None:
            return None
        coverage = request.order.coverage
        if found.intervals == "normalised":
            ends = found.normalised_intervals(prediction.mean, variance_BD, coverage)
        else:
            passes = _passes(prediction, found, request, "interval")
            if passes is None:
                return None
            ends = found.mixture_intervals(*passes, coverage)
        _warn_unbounded(found, request)
        return dict(zip(("lower", "upper"), ends, strict=True))

    def quantiles() -> Column:
        return None if found is None else _quantiles(prediction, found, request)

    @cache
    def strangeness() -> NDArray[np.float64]:
        assert found is not None
        return found.number_scores(prediction.epistemic_variance, request.features)

    def ood() -> Column:
        return None if found is None else flagged(found.ood, strangeness())

    def decision() -> Column:
        if found is None:
            return None
        decisions = found.number_decisions(variance_BD, found.ood.flags(strangeness()))
        return decided(decisions, prediction.mean, strangeness())

    return {
        "mean": lambda: prediction.mean,
        "variance": lambda: variance_BD,
        "standard_error": lambda: prediction.standard_error,
        "num_samples_used": lambda: prediction.num_samples_used,
        "epistemic_variance": lambda: prediction.epistemic_variance,
        "aleatoric_variance": lambda: aleatoric_BD,
        "quantiles": quantiles,
        "interval": interval,
        "decision": decision,
        "ood": ood,
    }


def _quantiles(prediction: Regression, found: Calibration, request: _Request) -> Column:
    """Quantiles of the calibrated mixture, by level: both ends of the coverage, and the median."""
    passes = _passes(prediction, found, request, "quantiles")
    if passes is None:
        return None
    coverage = found.level(request.order.coverage)
    levels = ((1 - coverage) / 2, 0.5, (1 + coverage) / 2)
    return {f"{level:.10g}": mixture.quantiles(*passes, level) for level in levels}


def _needs_passes(names: Sequence[str], calibration: Calibration | None) -> bool:
    if calibration is None:
        return False
    return "quantiles" in names or ("interval" in names and calibration.intervals == "cqr")


def _passes(
    prediction: Regression, found: Calibration, request: _Request, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Means and calibrated variances of all passes, or None with a warning."""
    if prediction.samples is None or prediction.noise_samples is None:
        request.warnings.append(
            f"`{name}` is null: it needs all passes, which are not kept with a tolerance, nor "
            "where passes x rows x outputs are too many: leave it out, or send fewer rows"
        )
        return None
    return prediction.samples, found.aleatoric_variance(prediction.noise_samples)


def _draws(found: Calibration, request: _Request) -> NDArray[np.float64]:
    """What randomised sets take of each row; nothing for the others."""
    if not found.set_rule.is_randomised:
        return np.zeros(0)
    rows = {name: tensor.numpy() for name, tensor in request.inputs.items()}
    return draws.by_content(rows, found.sampling.seed)


def _features(
    engine: Network,
    inputs: Mapping[str, Tensor],
    calibration: Calibration | None,
    check: Check,
) -> NDArray[np.float32] | None:
    """Features of the rows, where the score reads them."""
    if calibration is None or not calibration.needs_features or not engine.shares_features:
        return None
    return engine.features(dict(inputs), check=check).float().numpy()


def _rows_first(prediction: Classification | Regression) -> Column:
    """Every pass, the row first: probabilities (B, T, C) or means in target units (B, T, D)."""
    samples = prediction.samples
    if samples is None:
        return None
    return shown(prediction, np.ascontiguousarray(samples.swapaxes(0, 1)))


def _varies(prediction: Classification | Regression) -> bool:
    if isinstance(prediction, Classification):
        return bool((prediction.variance > 0).any())
    return bool((prediction.epistemic_variance > 0).any())


def _warn_unbounded(calibration: Calibration, request: _Request) -> None:
    coverage = calibration.level(request.order.coverage)
    if not np.isinf(calibration.conformal.thresholds(coverage)).any():
        return
    by_class = calibration.set_rule.per_class
    request.warnings.append(
        f"{calibration.conformal.num_rows} held-out rows {'of a class ' * by_class}are too few for "
        f"coverage {coverage}: sets hold every {'such ' * by_class}class and intervals have no end "
        "(null); calibrate with more rows"
    )
