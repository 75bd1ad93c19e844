"""What every kind of head can do with its passes, truths and predictions.

Its job: name what fits, reports and replies ask of a head, so that what an output means is decided
once, by `head_of`, and a new kind is one new file. A head is raw, or as a calibration has it: then
it holds what was fitted, and a `Promise`.

    truths as callers write them → `read` ┐
    raw passes → `parts`                  ├→ `Sampled`, `checked` → `split` → `scaled`, `promising`
                                          ┘  → `verdict`; `source`, `doubts`, `judged` of any rows
    prediction → `served` → columns of a reply, what a decision and monitoring take

Dimensions: T samples, B rows, b some of them, C classes, D outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.calibration.choices import Task
from dubito.calibration.flags.scorer import ScoreFamily
from dubito.calibration.flags.source import SampledSource
from dubito.calibration.heads.served import Request, Served
from dubito.calibration.promises.conformal import Promise
from dubito.calibration.reading import Written
from dubito.calibration.sampled import Indices, Sampled, Truths
from dubito.calibration.terms import Terms
from dubito.calibration.verdict import JudgedFit
from dubito.engine import Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.scaling import Scaling
from dubito.errors import InputError
from dubito.report import Check, Curves, Statistics
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """The figures of some rows, each a function of how often rows count, and their curves.

    `confusion` counts the rows of each class (first) by the class that they are taken for.
    """

    statistics: Statistics
    curves: Curves
    warnings: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Head(ABC):
    """What the outputs of a network mean, raw or as a calibration has it.

    Args:
        promise: what sets or intervals are made of; None of a raw head.
    """

    promise: Promise | None = None

    name: ClassVar[str]
    """As `Manifest.head` has it."""
    task: ClassVar[Task]
    """What a record says that the network predicts."""
    scores: ClassVar[ScoreFamily]
    """The scores that the flag may have."""
    outputs: ClassVar[tuple[str, ...]]
    """Names of the columns of a reply."""
    foreign: ClassVar[tuple[str, ...]]
    """Names of choices that only the other task has."""
    takes_feedback: ClassVar[bool] = True
    """Whether the truth of a row is one class, or a number for each output."""
    without_feedback: ClassVar[str] = "several: send labelled rows to evaluate instead"
    """What a row has where no feedback is taken, and the remedy."""

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Self:
        """The raw head of a network."""
        return cls()

    @classmethod
    @abstractmethod
    def of_record(cls, record: Stored) -> Self:
        """The head that `stored` wrote.

        Raises:
            InputError: fields that do not fit together.
        """

    @abstractmethod
    def stored(self) -> dict[str, object]:
        """The fields of a record that differ by kind (`Stored`)."""

    @property
    def logit_scaling(self) -> Scaling:
        """What is done to the logits of every pass; 1 where there are none."""
        return 1.0

    @property
    def is_randomised(self) -> bool:
        """Whether sets take a number per row (`draws`)."""
        return False

    def needs_passes(self, outputs: tuple[str, ...]) -> bool:
        """Whether these columns are made of all passes."""
        return False

    @abstractmethod
    def read(self, written: Written) -> Truths:
        """The truths of rows as a caller writes them: class indices, or targets.

        Raises:
            InputError: the wrong field, a wrong count, an unknown class, or a value not finite.
        """

    @abstractmethod
    def parts(self, raw: Tensor, manifest: Manifest) -> tuple[Tensor, ...]:
        """What a network's raw passes say, each (T, B, ...): see `Sampled.passes`."""

    @abstractmethod
    def check(self, terms: Terms) -> None:
        """Refuse terms that have no meaning for this kind.

        Raises:
            InputError: naming what was expected, and the remedy.
        """

    @abstractmethod
    def checked(self, rows: Sampled, sampling: Sampling | None) -> Sampled:
        """The rows, with passes and truths that can be used.

        Args:
            rows: labelled ones, or without truths.
            sampling: that the passes were drawn with; None: any.

        Raises:
            InputError: shapes, labels or numbers that cannot be used.
        """

    @abstractmethod
    def split(self, rows: Sampled, terms: Terms) -> dict[str, Indices]:
        """Row numbers of each part.

        Raises:
            InputError: too few rows, or truths that are all the same.
        """

    def raw(self, rows: Sampled) -> Self:
        """The head as these rows are judged without a calibration."""
        return self

    @abstractmethod
    def scaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        """With the scaling or noise of the rows that fit it."""

    @abstractmethod
    def unscaled(self, rows: Sampled, fit_b: Indices, terms: Terms) -> Self:
        """As `scaled`, but with the figures as the network gives them."""

    @abstractmethod
    def promising(self, rows: Sampled, set_b: Indices, terms: Terms) -> Self:
        """With the promise of the rows held out for it.

        Raises:
            InputError: too few of them.
        """

    @abstractmethod
    def verdict(self, rows: Sampled, fit_b: Indices, terms: Terms, check: Check) -> JudgedFit:
        """Whether the scaling or noise is worth having."""

    def unseen(self, rows: Sampled) -> list[str]:
        """Warnings of what no row shows, such as a class."""
        return []

    def groups(self, rows: Sampled) -> Indices | None:
        """Classes that distances of features are taken to; None: all rows are of one kind."""
        return None

    @abstractmethod
    def source(self, rows: Sampled) -> SampledSource:
        """What the score of the flag may read."""

    @abstractmethod
    def doubts(self, rows: Sampled, some_b: Indices) -> tuple[Floats, NDArray[np.bool_] | None]:
        """What the policy orders some rows by, and which are wrong; None where none can be."""

    @abstractmethod
    def judged(self, rows: Sampled, coverage: float | None, check: Check) -> Judged:
        """The figures of rows, as they would be served."""

    @abstractmethod
    def served(self, prediction: Prediction, request: Request) -> Served:
        """A prediction at `logit_scaling`, as it is answered.

        Raises:
            InputError: it is of another task.
        """


def misfit(task: str) -> InputError:
    """What a record is refused with whose figures do not fit together."""
    return InputError(
        f"a {task} calibration expects its own fitted figures, one per output and "
        "positive, got others: calibrate the version again"
    )


def wrong_task(expected: str, got: str) -> InputError:
    """What a prediction of another task is refused with."""
    return InputError(
        f"expected a calibration of a {expected} head, got one of a {got} head: "
        "use the calibration of this version"
    )
