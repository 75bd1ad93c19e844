"""Rows made up to see what a flag is blind to.

Flow: rows as the network takes them -> some rows of every kind -> the share that is flagged.

    far        every number six of its standard deviations, times a normal number, from its mean;
               where a few rows are far off themselves, from what the middle half says of both
    noise      every number uniform between the least and the greatest that it has
    shuffled   every number from a row of its own: each is usual, what they have to do with each
               other is gone

Whole numbers (tokens, categories) have no far; their noise is uniform over whole numbers. A number
is a place of a row: a column of a table, a pixel, a place of a sequence.

Dimensions: B rows, N made rows of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

FAR, NOISE, SHUFFLED = "far", "noise", "shuffled"
_NUM_MADE = 100
_FAR = 6.0
_QUARTILES_APART = 1.349  # standard deviations of a normal number
_OFF = 3.0
_MOST_SORTED = 2**24 - 1  # that torch.quantile takes
BLIND_BELOW = 0.5
"""Of a kind of which a smaller share is flagged, the flag is said to be blind to it."""

Rows = Mapping[str, Tensor]


def made_rows(rows: Rows, seed: int) -> dict[str, dict[str, Tensor]]:
    """Rows of every kind that there can be, by name and input.

    Args:
        rows: usual ones by input name, the row first.
        seed: of what is drawn.
    """
    count = len(next(iter(rows.values())))
    generator = torch.Generator().manual_seed(seed)
    picked_N = torch.randperm(count, generator=generator)[:_NUM_MADE]

    def made(kind: Callable[[Tensor, Tensor, torch.Generator], Tensor]) -> dict[str, Tensor]:
        return {name: kind(tensor, picked_N, generator) for name, tensor in rows.items()}

    kinds = {}
    if any(tensor.is_floating_point() for tensor in rows.values()):
        kinds[FAR] = made(_far)
    kinds[NOISE] = made(_noise)
    if sum(tensor[0].numel() for tensor in rows.values()) > 1:
        kinds[SHUFFLED] = made(_shuffled)
    return kinds


def blind_to(flagged: Mapping[str, float]) -> list[str]:
    """The kinds of which less than half is flagged."""
    return [kind for kind, share in flagged.items() if share < BLIND_BELOW]


def _far(usual: Tensor, picked_N: Tensor, generator: torch.Generator) -> Tensor:
    if not usual.is_floating_point():
        return usual[picked_N]
    mean, deviation = _usual_of(usual.double())
    shape = (len(picked_N), *usual.shape[1:])
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (mean + _FAR * deviation * normal).to(usual.dtype)


def _usual_of(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each number; by quartiles where outliers make the latter."""
    mean, deviation = numbers.mean(dim=0), numbers.std(dim=0, correction=0)
    low, middle, high = (
        numbers.quantile(share, dim=0) if numbers.numel() <= _MOST_SORTED else mean
        for share in (0.25, 0.5, 0.75)
    )
    of_middle = (high - low) / _QUARTILES_APART
    is_off = (of_middle > 0) & (deviation > _OFF * of_middle)
    return torch.where(is_off, middle, mean), torch.where(is_off, of_middle, deviation)


def _noise(usual: Tensor, picked_N: Tensor, generator: torch.Generator) -> Tensor:
    low, high = usual.amin(dim=0).double(), usual.amax(dim=0).double()
    shape = (len(picked_N), *usual.shape[1:])
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    if usual.is_floating_point():
        return (low + (high - low) * uniform).to(usual.dtype)
    return (low + ((high - low + 1) * uniform).floor()).to(usual.dtype)


def _shuffled(usual: Tensor, picked_N: Tensor, generator: torch.Generator) -> Tensor:
    flat = usual.reshape(len(usual), -1)
    order = torch.rand((flat.shape[1], len(flat)), generator=generator).argsort(dim=1)
    return flat.gather(0, order[:, : len(picked_N)].T).reshape(len(picked_N), *usual.shape[1:])
