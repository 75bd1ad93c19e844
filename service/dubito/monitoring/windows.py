"""Alarms on the share of missed truths or of flags, at the ends of disjoint windows.

Flow: outcomes, one after the other → events in the window → at its end an exact tail → alarm.

A set that should hold the truth at rate c misses where the truth's score is above the k-th smallest
of n held-out ones, k = ceil((n+1)c). For rows like the held-out ones the share of misses is itself
random: Beta(n+1-k, k), since n rows settle the threshold only so well. So the misses of a window of
W outcomes are beta-binomial, and not binomial: the tail is exact for scores that do not tie, and
too large where they do. The same holds for flags, with floor(α(n+1)) in place of n+1-k.

Looking again and again is paid for: window j = 1, 2, ... is judged at level α / (j(j+1)). These add
up to α, so that the probability of any false alarm, ever, is at most α, whatever the windows have
in common.

Dimensions: n held-out rows, W outcomes of a window.

Source: Vovk 2012, arXiv:1209.2673 (coverage given the held-out rows); Marques 2023,
arXiv:2303.02770 (beta-binomial).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betaln, logsumexp

FALSE_ALARM_RATE = 0.01


@dataclass(frozen=True, slots=True)
class Law:
    """How often events come from rows like the held-out ones: Beta(rank, n + 1 - rank).

    Args:
        num_rows: n, held-out rows behind the threshold.
        rank: of the n+1 places that a new score may take, those that are an event.
    """

    num_rows: int
    rank: int

    @property
    def mean(self) -> float:
        """The rate over all held-out sets, rank / (n + 1)."""
        return self.rank / (self.num_rows + 1)

    def tail(self, num_events: int, num_outcomes: int) -> float:
        """P(at least m events among W outcomes).

        Σ_{k >= m} C(W, k) B(k + a, W - k + b) / B(a, b),   a = rank, b = n + 1 - rank
        """
        if num_events == 0 or self.rank == 0:
            return float(num_events == 0)
        a, b = self.rank, self.num_rows + 1 - self.rank
        count = np.arange(num_events, num_outcomes + 1)
        log_choices = -np.log(num_outcomes + 1) - betaln(count + 1, num_outcomes - count + 1)
        log_terms = log_choices + betaln(count + a, num_outcomes - count + b) - betaln(a, b)
        return min(float(np.exp(logsumexp(log_terms))), 1.0)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one kind of event so far.

    Args:
        size: outcomes of the window that runs, W.
        index: its number j, from 1.
        num_outcomes: outcomes in it.
        num_events: events among them.
        alarm_since: when the first alarm rose; it stays until a new calibration.
        tail: of the last window that ended; None before.
    """

    size: int
    index: int = 1
    num_outcomes: int = 0
    num_events: int = 0
    alarm_since: str | None = None
    tail: float | None = None

    @property
    def share_of_level(self) -> float:
        """What the window that runs takes of the false-alarm rate, 1 / (j (j+1))."""
        return 1.0 / (self.index * (self.index + 1))

    def add(self, is_event: bool, at: str, law: Law, rate: float, next_size: int) -> Windows:
        """The windows with one more outcome.

        Args:
            is_event: whether the set missed, or the row was flagged.
            at: when the outcome came.
            law: of the events where nothing changed.
            rate: false-alarm rate α over the whole stream.
            next_size: outcomes of the next window.
        """
        now = replace(
            self, num_outcomes=self.num_outcomes + 1, num_events=self.num_events + is_event
        )
        if now.num_outcomes < now.size:
            return now
        tail = law.tail(now.num_events, now.num_outcomes)
        rises = now.alarm_since is None and tail <= rate * now.share_of_level
        since = at if rises else now.alarm_since
        return Windows(next_size, now.index + 1, alarm_since=since, tail=tail)
