"""What joint strategies hold of their candidates, gathered chunk by chunk.

Dimensions: T samples, N candidates, F features, P numbers of an input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.acquisition.draws import Indices, words
from dubito.acquisition.pool import Pool
from dubito.acquisition.strategies import Candidates, JointStrategy
from dubito.engine import Engine, Ensemble, Inputs, Prediction
from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.acquisition.search import Search

Network: TypeAlias = Engine | Ensemble
Check = Callable[[], None]


def gather(
    network: Network,
    pool: Pool,
    indices_N: Indices,
    excluded: Indices,
    search: Search,
    check: Check | None,
) -> Candidates:
    """Read the candidates once more, and keep what the strategy needs of them.

    Raises:
        InputError: it needs features, and the network has none.
    """
    strategy = search.strategy
    assert isinstance(strategy, JointStrategy)
    with_samples = "samples" in strategy.needs
    predictions: list[Prediction] = []
    scores: list[NDArray[np.float64]] = []
    features: list[NDArray[np.float64]] = []
    points: list[NDArray[np.float64]] = []
    for indices_B in _chunks(indices_N, search.chunk_rows):
        rows = network.read_inputs(pool.take(indices_B))
        found = network.predict(
            rows, sampling=search.sampling, keep_samples=with_samples, check=check
        )
        words_B = words(search.acquisition.seed, indices_B)
        if not strategy.ranked_by.needs_samples:
            scores.append(strategy.ranked_by.scores(found, words_B, search.context)[0])
        predictions.append(found)
        if "features" in strategy.needs:
            features.append(_features(network, rows))
        if "points" in strategy.needs:
            points.append(_flat(rows))
    return Candidates(
        _joined(predictions),
        np.concatenate(scores),
        features=np.concatenate(features) if features else None,
        centres=_centres(network, pool, excluded, search) if features else None,
        points=np.concatenate(points) if points else None,
    )


def _chunks(indices: Indices, size: int) -> Iterator[Indices]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _centres(
    network: Network, pool: Pool, excluded: Indices, search: Search
) -> NDArray[np.float64]:
    """Features of the rows that have a label, as far as the strategy asks for them."""
    if search.strategy.name != "coreset" or not len(excluded):
        return np.empty((0, 0))
    found = [
        _features(network, network.read_inputs(pool.take(indices)))
        for indices in _chunks(excluded, search.chunk_rows)
    ]
    return np.concatenate(found)


def _features(network: Network, rows: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """Feature vectors of the network in evaluation mode, (B, F)."""
    if isinstance(network, Ensemble):
        raise InputError(
            "the strategy expects the features of one network, got an ensemble, whose members have"
            " none in common: choose one version, or another strategy"
        )
    found = network.features(rows)
    return found.double().numpy().reshape(len(found), -1)


def _flat(rows: Mapping[str, Inputs]) -> NDArray[np.float64]:
    """All inputs of each row as one vector, (B, P)."""
    parts = [np.asarray(array, dtype=np.float64) for array in rows.values()]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _joined(predictions: list[Prediction]) -> Prediction:
    """One prediction of all rows."""
    first = predictions[0]
    joined: dict[str, Any] = {}
    for field in fields(first):
        if isinstance(getattr(first, field.name), np.ndarray):
            axis = 1 if field.name in ("samples", "noise_samples") else 0
            parts = [getattr(part, field.name) for part in predictions]
            joined[field.name] = np.concatenate(parts, axis=axis)
    return replace(first, **joined)
