"""A gambler's capital against exchangeability: a conformal test martingale, the Simple Jumper.

Flow: p-values, one after the other → capital. It starts at 1 and is a martingale where the
p-values are independent and uniform, so that P(it ever reaches 1/α) <= α (Ville's inequality): one
level holds for the whole stream, however long, looked at after every row.

Source: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman 2021, "Retrain or not retrain:
conformal test martingales for change-point detection", arXiv:2102.10439, algorithm 1; starts at all
times: Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532; Ville 1939.
"""

from __future__ import annotations

from math import exp, inf, log, log1p

_STAKES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Slopes of the bets; the source has -1, 0, 1. With 2 a p-value near 0 doubles the capital."""

_JUMP = 0.01
_LARGEST_LOG = 700.0  # where exp still has a value


class Jumper:
    """Capital spread over bets on small and on large p-values, some of which moves at every step.

    c_ε ← ((1-J) (c_ε + π_t/K) + J (c + π_t)/K) (1 + ε (p_t - 1/2)),   c = Σ_ε c_ε
    capital = c + r_t,   π_t = 1/(t (t+1)),   r_t = 1 - π_1 - ... - π_t = 1/(t+1)

    K bets, J = 0.01. A stake of ε = -2 wins where p-values are small (strange scores), one of +2
    where they are large (scores of a network that doubts less than it did). Bets lose where nothing
    changes, so a gambler who put all in at the first row has nothing left for a change that comes
    late. Here a part π_t joins at row t, and the rest r_t is not at stake: a mixture of martingales
    that start at all times, and so a martingale. It never falls below 1/(t+1).
    """

    def __init__(self) -> None:
        self._shares = [1.0 / len(_STAKES)] * len(_STAKES)
        self._log_staked = -inf
        self._num_bets = 0

    @property
    def log_capital(self) -> float:
        """The logarithm of the capital."""
        return _log_sum(self._log_staked, -log(self._num_bets + 1))

    @property
    def capital(self) -> float:
        """The capital; e^700 stands for anything above."""
        return exp(min(self.log_capital, _LARGEST_LOG))

    def bet(self, p: float) -> float:
        """Bet on the next p-value; the logarithm of the capital after it."""
        self._num_bets += 1
        log_joining = -log(self._num_bets) - log(self._num_bets + 1)
        log_staked = _log_sum(self._log_staked, log_joining)
        old = exp(self._log_staked - log_staked)
        even = 1.0 / len(_STAKES)
        shares = [
            ((1 - _JUMP) * (old * share + (1 - old) * even) + _JUMP * even)
            * (1 + stake * (p - 0.5))
            for share, stake in zip(self._shares, _STAKES, strict=True)
        ]
        total = sum(shares)
        self._log_staked = log_staked + log(total)
        self._shares = [share / total for share in shares]
        return self.log_capital


def _log_sum(first: float, second: float) -> float:
    """Return log(e^first + e^second)."""
    larger, smaller = max(first, second), min(first, second)
    return larger + log1p(exp(smaller - larger))
