"""A gambler's capital against exchangeability: a conformal test martingale, the Simple Jumper.

Flow: p-values, one after the other → capital. It starts at 1 and is a martingale where the
p-values are independent and uniform, so that P(it ever reaches 1/α) <= α (Ville's inequality): one
level holds for the whole stream, however long, looked at after every row.

Source: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, "Retrain or not retrain:
conformal test martingales for change-point detection", arXiv:2102.10439, algorithm 1; Ville 1939.
"""

from __future__ import annotations

from math import exp, log

_STAKES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Slopes of the bets; the source has -1, 0, 1. With 2 a p-value near 0 doubles the capital."""

_JUMP = 0.01
_LARGEST_LOG = 700.0  # where exp still has a value


class Jumper:
    """Capital spread over bets on small and on large p-values, some of which moves at every step.

    c_ε ← ((1-J) c_ε + J c/K) (1 + ε (p - 1/2)),   c = Σ_ε c_ε

    K bets, J = 0.01. A stake of ε = -2 wins where p-values are small (strange scores), one of +2
    where they are large (scores of a network that doubts less than it did).
    """

    def __init__(self) -> None:
        self._shares = [1.0 / len(_STAKES)] * len(_STAKES)
        self._log_capital = 0.0

    @property
    def log_capital(self) -> float:
        """The logarithm of the capital."""
        return self._log_capital

    @property
    def capital(self) -> float:
        """The capital; e^700 stands for anything above."""
        return exp(min(self._log_capital, _LARGEST_LOG))

    def bet(self, p: float) -> float:
        """Bet on the next p-value; the logarithm of the capital after it."""
        even = _JUMP / len(_STAKES)
        shares = [
            ((1 - _JUMP) * share + even) * (1 + stake * (p - 0.5))
            for share, stake in zip(self._shares, _STAKES, strict=True)
        ]
        total = sum(shares)
        self._log_capital += log(total)
        self._shares = [share / total for share in shares]
        return self._log_capital
