"""Augmentations: what a minibatch is turned into before the network sees it.

They draw from torch's own generator, which the training loop seeds.

Dimensions: B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixup(alpha: float, num_classes: int | None = None) -> Augmentation:
    """Return an augmentation that joins each row with another one of the minibatch.

    x' = λ x + (1-λ) x_other,  y' = λ y + (1-λ) y_other,    λ ~ Beta(alpha, alpha), one per row

    Args:
        alpha: Positive; 0.2 to 0.4 is usual. The larger, the nearer λ to one half.
        num_classes: C, where the targets are class indices, which become probabilities (B, C);
            None for real targets.

    Raises:
        ValueError: `alpha` is not positive.

    Source: Zhang et al. 2018, arXiv:1710.09412. There one λ serves a minibatch; one per row has
    the same expectation.
    """
    if not alpha > 0.0:
        raise ValueError(f"expected a positive alpha for mixup, got {alpha}: use 0.2, or no mixup")

    def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        other = torch.randperm(len(x)).to(x.device)
        # On the CPU, where the draws are the same for every device.
        share = torch.distributions.Beta(alpha, alpha).sample((len(x),)).to(x.device)
        if num_classes is not None and not y.is_floating_point():
            y = functional.one_hot(y, num_classes).float()
        return _combined(x, other, share), _combined(y, other, share)

    return mix


def in_turn(*augmentations: Augmentation) -> Augmentation:
    """Return an augmentation that applies several, the first one first."""

    def apply(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for augmentation in augmentations:
            x, y = augmentation(x, y)
        return x, y

    return apply


def _combined(values: Tensor, other: Tensor, share_B: Tensor) -> Tensor:
    share = share_B.to(values.dtype).view(-1, *(1 for _ in values.shape[1:]))
    return share * values + (1.0 - share) * values[other]
