"""What a stratified draw leaves of a network's outputs on the scale where they are nearly normal.

Its job: one number per version, a, for `blocks.py`. Three things are not taken out:

    1 - a = (1 - remainder) · (1 - interactions) · (1 - curved)

    remainder      of an additive effect, what the steps of the strata leave; the mean over sites
    interactions   share of the logits' (or means') variance that products of units make
    curved         0.1 for three classes and more: a probability is then a function of several
                   sums and not of one; a measured number, see `benchmarks/evidence/stratified.py`

The interactions are measured once, on two made-up rows: with ω, ω' independent, and two mixtures
that take a random half of the units from one and the rest from the other,

    D = f(ω) + f(ω') - f(ωω') - f(ω'ω)      free of all that is additive
    interactions = E[D²] / (2 · Var f)      exact for products of two units; of three, 1.5 times

A network of few units has a = 1: nothing is known beforehand, the error is that of independent
draws at T = 16, and what blocks say of each other brings it down as T grows.

It hardly depends on the rows: on made-up and on real rows of four networks it differs by less than
0.1. With 8 such D per output it is known to about a third of itself.

Source: the mixtures are those of Sobol' 1993 and Saltelli 2002 (pick and freeze).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from dubito.engine.draws.masks import draw
from dubito.engine.draws.strata import remainder
from dubito.engine.draws.streams import raw_words
from dubito.engine.heads import head_of
from dubito.engine.planning.placement import Placed
from dubito_nn import Bundle, Site
from dubito_nn.program import sites_in

CURVED = 0.1
FEW_UNITS = 32  # below, no sum of units is nearly normal
UNKNOWN = 0.2  # interactions where they cannot be measured
_PAIRS = 4  # of draws, per made-up row
_HALVES = 6  # kind of the stream that says which units are taken from which draw
_SEED = 0


def left_over(
    bundle: Bundle, network: Placed, device: torch.device, rows: Mapping[str, Tensor]
) -> float:
    """The share a, in [0, 1].

    Args:
        bundle: the lifted network.
        network: its programs and weights on the device.
        device: to run on.
        rows: made-up rows of every input, on the device.
    """
    sites = [bundle.sites[index] for index in sites_in(bundle.sampling.nodes)]
    if not sites:
        return 0.0
    if _num_units(sites) < FEW_UNITS:
        return 1.0
    share = interactions(bundle, network, device, rows)
    is_curved = head_of(bundle.manifest).is_curved
    steps = fmean(remainder(site) for site in sites)
    return 1 - (1 - steps) * (1 - share) * (1 - CURVED * is_curved)


def interactions(
    bundle: Bundle, network: Placed, device: torch.device, rows: Mapping[str, Tensor]
) -> float:
    """Share of the variance that products of units make; `UNKNOWN` where it cannot be measured."""
    products = total = 0.0
    head = head_of(bundle.manifest)
    for index in range(len(next(iter(rows.values())))):
        row = {name: tensor[index : index + 1] for name, tensor in rows.items()}
        for pair in range(index * _PAIRS, (index + 1) * _PAIRS):
            try:
                with torch.no_grad():
                    sources = (_Source(bundle, pair, turn, device) for turn in range(4))
                    passes = (
                        network.sampling.run(row, network.weights, source, device=device)
                        for source in sources
                    )
                    first, second, mixed, rest = (
                        head.before_link(named["output"].unsqueeze(0)) for named in passes
                    )
            except (RuntimeError, ValueError, IndexError):  # made-up rows do not fit every network
                return UNKNOWN
            products += float((first + second - mixed - rest).square().sum()) / 2
            total += float((first - second).square().sum() + (mixed - rest).square().sum()) / 4
    share = products / total if total else 0.0
    return min(share, 1.0) if share == share else UNKNOWN  # overflow gives nan


def _num_units(sites: Sequence[Site]) -> int:
    """Numbers that one sample draws for one row; those along free dimensions count as many."""
    return sum(
        math.prod(size if isinstance(size, int) else FEW_UNITS for size in site.shape)
        for site in sites
    )


class _Source:
    """Draw 2·pair, draw 2·pair + 1, or a mixture of their units.

    Args:
        bundle: whose sites are drawn.
        pair: of draws.
        turn: 0 and 1 the draws; 2 and 3 the mixtures, which complement each other.
        device: of the result.
    """

    def __init__(self, bundle: Bundle, pair: int, turn: int, device: torch.device) -> None:
        self._sites, self._pair, self._turn, self._device = bundle.sites, pair, turn, device

    def __call__(self, index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        samples = range(2 * self._pair, 2 * self._pair + 2)
        first, second = draw(self._sites[index], _SEED, samples, size, dtype=dtype)
        if self._turn > 1:
            word = raw_words(_SEED, index, (0, self._pair, _HALVES), 0, first.numel())
            half = torch.from_numpy(word >> 63 == self._turn - 2).reshape(size)
            first = torch.where(half, first, second)
        elif self._turn == 1:
            first = second
        taken: Tensor = first.to(self._device)
        return taken
