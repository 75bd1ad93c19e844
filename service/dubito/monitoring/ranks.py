"""Online conformal p-values: how strange a score is among all that came before it.

Flow: held-out scores, sorted → for each score of the stream its p-value, then it joins the others.

Against held-out scores that stay as they are, the p-values of a stream hang together: few held-out
rows that happen to be low make every later row look strange, and a test that looks on and on must
ring in the end. Where each score joins the others, the p-values of exchangeable scores are
independent and uniform, exactly, for any number of held-out rows.

Memory is bounded by thinning: where the scores reach `capacity`, a half that chance alone chooses
is kept. That keeps the p-values independent and uniform for independent scores of one
distribution. By induction: the sorted scores that are kept are independent of all p-values so far.
Given the sorted scores with the next one among them, each is equally likely to be the next one, so
its p-value is uniform whatever they are, and whatever came before; and a half of them chosen by
their places, with numbers that nothing else uses, tells no more than they do.

Source: Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", theorem 8.2.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np

CAPACITY = 8192


class Ranks:
    """Scores so far, ascending.

    A score costs two binary searches and a move of at most 8 `capacity` bytes.

    Args:
        held_out: scores of held-out rows.
        seed: of the numbers that break ties and choose what is kept.
        capacity: most scores that are kept, at least 2.
    """

    def __init__(self, held_out: Sequence[float], seed: int, capacity: int = CAPACITY) -> None:
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._capacity = capacity
        self._scores = sorted(held_out)
        while len(self._scores) >= capacity:
            self._thin()

    def __len__(self) -> int:
        """Return the number of scores that are kept."""
        return len(self._scores)

    def p_value(self, score: float) -> float:
        """The p-value of the next score, in [0, 1]; the score joins the others.

        p = (#{s_i > s} + u #{s_i = s}) / m    m: all scores, the next one among them; u: U(0, 1)

        Args:
            score: finite; higher is stranger.
        """
        scores = self._scores
        first, last = bisect_left(scores, score), bisect_right(scores, score)
        num_above, num_equal = len(scores) - last, last - first + 1
        p = (num_above + self._generator.random() * num_equal) / (len(scores) + 1)
        insort(scores, score)
        if len(scores) >= self._capacity:
            self._thin()
        return p

    def _thin(self) -> None:
        count = len(self._scores)
        index_K = np.sort(self._generator.choice(count, count // 2, replace=False))
        self._scores = [self._scores[index] for index in index_K.tolist()]
