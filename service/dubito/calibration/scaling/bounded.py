"""What one row may cost a fit: its loss, bounded.

    bounded NLL_b = -log(exp(-NLL_b) + exp(-limit)),   limit = worst_b + max(n / 2, 5) nats

n rows are fitted on, and `worst_b` is what a row may lose at any rate. It is the likelihood of a
model in which a row is, with a small chance, of another kind, of which nothing is said. A row that
is within its limit counts as ever; one far beyond it has no more say. So no single row, wrong by
however much, makes the others lose more than about half a nat each; several that agree do.

Dimensions: B rows.

Source: Huber 1964, Annals of Mathematical Statistics 35:73-101 (contaminated models, bounded
influence); Box and Tiao 1968, Biometrika 55:119-129, and Hogg, Bovy and Lang 2010, arXiv:1008.4686,
section 3 (rows of another kind); Hampel et al. 1986, "Robust Statistics".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SHARE, _LEAST = 0.5, 5.0  # nats: for each of the others, and for few rows


def limit(num_rows: int) -> float:
    """Nats that a row of so many may lose, beside what it may lose at any rate."""
    return max(_SHARE * num_rows, _LEAST)


def bounded(nll_B: Floats, limit_B: Floats | float) -> Floats:
    """The loss of each row, at most about its limit; infinite ones too."""
    bounded_B: Floats = -np.logaddexp(-nll_B, -np.asarray(limit_B))
    return bounded_B
