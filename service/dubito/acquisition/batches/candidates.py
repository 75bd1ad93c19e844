"""What joint strategies hold of their candidates, gathered chunk by chunk.

Dimensions: T samples, N candidates, F features, P numbers of an input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.acquisition.draws import Indices, words
from dubito.acquisition.pool import Pool
from dubito.acquisition.strategy import Candidates, Context, JointStrategy
from dubito.engine import Inputs, Prediction, Sampling
from dubito.engine.calling.arguments import Check
from dubito.engine.network import Network
from dubito.errors import InputError


@dataclass(frozen=True, eq=False)
class Reader:
    """How rows of a pool are read once more.

    Args:
        network: an engine or an ensemble.
        pool: the rows.
        sampling: of the predictions.
        chunk_rows: rows that are read at once.
        check: called between chunks; whatever it raises ends the search.
    """

    network: Network
    pool: Pool
    sampling: Sampling
    chunk_rows: int
    check: Check | None

    def chunks(self, indices: Indices) -> Iterator[tuple[Indices, dict[str, Tensor]]]:
        """Yield indices and checked rows, chunk by chunk."""
        for start in range(0, len(indices), self.chunk_rows):
            some = indices[start : start + self.chunk_rows]
            yield some, self.network.read_inputs(self.pool.take(some))

    def predict(self, rows: Mapping[str, Tensor], *, keep_samples: bool) -> Prediction:
        """Return the network's prediction of some rows."""
        return self.network.predict(
            rows, sampling=self.sampling, keep_samples=keep_samples, check=self.check
        )


def gather(
    reader: Reader,
    strategy: JointStrategy,
    context: Context,
    indices_N: Indices,
    excluded: Indices,
) -> Candidates:
    """Read the candidates once more, and keep what the strategy needs of them.

    Raises:
        InputError: it needs features, and the network has none.
    """
    predictions: list[Prediction] = []
    scores: list[NDArray[np.float64]] = []
    features: list[NDArray[np.float64]] = []
    points: list[NDArray[np.float64]] = []
    for indices_B, rows in reader.chunks(indices_N):
        prediction = reader.predict(rows, keep_samples=strategy.keeps_samples)
        words_B = words(context.acquisition.seed, indices_B)
        scores.append(strategy.ranking.scores(prediction, words_B, context)[0])
        predictions.append(prediction)
        if "features" in strategy.holds:
            features.append(_features(reader.network, rows))
        if "points" in strategy.holds:
            points.append(_flat(rows))
    centres = []
    if "centres" in strategy.holds:
        centres = [_features(reader.network, rows) for _, rows in reader.chunks(excluded)]
    return Candidates(
        _joined(predictions),
        np.concatenate(scores),
        features=_stacked(features),
        centres=_stacked(centres),
        points=_stacked(points),
    )


def _stacked(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty((0, 0))


def _features(network: Network, rows: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """Feature vectors of the network in evaluation mode, (B, F)."""
    if not network.shares_features:
        raise InputError(
            "the strategy expects the features of one network, got an ensemble, whose members have"
            " none in common: choose one version, or another strategy"
        )
    feature_BF = network.features(rows)
    return feature_BF.double().numpy().reshape(len(feature_BF), -1)


def _flat(rows: Mapping[str, Inputs]) -> NDArray[np.float64]:
    """All inputs of each row as one vector, (B, P)."""
    parts = [np.asarray(array, dtype=np.float64) for array in rows.values()]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _joined(predictions: list[Prediction]) -> Prediction:
    """Return the predictions as one, of all rows."""
    first = predictions[0]
    joined: dict[str, Any] = {}
    for field in fields(first):
        if isinstance(getattr(first, field.name), np.ndarray):
            axis = 1 if field.name in ("samples", "noise_samples") else 0
            parts = [getattr(part, field.name) for part in predictions]
            joined[field.name] = np.concatenate(parts, axis=axis)
    return replace(first, **joined)
