"""The thinned form of several samples in one batched product.

Its job: where calling a kernel costs more than what it computes, as on a GPU, or of few rows on a
CPU, gather the weights of the samples into one tensor. Samples keep different numbers of units; the
shorter ones are filled up with units that they drop, whose mask is 0 and which therefore add
nothing.

Dimensions: T samples, B rows, F units, K kept ones of the sample that keeps most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.forms.layer import Layer, apply, weights_of
from dubito.engine.running.fold import Fold, as_tensor, unfolded
from dubito_nn.program import Value

_MULTIPLE = 16  # of which K is one, as kernels like it


@dataclass(frozen=True)
class Stack:
    """The weights of several samples.

    Args:
        input_units: (T, K) units of the chain's input; None for all.
        layers: per layer its weight (T, K, K') and its bias (T, 1, K'), or the bias of all, or
            None.
    """

    input_units: Tensor | None
    layers: tuple[tuple[Tensor, Tensor | None], ...]

    @classmethod
    def of(
        cls, layers: Sequence[Layer], masks: Sequence[Value | None], static: Mapping[str, Value]
    ) -> Stack:
        """Gather the weights of all samples.

        Args:
            layers: of the chain.
            masks: (T, F) on the input of each layer; None where nothing is masked.
            static: values that depend on nothing.
        """
        masks_TF = [None if mask is None else as_tensor(mask) for mask in masks]
        index_of = [None if mask_TF is None else _kept_units(mask_TF) for mask_TF in masks_TF]
        samples = next(len(mask_TF) for mask_TF in masks_TF if mask_TF is not None)
        made = []
        for at, layer in enumerate(layers):
            weight_GF, bias_G = weights_of(layer.linear, static)
            rows_TK = index_of[at + 1] if at + 1 < len(index_of) else None
            weight_TFG = _gathered(weight_GF.t(), samples, index_of[at], rows_TK, masks_TF[at])
            if bias_G is not None and rows_TK is not None:
                bias_G = bias_G[rows_TK].unsqueeze(1)
            made.append((weight_TFG, bias_G))
        return cls(index_of[0], tuple(made))

    def run(self, source: str, layers: Sequence[Layer], fold: Fold, positions: range) -> Tensor:
        """The chain's output, (samples · rows, F').

        Args:
            source: name of the value that enters.
            layers: of the chain.
            fold: of a chunk with the samples whose weights these are.
            positions: of those samples in it.
        """
        rows = len(fold.chunk.rows)
        if source in fold.of_rows:
            units = as_tensor(fold.of_rows[source]).expand(len(positions), -1, -1)
        else:
            whole = unfolded(as_tensor(fold.value(source)), 0, (len(fold.chunk.samples), rows))
            units = whole[positions.start : positions.stop]
        if self.input_units is not None:
            units = units.gather(2, self.input_units.unsqueeze(1).expand(-1, rows, -1))
        for layer, (weight_TKG, bias) in zip(layers, self.layers, strict=True):
            units = units @ weight_TKG if bias is None else torch.baddbmm(bias, units, weight_TKG)
            for node in layer.pointwise:
                units = apply(node, units, fold)
        return units.flatten(0, 1)


def _gathered(
    weight_FG: Tensor,
    samples: int,
    into_TK: Tensor | None,
    out_of_TK: Tensor | None,
    mask_TF: Tensor | None,
) -> Tensor:
    """What every sample keeps of a weight, times the mask, (T, K, K')."""
    if weight_FG.device.type != "cpu":
        weight_TFG = weight_FG.expand(samples, -1, -1)
        if into_TK is not None and mask_TF is not None:
            weight_TFG = weight_FG[into_TK] * mask_TF.gather(1, into_TK).unsqueeze(2)
        if out_of_TK is not None:
            index_TFK = out_of_TK.unsqueeze(1).expand(-1, weight_TFG.shape[1], -1)
            weight_TFG = weight_TFG.gather(2, index_TFK)
        return weight_TFG.contiguous()
    ordered_FG = weight_FG.contiguous()  # a CPU copies whole rows far faster than single numbers
    kept = []
    for t in range(samples):
        part = ordered_FG
        if into_TK is not None and mask_TF is not None:
            part = part.index_select(0, into_TK[t]).mul_(mask_TF[t, into_TK[t]].unsqueeze(1))
        kept.append(part if out_of_TK is None else part.index_select(1, out_of_TK[t]))
    return torch.stack(kept)


def _kept_units(mask_TF: Tensor) -> Tensor:
    """Places of the units that a sample keeps, then of some that it drops, (T, K), ascending."""
    is_kept_TF = mask_TF != 0
    most = int(is_kept_TF.sum(1).max())
    padded = min(mask_TF.shape[1], -(-max(most, 1) // _MULTIPLE) * _MULTIPLE)
    order_TF = (~is_kept_TF).to(torch.uint8).argsort(dim=1, stable=True)
    return order_TF[:, :padded].sort(dim=1).values
