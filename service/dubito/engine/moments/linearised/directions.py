"""Which directions of the outputs are followed backwards, and the covariance that they give.

Up to four outputs are followed one by one, numbers always. Of more classes four directions are:
the two likeliest classes, all that their probabilities hang on of the others, and signs s that
have the others' average variance, so that ten classes cost what a thousand do:

    w = Σ_c π_c z_c,   π = softmax of the other classes: the gradient of log Σ_c exp z_c
    u = Σ_c s_c z_c / √n,   s_c in {-1, 1}:   E_s Var u = Σ_c Var z_c / n

The others then have a part in common, with the covariances of w, and one of their own:

    v + o = Var u,   v + o Σ π² = Var w,   the second alone where both cannot be had

Dimensions: B rows, R directions, D outputs, n outputs that are followed together.
Source: Hutchinson 1990, A stochastic estimator of the trace, for the average over signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_PATTERNS = 64
_ALONE = 2
MAX_DIRECTIONS = 4
"""Classes that are followed one by one where there are no more; else directions."""


def num_directions(num_outputs: int, *, is_classes: bool) -> int:
    """How many passes backwards so many outputs take, R."""
    return min(num_outputs, MAX_DIRECTIONS) if is_classes else num_outputs


@dataclass(frozen=True, eq=False)
class Followed:
    """What is differentiated.

    Args:
        cotangents: (R, B, D), one direction of the outputs per entry and row.
        are_outputs: every direction is one output; else they are as above.
    """

    cotangents: Tensor
    are_outputs: bool

    @classmethod
    def of(cls, outputs_BD: Tensor, *, is_classes: bool) -> Followed:
        """Choose them from the outputs at the means of the draws."""
        rows, count = outputs_BD.shape
        if num_directions(count, is_classes=is_classes) == count:
            eye = torch.eye(count, dtype=outputs_BD.dtype, device=outputs_BD.device)
            return cls(eye.unsqueeze(1).expand(count, rows, count), True)
        tops_BA = outputs_BD.topk(_ALONE, dim=1).indices
        alone_ABD = torch.zeros(_ALONE, rows, count).to(outputs_BD)
        alone_ABD.scatter_(2, tops_BA.T.unsqueeze(-1), 1.0)
        are_others_BD = 1 - alone_ABD.sum(0)
        share_BD = outputs_BD.masked_fill(are_others_BD == 0, -torch.inf).softmax(1)
        signs_BD = _signs(count).to(outputs_BD)[tops_BA[:, 0] % _PATTERNS]
        together_BD = are_others_BD * signs_BD / (count - _ALONE) ** 0.5
        return cls(torch.cat([alone_ABD, torch.stack([share_BD, together_BD])]), False)

    def covariance(self, of_directions_BRR: Tensor) -> Tensor:
        """The covariance of the outputs, (B, D, D), of that of the directions."""
        if self.are_outputs:
            return of_directions_BRR
        places_ABD, share_BD = self.cotangents[:_ALONE], self.cotangents[_ALONE]
        are_others_BD = 1 - places_ABD.sum(0)
        average_B, shared_B = of_directions_BRR.diagonal(dim1=1, dim2=2)[:, _ALONE:].unbind(1)[::-1]
        squares_B = share_BD.square().sum(1).clamp_max(1 - 1e-6)
        own_B = ((average_B - shared_B) / (1 - squares_B)).clamp_min(0)
        own_B = torch.minimum(own_B, shared_B / squares_B)
        inner_BRR = of_directions_BRR[:, : _ALONE + 1, : _ALONE + 1].clone()
        inner_BRR[:, _ALONE, _ALONE] = shared_B - own_B * squares_B
        at_BDR = torch.cat([places_ABD, are_others_BD.unsqueeze(0)]).permute(1, 2, 0)
        own_BDD = torch.diag_embed(own_B.unsqueeze(1) * are_others_BD)
        return at_BDR @ inner_BRR @ at_BDR.mT + own_BDD


@lru_cache(maxsize=16)
def _signs(count: int) -> Tensor:
    """Fixed signs of the outputs, one line for each of some likeliest classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (_PATTERNS, count), generator=generator) * 2 - 1
