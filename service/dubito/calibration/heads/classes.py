"""A class for each row: sets of classes, and what is said of one distribution.

Dimensions: T samples, B rows, b some of them, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration import reading, splits, truths
from dubito.calibration.flags import scores
from dubito.calibration.flags.source import ServedSource
from dubito.calibration.heads import logits
from dubito.calibration.heads.head import Floats, Judged, misfit
from dubito.calibration.heads.logits import LogitHead, LogitScaling, ServedLogits
from dubito.calibration.heads.served import KeptFigures, Request, warn_unbounded
from dubito.calibration.promises import conformal, sets
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.policy import class_uncertainty
from dubito.calibration.promises.positions import refuse_share
from dubito.calibration.promises.sets import LAC, SetRule
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.columns import Column
from dubito.engine import Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError
from dubito.report import Check, class_curves, classification_statistics, confusion

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored


@dataclass(frozen=True)
class ClassHead(LogitHead):
    """One distribution over the classes; members as of `dubito.calibration.heads.head.Head`.

    Args:
        set_rule: how classes are scored.
    """

    set_rule: SetRule = LAC

    name: ClassVar[str] = "classification"

    @property
    def is_randomised(self) -> bool:
        return self.set_rule.is_randomised

    def read(self, written: reading.Written) -> Indices:
        return reading.read_classes(written)

    def check(self, terms: Terms) -> None:
        refuse_share(terms.choices, self.name)

    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        if rows.truth is None:
            return replace(rows, passes=(truths.logits(rows.passes[0], "ood logits", sampling),))
        logits_TBC = truths.logits(rows.passes[0], "logits", sampling)
        label_B = truths.labels(rows.truth, *logits_TBC.shape[1:])
        return replace(rows, passes=(logits_TBC,), truth=label_B)

    def split(self, rows: Sampled, terms: Terms) -> dict[str, Indices]:
        parts = logits.split(rows, terms, rows.labels)
        truths.check_classes_vary(rows.labels)
        is_nothing_fitted = terms.choices.scaling == "none" and terms.choices.sets != "raps"
        return splits.without_fit(parts) if is_nothing_fitted else parts

    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> ClassHead:
        """With the rule of sets too: the penalty of raps is one that no threshold is taken from."""
        choices, scaling = terms.choices, LogitScaling.fit(rows, fit_b, terms)
        own = SetRule(choices.sets, per_class=choices.per_class, never_empty=not choices.empty_sets)
        if choices.sets != "raps":
            return replace(self, scaling=scaling, set_rule=own)
        fit = rows.take(fit_b)
        assert fit.uniform is not None
        mean_bC = scaling.mean(fit)
        rule = sets.choose_penalty(mean_bC, fit.labels, fit.uniform, terms.coverage)
        own = replace(own, penalty=rule.penalty, free_ranks=rule.free_ranks)
        return replace(self, scaling=scaling, set_rule=own)

    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> ClassHead:
        some = rows.take(set_b)
        assert some.uniform is not None
        held_out = self.set_rule.fit(self.scaling.mean(some), some.labels, some.uniform)
        if self.set_rule.per_class:
            _check_rows_per_class(held_out, terms.coverage, terms.extra(rows))
        return replace(self, promise=Promise(terms.coverage, held_out))

    def unseen(self, rows: Sampled) -> list[str]:
        return truths.absent_classes(rows.labels, rows.passes[0].shape[-1])

    def groups(self, rows: Sampled) -> Indices:
        return rows.labels

    def row_scores(self, name: str, logits: NDArray[np.floating]) -> Floats:
        return scores.from_logits(name, logits)

    def doubts(self, rows: Sampled, some_b: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        some = rows.take(some_b)
        mean_bC = self.scaling.mean(some)
        return class_uncertainty(mean_bC), ties.most_probable(mean_bC) != some.labels

    def sets(self, mean_BC: Floats, uniform_B: Floats, coverage: float | None) -> NDArray[np.bool_]:
        """Which classes each row's set holds, shape (B, C), from means at `logit_scaling`."""
        assert self.promise is not None
        level = self.promise.level(coverage)
        return self.set_rule.sets(self.promise.held_out, mean_BC, uniform_B, level)

    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        mean_BC, nll_B = self.scaling.mean(rows), self.scaling.nll(rows)
        sets_BC = None
        if self.promise is not None:
            assert rows.uniform is not None
            sets_BC = self.sets(mean_BC, rows.uniform, coverage)
        return Judged(
            classification_statistics(mean_BC, rows.labels, sets_BC, nll_B),
            class_curves(mean_BC, rows.labels, None),
            logits.impossible(nll_B),
            confusion(mean_BC, rows.labels),
        )

    def served(self, prediction: Prediction, request: Request) -> ServedClasses:
        return ServedClasses(self, logits.expect_classes(prediction), request)

    def stored(self) -> dict[str, object]:
        return super().stored() | {"set_rule": self.set_rule}

    @classmethod
    def of_record(cls, record: Stored) -> ClassHead:
        scaling, rule = LogitScaling.of_record(record), record.set_rule
        if not rule.per_class and len(record.conformal.columns) != 1:
            raise misfit(record.task)
        return cls(record.promise, scaling, rule)


