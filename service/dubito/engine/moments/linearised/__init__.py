"""Linearised masks: the covariance of the outputs by their gradients, for graphs without rules.

Its job: where masks meet norms, attention, recurrences or skips, the walk has no rule that comes
out right, because units and positions depend on each other along all paths at once. There the
network is run once with every mask at its mean, and differentiated by the masks. To first order

    z ≈ z̄ + Σ_k ∂z/∂ω_k (ω_k - E ω_k),    cov z ≈ Σ_k Var ω_k ∂z/∂ω_k ∂z/∂ω_kᵀ

which holds every covariance between branches, positions and time steps, since it goes backwards
from the outputs. One pass backwards is needed per direction of the outputs. The mean is that of two
passes with every mask a deviation σ off its mean, to one side and to the other, ξ fixed signs:

    E z ≈ (z(E ω + σ ξ) + z(E ω - σ ξ)) / 2

in which the first order cancels, and the second is an estimate of what curvature adds.

products         linear maps that are differentiated by the faster library
directions       of the outputs that are followed, and what is said of the others
linearisation    the pass with masks at their means, and those backwards
means            which draws can stand at their mean

Source: Postels et al. 2019, arXiv:1908.00598, section 3; Oehlert 1992, A note on the delta method,
The American Statistician 46; Hammersley and Morton 1956 for antithetic pairs.
"""

from dubito.engine.moments.linearised.linearisation import Linearisation

__all__ = ["Linearisation"]
