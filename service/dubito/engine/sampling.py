"""What one prediction is drawn with: the five settings that a calibration is bound to.

Its job: name T, seed, masks, draw and method once, check them, and compare them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dubito.errors import InputError

Masks = Literal["shared", "independent"]
Draw = Literal["iid"]
Method = Literal["mc", "point", "moments", "ensemble"]

SEED_LIMIT = 2**63
NUM_NODES = 256
"""Fixed points that stand in for passes with method `moments`."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the T thinned networks of one prediction are drawn.

    Args:
        num_samples: T, the number of masked passes; at least 2 for `mc` (a spread needs two).
        seed: key of the counter-based generator, in [0, 2**63).
        masks: `shared` (one ω_t for all rows) or `independent` (keyed by the row's place too).
        draw: `iid`, T independent draws.
        method: `mc` (Monte Carlo), `point` (weight scaling, one pass), `moments` (mean and
            variance propagated in one pass) or `ensemble` (T passes of each of several networks).

    Raises:
        InputError: where a setting is out of its bounds.
    """

    num_samples: int = 64
    seed: int = 0
    masks: Masks = "shared"
    draw: Draw = "iid"
    method: Method = "mc"

    def __post_init__(self) -> None:
        for name, allowed in (("masks", Masks), ("draw", Draw), ("method", Method)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                choices = " or ".join(f"`{choice}`" for choice in get_args(allowed))
                raise InputError(f"`{name}` expects {choices}, got `{value}`: choose one of them")
        fewest = 1 if self.method in ("point", "moments") else 2
        if isinstance(self.num_samples, bool) or self.num_samples < fewest:
            raise InputError(
                f"`num_samples` expects at least {fewest} for method `{self.method}`,"
                f" got {self.num_samples}: ask for more masked passes"
            )
        if not 0 <= self.seed < SEED_LIMIT:
            raise InputError(
                f"`seed` expects an integer in [0, 2**63), got {self.seed}: choose one in it"
            )

    @property
    def passes(self) -> int:
        """How often each row goes through the network, or through each of an ensemble's."""
        return 1 if self.method in ("point", "moments") else self.num_samples

    @property
    def num_returned(self) -> int:
        """Samples that `Engine.sample` returns: the passes, or the fixed points of `moments`."""
        return NUM_NODES if self.method == "moments" else self.passes
