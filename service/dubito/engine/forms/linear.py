"""Linear form: a mask of channels in front of a convolution becomes one small matrix product.

Its job: a convolution is linear in its channels, and rows' channels h_c are the same in every
sample, so the partial results are made once per row:

    conv(m_t ∘ h) + b = Σ_c m_tc (W_c * h_c) + b        P_c = W_c * h_c, once per row

T samples then cost T · C numbers per output instead of T · C · k² (k² places of the kernel).

Dimensions: R rows, T samples, C channels in, O channels out, L places out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dubito.engine.forms.about import About
from dubito.engine.forms.layer import has_rows_first, readers_of
from dubito.engine.kernels.rates import Work
from dubito.engine.planning.layout import Layouts
from dubito.engine.planning.plan import Plan
from dubito.engine.running.fold import Fold, as_tensor
from dubito_nn.program import Node, Ref


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image: stride, padding and dilation of height and width."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def size(self, image: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Return height and width of the result."""
        height, width = (
            (side + 2 * pad - gap * (reach - 1) - 1) // stride + 1
            for side, reach, stride, pad, gap in zip(
                image, kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return height, width


@dataclass(frozen=True, eq=False)
class Linear:
    """A product with a mask of channels, and the convolution that reads it.

    Args:
        source: name of the image, which depends on the row alone.
        mask: name of the mask, one number per channel.
        masked: name of the product.
        convolution: its node.
        window: its arguments.
    """

    wants_all_samples: ClassVar[bool] = True
    group_size: ClassVar[int] = 1

    source: str
    mask: str
    masked: str
    convolution: Node
    window: Window

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes whose place it takes."""
        return (self.masked, self.convolution.name)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that the form needs."""
        return (self.source,)

    def run(self, fold: Fold) -> Tensor:
        """The convolution of every sample and row, (T · R, O, H, W), channels last."""
        weight, bias = _weights(self.convolution, fold.static)
        image = as_tensor(fold.of_rows[self.source])
        size = self.window.size(image.shape[2:], weight.shape[2:])
        partial_RCN = self.partial(image, weight)
        mask_TC = as_tensor(fold.of_samples[self.mask]).flatten(1)
        result_TRN = image.new_empty(len(mask_TC), len(image), partial_RCN.shape[-1])
        if bias is not None:
            bias = bias.repeat(partial_RCN.shape[-1] // len(bias))
        for row, partial_CN in enumerate(partial_RCN):
            if bias is None:
                torch.mm(mask_TC, partial_CN, out=result_TRN[:, row])
            else:
                torch.addmm(bias, mask_TC, partial_CN, out=result_TRN[:, row])
        return result_TRN.view(-1, *size, len(weight)).permute(0, 3, 1, 2)

    def work(self, about: About, rows: int, num_samples: int) -> tuple[Work, Work]:
        """Return the work of dense execution, and that of the form."""
        out, channels, *kernel = _weights(self.convolution, about.static)[0].shape
        places = math.prod(about.layouts.shape[self.convolution.name][2:])
        pixels = math.prod(about.layouts.shape[self.source][2:])
        plain, folded = 2.0 * out * channels * math.prod(kernel) * places, num_samples * rows
        return (
            Work(folded * plain, 4 * folded * (2 * channels * pixels + out * places), 2),
            Work(
                rows * plain + folded * 2 * out * channels * places,
                4 * rows * 3 * channels * out * places + 4 * folded * out * places,
                8 + 2 * rows,
            ),
        )

    def partial(self, image_RCHW: Tensor, weight_OCHW: Tensor) -> Tensor:
        """P: every channel's own part of the result, (R, C, L · O)."""
        rows, channels = image_RCHW.shape[:2]
        window, kernel = self.window, weight_OCHW.shape[2:]
        patches = functional.unfold(
            image_RCHW.contiguous(), kernel, window.dilation, window.padding, window.stride
        )
        patches_RCLK = patches.view(rows, channels, kernel.numel(), -1).transpose(2, 3)
        kernel_CKO = weight_OCHW.permute(1, 2, 3, 0).reshape(channels, kernel.numel(), -1)
        return torch.matmul(patches_RCLK, kernel_CKO).flatten(2)


def linear_maps(nodes: Sequence[Node], plan: Plan, layouts: Layouts, output: str) -> list[Linear]:
    """Every mask of channels on a value of the rows alone that only a convolution reads.

    Args:
        nodes: of the suffix, in order.
        plan: that they belong to.
        layouts: how values hold their rows.
        output: its name.
    """
    readers = readers_of(nodes)
    static = {node.name for node in plan.static}
    maps = []
    for node in nodes:
        operand = _masked(node, plan, layouts)
        reading = readers.get(node.name, [])
        if operand is None or len(reading) != 1 or node.name == output:
            continue
        window = _window(reading[0], node.name, static)
        if window is not None:
            maps.append(Linear(*operand, node.name, reading[0], window))
    return maps


def _masked(node: Node, plan: Plan, layouts: Layouts) -> tuple[str, str] | None:
    """(image, mask) where the node is the product of the two."""
    names = [part.name for part in node.args if isinstance(part, Ref)]
    if node.op != "aten.mul.Tensor" or len(names) != 2:
        return None
    for image, mask in (names, names[::-1]):
        if (
            image in plan.from_prefix
            and mask in plan.from_masks
            and all(has_rows_first(layouts, name, 4) for name in (image, mask))
            and layouts.shape[mask][2:] == (1, 1)
            and layouts.shape[mask][1] == layouts.shape[image][1]
        ):
            return image, mask
    return None


def _window(node: Node, image: str, static: set[str]) -> Window | None:
    """The window of a convolution of that image with a known kernel, without groups."""
    if node.op != "aten.conv2d.default" or node.kwargs:
        return None
    first, *rest = node.args
    weights = [part.name for part in rest if isinstance(part, Ref)]
    if first != Ref(image) or any(name not in static for name in weights):
        return None
    stated: list[object] = list(rest[2:])
    defaults: list[object] = [(1, 1), (0, 0), (1, 1), 1]
    stride, padding, dilation, groups = stated + defaults[len(stated) :]
    if groups != 1:
        return None
    moves, pads, gaps = _pair(stride), _pair(padding), _pair(dilation)
    if moves is None or pads is None or gaps is None:
        return None
    return Window(moves, pads, gaps)


def _pair(argument: object) -> tuple[int, int] | None:
    if isinstance(argument, int):
        return argument, argument
    if not isinstance(argument, tuple) or not all(isinstance(part, int) for part in argument):
        return None
    return (argument[0], argument[-1]) if len(argument) in (1, 2) else None


def _weights(convolution: Node, static: Mapping[str, object]) -> tuple[Tensor, Tensor | None]:
    weight, bias = (*convolution.args[1:], None)[:2]
    assert isinstance(weight, Ref)
    return (
        as_tensor(static[weight.name]),
        as_tensor(static[bias.name]) if isinstance(bias, Ref) else None,
    )
