"""Choosing rows to label from a pool that comes with the request: order, reply, and what fits.

Flow: order → sampling → `Search` checked and its work counted → the worker runs it → reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dubito.acquisition import Acquisition, Choice, Search
from dubito.acquisition.strategies import find
from dubito.asked import SamplingOrder
from dubito.engine import Inputs, Sampling
from dubito.engine.network import Network


@dataclass(frozen=True)
class SelectOrder:
    """A pool, and what to choose from it.

    Args:
        model: name of the model.
        inputs: the pool, rows first.
        acquisition: strategy, k and options; its seed is that of the sampling.
        version: number or alias.
        targets: rows that `epig` cares about.
        sampling: choices that differ from the version's defaults.
    """

    model: str
    inputs: Inputs
    acquisition: Acquisition
    version: str = "default"
    targets: Inputs | None = None
    sampling: SamplingOrder = field(default_factory=SamplingOrder)


@dataclass(frozen=True)
class SelectReply:
    """The chosen rows, and what they were chosen with; `members` for an ensemble alone."""

    model: str
    version: int
    members: tuple[int, ...] | None
    sampling: Sampling
    choice: Choice

    def head(self) -> dict[str, object]:
        """The reply as plain values."""
        sampling = self.sampling
        return {
            "model": self.model,
            "version": self.version,
            **({} if self.members is None else {"members": list(self.members)}),
            "num_samples": sampling.num_samples,
            "seed": sampling.seed,
            "masks": sampling.masks,
            "draw": sampling.draw,
            "method": sampling.method,
            "strategy": self.choice.strategy,
            "candidates": self.choice.candidates,
            "indices": self.choice.indices,
            "scores": self.choice.scores,
        }


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
    acquisition = replace(order.acquisition, seed=sampling.seed)
    strategy = find(acquisition, engine.manifest.head)
    if order.sampling.tolerance is None and strategy.keeps_samples:
        sampling = replace(sampling, tolerance=None)
    return Search.begin(
        engine,
        acquisition,
        num_rows,
        sampling=sampling,
        targets=order.targets,
        max_values=max_values,
    )
