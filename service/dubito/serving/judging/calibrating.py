"""Labelled rows to a calibration: read the truths, take all passes, fit.

`evaluating` reads its rows here too.

Dimensions: T samples, B labelled rows, N strange rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dubito.asked import CalibrateOrder
from dubito.calibration import truths as checked
from dubito.calibration.choices import Choices
from dubito.calibration.fit import fit_classification, fit_regression
from dubito.calibration.fit_positions import fit_positions
from dubito.calibration.flags import scorer
from dubito.calibration.flags.distances import checked as checked_features
from dubito.calibration.flags.flagging import Flagging
from dubito.calibration.promises import draws
from dubito.calibration.promises.policy import Target
from dubito.calibration.promises.positions import DEFAULT_SHARE, PositionHead
from dubito.calibration.promises.positions import check_choices as check_position_choices
from dubito.calibration.record import Calibration
from dubito.engine import Engine, Inputs, Sampling
from dubito.engine.heads import class_logits
from dubito.engine.heads.logits import logits
from dubito.engine.heads.numbers import log_variance, mean_and_variance
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.labels import Classes, LabelsAre
from dubito.serving.judging.position_labels import read_position_labels
from dubito.serving.worker import Check
from dubito_nn import Manifest

Truths = NDArray[np.int64] | NDArray[np.float64]

_CHOICES_OF = {
    "classification": ("scaling", "sets", "per_class"),
    "regression": ("noise_precision", "intervals"),
}


class LabelledOrder(Protocol):
    """What orders of labelled rows have in common."""

    @property
    def inputs(self) -> Inputs: ...  # noqa: D102
    @property
    def labels(self) -> object: ...  # noqa: D102
    @property
    def targets(self) -> object: ...  # noqa: D102
    @property
    def ood_inputs(self) -> Inputs | None: ...  # noqa: D102
    @property
    def labels_are(self) -> LabelsAre | None: ...  # noqa: D102


@dataclass(frozen=True)
class Labelled:
    """Checked rows with their truths, maybe strange rows, and how many there are of both."""

    inputs: dict[str, Tensor]
    truths: Truths
    ood_inputs: dict[str, Tensor] | None
    num_rows: int

    @classmethod
    def read(
        cls,
        order: LabelledOrder,
        network: Network,
        read: Callable[[Inputs], tuple[dict[str, Tensor], int]],
    ) -> Labelled:
        """Check what an order holds.

        Args:
            order: the rows and truths.
            network: the version's, or several.
            read: checks rows, and counts them.

        Raises:
            InputError: rows or truths that cannot be used.
        """
        inputs, num_rows = read(order.inputs)
        truths = read_truths(order, network, inputs, num_rows)
        if order.ood_inputs is None:
            return cls(inputs, truths, None, num_rows)
        ood_inputs, num_strange = read(order.ood_inputs)
        return cls(inputs, truths, ood_inputs, num_rows + num_strange)


@dataclass(frozen=True)
class Features:
    """Features (rows, F) of labelled rows and of strange ones; None where no score reads them."""

    labelled: NDArray[np.floating] | None = None
    strange: NDArray[np.floating] | None = None

    @classmethod
    def take(cls, engine: Network, rows: Labelled, check: Check) -> Features:
        """One pass without draws over all rows."""
        labelled = engine.features(rows.inputs, check=check).numpy()
        if rows.ood_inputs is None:
            return cls(labelled)
        return cls(labelled, engine.features(rows.ood_inputs, check=check).numpy())


@dataclass(frozen=True)
class Passes:
    """The labelled rows, and declared outputs of every pass over them and the strange ones.

    Their features are there too, where the score of the flag reads them.
    """

    manifest: Manifest
    inputs: Mapping[str, Tensor]
    labelled: Tensor
    strange: Tensor | None
    features: Features

    @classmethod
    def take(
        cls,
        engine: Engine,
        rows: Labelled,
        sampling: Sampling,
        check: Check,
        *,
        with_features: bool = False,
    ) -> Passes:
        """Run the engine over all rows."""
        labelled = engine.sample(rows.inputs, sampling=sampling, check=check)
        strange = (
            None
            if rows.ood_inputs is None
            else engine.sample(rows.ood_inputs, sampling=sampling, check=check)
        )
        taken = Features.take(engine, rows, check) if with_features else Features()
        return cls(engine.manifest, rows.inputs, labelled, strange, taken)


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
            "`tolerance`: a calibration is fitted on equally many passes of every row, and rows "
            "that stop early have not: leave it out, calibrate with num_samples, and predict with "
            "the same num_samples and no tolerance where its promises shall hold"
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


def takes_features(order: CalibrateOrder, engine: Engine, rows: Labelled, limit: int) -> bool:
    """Whether the fit reads features; `auto` and `combined` do where there are any that fit.

    Args:
        order: which score.
        engine: of the version.
        rows: checked, of which one is tried.
        limit: most numbers that the features of all rows may be.

    Raises:
        InputError: a distance is asked of a network without features, or with too many.
    """
    if order.ood_score not in (scorer.AUTO, scorer.COMBINED, *scorer.DISTANCES):
        return False
    try:
        check_features(engine, rows, None)
    except InputError:
        if order.ood_score in scorer.DISTANCES:
            raise
        return False
    check_features(engine, rows, limit)
    return True


def check_features(engine: Network, rows: Labelled, limit: int | None) -> None:
    """Try the features of one row.

    Args:
        engine: of the version.
        rows: checked.
        limit: most numbers that the features of all rows may be; None: any.

    Raises:
        InputError: the network has none that distances can be taken in, or too many.
    """
    one = engine.features({name: tensor[:1] for name, tensor in rows.inputs.items()})
    checked_features(one.double().numpy(), "features")
    values = rows.num_rows * one.shape[1]
    if limit is not None and values > limit:
        raise InputError(
            f"features x rows: expected at most {limit} numbers, got {values}: send fewer rows, or "
            "calibrate with a score that reads no features"
        )


def read_truths(
    order: LabelledOrder, network: Network, inputs: Mapping[str, Tensor], rows: int
) -> Truths:
    """Class indices (B,), or (B, P) of labels or positions, or targets (B, D) of the rows.

    Raises:
        InputError: the wrong field, a wrong count, an unknown class, a value not finite, or a
            choice that the task does not have.
    """
    manifest = network.manifest
    is_classes = manifest.family == "classification"
    wanted, unwanted = ("labels", "targets") if is_classes else ("targets", "labels")
    given: object = getattr(order, wanted)
    if given is None or getattr(order, unwanted) is not None:
        raise InputError(
            f"labelled rows of a {manifest.task}: expected `{wanted}`, got "
            f"{'none' if given is None else f'`{unwanted}` as well'}: send `{wanted}` alone"
        )
    if order.labels_are is not None and not is_classes:
        raise InputError("`labels_are` belongs to labels, got targets: leave it out")
    if manifest.has_positions:
        shape = network.position_shape(inputs)
        return read_position_labels(given, manifest, rows, shape, order.labels_are)
    if is_classes:
        index_B = _labels(given, Classes(manifest.classes or (), order.labels_are))
        return checked.labels(index_B, rows, manifest.num_outputs)
    try:
        return checked.targets(cast(ArrayLike, given), rows, manifest.num_outputs)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"`targets` expects rows of {manifest.num_outputs} numbers, got ragged ones or no "
            "numbers: send one list of the same length per row"
        ) from error


def fit(
    passes: Passes, truths: Truths, order: CalibrateOrder, sampling: Sampling, check: Check
) -> Calibration:
    """The calibration of the passes."""
    manifest, choices = passes.manifest, _choices(order)
    flagging = replace(
        flagging_of(order, manifest.family),
        features=passes.features.labelled,
        ood_features=passes.features.strange,
    )
    target = target_of(order, manifest.family)
    if manifest.has_positions:
        return _fit_positions(passes, truths, order, sampling, (choices, flagging, target), check)
    if manifest.family == "classification":
        rows = {name: tensor.numpy() for name, tensor in passes.inputs.items()}
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
            choices=choices,
            flagging=flagging,
            target=target,
            uniform_B=None if choices.sets == "lac" else draws.by_content(rows, sampling.seed),
            check=check,
        )
    strange_TND = None if passes.strange is None else mean_and_variance(passes.strange, manifest)[0]
    own_TBD = log_variance(passes.labelled, manifest)
    return fit_regression(
        mean_and_variance(passes.labelled, manifest)[0].numpy(),
        None if own_TBD is None else own_TBD.numpy(),
        truths,
        sampling=sampling,
        alpha=order.alpha,
        coverage=order.coverage,
        seed=sampling.seed,
        noise_precision=order.noise_precision,
        ood_mean_TND=None if strange_TND is None else strange_TND.numpy(),
        choices=choices,
        flagging=flagging,
        target=target,
        check=check,
    )


def _fit_positions(
    passes: Passes,
    truths: Truths,
    order: CalibrateOrder,
    sampling: Sampling,
    asked: tuple[Choices, Flagging, Target],
    check: Check,
) -> Calibration:
    manifest, (choices, flagging, target) = passes.manifest, asked
    share = DEFAULT_SHARE[manifest.head] if order.position_share is None else order.position_share
    return fit_positions(
        class_logits(passes.labelled, manifest).numpy(),
        truths,
        cast(PositionHead, manifest.head),
        sampling=sampling,
        alpha=order.alpha,
        coverage=order.coverage,
        seed=sampling.seed,
        share=share,
        ood_logits_TNPC=None
        if passes.strange is None
        else class_logits(passes.strange, manifest).numpy(),
        choices=choices,
        flagging=flagging,
        target=target,
        check=check,
    )


def _choices(order: CalibrateOrder) -> Choices:
    """What is chosen; what is not, as `Choices` has it."""
    names = [field.name for field in fields(Choices)]
    given = {name: getattr(order, name) for name in names if getattr(order, name) is not None}
    return Choices(**given)


def check_choices(order: CalibrateOrder, manifest: Manifest) -> None:
    """Refuse choices, scores and targets that are unknown or belong to another task or head.

    Raises:
        InputError: naming the choice.
    """
    task, choices = manifest.family, _choices(order)
    flagging_of(order, task)
    target = target_of(order, task)
    check_position_choices(manifest.head, choices, target, order.ood_score, order.position_share)
    other = "regression" if task == "classification" else "classification"
    for name in _CHOICES_OF[other]:
        if getattr(order, name) is not None:
            raise InputError(f"`{name}` belongs to a {other}, got a {task}: leave it out")


def _labels(given: object, classes: Classes) -> NDArray[np.int64]:
    values = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError("`labels` expects a list of class names or class indices")
    found = [classes.index(value, "`labels`", f" in row {row}") for row, value in enumerate(values)]
    return np.array(found, dtype=np.int64)
