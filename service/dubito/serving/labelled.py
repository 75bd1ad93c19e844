"""Labelled rows to a calibration, or to a report: read the truths, take all passes, fit or judge.

Dimensions: T samples, B labelled rows, N out-of-distribution rows, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from dubito.asked import CalibrateOrder, EvaluateOrder
from dubito.calibration.choices import Choices
from dubito.calibration.fit import fit
from dubito.calibration.flags import scorer
from dubito.calibration.flags.distances import checked as checked_features
from dubito.calibration.flags.flagging import OUTPUTS_ALONE
from dubito.calibration.flags.made import made_rows
from dubito.calibration.heads import head_of
from dubito.calibration.judge import judge
from dubito.calibration.promises.policy import Target
from dubito.calibration.reading import Written
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled, Truths
from dubito.calibration.terms import Terms
from dubito.engine import Inputs, Sampling
from dubito.engine.network import Network
from dubito.errors import InputError
from dubito.preprocess import LABEL, TableFile, is_archive
from dubito.report import Check, Evaluation
from dubito.serving.outputs import covering, draws_of, needs_features
from dubito.serving.rows import ReadRows, truths_of
from dubito_nn import Manifest
from dubito_nn.preprocess import ArrayInput
from dubito_nn.preprocess.given import seen_range
from dubito_nn.preprocess.parts import Seen


@dataclass(frozen=True)
class LabelledRows:
    """Checked rows with their truths, maybe strange rows, and how many there are of both."""

    inputs: dict[str, Tensor]
    truths: Truths
    ood_inputs: dict[str, Tensor] | None
    num_rows: int
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        order: CalibrateOrder | EvaluateOrder,
        network: Network,
        read: Callable[[Inputs | TableFile, Sequence[str]], ReadRows],
    ) -> LabelledRows:
        """Check what an order holds.

        Args:
            order: the rows and truths.
            network: the version's, or several.
            read: checks rows, with columns of a table beside them.

        Raises:
            InputError: rows or truths that cannot be used.
        """
        labels, targets, columns = order.labels, order.targets, order.label
        if columns is None and labels is None and targets is None and is_archive(order.inputs):
            columns = [LABEL]
        rows, head = read(order.inputs, columns or ()), head_of(network.manifest)
        if columns is not None:
            if not columns or labels is not None or targets is not None:
                raise InputError(
                    "`label` names the columns of a table that hold the truths, got none, or "
                    "`labels` or `targets` as well: give one of them"
                )
            labels, targets = truths_of(head.task, rows, columns)
        written = Written(
            network.manifest,
            rows.num_rows,
            partial(network.position_shape, rows.inputs),
            labels,
            targets,
            order.labels_are,
        )
        truths = head.read(written)
        if order.ood_inputs is None:
            return cls(rows.inputs, truths, None, rows.num_rows, rows.warnings)
        strange = read(order.ood_inputs, ())
        num_rows = rows.num_rows + strange.num_rows
        return cls(rows.inputs, truths, strange.inputs, num_rows, rows.warnings)


@dataclass(frozen=True)
class Evaluated:
    """A report, with the raw one beside it where that was asked, and what it was made with."""

    evaluation: Evaluation
    raw: Evaluation | None
    is_calibrated: bool
    coverage: float | None
    warnings: tuple[str, ...]


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


def terms_of(order: CalibrateOrder, sampling: Sampling, manifest: Manifest) -> Terms:
    """Return the terms of a calibration that an order asks for.

    Args:
        order: as it came; what it does not choose is as `Choices` has it.
        sampling: with which the passes will be drawn.
        manifest: of the network.

    Raises:
        InputError: a choice, score or target is unknown, or belongs to another task or head.
    """
    head = head_of(manifest)
    names = [field.name for field in fields(Choices)]
    chosen = {name: getattr(order, name) for name in names if getattr(order, name) is not None}
    choices = Choices(**chosen)
    if order.ood_score is not None:
        head.scores.check_name(order.ood_score, has_strange=order.ood_inputs is not None)
    target = Target(order.target_risk, order.risk_confidence, order.target_acceptance)
    terms = Terms(
        sampling=sampling,
        alpha=order.alpha,
        coverage=order.coverage,
        seed=sampling.seed,
        choices=choices,
        score=order.ood_score,
        target=target,
    )
    head.check(terms)
    for name in head.foreign:
        if name in chosen:
            other = ({"classification", "regression"} - {head.task}).pop()
            raise InputError(f"`{name}` belongs to a {other}, got a {head.task}: leave it out")
    return terms


def calibrate(
    network: Network, rows: LabelledRows, terms: Terms, check: Check, max_values: int
) -> Calibration:
    """The calibration of the rows.

    Args:
        network: of the version.
        rows: checked, with their truths.
        terms: what is asked.
        check: called between chunks; whatever it raises ends the fit.
        max_values: most numbers that the features of all rows may be.

    Raises:
        InputError: too few rows for a promise, or what cannot be fitted.
    """
    is_default = terms.score is None
    warnings = _without_features(network, rows, max_values) if is_default else ()
    if is_default:
        with_features = not warnings
    else:
        with_features = _takes_features(terms.score, network, rows, max_values)
    take = _Taking(network, terms.sampling, check, with_features, terms.choices.sets != "lac")
    sampled, strange = take.all(rows)
    made = {kind: take.of(some, None) for kind, some in made_rows(rows.inputs, terms.seed).items()}
    record = fit(head_of(network.manifest), sampled, terms, strange=strange, made=made, check=check)
    return replace(record, warnings=(*record.warnings, *warnings), seen=_seen(network, rows))


def _seen(network: Network, rows: LabelledRows) -> dict[str, Seen] | None:
    """Ranges of the inputs that the bundle declares as arrays; None where there are none."""
    found = {
        str(part.input): seen_range(rows.inputs[str(part.input)])
        for part in network.manifest.preprocess or ()
        if isinstance(part, ArrayInput)
    }
    return {name: seen for name, seen in found.items() if seen is not None} or None


def evaluate(
    network: Network,
    rows: LabelledRows,
    order: EvaluateOrder,
    sampling: Sampling,
    calibration: Calibration | None,
    check: Check,
    max_values: int,
) -> Evaluated:
    """The report of the rows.

    Args:
        network: of the version, or of several.
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
    with_features = needs_features(applied, network)
    if with_features:
        _check_features(network, rows, max_values)
    is_randomised = applied is not None and applied.head.is_randomised
    take = _Taking(network, sampling, check, with_features, is_randomised)
    sampled, strange = take.all(rows)
    report = partial(
        judge,
        head_of(network.manifest),
        sampled,
        strange=strange,
        coverage=order.coverage,
        check=check,
    )
    evaluation = report(applied)
    return Evaluated(
        evaluation=evaluation,
        raw=report(None) if order.compare and applied is not None else None,
        is_calibrated=applied is not None,
        coverage=None if applied is None else applied.promise.level(order.coverage),
        warnings=(*warnings, *evaluation.warnings),
    )


