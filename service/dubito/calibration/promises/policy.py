"""The decision on a row: accept it, have it reviewed, or reject it.

Flow: flag, uncertainty and number of classes in the set → `Policy.decide` → one word per row.

    reject     the out-of-distribution flag is up
    review     else, where the policy does not trust the prediction
    accept     else

What is trusted: by default a prediction set of exactly one class, and every number of a regression;
with a target an uncertainty at or below a threshold that rows of its own have set.

    classification   uncertainty = 1 - max_c p̄_c
    regression       uncertainty = 1/D Σ_d variance_d / noise_d, noise as held-out rows have it

Flagged rows are left out of a risk, since they are rejected, and count as not accepted in a share.

Dimensions: B rows, C classes, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.promises import selective
from dubito.calibration.promises.conformal import exact_decimal, rows_needed
from dubito.errors import InputError

RISK_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Target:
    """What a policy shall promise; nothing: the default policy.

    Args:
        risk: most share of wrong ones among accepted rows, in (0, 1); classification only.
        risk_confidence: with which it is promised, in (0, 1); None: 0.95.
        acceptance: least share of rows that is accepted, in (0, 1).

    Raises:
        InputError: both a risk and a share, a confidence without a risk, or one out of bounds.
    """

    risk: float | None = None
    risk_confidence: float | None = None
    acceptance: float | None = None

    def __post_init__(self) -> None:
        if self.risk is not None and self.acceptance is not None:
            raise InputError(
                "one threshold cannot keep `target_risk` and `target_acceptance` both: give one"
            )
        if self.risk_confidence is not None and self.risk is None:
            raise InputError("`risk_confidence` belongs to `target_risk`: give both or neither")
        for name in ("risk", "risk_confidence", "acceptance"):
            value = getattr(self, name)
            if value is not None:
                exact_decimal(name if name == "risk_confidence" else f"target_{name}", value)

    @property
    def confidence(self) -> float:
        """Confidence with which the risk is promised, in (0, 1)."""
        return RISK_CONFIDENCE if self.risk_confidence is None else self.risk_confidence

    def check_task(self, task: str) -> None:
        """Refuse a risk for a regression.

        Raises:
            InputError: there is one.
        """
        if self.risk is not None and task == "regression":
            raise InputError(
                "`target_risk` needs to know which predictions are wrong, and a number is neither "
                "right nor wrong; its error has no bound from which a promise would follow: ask "
                "for `target_acceptance`"
            )

    def rows_needed(self) -> int | None:
        """Fewest rows set aside that can keep the promise; None where none are needed."""
        if self.risk is not None:
            return selective.rows_for_risk(self.risk, self.confidence)
        return None if self.acceptance is None else rows_needed(self.acceptance)


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides between accepting and reviewing.

    Args:
        kind: `sets` (the default), `risk` or `acceptance`.
        target: the risk or the share that was asked.
        confidence: of the risk.
        threshold: accept where the uncertainty is at most this; None for `sets`. What ties with it
            is accepted for a share and reviewed for a risk.
        bound: of the risk of accepted rows at that confidence, at most the target.
        acceptance: share accepted of the rows that set the threshold.
        num_rows: how many those are.
    """

    kind: Literal["sets", "risk", "acceptance"] = "sets"
    target: float | None = None
    confidence: float | None = None
    threshold: float | None = None
    bound: float | None = None
    acceptance: float | None = None
    num_rows: int = 0

    def __post_init__(self) -> None:
        """Refuse a record without the figures of its kind."""
        if (self.kind == "sets") != (self.threshold is None):
            raise InputError("a policy expects a threshold, or the kind `sets`: calibrate again")

    @classmethod
    def fit(
        cls,
        target: Target,
        uncertainty_B: NDArray[np.float64],
        flag_B: NDArray[np.bool_],
        is_wrong_B: NDArray[np.bool_] | None,
    ) -> Policy:
        """The policy that rows set aside for it can promise.

        Args:
            target: what is asked.
            uncertainty_B: of these rows.
            flag_B: which are out of distribution by the calibration's own threshold.
            is_wrong_B: whether the class is wrong; None for a regression.

        Raises:
            InputError: the target cannot be promised; names what can.
        """
        count = len(uncertainty_B)
        if target.risk is not None and is_wrong_B is not None:
            is_unflagged_B = ~flag_B
            selection = selective.threshold_at_risk(
                uncertainty_B[is_unflagged_B],
                is_wrong_B[is_unflagged_B],
                target_risk=target.risk,
                confidence=target.confidence,
            )
            share = selection.acceptance * float(is_unflagged_B.mean())
            return cls(
                kind="risk",
                target=target.risk,
                confidence=target.confidence,
                threshold=selection.threshold,
                bound=selection.bound,
                acceptance=share,
                num_rows=count,
            )
        if target.acceptance is not None:
            rising_B = np.where(flag_B, np.inf, uncertainty_B)
            selection = selective.threshold_at_acceptance(rising_B, target.acceptance)
            share = selection.acceptance
            return cls(
                "acceptance", target.acceptance, None, selection.threshold, None, share, count
            )
        return cls()

    def decide(
        self,
        flag_B: NDArray[np.bool_],
        uncertainty_B: NDArray[np.float64],
        set_size_B: NDArray[np.int64] | None,
    ) -> list[str]:
        """`accept`, `review` or `reject` for each row.

        Args:
            flag_B: out of distribution.
            uncertainty_B: of the prediction; not a number: never accepted.
            set_size_B: classes in the prediction set; None for a regression.
        """
        if self.threshold is not None and self.kind == "risk":
            is_trusted_B = uncertainty_B <= ties.lowered(self.threshold)
        elif self.threshold is not None:
            is_trusted_B = uncertainty_B <= ties.raised(self.threshold)
        elif set_size_B is not None:
            is_trusted_B = set_size_B == 1
        else:
            is_trusted_B = np.isfinite(uncertainty_B)
        decision_B = np.where(flag_B, "reject", np.where(is_trusted_B, "accept", "review"))
        return [str(decision) for decision in decision_B]


NO_TARGET, DEFAULT_POLICY = Target(), Policy()

DECISIONS = ("accept", "review", "reject")
"""What `Policy.decide` says of a row."""


def class_uncertainty(mean_BC: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the mean distribution leaves to the other classes: 1 - max_c p̄_c."""
    uncertainty_B: NDArray[np.float64] = 1.0 - mean_BC.max(axis=-1)
    return uncertainty_B


def number_uncertainty(
    variance_BD: NDArray[np.float64], reference_D: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Total variance in units of the noise of held-out rows: 1/D Σ_d v_bd / r_d.

    It orders rows as the relative width of a normalised interval does, squared.
    """
    uncertainty_B: NDArray[np.float64] = (variance_BD / reference_D).mean(axis=-1)
    return uncertainty_B
