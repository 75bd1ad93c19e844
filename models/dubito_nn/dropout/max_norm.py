"""The max-norm constraint: no unit's incoming weights are longer than a limit.

w ← w · min(1, c / ‖w‖₂) for the incoming weights w of every unit, after every optimiser step.

It keeps large learning rates from blowing weights up, which dropout's noise invites.
Source: Srivastava et al. 2014, JMLR 15, section 5.1; Srebro and Shraibman 2005.
"""

from __future__ import annotations

import torch
from torch import nn

_CONSTRAINED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def constrain_max_norm(network: nn.Module, limit: float) -> int:
    """Shorten, in place, the incoming weights of units that are longer than the limit.

    w ← w · min(1, c / ‖w‖₂)

    Args:
        network: Its linear and convolutional layers are constrained; biases are not.
        limit: c, above 0; 3 to 4 is usual.

    Returns:
        How many units were shortened.

    Raises:
        ValueError: The limit is not positive.

    Source: Srivastava et al. 2014, JMLR 15, section 5.1.
    """
    if not limit > 0.0:
        raise ValueError(f"expected a limit above 0, got {limit}: 3 to 4 is usual")
    shortened = 0
    for layer in network.modules():
        if isinstance(layer, _CONSTRAINED):
            incoming = tuple(range(1, layer.weight.ndim))
            norms = torch.linalg.vector_norm(layer.weight, dim=incoming, keepdim=True)
            shortened += int((norms > limit).sum())
            layer.weight.mul_((limit / norms.clamp_min(1e-12)).clamp_max(1.0))
    return shortened
