"""How likely given tokens are: what passes say of them, raw; there is nothing to fit.

The tokens of a row are its own truth, so that no labels stand beside it: a calibration, a report
and feedback are refused. Sequences are compared with each other by `normalised_variance`.

Dimensions: B rows, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

import numpy as np

from dubito.calibration.choices import Task
from dubito.calibration.flags.scorer import OF_NUMBERS, ScoreFamily
from dubito.calibration.flags.source import ServedSource
from dubito.calibration.heads.head import Floats, Head, misfit, wrong_task
from dubito.calibration.heads.served import Columns, Request, Served
from dubito.columns import SomeNumbers
from dubito.engine import Prediction, SequenceScores
from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored


def _refused(*given: object, **named: object) -> NoReturn:
    raise InputError(
        "calibrations and reports expect rows with labels or targets beside them, got a sequence "
        "head, whose rows hold their own tokens: predict, order the sequences by "
        "`normalised_variance` or `normalised_mean`, and compare that order with your own judgement"
    )


@dataclass(frozen=True)
class SequenceHead(Head):
    """Log-probabilities of tokens; members as of `dubito.calibration.heads.head.Head`.

    All that needs a truth refuses.
    """

    name: ClassVar[str] = "sequence"
    task: ClassVar[Task] = "regression"
    scores: ClassVar[ScoreFamily] = OF_NUMBERS
    foreign: ClassVar[tuple[str, ...]] = ()
    takes_feedback: ClassVar[bool] = False
    without_feedback: ClassVar[str] = "none beside its tokens: compare sequences by their figures"
    outputs: ClassVar[tuple[str, ...]] = (
        *("mean", "variance", "standard_error", "num_samples_used"),
        *("normalised_mean", "normalised_variance", "num_tokens", "token_mean", "token_std"),
    )

    read = check = checked = split = parts = stored = _refused
    scaled = unscaled = promising = verdict = source = doubts = judged = _refused

    @classmethod
    def of_record(cls, record: Stored) -> Self:
        raise misfit(record.task)

    def served(self, prediction: Prediction, request: Request) -> ServedSequences:
        if not isinstance(prediction, SequenceScores):
            raise wrong_task(self.name, "other")
        return ServedSequences(self, prediction, request)


@dataclass(frozen=True)
class ServedSequences(Served):
    """Sequences as they are answered; members as of `dubito.calibration.heads.head.Served`."""

    prediction: SequenceScores

    @property
    def source(self) -> ServedSource:
        return ServedSource(_refused)

    @property
    def uncertainty(self) -> Floats:
        return self.prediction.normalised_variance

    @property
    def varies(self) -> bool:
        return bool((self.prediction.variance > 0).any())

    def columns(self) -> Columns:
        said = self.prediction
        has_tokens_B = said.num_tokens > 0
        if not has_tokens_B.all():
            self.request.warnings.append(
                f"{np.sum(~has_tokens_B)} of {len(has_tokens_B)} rows are padding alone, whose "
                "figures per token are null: send rows of which the mask counts a token"
            )
        plain = ("mean", "variance", "standard_error", "num_samples_used", "num_tokens")
        return {
            **{name: partial(getattr, said, name) for name in plain},
            "normalised_mean": lambda: SomeNumbers(said.normalised_mean, has_tokens_B),
            "normalised_variance": lambda: SomeNumbers(said.normalised_variance, has_tokens_B),
            "token_mean": lambda: SomeNumbers(said.token_mean, said.is_token),
            "token_std": lambda: SomeNumbers(said.token_std, said.is_token),
        }

    def observed(self) -> None:
        """No calibration covers sequences."""
