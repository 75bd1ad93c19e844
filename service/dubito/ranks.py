"""What two orders of the same rows have in common, and how well a figure tells two kinds apart.

Dimensions: B rows, N others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank_correlation(one_B: Floats, other_B: Floats) -> float | None:
    """Spearman's rank correlation, ties taken at their mean rank; None where one does not vary."""
    from scipy.stats import rankdata  # which takes a second to import

    ranks = rankdata(one_B), rankdata(other_B)
    if any(np.ptp(rank_B) == 0 for rank_B in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def auroc(near_B: Floats, far_N: Floats) -> float | None:
    """The probability that a far row has more than a near one, ties counted half (Mann-Whitney).

    None where there are no rows of one kind.
    """
    from scipy.stats import rankdata

    if not (len(near_B) and len(far_N)):
        return None
    ranks_N = rankdata(np.concatenate([near_B, far_N]))[len(near_B) :]
    return float((ranks_N.sum() - len(far_N) * (len(far_N) + 1) / 2) / (len(near_B) * len(far_N)))
