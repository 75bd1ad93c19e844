"""What the caller of a fit asks, and how the rows are parted for it.

Dimensions: B rows, N out-of-distribution rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubito.calibration import splits
from dubito.calibration.choices import DEFAULTS, Choices
from dubito.calibration.flags.flagging import extra_parts, strange_parts
from dubito.calibration.promises.policy import NO_TARGET, Target
from dubito.calibration.sampled import Indices, Sampled
from dubito.engine.calling.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller asks of a calibration, and what it is bound to.

    Args:
        sampling: with which the passes were drawn.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of sets or intervals, in (0, 1).
        seed: of the splits.
        choices: how to fit.
        score: name of the flag's score, or `auto`; None: the default of the task.
        target: what the policy shall promise.
    """

    sampling: Sampling
    alpha: float
    coverage: float
    seed: int
    choices: Choices = DEFAULTS
    score: str | None = None
    target: Target = NO_TARGET

    def extra(self, rows: Sampled) -> dict[str, splits.Share]:
        """Return the parts of the labelled rows beside the usual ones."""
        extra = extra_parts(self.score, has_features=rows.features is not None)
        needed = self.target.rows_needed()
        if needed is not None:
            reason = "for the target of the policy, flagged rows not counted"
            extra[splits.POLICY] = splits.Share(5, needed, reason)
        return extra

    def parts(
        self,
        rows: Sampled,
        *,
        fits: str,
        label_B: Indices | None = None,
        to_fit: int = splits.FEWEST_TO_FIT,
    ) -> dict[str, Indices]:
        """Row numbers of each part; arguments as of `splits.parts`.

        Raises:
            InputError: too few rows, naming how many are needed and what for.
        """
        return splits.parts(
            len(rows),
            alpha=self.alpha,
            coverage=self.coverage,
            seed=self.seed,
            label_B=label_B,
            to_fit=to_fit,
            fits=fits,
            extra=self.extra(rows),
        )


@dataclass(frozen=True)
class Strange:
    """Out-of-distribution rows: those to choose a score by, and those that the report sees."""

    chosen: Sampled | None = None
    judged: Sampled | None = None

    @classmethod
    def of(cls, rows: Sampled | None, terms: Terms) -> Strange:
        """The rows parted, half each where a score shall be chosen.

        Raises:
            InputError: too few to choose by.
        """
        if rows is None:
            return cls()
        chosen_n, judged_n = strange_parts(len(rows), terms.score, terms.seed)
        return cls(rows.take(chosen_n) if len(chosen_n) else None, rows.take(judged_n))

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each part, where they were parted."""
        if self.chosen is None or self.judged is None:
            return {}
        return {"strange_choice": len(self.chosen), "strange_report": len(self.judged)}
