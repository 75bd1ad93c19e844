"""The logits of some passes, as compiled loops and kernels take them.

Dimensions: T samples, B rows, P positions or labels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Logits:
    """The logits of some passes, in float32.

    Args:
        scaled: (T, B, C) or (T, B, P, C), whose softmax, after the temperature, are the
            probabilities.
        temperature: that they are still to be divided by.
        is_binary: there is one logit z, which stands for (0, z).
        sizes: (T, B, 2) log Σ exp of those before scaling and their largest, where they differ by
            more than the temperature.
    """

    scaled: Tensor
    temperature: float = 1.0
    is_binary: bool = False
    sizes: Tensor | None = None
