"""Draws that stand at their means, or beside them: whether they may, and gradients by them.

A draw can stand at its mean where everything made of draws alone is affine in them, as masks are
that are scaled, turned round or spread over channels: E g(ω) = g(E ω), and g has one slope. That is
seen, not believed: g is run at two draws and half-way between.

Dimensions: B rows, R directions, N numbers that one site draws for a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from dubito.engine.moments.graph import SIZES, dependent
from dubito.engine.moments.values import RefusedError
from dubito.engine.planning.layout import Layouts, RowAxis, look
from dubito_nn import Program, Site
from dubito_nn.program import Node, Value

_APART = 1e-4  # of the largest number
_SIGNS_KEPT = 256
_KEPT = 2  # copies of a value: itself, and what its operator keeps for the gradient


@dataclass(eq=False)
class MeanDraws:
    """The draws of one pass, each at its mean.

    Args:
        sites: random operations of the graph, by index.
        device: to make them on.
        rows: B.
        aside: deviations that every number stands off its mean, by a sign of its own.
    """

    sites: Sequence[Site]
    device: torch.device
    rows: int
    aside: float = 0.0
    _leaves: dict[int, Tensor] = field(default_factory=dict)

    def draw(self, index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """E ω of a site in its full size, or beside it; to be differentiated by where it is not."""
        site = self.sites[index]
        leaf = torch.full(size, _mean(site), dtype=dtype, device=self.device)
        if self.aside:
            assert site.batch_dim is not None
            signs = _signs(index, tuple(size), site.batch_dim, self.rows).to(leaf)
            repeats = [1] * leaf.ndim
            repeats[site.batch_dim] = self.rows
            return leaf.add_(signs.repeat(repeats), alpha=self.aside * _deviation(site))
        self._leaves[index] = leaf.requires_grad_()
        return leaf

    def gradients(
        self, outputs_BD: Tensor, cotangent_BD: Tensor, *, keep_graph: bool
    ) -> list[Tensor]:
        """The gradient of one direction of the outputs by every site, each (B, N).

        Raises:
            RefusedError: the outputs depend on a draw in a way that has no gradient.
        """
        leaves = list(self._leaves.values())
        found = torch.autograd.grad(
            outputs_BD, leaves, cotangent_BD, retain_graph=keep_graph, allow_unused=True
        )
        return [
            _rows_first(index, self.sites[index], gradient, len(outputs_BD))
            for index, gradient in zip(self._leaves, found, strict=True)
        ]

    def covariance(self, by_direction: Sequence[Sequence[Tensor]]) -> Tensor:
        """Σ Var ω g gᵀ over all numbers, (B, R, R), of the gradients of every direction."""
        covariance = torch.zeros((), device=self.device)
        for index, *each in zip(self._leaves, *by_direction, strict=True):
            gradient_BRN = torch.stack(each, 1)
            variance = _deviation(self.sites[index]) ** 2
            covariance = covariance + variance * (gradient_BRN @ gradient_BRN.mT)
        return covariance


@dataclass(frozen=True, eq=False)
class LookAtDraws:
    """What a look at the draws found.

    Args:
        layouts: of the graph.
        drawn_bytes: of all numbers that are drawn for one row.
        num_outputs: D.
    """

    layouts: Layouts
    drawn_bytes: int
    num_outputs: int

    def row_bytes(self, num_directions: Callable[[int], int]) -> int:
        """Bytes that one row takes, followed in so many directions of the outputs."""
        kept = _KEPT * sum(self.layouts.row_bytes.values())
        return kept + (1 + num_directions(self.num_outputs)) * self.drawn_bytes


def look_at_draws(
    program: Program,
    sites: Sequence[Site],
    row: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
) -> LookAtDraws:
    """See whether every draw can stand at its mean, and what a row takes.

    Args:
        program: the lifted graph.
        sites: its random operations.
        row: one row of every input.
        weights: tensors by key, on the device.
        device: to run on.

    Raises:
        RefusedError: naming the module whose draws cannot.
    """
    layouts = look(program, row, weights, device)
    drawn = program.of_kind("site")
    for node in drawn:
        site, seen = sites[int(node.args[0])], layouts.of[node.name]  # type: ignore[arg-type]
        assert isinstance(seen, RowAxis)
        if seen.axis is None or site.batch_dim != seen.axis:
            raise RefusedError("all rows share a draw, as where weights are dropped")
        if site.distribution == "uniform":
            raise RefusedError("a draw that is compared or bent has no mean to stand at")
    _check_affine(program, row, weights, device)
    output = program.outputs["output"]
    return LookAtDraws(
        layouts,
        sum(layouts.row_bytes[node.name] for node in drawn),
        torch.Size(layouts.shape[output][1:]).numel(),
    )


def _check_affine(
    program: Program,
    row: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
) -> None:
    """Refuse what is made of draws alone and is not affine in them, and what decides by them."""
    first, second, middle = (
        _made_of_draws(program, row, weights, device, share) for share in (0.0, 1.0, 0.5)
    )
    for name, value in middle.items():
        between = (first[name] + second[name]) / 2
        if not bool((value - between).abs().max() <= _APART * (1 + between.abs().max())):
            raise RefusedError("masks are bent before they act on a value")


def _made_of_draws(
    program: Program,
    row: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    device: torch.device,
    share: float,
) -> dict[str, Tensor]:
    """What is made of draws alone, by name, so far on the way from one draw to another."""
    of_draws = dependent(program, ("site",), stop=SIZES)
    alone = of_draws - dependent(program, ("input",), stop=SIZES)
    found: dict[str, Tensor] = {}

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        first, second = (torch.rand(size, generator=generator) for _ in range(2))
        return torch.lerp(first, second, share).to(device, dtype)

    def watch(node: Node, value: Value) -> None:
        if isinstance(value, Tensor) and node.name in of_draws:
            if not value.is_floating_point():
                raise RefusedError("something is decided by a random value")
            if node.name in alone:
                found[node.name] = value

    with torch.no_grad():
        program.run(row, weights, draws, device=device, watch=watch)
    return found


def _mean(site: Site) -> float:
    return site.bernoulli_mean if site.distribution == "bernoulli" else 0.0


def _deviation(site: Site) -> float:
    mean = _mean(site)
    return math.sqrt(mean * (1 - mean)) if site.distribution == "bernoulli" else 1.0


@lru_cache(maxsize=_SIGNS_KEPT)
def _signs(index: int, size: tuple[int, ...], rows_axis: int, rows: int) -> Tensor:
    """A fixed sign for every number that a site draws for one row; the same for all rows."""
    of_row = list(size)
    of_row[rows_axis] //= rows
    generator = torch.Generator().manual_seed(index)
    return torch.randint(0, 2, of_row, generator=generator).float() * 2 - 1


def _rows_first(index: int, site: Site, gradient: Tensor | None, rows: int) -> Tensor:
    if gradient is None:
        raise RefusedError(f"the outputs have no gradient by the draws of `{site.module_path}`")
    assert site.batch_dim is not None
    return gradient.movedim(site.batch_dim, 0).reshape(rows, -1)
