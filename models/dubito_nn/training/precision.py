"""The noise precision τ that a weight decay stands for, and back.

Dropout with a weight decay is variational inference in a deep Gaussian process whose prior has the
length-scale l. With the objective

    1/N Σ_n ½ ‖y_n - ŷ_n‖² + λ ‖M‖²

the weight decay λ, the drop probability p, the number of rows N and the precision of the noise are
bound together:

    τ = (1-p) l² / (2 N λ)        λ = (1-p) l² / (2 N τ)

M are the weights that the masks multiply directly. Layers of torch scale what they keep by 1/(1-p):
for their weights W = (1-p) M the λ is larger by 1/(1-p)². And `train` minimises the squared error
without the ½ plus weight_decay / 2 · ‖W‖²; `train_weight_decay` accounts for both.

Source: Gal and Ghahramani 2016, arXiv:1506.02142, equation 7 (whose p is the probability to keep);
Gal 2016, Uncertainty in Deep Learning, section 3.3.
"""

from __future__ import annotations


def noise_precision(
    *, drop_prob: float, length_scale: float, num_rows: int, weight_decay: float
) -> float:
    """Return τ = (1-p) l² / (2 N λ), in inverse squared units of the target.

    Args:
        drop_prob: p, from 0 to below 1.
        length_scale: l, in units of the input; large for functions that vary slowly.
        num_rows: N, the rows trained on.
        weight_decay: λ, above 0.

    Raises:
        ValueError: An argument is out of range.
    """
    return _kept_prior(drop_prob, length_scale, num_rows, weight_decay, "weight_decay")


def weight_decay(
    *, drop_prob: float, length_scale: float, num_rows: int, noise_precision: float
) -> float:
    """Return λ = (1-p) l² / (2 N τ), the inverse of `noise_precision`.

    Args:
        drop_prob: p, from 0 to below 1.
        length_scale: l, in units of the input.
        num_rows: N, the rows trained on.
        noise_precision: τ, above 0.

    Raises:
        ValueError: An argument is out of range.
    """
    return _kept_prior(drop_prob, length_scale, num_rows, noise_precision, "noise_precision")


def train_weight_decay(
    *, drop_prob: float, length_scale: float, num_rows: int, noise_precision: float
) -> float:
    """Return the `weight_decay` of `train` with `squared_error`, for layers that scale by 1/(1-p).

    4 λ / (1-p)² = 2 l² / (N τ (1-p))

    Args:
        drop_prob: p, from 0 to below 1.
        length_scale: l, in units of the input.
        num_rows: N, the rows trained on.
        noise_precision: τ, above 0.

    Raises:
        ValueError: An argument is out of range.
    """
    decay = _kept_prior(drop_prob, length_scale, num_rows, noise_precision, "noise_precision")
    return 4.0 * decay / (1.0 - drop_prob) ** 2


def _kept_prior(
    drop_prob: float, length_scale: float, num_rows: int, divisor: float, name: str
) -> float:
    """Return (1-p) l² / (2 N d) for a divisor d, the weight decay or the noise precision."""
    if not 0.0 <= drop_prob < 1.0:
        raise ValueError(
            f"expected a drop_prob of at least 0 and below 1, got {drop_prob}: "
            "pass the probability to drop, not to keep"
        )
    if num_rows < 1 or not length_scale > 0.0 or not divisor > 0.0:
        raise ValueError(
            f"expected num_rows of at least 1, a positive length_scale and a positive {name}, got "
            f"{num_rows}, {length_scale} and {divisor}: change the one out of range"
        )
    return (1.0 - drop_prob) * length_scale**2 / (2.0 * num_rows * divisor)
