"""The best rows of a stream, in memory of k.

Its job: take scores chunk by chunk and keep the k best; equal scores are ordered by the rows'
words. Scores that are not finite are never kept. With classes, so many of each as are asked for.

Dimensions: B rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Indices, Words

Scores = NDArray[np.float64]


@dataclass(eq=False)
class TopK:
    """The best k rows seen so far.

    Args:
        k: rows to keep.
        per_class: keep so many of every class instead.
    """

    k: int
    per_class: int | None = None
    scores: Scores = field(default_factory=lambda: np.empty(0))
    words: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    indices: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    labels: Indices = field(default_factory=lambda: np.empty(0, np.int64))

    def add(
        self, scores_B: Scores, words_B: Words, indices_B: Indices, labels_B: Indices | None = None
    ) -> None:
        """Take in the next rows.

        Args:
            scores_B: the larger, the better.
            words_B: order equal scores, the larger first.
            indices_B: places in the pool.
            labels_B: predicted classes, where the keeper counts by class.
        """
        if labels_B is None:
            labels_B = np.zeros(len(scores_B), np.int64)
        is_kept_B = np.isfinite(scores_B)
        if self.per_class is None and len(self.scores) == self.k:
            is_kept_B &= scores_B >= self.scores[-1]
        self.scores = np.concatenate([self.scores, scores_B[is_kept_B]])
        self.words = np.concatenate([self.words, words_B[is_kept_B]])
        self.indices = np.concatenate([self.indices, indices_B[is_kept_B]])
        self.labels = np.concatenate([self.labels, labels_B[is_kept_B]])
        self._cut()

    def state(self) -> dict[str, NDArray[np.generic]]:
        """What `restore` takes, as arrays that a file can keep."""
        return {
            "scores": self.scores,
            "words": self.words,
            "indices": self.indices,
            "labels": self.labels,
        }

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from what `state` returned."""
        self.scores = np.asarray(state["scores"], np.float64)
        self.words = np.asarray(state["words"], np.uint64)
        self.indices = np.asarray(state["indices"], np.int64)
        self.labels = np.asarray(state["labels"], np.int64)

    def _cut(self) -> None:
        order = descending(self.scores, self.words)
        if self.per_class is None:
            order = order[: self.k]
        else:
            rank_B = _places_in_class(self.labels[order])
            order = order[rank_B < self.per_class]
        self.scores, self.words = self.scores[order], self.words[order]
        self.indices, self.labels = self.indices[order], self.labels[order]


def descending(scores_B: Scores, words_B: Words) -> Indices:
    """The order from the best score to the worst, equal ones by their words."""
    return np.lexsort((words_B, scores_B))[::-1]


def _places_in_class(labels_B: Indices) -> Indices:
    """How many rows of the same class come before each row."""
    order = np.argsort(labels_B, kind="stable")
    ordered = labels_B[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank_B = np.empty(len(labels_B), np.int64)
    rank_B[order] = np.arange(len(labels_B)) - first
    return rank_B
