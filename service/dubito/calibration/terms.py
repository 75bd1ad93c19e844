"""What the caller of a fit asks, and what becomes of the strange rows.

Dimensions: T samples, D classes or outputs, N strange rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import splits
from dubito.calibration.choices import Choices
from dubito.calibration.flags.flagging import Flagging, strange_parts
from dubito.calibration.flags.source import taken_features
from dubito.calibration.promises.policy import Target
from dubito.engine.calling.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller asks of a calibration, and what it is bound to."""

    sampling: Sampling
    alpha: float
    coverage: float
    seed: int
    choices: Choices
    flagging: Flagging
    target: Target

    def extra(self) -> dict[str, splits.Share]:
        """Parts of the labelled rows beside the usual ones."""
        found, needed = self.flagging.extra(), self.target.rows_needed()
        if needed is not None:
            reason = "for the target of the policy, flagged rows not counted"
            found[splits.POLICY] = splits.Share(5, needed, reason)
        return found


@dataclass(frozen=True)
class Strange:
    """Strange rows, those to choose a score by and those that the report sees; None: none."""

    chosen: NDArray[np.floating] | None = None
    chosen_features: NDArray[np.floating] | None = None
    judged: NDArray[np.floating] | None = None
    judged_features: NDArray[np.floating] | None = None

    @classmethod
    def of(cls, samples_TND: NDArray[np.floating] | None, terms: Terms) -> Strange:
        """The rows parted, half each where a score shall be chosen."""
        if samples_TND is None:
            return cls()
        flagging = terms.flagging
        chosen_n, judged_n = strange_parts(samples_TND.shape[1], flagging.score, terms.seed)
        is_chosen = len(chosen_n) > 0
        return cls(
            samples_TND[:, chosen_n] if is_chosen else None,
            taken_features(flagging.ood_features, chosen_n) if is_chosen else None,
            samples_TND[:, judged_n],
            taken_features(flagging.ood_features, judged_n),
        )

    def sizes(self) -> dict[str, int]:
        """Strange rows of each part, where they were parted."""
        if self.chosen is None or self.judged is None:
            return {}
        return {
            "strange_choice": self.chosen.shape[1],
            "strange_report": self.judged.shape[1],
        }
