"""Choosing rows to label from a pool: whether what is asked fits, and the search for it."""

from __future__ import annotations

from dataclasses import replace

from dubito.acquisition import Search
from dubito.acquisition.strategies import find
from dubito.asked import SelectOrder
from dubito.engine import Sampling
from dubito.engine.network import Network


def begin(
    order: SelectOrder, engine: Network, sampling: Sampling, num_rows: int, max_values: int
) -> Search:
    """The search that an order asks for; a tolerance of the version's own is no choice of it.

    Args:
        order: what is asked.
        engine: of the version, or of several.
        sampling: merged with the version's defaults.
        num_rows: of the pool.
        max_values: most numbers that kept passes may take.

    Raises:
        InputError: something does not fit.
    """
    acquisition = order.acquisition(sampling.seed)
    strategy = find(acquisition, engine.manifest.head)
    if order.tolerance is None and strategy.keeps_samples:
        sampling = replace(sampling, tolerance=None)
    return Search.begin(
        engine,
        acquisition,
        num_rows,
        sampling=sampling,
        targets=order.targets,
        max_values=max_values,
    )
