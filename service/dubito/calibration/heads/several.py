"""What heads with several distributions per row share: labels, or a class at every position.

Rows are dealt out as wholes: one scaling over all positions of the rows that fit it, one score per
row for the sets (`promises.positions`), one for the flag.

Dimensions: T samples, B rows, b some of them, P positions, C classes; of a label C is 2.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito import ties
from dubito.calibration import splits, truths
from dubito.calibration.flags import scores
from dubito.calibration.flags.source import ServedSource
from dubito.calibration.heads import logits
from dubito.calibration.heads.head import Floats, Judged, misfit
from dubito.calibration.heads.logits import LogitHead, LogitScaling, ServedLogits
from dubito.calibration.heads.served import Columns, KeptFigures, warn_unbounded
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.positions import ALL_LABELS, DEFAULT_SHARE, UNLABELLED, Positions
from dubito.calibration.promises.sets import LAC
from dubito.calibration.sampled import Indices, Sampled
from dubito.calibration.terms import Terms
from dubito.columns import Column
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.several import MEASURES
from dubito.errors import InputError
from dubito.report import Check
from dubito.report.positions import LabelledPositions, position_curves, position_statistics

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored

BY_POSITION = tuple(f"position_{name}" for name in MEASURES)
"""Columns with one figure per label or position; without the prefix they are those of the row."""


@dataclass(frozen=True)
class SeveralHead(LogitHead):
    """Several distributions of a row; members as of `dubito.calibration.heads.head.Head`.

    Args:
        positions: how they are taken together.
    """

    positions: Positions = ALL_LABELS

    named: ClassVar[str]  # what several of them are called
    are_switches: ClassVar[bool] = False  # each on or off
    takes_feedback: ClassVar[bool] = False

    @abstractmethod
    def refuse(self, terms: Terms) -> None:
        """Refuse what this kind alone does not take."""

    def check(self, terms: Terms) -> None:
        choices, share = terms.choices, terms.choices.position_share
        replace(self.positions, share=1.0 if share is None else share)
        if choices.sets != "lac":
            raise InputError(
                f"`sets` expects `lac` for a row of several {self.named}, whose sets are taken by "
                f"one threshold on their probabilities, got `{choices.sets}`, which orders the "
                "classes of one distribution: leave it out"
            )
        if choices.empty_sets:
            raise InputError(
                f"`empty_sets` expects rows of one class each, got rows of several {self.named}, "
                "whose sets always hold the likely one: leave it out"
            )
        if choices.per_class:
            raise InputError(
                f"`per_class` expects rows of one class each, got rows of several {self.named}: "
                "leave it out"
            )
        self.refuse(terms)
        if terms.score == "relative_mahalanobis":
            raise InputError(
                f"`ood_score` `relative_mahalanobis` expects rows of one class each, got rows of "
                f"several {self.named}: use `mahalanobis` or `knn`"
            )

    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        if rows.truth is None:
            strange = truths.position_logits(rows.passes[0], "ood logits", sampling)
            return replace(rows, passes=(strange,))
        logits_TBPC = truths.position_logits(rows.passes[0], "logits", sampling)
        num_rows, num_positions, num_classes = logits_TBPC.shape[1:]
        label_BP = truths.position_labels(rows.truth, (num_rows, num_positions), num_classes)
        return replace(rows, passes=(logits_TBPC,), truth=label_BP)

    def split(self, rows: Sampled, terms: Terms) -> dict[str, Indices]:
        parts = logits.split(rows, terms, None)
        known_N = rows.labels[rows.labels != UNLABELLED]
        truths.check_classes_vary(known_N, are_switches=self.are_switches)
        return splits.without_fit(parts) if terms.choices.scaling == "none" else parts

    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        share = terms.choices.position_share
        if share is None:
            share = DEFAULT_SHARE[self.positions.head]
        return replace(
            self,
            positions=replace(self.positions, share=share),
            scaling=LogitScaling.fit(rows, fit_b, terms),
        )

    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> Self:
        some = rows.take(set_b)
        score_b = self.positions.row_scores(self.scaling.mean(some), some.labels)
        return replace(self, promise=Promise(terms.coverage, ConformalScores.of([score_b])))

    def row_scores(self, name: str, logits: NDArray[np.floating]) -> Floats:
        if name == "energy_spread":  # of the row's own energy, pass by pass
            energy_TB = [self.positions.of_rows(logsumexp(one, axis=-1)) for one in logits]
            spread_B: Floats = np.std(energy_TB, axis=0)
            return spread_B
        return self.positions.of_rows(scores.from_logits(name, logits))

    def doubts(self, rows: Sampled, some_b: Indices) -> tuple[Floats, NDArray[np.bool_]]:
        some = rows.take(some_b)
        mean_bPC, label_bP = self.scaling.mean(some), some.labels
        is_off_bP = (ties.most_probable(mean_bPC) != label_bP) & (label_bP != UNLABELLED)
        return self.positions.uncertainty(mean_bPC), is_off_bP.any(axis=1)

    def sets(self, mean_BPC: Floats, coverage: float | None) -> NDArray[np.bool_]:
        """Which classes the set of each position holds, from means at `logit_scaling`."""
        assert self.promise is not None
        level = self.promise.level(coverage)
        return self.positions.sets(self.promise.held_out, mean_BPC, level)

    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        """Figures of positions are means over the labelled ones; sets and areas those of rows."""
        mean_BPC, nll_BP = self.scaling.mean(rows), self.scaling.nll(rows)
        is_known, sets_NC, is_covered_B = rows.labels != UNLABELLED, None, None
        if self.promise is not None:
            sets_BPC = self.sets(mean_BPC, coverage)
            sets_NC = sets_BPC[is_known]
            is_covered_B = self.positions.is_covered(sets_BPC, rows.labels)
        of_N = LabelledPositions.of(mean_BPC, is_known, rows.labels, self.positions.head)
        uncertainty_B = self.positions.uncertainty(mean_BPC)
        statistics = position_statistics(
            of_N, uncertainty_B, sets_NC, is_covered_B, nll_BP[is_known]
        )
        curves = position_curves(of_N, uncertainty_B)
        return Judged(statistics, curves, logits.impossible(nll_BP))

    def stored(self) -> dict[str, object]:
        return super().stored() | {"positions": self.positions}

    @classmethod
    def of_record(cls, record: Stored) -> Self:
        scaling, positions = LogitScaling.of_record(record), record.positions
        if positions is None or record.set_rule != LAC or len(record.conformal.columns) != 1:
            raise misfit(record.task)
        return cls(record.promise, scaling, positions)


@dataclass(frozen=True)
class ServedSeveral(ServedLogits):
    """A prediction of such rows; members as of `dubito.calibration.heads.head.Served`."""

    head: SeveralHead

    @property
    def source(self) -> ServedSource:
        def score(name: str) -> Floats:
            of_prediction = scores.from_columns(name, self.prediction)
            is_of_row = of_prediction.ndim == 1
            return of_prediction if is_of_row else self.head.positions.of_rows(of_prediction)

        return ServedSource(score, self.request.features)

    @property
    def uncertainty(self) -> Floats:
        return self.head.positions.uncertainty(self.prediction.mean)

    @property
    def set_sizes(self) -> Indices:
        return self.head.positions.set_sizes(self.members)

    @cached_property
    def members(self) -> NDArray[np.bool_]:
        """Which classes the set of each position holds, (B, P, C)."""
        return self.head.sets(self.prediction.mean, self.request.coverage)

    @abstractmethod
    def _shown_members(self) -> NDArray[np.bool_]:
        """Of the sets, what a reply shows."""

    def columns(self) -> Columns:
        each = self.prediction.positions
        return super().columns() | {
            f"position_{name}": lambda name=name: getattr(each, name) for name in MEASURES
        }

    def observed(self) -> KeptFigures:
        """No truths are taken as feedback, so no mean is kept."""
        return KeptFigures(np.empty((len(self.prediction.mean), 0), np.float32))

    def sets(self) -> Column:
        if self.head.promise is None:
            return None
        warn_unbounded(self.head.promise, self.request)
        return self.sets_of(self._shown_members())
