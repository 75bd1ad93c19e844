"""Thinned form: units that a sample drops are not computed.

Its job: with ω_t known, a chain `mask, linear, pointwise, mask, linear, ...` is a smaller network.

    y = W₂ (m₂ ∘ f(W₁ (m₁ ∘ h) + b₁)) + b₂        dense, for every sample
    y = W₂[:, K₂]·m₂[K₂] f(W₁[K₂, K₁]·m₁[K₁] h[K₁] + b₁[K₂]) + b₂        K: the units with m ≠ 0

At rate p a layer between two masks takes (1-p)² of the multiply-adds. The weights of every sample
are gathered once per seed and kept. Other devices than a CPU take all samples of a chunk at once
(`stacked.py`). A CPU takes a few of them at once where rows are few and the weights stay for later
calls: a product of one sample is then so short that calls count, and so does what each of them may
wait until another thread gives Python away. Else it takes one sample after the other, each with as
many units as it keeps; units are rows and rows are columns, W·h and not h·Wᵀ: kept units then lie
together, and MKL is faster that way round.

Dimensions: B rows, F units, K kept ones.

Source: the observation is that of Srivastava et al. 2014, section 1, that a draw is a thinned
network; Hasan et al. 2022 (controlled dropout) train with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dubito.engine.forms.about import About
from dubito.engine.forms.layer import (
    Layer,
    apply,
    first_of,
    has_rows_first,
    is_pointwise,
    readers_of,
    weights_of,
)
from dubito.engine.forms.stacked import Stack
from dubito.engine.kernels.products import has_fast_onednn, laid_out, linear
from dubito.engine.kernels.rates import Work
from dubito.engine.planning.layout import Layouts
from dubito.engine.planning.plan import Plan
from dubito.engine.running.fold import Fold, as_tensor
from dubito_nn.program import Node, Ref

_GROUPED_ROWS = 64  # up to which products of several samples at once are no slower


@dataclass(frozen=True)
class PackedWeights:
    """The weights of one sample.

    Args:
        input_units: (K,) units of the chain's input; None for all.
        layers: per layer its weight (K', K) and its bias (K',) or None.
    """

    input_units: Tensor | None
    layers: tuple[tuple[Tensor, Tensor | None], ...]


@dataclass(frozen=True, eq=False)
class Thinned:
    """A chain of masked linear maps.

    Args:
        source: name of the value that enters.
        layers: in order; the last one's output is whole.
        is_stacked: all samples of a chunk at once.
    """

    wants_all_samples: ClassVar[bool] = False
    group_size: ClassVar[int] = 8

    source: str
    layers: tuple[Layer, ...]
    is_stacked: bool = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes whose place it takes."""
        return tuple(name for layer in self.layers for name in layer.names)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the chain needs."""
        return (self.source,)

    @property
    def masks(self) -> tuple[str, ...]:
        """Names of the masks in the chain."""
        return tuple(layer.mask for layer in self.layers if layer.mask is not None)

    def pack(self, fold: Fold, position: int) -> PackedWeights:
        """Gather the weights of one sample.

        Args:
            fold: whose masks are read.
            position: of the sample in its chunk.
        """
        masks = [
            None if layer.mask is None else as_tensor(fold.of_samples[layer.mask])[position]
            for layer in self.layers
        ]
        units = [None if mask is None else mask.nonzero().squeeze(1) for mask in masks]
        packed = []
        for at, layer in enumerate(self.layers):
            weight, bias = weights_of(layer.linear, fold.static)
            rows = units[at + 1] if at + 1 < len(units) else None
            columns, mask = units[at], masks[at]
            if rows is not None:
                weight = weight.index_select(0, rows)
                bias = None if bias is None else bias.index_select(0, rows)
            if columns is not None and mask is not None:
                weight = weight.index_select(1, columns).mul_(mask[columns])
            packed.append((laid_out(weight), bias))
        return PackedWeights(units[0], tuple(packed))

    def work(self, about: About, rows: int, num_samples: int) -> tuple[Work, Work]:
        """Return the work of dense execution, and that of the form."""
        shares = [1.0 if layer.mask is None else about.density(layer.mask) for layer in self.layers]
        shares.append(1.0)
        flops = kept_flops = moved = weights = units = 0.0
        for at, layer in enumerate(self.layers):
            out, into = weights_of(layer.linear, about.static)[0].shape
            flops += 2 * out * into
            kept_flops += 2 * out * shares[at + 1] * into * shares[at]
            moved += 4 * (3 * into + 2 * out)
            weights += 4 * out * shares[at + 1] * into * shares[at]
            units += 4 * 3 * out * shares[at + 1]
        units += 8 * weights_of(self.layers[0].linear, about.static)[0].shape[1] * shares[0]
        folded, count = num_samples * rows, 3 * len(self.layers)
        calls = count if self.is_stacked else num_samples * count
        return (
            Work(folded * flops, folded * moved, count),
            Work(folded * kept_flops, num_samples * weights + folded * units, calls),
        )

    def packed_bytes(self, about: About) -> float:
        """Memory of one sample's weights."""
        return self.work(about, 0, 1)[1].moved

    def _packed(self, fold: Fold, position: int, t: int) -> PackedWeights:
        packed = fold.packs.get((self, t))
        if not isinstance(packed, PackedWeights):
            packed = self.pack(fold, position)
            fold.packs[self, t] = packed
        return packed

    def _samples(self, fold: Fold) -> Iterator[tuple[int, PackedWeights]]:
        for position, t in enumerate(fold.chunk.samples):
            yield position, self._packed(fold, position, t)

    def run(self, fold: Fold) -> Tensor:
        """The chain's output, (samples · rows, F)."""
        count = len(fold.chunk.samples)
        if self.is_stacked:
            return self._together(fold, range(count))
        if has_fast_onednn():
            return torch.cat([self._rows_first(sample, fold) for sample in self._samples(fold)])
        is_grouped = fold.packs.is_kept and self._starts_group(fold.chunk.samples)
        if is_grouped and len(fold.chunk.rows) <= _GROUPED_ROWS:
            starts = range(0, count, self.group_size)
            groups = [range(start, min(start + self.group_size, count)) for start in starts]
            return torch.cat([self._together(fold, group) for group in groups])
        shared = None
        if self.source in fold.of_rows:
            shared = as_tensor(fold.of_rows[self.source]).t().contiguous()
        made: Tensor | None = None
        for position, packed in self._samples(fold):
            units_FB = fold.of_sample(self.source, position).t() if shared is None else shared
            result_GB = self._units_first(units_FB, packed, fold)
            if made is None:
                made = result_GB.new_empty(len(fold.chunk.samples), *result_GB.shape)
            made[position] = result_GB
        assert made is not None
        return made.mT.flatten(0, 1)

    def _starts_group(self, samples: Sequence[int]) -> bool:
        """Whether these are groups of neighbours, whole but for the last: so few are ever kept."""
        is_whole = samples[-1] - samples[0] + 1 == len(samples)
        return is_whole and samples[0] % self.group_size == 0

    def _units_first(self, units_FB: Tensor, packed: PackedWeights, fold: Fold) -> Tensor:
        """The chain's output in one sample, (F', B)."""
        if packed.input_units is not None:
            units_FB = units_FB.index_select(0, packed.input_units)
        for layer, (weight, bias) in zip(self.layers, packed.layers, strict=True):
            if bias is None:
                units_FB = weight @ units_FB
            else:
                units_FB = torch.addmm(bias.unsqueeze(1), weight, units_FB)
            for node in layer.pointwise:
                units_FB = apply(node, units_FB, fold)
        return units_FB

    def _rows_first(self, sample: tuple[int, PackedWeights], fold: Fold) -> Tensor:
        """The chain's output in one sample, in the order that oneDNN takes, (B, F')."""
        position, packed = sample
        units = fold.of_sample(self.source, position)
        if packed.input_units is not None:
            units = units.index_select(1, packed.input_units)
        for layer, (weight, bias) in zip(self.layers, packed.layers, strict=True):
            units = linear(units, weight, bias)
            for node in layer.pointwise:
                units = apply(node, units, fold)
        return units

    def _together(self, fold: Fold, positions: range) -> Tensor:
        """The chain's output of several samples at once, where a call costs more than its numbers.

        Args:
            fold: of the chunk.
            positions: of neighbouring samples in it.
        """
        at = slice(positions.start, positions.stop)
        key = (self, tuple(fold.chunk.samples[at]))
        stack = fold.packs.get(key)
        if not isinstance(stack, Stack):
            names = [layer.mask for layer in self.layers]
            masks = [
                None if name is None else as_tensor(fold.of_samples[name])[at] for name in names
            ]
            stack = Stack.of(self.layers, masks, fold.static)
            fold.packs[key] = stack
        return stack.run(self.source, self.layers, fold, positions)


