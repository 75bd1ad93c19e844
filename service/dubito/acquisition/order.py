"""What is to be chosen: the strategy, how many rows, and the options of both.

Its job: name the choices once, and refuse what no strategy could answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError

DEFAULT_CANDIDATES = 10_000
SEED_LIMIT = 2**63
_MOST_BETA = 1e9


@dataclass(frozen=True)
class Acquisition:
    """What is asked of a pool.

    Args:
        strategy: a name of `dubito.acquisition.strategies`.
        k: rows to choose, at least 1.
        seed: breaks ties, and keys the noise of `power_bald`, `random`, `badge`, the sampled
            configurations of `batchbald`, and which ω `thompson` takes; in [0, 2**63).
        exclude: rows that are never chosen, such as those that have a label; to `coreset` they are
            the centres that are there already.
        candidates: most rows that a joint strategy compares, the best by the pool's own BALD.
        per_class: most chosen rows of one predicted class; classification only.
        diversity: of the best `diversity` · k rows of a strategy that scores rows alone, the k
            nearest to centres of weighted k-means over the features; None: the best k.
        maximize: whether large values are good; optimisation only.
        incumbent: the best value so far, in target units; expected_improvement and
            probability_of_improvement need it.
        beta: weight of the variance in upper_confidence_bound (4 where None), exponent of
            power_bald (1 where None).
        xi: least improvement that counts, in target units.
        noise_variance: of a target, in target units squared, where the network predicts none;
            None: a hundredth of the variance that the bundle standardised the target by.

    Raises:
        InputError: an option is out of its bounds.
    """

    strategy: str
    k: int
    seed: int = 0
    exclude: tuple[int, ...] = ()
    candidates: int = DEFAULT_CANDIDATES
    per_class: int | None = None
    diversity: int | None = None
    maximize: bool = True
    incumbent: float | None = None
    beta: float | None = None
    xi: float = 0.0
    noise_variance: float | None = None

    def __post_init__(self) -> None:
        _check_integer("k", self.k, 1)
        _check_integer("candidates", self.candidates, 1)
        _check_integer("seed", self.seed, 0, SEED_LIMIT - 1)
        for name in ("per_class", "diversity"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 1)
        for name in ("incumbent", "xi"):
            _check_real(name, getattr(self, name))
        for name in ("beta", "noise_variance"):
            _check_real(name, getattr(self, name), least=0.0)
        if self.beta is not None and self.beta > _MOST_BETA:
            raise InputError(
                f"`beta` expects at most {_MOST_BETA:g}, got {self.beta:g}: scores would overflow"
            )
        if self.noise_variance == 0:
            raise InputError("`noise_variance` expects a number above 0, got 0: leave it out")
        for index in self.exclude:
            _check_integer("exclude", index, 0)

    def excluded(self, num_rows: int) -> NDArray[np.int64]:
        """The excluded rows, each once, ascending, after a check against the pool.

        Args:
            num_rows: of the pool.

        Raises:
            InputError: an index that the pool does not have, or fewer than k rows are left.
        """
        index_E: NDArray[np.int64] = np.unique(np.asarray(self.exclude, dtype=np.int64))
        if len(index_E) and index_E[-1] >= num_rows:
            raise InputError(
                f"`exclude` expects indices from 0 to {num_rows - 1}, got {index_E[-1]}: the pool"
                f" has {num_rows} rows"
            )
        left = num_rows - len(index_E)
        if self.k > left:
            excluded = f" and {len(index_E)} of them are excluded" if len(index_E) else ""
            raise InputError(
                f"`k` expects at most {left}, got {self.k}: the pool has {num_rows}"
                f" rows{excluded}: ask for fewer or send more rows"
            )
        return index_E


def _check_integer(name: str, value: object, least: int, most: int | None = None) -> None:
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):  # type: ignore[operator]
        upper = "" if most is None else f" and at most {most}"
        raise InputError(
            f"`{name}` expects an integer of at least {least}{upper}, got {str(value)[:40]}:"
            " correct it"
        )


def _check_real(name: str, value: float | None, least: float | None = None) -> None:
    if value is None:
        return
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if not is_number or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least:g}"
        raise InputError(
            f"`{name}` expects a finite number{bound}, got {str(value)[:40]}: correct it"
        )
