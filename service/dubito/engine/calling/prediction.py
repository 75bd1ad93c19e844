"""What the engine answers: frozen columns whose first axis is the row.

Dimensions: T samples, B rows, C classes, D outputs, Q quantiles, L tokens. Names as in a reply of
the HTTP API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dubito.engine.calling.columns import Column
from dubito.engine.calling.frames import frame_of
from dubito.engine.calling.sampling import Sampling

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class PositionMeasures:
    """What a head with several distributions per row says of each of them, (B, P) each.

    Args:
        head: `multilabel` or `dense`.
        predictive_entropy: nats, total.
        expected_entropy: nats, the aleatoric part.
        mutual_information: nats, the epistemic part.
        mutual_information_corrected: nats, with its bias in T taken out.
        variation_ratio: share of the passes that vote against the most voted class.
    """

    head: str
    predictive_entropy: Column
    expected_entropy: Column
    mutual_information: Column
    mutual_information_corrected: Column
    variation_ratio: Column


@dataclass(frozen=True, eq=False)
class Classification:
    """A classification with its uncertainty.

    Where a row has several distributions, one for each label or position, P stands for their axes
    (one or more) and C is 2 for labels; figures of shape (B,) are those of the row: sums over
    labels, means over positions (`dubito.engine.heads.several`).

    Args:
        sampling: with which it was drawn.
        classes: names of the C classes, or of the labels.
        label_index: (B,) or (B, P) position of the most probable class.
        mean: (B, C) mean probabilities over the passes; (B, P, C), as the next two and
            `vote_share`.
        variance: (B, C) variance of the probabilities over the passes, ddof = 0.
        standard_error: (B, C) of `mean`, under the draw used.
        num_samples_used: (B,) passes that the row took.
        predictive_entropy: (B,) nats, total.
        expected_entropy: (B,) nats, the aleatoric part.
        mutual_information: (B,) nats, the epistemic part; the two add up to the total.
        mutual_information_corrected: (B,) nats, with its bias in T taken out by a jackknife.
        vote_share: (B, C) share of the passes that vote for each class.
        variation_ratio: (B,) share of the passes that vote against the most voted class.
        energy: (B,) mean over the passes of -log Σ exp(logit); higher is stranger.
        energy_spread: (B,) standard deviation of it over the passes, ddof = 0.
        max_logit: (B,) mean over the passes of the largest logit.
        samples: (T, B, C) or (T, B, P, C) probabilities of every pass, where asked for.
        positions: the figures of every label or position; None for one distribution per row.
        fit_p_value: (B,) how many of the rows that a distilled head was held against are as strange
            to it; None of other methods.
    """

    sampling: Sampling
    classes: tuple[str, ...]
    label_index: NDArray[np.int64]
    mean: Column
    variance: Column
    standard_error: Column
    num_samples_used: NDArray[np.int64]
    predictive_entropy: Column
    expected_entropy: Column
    mutual_information: Column
    mutual_information_corrected: Column
    vote_share: Column
    variation_ratio: Column
    energy: Column
    energy_spread: Column
    max_logit: Column
    samples: Column | None = None
    positions: PositionMeasures | None = None
    fit_p_value: Column | None = None

    def to_pandas(self) -> pd.DataFrame:
        """The columns side by side: a DataFrame of a line for each row.

        Raises:
            InputError: pandas is not installed.
        """
        return frame_of(self)


@dataclass(frozen=True, eq=False)
class NumberMeasures:
    """What a regression at positions says of each of them, (B, P, D) each, in target units.

    Args:
        variance: epistemic_variance + aleatoric_variance.
        epistemic_variance: variance of the passes' means, ddof = 0.
        aleatoric_variance: mean of the passes' noise variances.
        standard_error: of the mean, under the draw used.
    """

    variance: Column
    epistemic_variance: Column
    aleatoric_variance: Column
    standard_error: Column


@dataclass(frozen=True, eq=False)
class Regression:
    """A regression with its uncertainty, in target units.

    Where a row has numbers at every position, `mean`, `samples` and `noise_samples` are those of
    the positions, with their axes P before D; the other figures are those of the row, made of those
    in `positions` (`dubito.engine.heads.number_positions`).

    Args:
        sampling: with which it was drawn.
        mean: (B, D) mean over the passes.
        variance: (B, D) epistemic_variance + aleatoric_variance.
        epistemic_variance: (B, D) variance of the passes' means, ddof = 0.
        aleatoric_variance: (B, D) mean of the passes' noise variances; 0 for a head without noise.
        standard_error: (B, D) of `mean`, under the draw used.
        num_samples_used: (B,) passes that the row took.
        samples: (T, B, D) means of every pass, of quantiles the level .5, where asked for.
        noise_samples: (T, B, D) noise variances of every pass, where asked for.
        positions: the figures of every position; None for one distribution per row.
        levels: (B, D, Q) quantiles, level by level the mean over the passes, which may cross; None
            of a network that returns none. `mean` is then the level .5, and `aleatoric_variance`
            that of the normal through the outermost pair of `quantiles`.
        fit_p_value: (B,) how many of the rows that a distilled head was held against are as strange
            to it; None of other methods.
    """

    sampling: Sampling
    mean: Column
    variance: Column
    epistemic_variance: Column
    aleatoric_variance: Column
    standard_error: Column
    num_samples_used: NDArray[np.int64]
    samples: Column | None = None
    noise_samples: Column | None = None
    positions: NumberMeasures | None = None
    levels: Column | None = None
    fit_p_value: Column | None = None

    @property
    def quantiles(self) -> Column | None:
        """The levels in ascending order, (B, D, Q)."""
        return None if self.levels is None else in_order(self.levels)

    def to_pandas(self) -> pd.DataFrame:
        """The columns side by side: a DataFrame of a line for each row.

        Raises:
            InputError: pandas is not installed.
        """
        return frame_of(self)


@dataclass(frozen=True, eq=False)
class SequenceScores:
    """How likely given tokens are, with the spread over the passes; in nats.

    Args:
        sampling: with which it was drawn.
        mean: (B,) mean over the passes of the sequence's log-probability.
        variance: (B,) its variance over the passes, ddof = 0.
        standard_error: (B,) of `mean`, under the draw used.
        num_samples_used: (B,) passes that the row took.
        normalised_mean: (B,) `mean` for each token; nan of a row without any.
        normalised_variance: (B,) variance of the log-probability for each token.
        num_tokens: (B,) tokens that count.
        token_mean: (B, L) mean over the passes of each token's log-probability; nan at padding.
        token_std: (B, L) its standard deviation over the passes, ddof = 0; nan at padding.
        is_token: (B, L) which positions count.
        samples: (T, B) the sequence's log-probability in every pass, where asked for.
        fit_p_value: None: no fit is of sequences.
    """

    sampling: Sampling
    mean: Column
    variance: Column
    standard_error: Column
    num_samples_used: NDArray[np.int64]
    normalised_mean: Column
    normalised_variance: Column
    num_tokens: NDArray[np.int64]
    token_mean: Column
    token_std: Column
    is_token: NDArray[np.bool_]
    samples: Column | None = None
    fit_p_value: Column | None = None

    def to_pandas(self) -> pd.DataFrame:
        """The columns side by side: a DataFrame of a line for each row.

        Raises:
            InputError: pandas is not installed.
        """
        return frame_of(self)


Prediction: TypeAlias = Classification | Regression | SequenceScores


def in_order(level_BDQ: Column) -> Column:
    """Sort levels; nan throughout an output of which one is not finite."""
    is_known_BD1 = np.isfinite(level_BDQ).all(axis=-1, keepdims=True)
    return np.where(is_known_BD1, np.sort(level_BDQ, axis=-1), np.nan)
