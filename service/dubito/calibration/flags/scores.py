"""Scores that order rows by how strange they are: higher is stranger.

Flow: `logits_TBC` (or `mean_TBD` of a regression) → `score_B`; or, at serving time, from the
columns of a prediction, which hold the same numbers. The default is fixed beforehand, for every
network, so that no score is chosen on the rows that it is judged by.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, logsumexp, softmax

from dubito.errors import InputError


class ClassificationColumns(Protocol):
    """What a score may read of a prediction: float64 columns, first axis the row."""

    @property
    def predictive_entropy(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def mutual_information(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def mean(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def energy(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def energy_spread(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def max_logit(self) -> NDArray[np.float64]: ...  # noqa: D102


def predictive_entropy(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Entropy of the mean distribution, in nats.

    s_B = H[1/T Σ_t softmax(z_t)]

    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136 (for the softmax of one pass).
    """
    mean_BC = softmax(logits_TBC.astype(np.float64), axis=-1).mean(axis=0)
    score_B: NDArray[np.float64] = entr(mean_BC).sum(axis=-1)
    return score_B


def mutual_information(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Disagreement of the samples, in nats.

    s_B = H[1/T Σ_t softmax(z_t)] - 1/T Σ_t H[softmax(z_t)]

    Source: Houlsby et al. 2011, arXiv:1112.5745; Gal 2016.
    """
    probs_TBC = softmax(logits_TBC.astype(np.float64), axis=-1)
    expected_B = entr(probs_TBC).sum(axis=-1).mean(axis=0)
    total_B = entr(probs_TBC.mean(axis=0)).sum(axis=-1)
    score_B: NDArray[np.float64] = np.maximum(total_B - expected_B, 0.0)
    return score_B


def energy(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean free energy of the samples.

    s_B = 1/T Σ_t -log Σ_c exp(z_tc)

    Source: Liu et al. 2020, arXiv:2010.03759.
    """
    score_B: NDArray[np.float64] = -logsumexp(logits_TBC.astype(np.float64), axis=-1).mean(axis=0)
    return score_B


def max_logit(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean over the samples of the largest logit, negated.

    s_B = -1/T Σ_t max_c z_tc

    Source: Hendrycks et al. 2022, arXiv:1911.11132.
    """
    score_B: NDArray[np.float64] = -logits_TBC.astype(np.float64).max(axis=-1).mean(axis=0)
    return score_B


def max_probability(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """What the mean distribution leaves to the other classes.

    s_B = 1 - max_c 1/T Σ_t softmax(z_t)_c

    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136 (for the softmax of one pass).
    """
    mean_BC = softmax(logits_TBC.astype(np.float64), axis=-1).mean(axis=0)
    score_B: NDArray[np.float64] = 1.0 - mean_BC.max(axis=-1)
    return score_B


def energy_spread(logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """Standard deviation of the free energy over the samples, with ddof = 0.

    s_B = sqrt(Var_t[log Σ_c exp(z_tc)])

    What the samples disagree on in the length of the logits, which the softmax hides.

    Source: the energy of Liu et al. 2020, arXiv:2010.03759, under the samples of Gal and Ghahramani
    2016, arXiv:1506.02142.
    """
    score_B: NDArray[np.float64] = logsumexp(logits_TBC.astype(np.float64), axis=-1).std(axis=0)
    return score_B


def epistemic_variance(
    mean_TBD: NDArray[np.floating], reference_variance_D: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Variance of the samples' means in units of the noise, averaged over the outputs.

    s_B = 1/D Σ_d Var_t[m_tbd] / v_d, with ddof = 0

    v_d is one number per output, the mean aleatoric variance of held-out rows: not the row's own,
    which a network may blow up far from its data together with the epistemic one.

    Source: Gal and Ghahramani 2016, arXiv:1506.02142.
    """
    return normalised(mean_TBD.astype(np.float64).var(axis=0), reference_variance_D)


def normalised(
    epistemic_variance_BD: NDArray[np.float64], reference_variance_D: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The score `epistemic_variance` from a prediction's column: 1/D Σ_d e_bd / v_d."""
    score_B: NDArray[np.float64] = (epistemic_variance_BD / reference_variance_D).mean(axis=-1)
    return score_B


@dataclass(frozen=True, slots=True)
class PlainScore:
    """A score of a classification that needs no fitting.

    Args:
        of_logits: (T, B, C) logits of the passes to scores.
        of_columns: the same from a prediction.
        is_of_raw_logits: whether it takes the logits as the network gives them; the others take
            them under the scaling.
    """

    of_logits: Callable[[NDArray[np.floating]], NDArray[np.float64]]
    of_columns: Callable[[ClassificationColumns], NDArray[np.float64]]
    is_of_raw_logits: bool = False


CLASSIFICATION: Mapping[str, PlainScore] = {
    "predictive_entropy": PlainScore(predictive_entropy, lambda rows: rows.predictive_entropy),
    "mutual_information": PlainScore(mutual_information, lambda rows: rows.mutual_information),
    "max_probability": PlainScore(max_probability, lambda rows: 1.0 - rows.mean.max(axis=-1)),
    "energy": PlainScore(energy, lambda rows: rows.energy, is_of_raw_logits=True),
    "energy_spread": PlainScore(
        energy_spread, lambda rows: rows.energy_spread, is_of_raw_logits=True
    ),
    "max_logit": PlainScore(max_logit, lambda rows: -rows.max_logit, is_of_raw_logits=True),
}
"""By name, the default first; how far each may be off by rounding is in `dubito.ties`.

The default is what the flag reads of the outputs. It was chosen on scikit-learn's digits with small
convolutional networks: of these scores it alone finds both kinds of strange rows, unlike energy
(blind to mirrored digits) and mutual information (blind to noise where labels are smoothed). On
plain networks all are blind to rows far from the data: see `scorer.OVERALL`.
"""

REGRESSION = ("epistemic_variance",)
"""Scores of a regression that need no fitting."""


def from_logits(name: str, logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """The named score of each row from the samples' logits.

    Raises:
        InputError: for a name that is no score.
    """
    check_known(name, CLASSIFICATION)
    return CLASSIFICATION[name].of_logits(logits_TBC)


def from_columns(name: str, columns: ClassificationColumns) -> NDArray[np.float64]:
    """The named score of each row from a prediction under the calibration's scaling.

    Raises:
        InputError: for a name that is no score.
    """
    check_known(name, CLASSIFICATION)
    return CLASSIFICATION[name].of_columns(columns)


def is_of_raw_logits(name: str) -> bool:
    """Whether the named score takes the logits as the network gives them.

    Raises:
        InputError: for a name that is no score.
    """
    check_known(name, CLASSIFICATION)
    return CLASSIFICATION[name].is_of_raw_logits


def check_known(name: str, known: Collection[str]) -> None:
    """Refuse a name that is no score.

    Raises:
        InputError: naming those there are.
    """
    if name not in known:
        names = ", ".join(f"`{score}`" for score in known)
        raise InputError(f"a score expects one of {names}, got `{name}`: choose one of them")
