"""What heads of classes share: a scaling of the logits, their scores, columns and outputs.

Dimensions: T samples, B rows, P positions (one axis or more), C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.calibration import splits
from dubito.calibration.choices import ScalingName, Task
from dubito.calibration.flags import scores
from dubito.calibration.flags.scorer import OF_CLASSES, ScoreFamily
from dubito.calibration.flags.source import SampledSource
from dubito.calibration.heads.head import Floats, Head, misfit, wrong_task
from dubito.calibration.heads.served import Columns, Served
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.scaling.scaling import (
    fit_scaling,
    label_nll,
    mean_probabilities,
    scaled_logits,
)
from dubito.calibration.terms import Terms
from dubito.calibration.verdict import JudgedFit, judge_scaling
from dubito.columns import ClassSets, Column
from dubito.engine import Classification, Prediction
from dubito.engine.calling.columns import is_left_out
from dubito.engine.heads import class_logits
from dubito.engine.heads.scaling import Isotonic, Scaling, Vector
from dubito.report import Check
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored

OUTPUTS = (
    "label",
    "mean",
    "variance",
    "standard_error",
    "num_samples_used",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "mutual_information_corrected",
    "variation_ratio",
    "prediction_set",
    "decision",
    "ood",
)
_MAPS: Mapping[str, type] = {
    "temperature": NoneType,
    "none": NoneType,
    "vector": Vector,
    "isotonic": Isotonic,
}


@dataclass(frozen=True)
class LogitScaling:
    """What was fitted to the logits of every pass.

    Args:
        name: of the scaling.
        applied: a temperature, or a map.
    """

    name: ScalingName = "none"
    applied: Scaling = 1.0

    @classmethod
    def fit(cls, rows: Sampled, fit_b: Indices, terms: Terms) -> LogitScaling:
        """The scaling of the rows that fit it."""
        (logits,), name = rows.passes, terms.choices.scaling or "temperature"
        return cls(name, fit_scaling(name, logits[:, fit_b], rows.labels[fit_b], rows.check))

    @classmethod
    def of_record(cls, record: Stored) -> LogitScaling:
        """The scaling that `stored` wrote.

        Raises:
            InputError: fields that do not fit together, or figures of numbers beside it.
        """
        temperature, own_map = record.temperature, record.class_map
        others = (record.noise_variance, record.variance_scale, record.ood_reference)
        fits = record.task == "classification" and others == (None, None, None)
        fits = fits and isinstance(own_map, _MAPS[record.scaling])
        fits = fits and (own_map is None or temperature == 1)
        if not fits or temperature is None or temperature <= 0:
            raise misfit(record.task)
        return cls(record.scaling, own_map or temperature)

    def stored(self) -> dict[str, object]:
        """The fields of a record."""
        is_temperature = isinstance(self.applied, float)
        return {
            "task": "classification",
            "scaling": self.name,
            "temperature": self.applied if is_temperature else 1.0,
            "class_map": None if is_temperature else self.applied,
        }

    def mean(self, rows: Sampled) -> Floats:
        """The mean distribution over the passes, classes last."""
        return mean_probabilities(rows.passes[0], self.applied, rows.check)

    def nll(self, rows: Sampled) -> Floats:
        """Negative log-likelihood of each label, in nats; that of no label is 0."""
        return label_nll(rows.passes[0], rows.labels, self.applied, rows.check)

    def for_score(self, name: str, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """The logits that a score reads: of some as the network gives them."""
        is_raw = scores.is_of_raw_logits(name)
        return logits if is_raw else scaled_logits(logits, self.applied)


UNSCALED = LogitScaling()


@dataclass(frozen=True)
class LogitHead(Head):
    """A head of classes.

    Args:
        scaling: of the logits.
    """

    scaling: LogitScaling = UNSCALED

    task: ClassVar[Task] = "classification"
    scores: ClassVar[ScoreFamily] = OF_CLASSES
    foreign: ClassVar[tuple[str, ...]] = ("noise_precision", "intervals")
    outputs: ClassVar[tuple[str, ...]] = OUTPUTS

    @property
    def logit_scaling(self) -> Scaling:
        return self.scaling.applied

    def parts(self, raw: Tensor, manifest: Manifest) -> tuple[Tensor, ...]:
        return (class_logits(raw, manifest),)

    def unscaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        choices = replace(terms.choices, scaling="none")
        return self.scaled(rows, fit_b, replace(terms, choices=choices))

    def verdict(self, rows: Sampled, fit_b: Indices, terms: Terms, check: Check) -> JudgedFit:
        (logits,), label, seed = rows.passes, rows.labels, terms.seed
        name, scaling = self.scaling.name, self.scaling.applied
        judged = judge_scaling(name, scaling, logits, label, fit_b, seed, check)
        return judged if terms.choices.scaling is None else judged.as_asked()

    @abstractmethod
    def row_scores(self, name: str, logits: NDArray[np.floating]) -> Floats:
        """The named score of each row, from logits as it reads them."""

    def source(self, rows: Sampled) -> SampledSource:
        def score(name: str, logits: NDArray[np.floating]) -> Floats:
            return self.row_scores(name, self.scaling.for_score(name, logits))

        return SampledSource(rows.passes[0], 1, score, rows.features, rows.check)

    def stored(self) -> dict[str, object]:
        return self.scaling.stored()


@dataclass(frozen=True)
class ServedLogits(Served):
    """A prediction of classes."""

    prediction: Classification

    @property
    def varies(self) -> bool:
        prediction = self.prediction
        is_lean = is_left_out(prediction.variance)  # of equal passes the information is 0
        return bool(((prediction.mutual_information if is_lean else prediction.variance) > 0).any())

    @property
    @abstractmethod
    def is_known(self) -> NDArray[np.bool_]:
        """Where the network did not overflow."""

    @abstractmethod
    def labels(self) -> Column:
        """The column `label`; null where nothing is known."""

    @abstractmethod
    def sets(self) -> Column:
        """The column `prediction_set`."""

    def sets_of(self, is_member: NDArray[np.bool_]) -> ClassSets:
        """Sets as a reply has them; none where the network overflowed."""
        is_known = self.is_known
        return ClassSets(is_member & is_known[..., None], is_known, self.prediction.classes)

    def columns(self) -> Columns:
        said = self.prediction
        return {
            "label": self.labels,
            "mean": lambda: self.shown(said.mean),
            "variance": lambda: self.shown(said.variance),
            "standard_error": lambda: self.shown(said.standard_error),
            "num_samples_used": lambda: said.num_samples_used,
            "predictive_entropy": lambda: said.predictive_entropy,
            "expected_entropy": lambda: said.expected_entropy,
            "mutual_information": lambda: said.mutual_information,
            "mutual_information_corrected": lambda: said.mutual_information_corrected,
            "variation_ratio": lambda: said.variation_ratio,
            "prediction_set": self.sets,
        }


def split(rows: Sampled, terms: Terms, label_B: Indices | None) -> dict[str, Indices]:
    """Row numbers of each part, the fit's large enough for the scaling.

    Args:
        rows: all labelled rows.
        terms: of the fit.
        label_B: classes that every part has its share of.
    """
    is_isotonic = terms.choices.scaling == "isotonic"
    fewest = splits.FEWEST_TO_FIT_ISOTONIC if is_isotonic else splits.FEWEST_TO_FIT
    fits = "more for the sets" if terms.choices.scaling == "none" else "to fit the scaling"
    return terms.parts(rows, label_B=label_B, to_fit=fewest, fits=fits)


def impossible(nll: Floats) -> tuple[str, ...]:
    """A warning where a label has a probability of 0.

    Args:
        nll: negative log-likelihoods, (B,) or (B, P).
    """
    rows_b = np.flatnonzero(np.isinf(nll).reshape(len(nll), -1).any(axis=1))
    if not rows_b.size:
        return ()
    return (
        f"`nll` is null: the label has a probability of 0 in {rows_b.size} rows, the first of them "
        f"row {rows_b[0]} of those judged: check its label, or export the network with its logits",
    )


def expect_classes(prediction: Prediction) -> Classification:
    """The prediction, which is one of classes.

    Raises:
        InputError: it is one of numbers.
    """
    if not isinstance(prediction, Classification):
        raise wrong_task("regression", "classification")
    return prediction