@dataclass(frozen=True)
class _Taking:
    """Takes all passes over rows.

    Args:
        network: one, or several.
        sampling: what to draw.
        check: called between chunks.
        with_features: whether to take their features too.
        with_draws: whether to take a number of each labelled row, for randomised sets.
    """

    network: Network
    sampling: Sampling
    check: Check
    with_features: bool
    with_draws: bool

    def all(self, rows: LabelledRows) -> tuple[Sampled, Sampled | None]:
        """Labelled rows, and strange ones where there are any."""
        labelled = self.of(rows.inputs, rows.truths)
        return labelled, None if rows.ood_inputs is None else self.of(rows.ood_inputs, None)

    def of(self, inputs: dict[str, Tensor], truth: Truths | None) -> Sampled:
        """All passes over some rows, with what else is taken of them."""
        head = head_of(self.network.manifest)
        of_members = [
            head.parts(member.sample(inputs, sampling=drawn, check=self.check), member.manifest)
            for member, drawn in self.network.drawn(self.sampling)
        ]
        features, with_draws = None, self.with_draws and truth is not None
        if self.with_features:
            features = self.network.feature_maps(inputs, check=self.check).float().numpy()
        return Sampled(
            passes=tuple(
                (torch.cat(parts) if len(parts) > 1 else parts[0]).numpy()
                for parts in zip(*of_members, strict=True)
            ),
            truth=truth,
            features=features,
            uniform=draws_of(inputs, self.sampling.seed) if with_draws else None,
        )


def _takes_features(
    score: str | None, network: Network, rows: LabelledRows, max_values: int
) -> bool:
    """Whether the fit reads features; `auto` and `combined` do where there are any that fit.

    Raises:
        InputError: a distance is asked of a network without features, or with too many.
    """
    if score not in (scorer.AUTO, scorer.COMBINED, scorer.OVERALL, *scorer.OF_FEATURES):
        return False
    try:
        _check_features(network, rows, None)
    except InputError:
        if score in (scorer.OVERALL, *scorer.OF_FEATURES):
            raise
        return False
    _check_features(network, rows, max_values)
    return True


def _without_features(network: Network, rows: LabelledRows, max_values: int) -> tuple[str, ...]:
    """Why the default of the flag reads no features, as a warning; none where it does."""
    sizes = [size for one in network.manifest.inputs for size in one.shape]
    if any(isinstance(size, str) for size in sizes):
        return (f"{OUTPUTS_ALONE}: rows have features of one length, got inputs of any length",)
    try:
        _check_features(network, rows, max_values)
    except InputError as error:
        return (f"{OUTPUTS_ALONE}: {error.detail}",)
    return ()


def _check_features(network: Network, rows: LabelledRows, max_values: int | None) -> None:
    """Try the features of one row.

    Raises:
        InputError: the network has none that distances can be taken in, or too many.
    """
    feature_1F = network.features({name: tensor[:1] for name, tensor in rows.inputs.items()})
    checked_features(feature_1F.double().numpy(), "features")
    values = rows.num_rows * feature_1F.shape[1]
    if max_values is not None and values > max_values:
        raise InputError(
            f"features x rows: expected at most {max_values} numbers, got {values}: send fewer "
            "rows, or calibrate with a score that reads no features"
        )
