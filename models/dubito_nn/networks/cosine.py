"""A last layer that scores classes by angle.

Dimensions: B rows, F features, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class CosineHead(nn.Linear):
    """Logits are scaled cosines between the features and one direction per class.

    logit_c = scale · ⟨f, w_c⟩ / (‖f‖ ‖w_c‖)    (B, F) -> (B, C)

    A row far from the training data has features of any length, but seldom the direction of a
    class: no large logits for want of a bound, which a linear head gives to uniform noise.

    Args:
        num_features: F.
        num_classes: C.
        scale: The largest possible logit.

    Source: Techapanurak, Suganuma, Okatani 2019, arXiv:1905.10628, for finding unknown inputs;
    Gidaris and Komodakis 2018, arXiv:1804.09458.
    """

    def __init__(self, num_features: int, num_classes: int, *, scale: float = 10.0) -> None:
        super().__init__(num_features, num_classes, bias=False)
        self.scale = scale

    def reset_parameters(self) -> None:
        """Draw directions at random, of about √F in length, so that they turn slowly at first."""
        nn.init.normal_(self.weight)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return the logits; their absolute value is at most the scale."""
        direction_BF = functional.normalize(features_BF, dim=1)
        return self.scale * functional.linear(
            direction_BF, functional.normalize(self.weight, dim=1)
        )
