"""A prediction as a head answers with it: columns of a reply, what decisions and monitoring take.

Dimensions: B rows, C classes, D outputs, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.source import ServedSource
from dubito.calibration.promises.conformal import Promise
from dubito.calibration.sampled import Indices
from dubito.columns import Column
from dubito.engine import Prediction

if TYPE_CHECKING:
    from dubito.calibration.heads.head import Head

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, Callable[[], Column]]


@dataclass(frozen=True)
class Request:
    """What a prediction is answered by.

    Args:
        coverage: of sets and intervals; None: that of the promise.
        features: (B, F) of the rows, where the score of the flag reads them.
        uniform: (B,) a number in [0, 1) per row, for randomised sets.
        warnings: to add to.
    """

    coverage: float | None = None
    features: NDArray[np.floating] | None = None
    uniform: Floats = field(default_factory=lambda: np.zeros(0))
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class KeptFigures:
    """What monitoring keeps of a prediction, at the promise's own coverage.

    Args:
        mean: (B, C) float32 probabilities, or (B, D) float64 in target units.
        is_member: (B, C) which classes the set holds; None for a regression.
        lower: (B, D) lower ends of the intervals; None for a classification.
        upper: (B, D) upper ends; None for a classification.
    """

    mean: NDArray[np.floating]
    is_member: NDArray[np.bool_] | None = None
    lower: Floats | None = None
    upper: Floats | None = None


@dataclass(frozen=True)
class Served(ABC):
    """A prediction as a head answers with it; raw heads answer None where a promise is needed.

    Args:
        head: raw, or of the calibration that covers the prediction.
        prediction: at the head's scaling.
        request: what it answers.
    """

    head: Head
    prediction: Prediction
    request: Request

    @property
    @abstractmethod
    def source(self) -> ServedSource:
        """What the score of the flag may read."""

    @property
    @abstractmethod
    def uncertainty(self) -> Floats:
        """What the policy orders rows by, (B,)."""

    @property
    def set_sizes(self) -> Indices | None:
        """1 where a row's set settles it; None where there are no sets."""
        return None

    @property
    @abstractmethod
    def varies(self) -> bool:
        """Whether the passes differ."""

    def shown(self, value: Floats) -> Floats:
        """Figures with the last axes of `mean`, as a reply has them."""
        return value

    @abstractmethod
    def columns(self) -> Columns:
        """The columns of a reply, but for those that all heads have."""

    @abstractmethod
    def observed(self) -> KeptFigures | None:
        """What monitoring keeps beside score and flag; None: the passes that it takes are gone."""


def warn_unbounded(promise: Promise, request: Request, *, per_class: bool = False) -> None:
    """Warn where the held-out rows are too few for the coverage that is asked."""
    level = promise.level(request.coverage)
    if not np.isinf(promise.held_out.thresholds(level)).any():
        return
    request.warnings.append(
        f"{promise.held_out.num_rows} held-out rows {'of a class ' * per_class}are too few for "
        f"coverage {level}: sets hold every {'such ' * per_class}class and intervals have no end "
        "(null); calibrate with more rows"
    )


def warn_without_passes(name: str, request: Request) -> None:
    """Warn that a column is null where the passes were not kept."""
    request.warnings.append(
        f"`{name}` is null: it needs all passes, which are not kept with a tolerance, nor "
        "where passes x rows x outputs are too many: leave it out, or send fewer rows"
    )