def chains(nodes: Sequence[Node], plan: Plan, layouts: Layouts, output: str) -> list[Thinned]:
    """Every chain with at least one layer whose units are dropped.

    Args:
        nodes: of the suffix, in order.
        plan: that they belong to.
        layouts: how values hold their rows.
        output: its name.
    """
    finder = _Finder(nodes, plan, layouts, output)
    thinned, taken = list[Thinned](), set[str]()
    for node in nodes:
        if node.name not in taken and (chain := finder.chain_from(node)) is not None:
            thinned.append(chain)
            taken.update(chain.nodes)
    return thinned


class _Finder:
    def __init__(self, nodes: Sequence[Node], plan: Plan, layouts: Layouts, output: str) -> None:
        self.plan, self.layouts, self.output = plan, layouts, output
        self.static = {node.name for node in plan.static}
        self.readers = readers_of(nodes)

    def chain_from(self, node: Node) -> Thinned | None:
        """The longest chain that begins with this node."""
        operand = self._masked_operand(node)
        if operand is not None:
            source, mask = operand
            linear = self._only_reader(node.name)
            masked: str | None = node.name
        elif self._is_linear(node):
            source, mask, masked, linear = first_of(node), None, None, node
        else:
            return None
        layers: list[Layer] = []
        while linear is not None and self._is_linear(linear):
            layer, then = self._layer(mask, masked, linear)
            layers.append(layer)
            operand = None if then is None else self._masked_operand(then)
            if then is None or operand is None or operand[0] != layer.names[-1]:
                break
            mask, masked, linear = operand[1], then.name, self._only_reader(then.name)
        if len(layers) < 2 or not has_rows_first(self.layouts, source, 2):
            return None
        *first, last = layers  # what follows the last linear map is no part of the chain
        return Thinned(source, (*first, Layer(last.mask, last.masked, last.linear, ())))

    def _layer(
        self, mask: str | None, masked: str | None, linear: Node
    ) -> tuple[Layer, Node | None]:
        pointwise: list[Node] = []
        at = linear
        while (then := self._only_reader(at.name)) is not None and is_pointwise(then):
            pointwise.append(then)
            at = then
        return Layer(mask, masked, linear, tuple(pointwise)), then

    def _masked_operand(self, node: Node) -> tuple[str, str] | None:
        """(value, mask) where the node is their product and the mask is one number per unit."""
        if node.op != "aten.mul.Tensor" or len(node.args) != 2:
            return None
        names = [part.name for part in node.args if isinstance(part, Ref)]
        if len(names) != 2 or names[0] == names[1]:
            return None
        for value, mask in (names, reversed(names)):
            if (
                mask in self.plan.from_masks
                and value not in self.plan.from_masks
                and has_rows_first(self.layouts, mask, 2)
                and has_rows_first(self.layouts, value, 2)
            ):
                return value, mask
        return None

    def _is_linear(self, node: Node) -> bool:
        weights = [part.name for part in node.args[1:] if isinstance(part, Ref)]
        return (
            node.op == "aten.linear.default"
            and not node.kwargs
            and has_rows_first(self.layouts, node.name, 2)
            and all(name in self.static for name in weights)
        )

    def _only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name != self.output else None
