"""Which sites change nothing that can be seen in the output.

Its job: for many sites at the price of a few passes. One derivative of the output by all draws
shows most sites to be alive. The rest are drawn anew together, for several draws of all others: if
nothing changes, none of them shows; else each half is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dubito_nn.lifting.draws import dropped_draws, kept_draws, random_draws
from dubito_nn.lifting.lift import Lifted
from dubito_nn.program import SiteSource

REDRAWS = 16
_FEW = 4  # sites that are looked at one by one


def dead_sites(lifted: Lifted, inputs: Mapping[str, Tensor]) -> list[int]:
    """Indices of the sites whose draws, the others held fixed, change no number of the output.

    Args:
        lifted: with its weights.
        inputs: the example.
    """

    def output(draws: SiteSource) -> Tensor:
        return lifted.program.run(inputs, lifted.weights, draws)["output"].nan_to_num()

    moving = _by_derivative(lifted, inputs)
    waiting = [site.index for site in lifted.sites if site.index not in moving]
    for base, other in _pairs(lifted):
        if not waiting:
            break
        before = output(base)

        def changes(indices: Sequence[int]) -> bool:
            """Whether the output differs where these sites are drawn anew."""
            return not torch.equal(output(_with_some(base, indices, other)), before)  # noqa: B023

        alive = set(_found(waiting, changes))
        waiting = [index for index in waiting if index not in alive]
    return waiting


def _pairs(lifted: Lifted) -> Iterator[tuple[SiteSource, SiteSource]]:
    """Draws, and others to take some sites' from."""
    yield kept_draws(lifted.sites), dropped_draws(lifted.sites)
    for _ in range(REDRAWS):
        yield random_draws(lifted.sites), random_draws(lifted.sites)


def _found(indices: Sequence[int], changes: Callable[[Sequence[int]], bool]) -> Iterator[int]:
    """Those of which one alone changes something, in as few trials as there are few of them."""
    if not indices or not changes(indices):
        return
    if len(indices) == 1:
        yield indices[0]
        return
    size = 1 if len(indices) <= _FEW else (len(indices) + 1) // 2
    for start in range(0, len(indices), size):
        yield from _found(indices[start : start + size], changes)


def _with_some(base: SiteSource, indices: Sequence[int], other: SiteSource) -> SiteSource:
    chosen = frozenset(indices)

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return (other if index in chosen else base)(index, size, dtype)

    return draw


def _by_derivative(lifted: Lifted, inputs: Mapping[str, Tensor]) -> set[int]:
    """Sites a number of which moves a random sum of the outputs by more than its rounding."""
    drawn: dict[int, Tensor] = {}
    base = random_draws(lifted.sites)

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        drawn[index] = base(index, size, dtype).requires_grad_(dtype.is_floating_point)
        return drawn[index]

    try:
        with torch.enable_grad():
            output = lifted.program.run(inputs, lifted.weights, draw)["output"]
            total = (output * torch.randn_like(output)).sum()
            floats = {index: x for index, x in drawn.items() if x.requires_grad}
            slopes = torch.autograd.grad(total, list(floats.values()), allow_unused=True)
    except RuntimeError:  # an operator without a derivative
        return set()
    least = 100 * torch.finfo(output.dtype).eps * float(output.detach().abs().max())
    return {
        index
        for index, slope in zip(floats, slopes, strict=True)
        if slope is not None and float(slope.abs().nan_to_num(0.0, 0.0).max()) > least
    }
