"""A prediction of a stored pool: the columns of every block, and at the end one file.

Dimensions: N rows of the pool, B of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from dubito.arrays import Arrays, write_npz
from dubito.asked import PredictOrder
from dubito.calibration.record import Calibration
from dubito.columns import arrays_of
from dubito.engine import Sampling
from dubito.engine.network import Network
from dubito.serving.outputs import Built, Outputs
from dubito.serving.worker import Check

_MAX_WARNINGS = 20


class Predicting:
    """A prediction as a kind of job: it keeps the columns of every block.

    Args:
        order: what was asked.
        sampling: of the job.
        calibration: that was active when it was accepted.
        predictor: pinned for a block that begins with a row.
        may_keep_samples: whether the passes of a block are few enough for `quantiles`.
        width: letters of the longest name of a class, or decision.
        warnings: of blocks before a restart.
    """

    def __init__(
        self,
        order: PredictOrder,
        sampling: Sampling,
        calibration: Calibration | None,
        predictor: Callable[[Mapping[str, Tensor], int], Network],
        *,
        may_keep_samples: bool,
        width: int,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._order = order
        self._sampling = sampling
        self._calibration = calibration
        self._predictor = predictor
        self._may_keep_samples = may_keep_samples
        self._width = width
        self._blocks: list[Arrays] = []
        self._warnings: dict[str, None] = dict.fromkeys(warnings)

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> Built:
        """On the device's thread: the columns of a block."""
        outputs = Outputs.begin(
            self._order,
            self._predictor(block, start),
            self._sampling,
            self._calibration,
            may_keep_samples=self._may_keep_samples,
        )
        return outputs.build(block, outputs.compute(block, check))

    def keep(self, start: int, stop: int, computed: Built) -> None:
        """Take in the columns of rows `start` to `stop`."""
        for warning in computed.warnings:
            if len(self._warnings) < _MAX_WARNINGS:
                self._warnings.setdefault(warning)
        self._blocks.append(dict(arrays_of(computed.outputs, self._width)))

    def part(self) -> bytes:
        """The columns since the last part."""
        blocks, self._blocks = self._blocks, []
        return write_npz(
            {name: np.concatenate([columns[name] for columns in blocks]) for name in blocks[0]}
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all blocks, each once."""
        return tuple(self._warnings)

    @property
    def is_covered(self) -> bool:
        """Whether the figures are calibrated ones."""
        calibration = self._calibration
        is_asked = calibration is not None and self._sampling.method != "ensemble"
        return is_asked and calibration is not None and calibration.covers(self._sampling) is None
