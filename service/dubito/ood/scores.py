"""Scores that order rows by how strange they are: higher is stranger.

Flow: `logits_TBC` (or `mean_TBD` of a regression) → `score_B`; or, at serving time, from the
columns of a prediction, which hold the same numbers. The default is fixed beforehand, for every
network, so that no threshold is chosen on the rows that it is judged by.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, logsumexp, softmax

from dubito.errors import InputError

DEFAULT_CLASSIFICATION = "predictive_entropy"
"""The score of every classification until the caller names another.

Chosen on scikit-learn's digits with small convolutional networks: of the scores that need no
fitting it alone finds both kinds of strange rows, unlike energy (blind to mirrored digits) and
mutual information (blind to noise where labels are smoothed).
"""

DEFAULT_REGRESSION = "epistemic_variance"


class ClassificationColumns(Protocol):
    """What a score may read of a prediction: float64 columns, first axis the row."""

    @property
    def predictive_entropy(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def mutual_information(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def energy(self) -> NDArray[np.float64]: ...  # noqa: D102


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


CLASSIFICATION: Mapping[str, Callable[[NDArray[np.floating]], NDArray[np.float64]]] = {
    "predictive_entropy": predictive_entropy,
    "mutual_information": mutual_information,
    "energy": energy,
    "max_logit": max_logit,
}
"""Scores by name; all but `max_logit` can be read off a prediction too."""

_COLUMNS: Mapping[str, Callable[[ClassificationColumns], NDArray[np.float64]]] = {
    "predictive_entropy": lambda columns: columns.predictive_entropy,
    "mutual_information": lambda columns: columns.mutual_information,
    "energy": lambda columns: columns.energy,
}


def from_logits(name: str, logits_TBC: NDArray[np.floating]) -> NDArray[np.float64]:
    """The named score of each row from the samples' logits.

    Raises:
        InputError: for a name that is no score.
    """
    if name not in CLASSIFICATION:
        raise _unknown(name, CLASSIFICATION)
    return CLASSIFICATION[name](logits_TBC)


def from_columns(name: str, columns: ClassificationColumns) -> NDArray[np.float64]:
    """The named score of each row from a prediction at the calibration's temperature.

    Raises:
        InputError: for a name that is no score, or that a prediction has no column for.
    """
    if name not in _COLUMNS:
        raise _unknown(name, _COLUMNS)
    return _COLUMNS[name](columns)


def _unknown(name: str, known: Mapping[str, object]) -> InputError:
    names = ", ".join(f"`{one}`" for one in known)
    return InputError(f"a score expects one of {names}, got `{name}`: choose one of them")
