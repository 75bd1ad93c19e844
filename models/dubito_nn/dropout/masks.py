"""Bernoulli masks, how they are applied, and the check of an input's axes.

Every layer of fixed p draws here, with one random operator per call, so that one call is one site
of the exported graph. A mask has the rank of what it masks, with ones where a number is shared:

    (B, K)         one number per unit            (B, K, 1, 1)   one per channel
    (B, 1, K)      one for all time steps         (1, 1)         one for the whole batch

Rows do not interact: a mask has either a number of its own for each row, or is shared by all rows
and then drawn without looking at any.

Dimensions: B rows, K units or channels, L time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dubito_nn.errors import ExportError

Per = Literal["row", "batch"]


def keep_mask(like: Tensor, shape: Sequence[int], drop_prob: float) -> Tensor:
    """Draw m ~ Bernoulli(1-p): 1 keeps, 0 drops.

    Args:
        like: Gives dtype and device.
        shape: Of the mask.
        drop_prob: p, in [0, 1].
    """
    return torch.bernoulli(like.new_zeros(tuple(shape)), 1.0 - drop_prob)


def inverted_mask(like: Tensor, shape: Sequence[int], drop_prob: float) -> Tensor:
    """Draw m / (1-p), which has mean 1; all zeros for p = 1."""
    mask = keep_mask(like, shape, drop_prob)
    return mask if drop_prob == 1.0 else mask / (1.0 - drop_prob)


def apply_mask(x: Tensor, mask: Tensor, drop_prob: float = 0.0) -> Tensor:
    """Apply a mask that was drawn elsewhere: y = x · m / (1-p).

    Args:
        x: Any shape.
        mask: m, of the same rank, every size that of x or 1.
        drop_prob: p of the mask; 0 leaves out the scaling.

    Raises:
        ValueError: The mask's shape does not fit, or p is not in [0, 1).
    """
    fits = mask.ndim == x.ndim and all(
        mask_size in (1, size) for mask_size, size in zip(mask.shape, x.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"expected a mask with {x.ndim} axes whose sizes are 1 or those of {tuple(x.shape)}, "
            f"got {tuple(mask.shape)}: put axes of size 1 where its numbers are shared"
        )
    if not 0.0 <= drop_prob < 1.0:
        raise ValueError(
            f"expected drop_prob in [0, 1), got {drop_prob}: with p = 1 nothing is left to scale"
        )
    return x * mask / (1.0 - drop_prob)


def check_axes(x: Tensor, ndim: int, axes: str) -> None:
    """See that an input has the rank that a layer is for.

    Args:
        x: The input.
        ndim: Expected number of axes.
        axes: Their names, for the message.

    Raises:
        ValueError: It has another rank.
    """
    if x.ndim != ndim:
        raise ValueError(
            f"expected an input of shape {axes}, got {tuple(x.shape)}: reshape it, or take the "
            "layer for that number of axes"
        )


def check_fixed(size: int | torch.SymInt, what: str, remedy: str) -> None:
    """See, while a network is exported, that a size which its graph is made for is not free.

    Args:
        size: As the input has it.
        what: The layer's name for it, for the message.
        remedy: What to do.

    Raises:
        ExportError: `free_dims` names it.
    """
    if isinstance(size, torch.SymInt) and torch.compiler.is_exporting():
        raise ExportError(f"free_dims names the {what}, but a bundle holds one of them: {remedy}")


def check_per(per: str) -> Per:
    """Return what shares a mask, `row` or `batch`.

    Raises:
        ValueError: It is neither.
    """
    if per == "row" or per == "batch":
        return per  # type: ignore[return-value]
    raise ValueError(
        f"expected per to be `row` or `batch`, got {per!r}: `row` draws for every row anew, "
        "`batch` once for all rows of a call"
    )
