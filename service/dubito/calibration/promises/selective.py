"""How many rows may be accepted at a stated risk: selective classification with a guarantee.

Flow: uncertainty and 0/1 loss of rows set aside → `threshold_at_risk` → accept a row where its
uncertainty is at most the threshold. With probability 1 - δ over the rows set aside, at most the
target share of the accepted rows is wrong:

    P( P(wrong | uncertainty <= θ) > r* ) <= δ

Of `NUM_CANDIDATES` thresholds at ranks fixed beforehand (5 %, 10 %, ... of the rows), each is
bounded at δ / NUM_CANDIDATES by the exact binomial tail, and the one that accepts most is taken.
Geifman and El-Yaniv bisect over log₂ n thresholds instead; with fixed ranks the union bound holds
however the rows fall. A threshold is itself one of the scores, so its bound counts only the rows
below it by more than the tolerance of a tie, which are exchangeable with those that will be
accepted.

Dimensions: B rows.

Source: Geifman and El-Yaniv 2017, arXiv:1705.08500 (selection with guaranteed risk); Clopper and
Pearson 1934, Biometrika 26:404-413 (the bound); Angelopoulos et al. 2021, arXiv:2110.01052 (fixed
candidates).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, log1p

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.promises import conformal
from dubito.errors import InputError

NUM_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """A threshold and what was seen below it.

    Args:
        threshold: accept where the uncertainty is at most this; a tie is reviewed for a risk.
        bound: of the risk of accepted rows, at the confidence asked; None where none was asked.
        acceptance: share of the rows set aside that it accepts.
    """

    threshold: float
    bound: float | None
    acceptance: float


def risk_bound(num_wrong: int, num_rows: int, failure: float) -> float:
    """Upper confidence bound of an error rate from a count.

    The b with Σ_{j <= wrong} C(n, j) b^j (1-b)^(n-j) = failure; 1 where all are wrong.
    """
    from scipy.stats import beta

    if num_wrong >= num_rows:
        return 1.0
    return float(beta.ppf(1.0 - failure, num_wrong + 1, num_rows - num_wrong))


def rows_for_risk(target_risk: float, confidence: float) -> int:
    """Rows set aside without which no threshold promises the risk, even if none is wrong."""
    failure = (1.0 - confidence) / NUM_CANDIDATES
    return ceil(log(failure) / log1p(-target_risk)) + 1


def threshold_at_risk(
    uncertainty_B: NDArray[np.float64],
    is_wrong_B: NDArray[np.bool_],
    *,
    target_risk: float,
    confidence: float,
) -> Selection:
    """The threshold that accepts most rows at the risk.

    Args:
        uncertainty_B: of rows set aside; infinite: never accepted.
        is_wrong_B: whether their class is wrong.
        target_risk: r*, in (0, 1).
        confidence: 1 - δ, in (0, 1).

    Raises:
        InputError: no threshold promises it; names the smallest risk that one does.
    """
    for name, value in (("target_risk", target_risk), ("risk_confidence", confidence)):
        conformal.exact_decimal(name, value)
    failure = (1.0 - confidence) / NUM_CANDIDATES
    order_B = np.argsort(uncertainty_B, kind="stable")
    ordered_B, wrong_B = uncertainty_B[order_B], is_wrong_B[order_B].cumsum()
    ranks = [ceil(len(ordered_B) * step / NUM_CANDIDATES) for step in range(1, NUM_CANDIDATES + 1)]
    promised, least = list[Selection](), 1.0
    for rank in sorted(set(ranks)):
        just_below = float(np.nextafter(ordered_B[rank - 1], -np.inf))
        below = int((ordered_B <= ties.lowered(just_below)).sum())
        if below and np.isfinite(ordered_B[rank - 1]):
            bound = risk_bound(int(wrong_B[below - 1]), below, failure)
            least = min(least, bound)
            if bound <= target_risk:
                promised.append(Selection(just_below, bound, below / len(ordered_B)))
    if promised:
        return max(promised, key=lambda selection: selection.acceptance)
    needed = rows_for_risk(target_risk, confidence)
    raise InputError(
        f"`target_risk` {target_risk} cannot be promised at confidence {confidence} by "
        f"{len(ordered_B)} rows set aside: the smallest that they can is {_rounded_up(least)}; ask "
        f"for at least that, or send more rows ({needed} set aside, if none of them is wrong)"
    )


def threshold_at_acceptance(
    uncertainty_B: NDArray[np.float64], target_acceptance: float
) -> Selection:
    """The threshold that accepts at least a share of rows like these.

    The k-th smallest uncertainty, k = ceil((n+1) a): a row exchangeable with them is accepted with
    probability at least a, and at most a + 1/(n+1) where none tie.

    Args:
        uncertainty_B: of rows set aside; infinite: never accepted.
        target_acceptance: a, in (0, 1).

    Raises:
        InputError: too few rows, or too many that are never accepted; names the largest share.

    Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World".
    """
    conformal.exact_decimal("target_acceptance", target_acceptance)
    ordered_B = np.sort(uncertainty_B)
    rank = conformal.order(len(ordered_B), target_acceptance)
    if rank <= len(ordered_B) and np.isfinite(ordered_B[rank - 1]):
        threshold = float(ordered_B[rank - 1])
        accepted_B = uncertainty_B <= ties.raised(threshold)
        return Selection(threshold, None, float(accepted_B.mean()))
    largest = int(np.isfinite(ordered_B).sum()) / (len(ordered_B) + 1)
    raise InputError(
        f"`target_acceptance` {target_acceptance} cannot be promised by {len(ordered_B)} rows set "
        f"aside: the largest that they can is {int(largest * 1000) / 1000}, since flagged rows are "
        "rejected; ask for at most that, a lower alpha, or send more rows"
    )


def _rounded_up(value: float) -> float:
    return ceil(value * 10_000) / 10_000
