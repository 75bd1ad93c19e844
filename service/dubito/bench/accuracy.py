"""How far T passes are from many, as the engine states it and as it is.

Its job: the standard error that a reply carries is an estimate; beside it stands the actual error
against a reference of many passes under other seeds. The other methods are held against the same
reference: weight scaling (`point`) and whatever else the engine offers without sampling.

    error(T) = sqrt( mean over rows, outputs and seeds of (mean_T - mean_ref)² )

The reference is put together from blocks of passes, each under its own seed (Chan's rule):

    mean = mean of the blocks' means,  variance = mean of their variances + variance of their means
    error of the mean = sqrt(mean of their squared standard errors / number of blocks)

Dimensions: T samples, B rows, K classes or outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine import Engine, Prediction, Regression
from dubito.engine.calling.sampling import SEED_LIMIT, Method
from dubito.errors import InputError

BLOCK = 400  # passes of the reference per seed
NUM_SEEDS = 4  # that the error at one T is averaged over
_FIRST_REFERENCE_SEED = 1000  # after the seed, so that no pass is compared with itself
_WITHOUT_SAMPLING = ("point", "moments")

Numbers = NDArray[np.float64]
Rows = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Reference:
    """The mean of many passes, which errors are held against.

    Args:
        num_samples: how many.
        mean: (B, K) over the passes.
        variance: (B, K) over the passes, ddof = 0; of a regression the epistemic part.
        error: root mean square over rows and outputs of its own standard error.
    """

    num_samples: int
    mean: Numbers
    variance: Numbers
    error: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The errors of T passes.

    Args:
        num_samples: T.
        standard_error_median: over rows, outputs and seeds, as replies state it.
        standard_error_max: the same.
        error: actual root mean square error of the mean; None without a reference.
    """

    num_samples: int
    standard_error_median: float
    standard_error_max: float
    error: float | None


@dataclass(frozen=True, slots=True)
class MethodError:
    """The errors of a method without sampling.

    Args:
        method: its name.
        error: root mean square error of its mean; None without a reference.
        error_max: the largest error of its mean; None without a reference.
        deviation_error: root mean square error of its standard deviation over that of the
            reference; None for a method that gives none.
        refused: why the network does not allow it, else None.
    """

    method: Method
    error: float | None = None
    error_max: float | None = None
    deviation_error: float | None = None
    refused: str | None = None


def reference(
    engine: Engine,
    rows: Rows,
    num_samples: int,
    limit_s: float,
    step: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Reference:
    """Passes under seeds of their own, as many as are wanted or as the time allows.

    Args:
        engine: ready to be asked.
        rows: to predict.
        num_samples: wanted, in blocks of 400.
        limit_s: no further block is begun after so many seconds.
        step: called after every block with the passes done.
        clock: in seconds.
    """
    size = min(BLOCK, num_samples)
    means, variances, squares = list[Numbers](), list[Numbers](), list[float]()
    start = clock()
    for block in range(max(1, num_samples // size)):
        if block and clock() - start > limit_s:
            break
        seed = (engine.defaults.seed + _FIRST_REFERENCE_SEED + block) % SEED_LIMIT
        made = engine.predict(rows, sampling=replace(engine.defaults, num_samples=size, seed=seed))
        means.append(made.mean)
        variances.append(variance_over_passes(made))
        squares.append(float(np.square(made.standard_error).mean()))
        if step is not None:
            step(size * len(means))
    return Reference(
        num_samples=size * len(means),
        mean=np.mean(means, axis=0),
        variance=np.mean(variances, axis=0) + np.var(means, axis=0),
        error=float(np.sqrt(np.mean(squares) / len(squares))),
    )


def accuracy(engine: Engine, rows: Rows, num_samples: int, against: Reference | None) -> Accuracy:
    """The errors at one T, over a few seeds.

    Args:
        engine: ready to be asked.
        rows: to predict.
        num_samples: T.
        against: many passes, where they are wanted.
    """
    stated, squares = list[Numbers](), list[float]()
    for offset in range(NUM_SEEDS):
        seed = (engine.defaults.seed + offset) % SEED_LIMIT
        made = engine.predict(
            rows, sampling=replace(engine.defaults, num_samples=num_samples, seed=seed)
        )
        stated.append(made.standard_error)
        if against is not None:
            squares.append(float(np.square(made.mean - against.mean).mean()))
    return Accuracy(
        num_samples=num_samples,
        standard_error_median=float(np.median(stated)),
        standard_error_max=float(np.max(stated)),
        error=float(np.sqrt(np.mean(squares))) if against is not None else None,
    )


def methods_without_sampling() -> Sequence[Method]:
    """Return the methods without sampling that the engine knows; a network may still refuse one."""
    known: tuple[Method, ...] = get_args(Method)
    return [method for method in known if method in _WITHOUT_SAMPLING]


def method_error(
    engine: Engine, rows: Rows, method: Method, against: Reference | None
) -> MethodError:
    """The errors of one method without sampling, or why there are none.

    Args:
        engine: ready to be asked.
        rows: to predict.
        method: its name.
        against: many passes, where they are wanted.
    """
    try:
        made = engine.predict(rows, sampling=replace(engine.defaults, method=method))
    except InputError as error:
        return MethodError(method, refused=error.detail)
    if against is None:
        return MethodError(method)
    errors = made.mean - against.mean
    deviation = np.sqrt(variance_over_passes(made)) - np.sqrt(against.variance)
    scale = np.sqrt(against.variance.mean())
    has_deviation = method != "point" and scale > 0
    return MethodError(
        method,
        error=float(np.sqrt(np.square(errors).mean())),
        error_max=float(np.abs(errors).max()),
        deviation_error=(
            float(np.sqrt(np.square(deviation).mean()) / scale) if has_deviation else None
        ),
    )


def variance_over_passes(made: Prediction) -> Numbers:
    """Of the mean's terms, (B, K): for a regression without the noise of the data."""
    if isinstance(made, Regression):
        return (made.positions or made).epistemic_variance
    return made.variance
