"""Whether what is asked fits the network, the sampling and the memory.

Dimensions: N candidates.
"""

from __future__ import annotations

from torch import Tensor

from dubito.acquisition.order import Acquisition
from dubito.acquisition.strategy import JointStrategy, Strategy
from dubito.engine import Inputs, Sampling
from dubito.engine.network import Network
from dubito.errors import InputError


def check_sampling(strategy: Strategy, sampling: Sampling) -> None:
    """Refuse a sampling that says nothing to a strategy.

    Raises:
        InputError: naming what is wrong.
    """
    name, method = strategy.name, sampling.method
    if strategy.needs_spread and method == "point":
        raise InputError(f"`{name}` expects passes that differ, got method `point`: use `mc`")
    if not strategy.keeps_samples:
        return
    if method in ("moments", "distilled"):
        raise InputError(
            f"`{name}` expects the same thinned networks for all rows, got method `{method}`, which"
            " has none: use `mc`"
        )
    if sampling.masks == "independent":
        raise InputError(
            f"`{name}` expects masks `shared`, got `independent`: what rows have in common is lost"
            " where each row has thinned networks of its own"
        )
    if sampling.tolerance is not None:
        raise InputError(
            f"`{name}` expects the same passes for all rows, got a `tolerance`, where rows stop"
            " early: leave it out"
        )


def most_candidates(strategy: Strategy, acquisition: Acquisition, fitting: int) -> int:
    """How many rows a joint strategy compares at most.

    Args:
        strategy: the strategy.
        acquisition: what is asked.
        fitting: rows whose kept passes fit.

    Raises:
        InputError: fewer than the batch.
    """
    limit = acquisition.candidates
    if not isinstance(strategy, JointStrategy):
        return limit
    if acquisition.diversity is not None:
        limit = min(limit, acquisition.diversity * acquisition.k)
    if strategy.keeps_samples:
        limit = min(limit, fitting)
    if limit < acquisition.k:
        raise InputError(
            f"`{strategy.name}` compares at most {limit} candidates with each other, got"
            f" k = {acquisition.k}: raise `candidates`, or lower `k` or `num_samples`"
        )
    return limit


def read_targets(
    network: Network, strategy: Strategy, targets: Inputs | None, fitting: int
) -> dict[str, Tensor] | None:
    """The rows that the strategy cares about, checked.

    Args:
        network: reads them.
        strategy: the strategy.
        targets: as they were given.
        fitting: rows whose kept passes fit.

    Raises:
        InputError: there are none where they are needed, some where they are not, or too many.
    """
    if strategy.needs_targets != (targets is not None):
        raise InputError(
            f"`{strategy.name}` expects `targets`, rows like those to be predicted later, got none:"
            " send some"
            if strategy.needs_targets
            else f"`targets` expects strategy `epig`, got `{strategy.name}`: leave them out"
        )
    if targets is None:
        return None
    try:
        rows = network.read_inputs(targets)
    except InputError as error:
        raise InputError(f"`targets`: {error.detail}") from error
    num_rows = len(next(iter(rows.values())))
    if num_rows > fitting:
        raise InputError(
            f"`targets` expects at most {fitting} rows at this number of samples, got {num_rows}:"
            " send fewer or ask for fewer samples"
        )
    return rows
