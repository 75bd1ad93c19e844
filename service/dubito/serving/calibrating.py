"""Labelled rows to a calibration: read the truths, take all passes, fit.

Dimensions: T samples, B labelled rows, N strange rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dubito.calibration import truths as checked
from dubito.calibration.fit import fit_classification, fit_regression
from dubito.calibration.flagging import Flagging
from dubito.calibration.policy import Target
from dubito.calibration.record import Calibration
from dubito.engine import Engine, Sampling
from dubito.engine.heads import logits, mean_and_variance
from dubito.errors import InputError
from dubito.ood import scorer
from dubito.ood.distances import checked as checked_features
from dubito.serving.orders import CalibrateOrder
from dubito.serving.worker import Check
from dubito_nn import Manifest

Truths = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Passes:
    """Declared outputs of every pass over the labelled rows and the strange ones.

    Their features are taken too, where the score of the flag reads them.
    """

    manifest: Manifest
    labelled: Tensor
    strange: Tensor | None
    features: Tensor | None = None
    strange_features: Tensor | None = None

    @classmethod
    def take(
        cls,
        engine: Engine,
        inputs: Mapping[str, Tensor],
        ood_inputs: Mapping[str, Tensor] | None,
        sampling: Sampling,
        check: Check,
        *,
        with_features: bool = False,
    ) -> Passes:
        """Run the engine over all rows."""
        labelled = engine.sample(inputs, sampling=sampling, check=check)
        strange = (
            None
            if ood_inputs is None
            else engine.sample(ood_inputs, sampling=sampling, check=check)
        )
        if not with_features:
            return cls(engine.manifest, labelled, strange)
        features = engine.features(inputs, check=check)
        strange_features = None if ood_inputs is None else engine.features(ood_inputs, check=check)
        return cls(engine.manifest, labelled, strange, features, strange_features)


def check_sampling(sampling: Sampling) -> None:
    """Refuse to fit on rows that stop early, or on several networks at once.

    Raises:
        InputError: there is a tolerance, or the method is `ensemble`.
    """
    if sampling.method == "ensemble":
        raise InputError(
            "calibrating expects one version, got method `ensemble`: calibrate each with `mc`"
        )
    if sampling.tolerance is not None:
        raise InputError(
            "`tolerance`: calibrating with one is not built yet, since a fit takes all passes of "
            "every row: leave it out, and calibrate with num_samples"
        )


def flagging_of(order: CalibrateOrder, task: str) -> Flagging:
    """Which score the flag shall have, yet without features.

    Raises:
        InputError: the task has no such score, or there are no strange rows to choose it by.
    """
    if order.ood_score is not None:
        scorer.check_name(order.ood_score, task, has_strange=order.ood_inputs is not None)
    return Flagging(order.ood_score)


def target_of(order: CalibrateOrder, task: str) -> Target:
    """What the policy shall promise.

    Raises:
        InputError: out of bounds, contradictory, or nothing that the task can promise.
    """
    target = Target(order.target_risk, order.risk_confidence, order.target_acceptance)
    target.check_task(task)
    return target


def takes_features(
    order: CalibrateOrder, engine: Engine, inputs: Mapping[str, Tensor], rows: int, limit: int
) -> bool:
    """Whether the fit reads features; `auto` and `combined` do where there are any that fit.

    Args:
        order: which score.
        engine: of the version.
        inputs: checked rows, of which one is tried.
        rows: how many there are with the strange ones.
        limit: most numbers that the features of all rows may be.

    Raises:
        InputError: a distance is asked of a network without features, or with too many.
    """
    if order.ood_score not in (scorer.AUTO, scorer.COMBINED, *scorer.DISTANCES):
        return False
    try:
        one = engine.features({name: tensor[:1] for name, tensor in inputs.items()})
        checked_features(one.double().numpy(), "features")
    except InputError:
        if order.ood_score in scorer.DISTANCES:
            raise
        return False
    if rows * one.shape[1] > limit:
        raise InputError(
            f"features x rows: expected at most {limit} numbers, got {rows * one.shape[1]}: send "
            "fewer rows, or name a score that reads no features"
        )
    return True


def read_truths(order: CalibrateOrder, manifest: Manifest, rows: int) -> Truths:
    """Class indices (B,) or targets (B, D) of the labelled rows.

    Raises:
        InputError: the wrong field, a wrong count, an unknown class, or a value not finite.
    """
    is_classes = manifest.task == "classification"
    wanted, unwanted = ("labels", "targets") if is_classes else ("targets", "labels")
    given: object = getattr(order, wanted)
    if given is None or getattr(order, unwanted) is not None:
        raise InputError(
            f"calibrating a {manifest.task}: expected `{wanted}`, got "
            f"{'none' if given is None else f'`{unwanted}` as well'}: send `{wanted}` alone"
        )
    if is_classes and order.noise_precision is not None:
        raise InputError("`noise_precision` belongs to a regression: leave it out")
    if is_classes:
        return checked.labels(_labels(given, manifest), rows, manifest.num_outputs)
    try:
        return checked.targets(cast(ArrayLike, given), rows, manifest.num_outputs)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"`targets` expects rows of {manifest.num_outputs} numbers, got ragged ones or no "
            "numbers: send one list of the same length per row"
        ) from error


def fit(passes: Passes, truths: Truths, order: CalibrateOrder, sampling: Sampling) -> Calibration:
    """The calibration of the passes."""
    manifest = passes.manifest
    flagging = replace(
        flagging_of(order, manifest.task),
        features=None if passes.features is None else passes.features.numpy(),
        ood_features=None if passes.strange_features is None else passes.strange_features.numpy(),
    )
    target = target_of(order, manifest.task)
    if manifest.task == "classification":
        return fit_classification(
            logits(passes.labelled, manifest.output).numpy(),
            truths,
            sampling=sampling,
            alpha=order.alpha,
            coverage=order.coverage,
            seed=sampling.seed,
            ood_logits_TNC=None
            if passes.strange is None
            else logits(passes.strange, manifest.output).numpy(),
            flagging=flagging,
            target=target,
        )
    mean_TBD, variance_TBD = mean_and_variance(passes.labelled, manifest)
    strange_TND = None if passes.strange is None else mean_and_variance(passes.strange, manifest)[0]
    has_variance = manifest.output == "mean_and_log_variance"
    return fit_regression(
        mean_TBD.numpy(),
        variance_TBD.log().numpy() if has_variance else None,
        truths,
        sampling=sampling,
        alpha=order.alpha,
        coverage=order.coverage,
        seed=sampling.seed,
        noise_precision=order.noise_precision,
        ood_mean_TND=None if strange_TND is None else strange_TND.numpy(),
        flagging=flagging,
        target=target,
    )


def _labels(given: object, manifest: Manifest) -> NDArray[np.int64]:
    classes = manifest.classes or tuple(str(index) for index in range(manifest.num_outputs))
    values = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError("`labels` expects a list of class names or class indices")
    places = {name: index for index, name in enumerate(classes)}
    found = [_label(value, row, places) for row, value in enumerate(values)]
    return np.array(found, dtype=np.int64)


def _label(value: object, row: int, places: Mapping[str, int]) -> int:
    if isinstance(value, str) and value in places:
        return places[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(places):
        return value
    raise InputError(
        f"`labels` expects names ({', '.join(list(places)[:12])}) or indices from 0 to "
        f"{len(places) - 1}, got {str(value)[:40]!r} in row {row}: correct that row"
    )
