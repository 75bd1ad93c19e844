"""Max-pooling of images on a CPU.

Its job: take the largest of neighbours by `maximum` of whole slices. torch's own operator also
notes where each came from, which nobody asks here, and takes three to eight times as long. Where
windows overlap or are padded it is used all the same. The bits are equal.

Dimensions: R rows, C channels, H by W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from dubito_nn.operators import resolve

MAX_POOL = "aten.max_pool2d.default"
_MOST = 4  # windows of more places have too many slices


def max_pool(
    image_RCHW: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Tensor:
    """Return the maxima of all windows, as `aten.max_pool2d` does."""
    down, across = window = _pair(kernel)
    height, width = image_RCHW.shape[-2] // down * down, image_RCHW.shape[-1] // across * across
    is_apart = _pair(stride or kernel) == window and not any(padding) and not ceil_mode
    is_plain = is_apart and set(dilation) == {1} and max(window) <= _MOST and height and width
    if not is_plain or image_RCHW.device.type != "cpu" or not image_RCHW.is_floating_point():
        pooled = resolve(MAX_POOL)(image_RCHW, kernel, stride, padding, dilation, ceil_mode)
        assert isinstance(pooled, Tensor)
        return pooled
    rows = [image_RCHW[..., offset:height:down, :] for offset in range(down)]
    lower = reduce(torch.maximum, rows)
    return reduce(torch.maximum, [lower[..., offset:width:across] for offset in range(across)])


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    return numbers[0], numbers[-1]
