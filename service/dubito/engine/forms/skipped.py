"""Skipped form: the branch of a residual block that a sample drops is not computed.

Its job: where a whole branch is multiplied by one number per sample and added to the path around
it,

    y = x + m_t · branch(x)

the branch is computed for the samples with m_t ≠ 0 alone; and so where a drawn number exchanges it,

    y = branch(x) where c_t, else x

Source: Huang et al. 2016, arXiv:1603.09382 (stochastic depth), whose training saves that time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dubito.engine.forms.about import About
from dubito.engine.forms.layer import has_rows_first, readers_of
from dubito.engine.kernels.rates import Work
from dubito.engine.planning.layout import Layouts, RowAxis, Size
from dubito.engine.planning.plan import Plan
from dubito.engine.running.fold import Fold, Steps, as_tensor, repeated_each, steps_with, unfolded
from dubito_nn import Site
from dubito_nn.program import Node, Ref


@dataclass(frozen=True)
class _Going:
    """The S samples of a chunk that take a branch.

    Args:
        positions: in the chunk.
        index: (S,) the same on the device.
        scale: (S,) their masks; of a choice, nothing.
    """

    positions: tuple[int, ...]
    index: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Skipped:
    """A sum of a path and a branch times a mask, or a choice between them.

    Args:
        around: name of the path around the branch.
        mask: name of the mask, one number per sample.
        branch: what makes the branch, in order.
        nodes: names of all whose place it takes, in order: branch, product, sum; branch, choice.
        reads: names of the values that it needs.
        where: the truth value of the mask by which the branch is chosen; None of a sum.
    """

    wants_all_samples: ClassVar[bool] = False
    group_size: ClassVar[int] = 1

    around: str
    mask: str
    branch: Steps
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    where: bool | None = None

    def run(self, fold: Fold) -> Tensor:
        """Return the sum for every sample and row, in folded form."""
        going = self._going(fold)
        around = as_tensor(fold.value(self.around))
        if not going.positions:
            return around
        branch = fold.of_some(going.positions, going.index, self.reads).run(self.branch)
        samples, rows = len(fold.chunk.samples), len(fold.chunk.rows)
        if self.where is not None:
            return _exchanged(around, branch, going, (samples, rows))
        scale = repeated_each(going.scale, rows, 0).view(-1, *(1,) * (branch.ndim - 1))
        scaled = branch * scale
        if len(going.positions) == samples:
            return around + scaled
        result = unfolded(around.clone(), 0, (samples, rows))
        result.index_add_(0, going.index, unfolded(scaled, 0, (len(going.positions), rows)))
        return result.flatten(0, 1)

    def _going(self, fold: Fold) -> _Going:
        """Which samples take the branch: asked of the device once, and kept."""
        key = (self, tuple(fold.chunk.samples))
        going = fold.packs.get(key)
        if not isinstance(going, _Going):
            mask_T = as_tensor(fold.of_samples[self.mask]).flatten()
            mask_T = mask_T if self.where is None else mask_T == self.where
            index_S = mask_T.nonzero().squeeze(1)
            going = _Going(tuple(index_S.tolist()), index_S, mask_T[index_S])
            fold.packs[key] = going
        return going

    def work(self, about: About, rows: int, num_samples: int) -> tuple[Work, Work]:
        """Return the work of dense execution, and that of the form."""
        flops = moved = 0.0
        for current in self.branch.steps:
            assert isinstance(current, Node)
            shape = about.layouts.shape[current.name]
            numbers = math.prod(shape[1:])
            weights = [about.static.get(name) for name in current.references()]
            for weight in weights[1:2]:
                if isinstance(weight, Tensor):
                    flops += 2 * numbers * math.prod(weight.shape[1:])
            moved += 8 * numbers
        share, folded = about.density(self.mask), num_samples * rows
        share = 1 - share if self.where is False else share
        around = 4 * math.prod(about.layouts.shape[self.around][1:])
        return (
            Work(folded * flops, folded * moved, len(self.nodes)),
            Work(
                folded * share * flops,
                folded * (share * moved + 4 * around),
                len(self.nodes) + 6,
            ),
        )


def _exchanged(around: Tensor, branch: Tensor, going: _Going, sizes: tuple[int, int]) -> Tensor:
    """The branch for the samples that take it, and the path for the others."""
    samples, rows = sizes
    if len(going.positions) == samples:
        return branch
    result = unfolded(
        around.to(torch.promote_types(around.dtype, branch.dtype), copy=True), 0, sizes
    )
    some = unfolded(branch.to(result.dtype), 0, (len(going.positions), rows))
    return result.index_copy_(0, going.index, some).flatten(0, 1)


def branches(
    nodes: Sequence[Node], plan: Plan, layouts: Layouts, output: str, sites: Sequence[Site]
) -> list[Skipped]:
    """Every branch that one number per sample switches.

    Args:
        nodes: of the suffix, in order.
        plan: that they belong to.
        layouts: how values hold their rows.
        output: its name.
        sites: of the graph, which know the order of several entries per row.
    """
    by_name = {node.name: node for node in nodes}
    readers = readers_of(nodes)
    apart = _apart(nodes, plan, layouts, sites)
    skipped, taken = list[Skipped](), set[str]()
    for node in nodes:
        for found in (
            *_sums(node, by_name, plan, layouts),
            *_choices(node, by_name, plan, layouts),
        ):
            around, product, branch = found.around, found.product, found.branch
            if readers[product.name] != [node] or product.name == output:
                continue
            if not has_rows_first(layouts, around) or not _alike(layouts, around, product.name):
                continue
            inside = _inside(product.name, nodes, readers, layouts)
            inside = (*inside, branch) if found.where is not None else inside
            names = tuple(dict.fromkeys((*inside, product.name, node.name)))
            if not inside or around in inside or taken & set(names):
                continue
            steps = steps_with([by_name[name] for name in inside], (), branch)
            needed = {name for at in inside for name in by_name[at].references()} - set(inside)
            needed = {name for name in needed if not isinstance(layouts.of[name], Size)}
            if not needed <= apart:
                continue
            reads = (around, found.mask, *sorted(needed))
            skipped.append(Skipped(around, found.mask, steps, names, reads, found.where))
            taken.update(names)
            break
    return skipped


def _apart(nodes: Sequence[Node], plan: Plan, layouts: Layouts, sites: Sequence[Site]) -> set[str]:
    """Values of which the entries of some samples can be taken: those of a sample lie together.

    So they do where a row has one entry. Of several, such as windows, only a site says that a row's
    own lie together.
    """
    known = {node.name for node in plan.static}
    for name, layout in layouts.of.items():
        if isinstance(layout, RowAxis) and layout.axis is not None and layout.per_row == 1:
            known.add(name)
    drawn = (node for node in nodes if node.op == "site")
    return known | {node.name for node in drawn if sites[int(str(node.args[0]))].rows_outer}


def _alike(layouts: Layouts, *names: str) -> bool:
    """Whether values have one shape."""
    return len({layouts.shape[name] for name in names}) == 1


@dataclass(frozen=True)
class _Reading:
    """One reading of a node as a path and a switched branch.

    Args:
        around: name of the path.
        product: the node that the sum or the choice reads: the branch by its mask, or the branch.
        branch: name of the branch.
        mask: name of the mask.
        where: as of `Skipped`.
    """

    around: str
    product: Node
    branch: str
    mask: str
    where: bool | None


def _sums(
    node: Node, by_name: Mapping[str, Node], plan: Plan, layouts: Layouts
) -> Iterator[_Reading]:
    """Either reading of a sum of two values."""
    names = [part.name for part in node.args if isinstance(part, Ref)]
    if node.op != "aten.add.Tensor" or node.kwargs or len(names) != 2:
        return
    for at, name in enumerate(names):
        product = by_name.get(name)
        if product is None or product.op != "aten.mul.Tensor":
            continue
        operand = _switched(product, plan, layouts)
        if operand is not None:
            yield _Reading(names[1 - at], product, *operand, None)


def _choices(
    node: Node, by_name: Mapping[str, Node], plan: Plan, layouts: Layouts
) -> Iterator[_Reading]:
    """Either reading of a choice between two values."""
    names = [part.name for part in node.args if isinstance(part, Ref)]
    if node.op != "aten.where.self" or len(names) != 3:
        return
    mask, chosen, other = names
    for where, branch, around in ((True, chosen, other), (False, other, chosen)):
        if (
            branch in by_name
            and _switches(mask, branch, plan, layouts)
            and _alike(layouts, branch, node.name)
        ):
            yield _Reading(around, by_name[branch], branch, mask, where)


def _switched(product: Node, plan: Plan, layouts: Layouts) -> tuple[str, str] | None:
    """(branch, mask) where the product is with one number per sample."""
    names = [part.name for part in product.args if isinstance(part, Ref)]
    if len(names) != 2:
        return None
    for branch, mask in (names, names[::-1]):
        if _switches(mask, branch, plan, layouts) and _alike(layouts, branch, product.name):
            return branch, mask
    return None


def _switches(mask: str, branch: str, plan: Plan, layouts: Layouts) -> bool:
    """Whether a mask has one number per sample for a branch."""
    shape = layouts.shape.get(mask, ())
    return (
        mask in plan.from_masks
        and branch not in plan.from_masks
        and has_rows_first(layouts, mask)
        and has_rows_first(layouts, branch)
        and len(shape) == len(layouts.shape[branch])
        and all(size == 1 for size in shape[1:])
    )


def _inside(
    product: str,
    nodes: Sequence[Node],
    readers: Mapping[str, Sequence[Node]],
    layouts: Layouts,
) -> tuple[str, ...]:
    """Nodes that nothing but the branch reads, in order."""
    inside = {product}
    for node in reversed(nodes):
        reading = readers.get(node.name, ())
        if (
            reading
            and node.op != "site"
            and not isinstance(layouts.of[node.name], Size)
            and all(reader.name in inside for reader in reading)
        ):
            inside.add(node.name)
    return tuple(node.name for node in nodes if node.name in inside - {product})