@dataclass(frozen=True)
class ServedClasses(ServedLogits):
    """A prediction of a class a row; members as of `dubito.calibration.heads.head.Served`."""

    head: ClassHead

    @property
    def source(self) -> ServedSource:
        score = partial(scores.from_columns, columns=self.prediction)
        return ServedSource(score, self.request.features)

    @property
    def uncertainty(self) -> Floats:
        return class_uncertainty(self.prediction.mean)

    @property
    def set_sizes(self) -> Indices:
        promise, mean_BC = self.head.promise, self.prediction.mean
        assert promise is not None
        level = promise.level(self.request.coverage)
        return self.head.set_rule.settled_sizes(self._fitting, mean_BC, level)

    @property
    def members(self) -> NDArray[np.bool_]:
        """Which classes each row's set holds, (B, C)."""
        return self.head.set_rule.filled(self._fitting, self.prediction.mean)

    @cached_property
    def _fitting(self) -> NDArray[np.bool_]:
        """Which classes fit each row well enough, (B, C)."""
        promise, mean_BC = self.head.promise, self.prediction.mean
        assert promise is not None
        level, uniform_B = promise.level(self.request.coverage), self.request.uniform
        return self.head.set_rule.fitting(promise.held_out, mean_BC, uniform_B, level)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Where the network did not overflow, (B,)."""
        return np.asarray(np.isfinite(self.prediction.mean).all(axis=-1))

    def observed(self) -> KeptFigures:
        mean_BC, uniform_B = self.prediction.mean, self.request.uniform
        is_member_BC = self.head.sets(mean_BC, uniform_B, None)
        return KeptFigures(mean_BC.astype(np.float32), is_member=is_member_BC)

    def labels(self) -> Column:
        named = (*self.prediction.classes, None)
        places = np.where(self.is_known, self.prediction.label_index, -1)
        return [named[place] for place in places.tolist()]

    def sets(self) -> Column:
        if self.head.promise is None:
            return None
        warn_unbounded(self.head.promise, self.request, per_class=self.head.set_rule.per_class)
        return self.sets_of(self.members)


def _check_rows_per_class(
    held_out: ConformalScores, coverage: float, extra: Mapping[str, splits.Share]
) -> None:
    """Refuse thresholds per class where a class has too few rows for the coverage."""
    needed = conformal.rows_needed(coverage)
    few = [index for index, column in enumerate(held_out.columns) if len(column) < needed]
    if few:
        names = ", ".join(map(str, few[:12]))
        in_all = splits.rows_per_class(needed, splits.with_extra(extra))
        raise InputError(
            f"`per_class` expects at least {in_all} labelled rows of each class for coverage "
            f"{coverage}, got fewer of class index {names}: {needed} of each must be among "
            "those for sets; send more, or ask for a lower coverage"
        )
