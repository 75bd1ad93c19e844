"""The heads that were distilled for one network, by number, on its device.

Dimensions: B rows, F features, K scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.distilled.student import Student, Widths
from dubito.engine.distilled.trunk import Trunk
from dubito.engine.held import HeldFits
from dubito.engine.kernels.precision import running
from dubito.engine.moments import OutputMoments
from dubito.engine.planning.placement import Placed
from dubito_nn import Manifest


@dataclass(eq=False)
class Students:
    """What was distilled for a network.

    Args:
        placed: its graphs and weights on the device.
        manifest: what it declares.
        device: where it runs.
        made_up_rows: rows that it takes.
    """

    placed: Placed
    manifest: Manifest
    device: torch.device
    made_up_rows: Callable[[], Mapping[str, Tensor]]
    held: HeldFits[Student] = field(default_factory=lambda: HeldFits("distilled"))

    def put(self, number: int, student: Student) -> None:
        """Take in a head under its number."""
        self.held.put(number, student.on(self.device))

    def take_in(self, number: int, stored: Mapping[str, NDArray[np.generic]]) -> None:
        """Take in what was stored of a head.

        Raises:
            InputError: it is damaged, or for another network.
        """
        self.put(number, Student.from_arrays(stored, self.widths))

    @cached_property
    def trunk(self) -> Trunk:
        """What heads read.

        Raises:
            InputError: the network has no such part.
        """
        return Trunk.of(self.placed, self.manifest, self.device)

    @cached_property
    def widths(self) -> Widths:
        """Of what heads read.

        Raises:
            InputError: the network has no such part.
        """
        rows = {name: tensor.to(self.device) for name, tensor in self.made_up_rows().items()}
        with running(self.device):
            features, scores = self.trunk.run(rows)
        return Widths(features.shape[1], scores.shape[1])

    def read(self, rows: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What heads read of some rows, (B, F) and (B, K)."""
        moved = {name: tensor.to(self.device) for name, tensor in rows.items()}
        with running(self.device):
            return self.trunk.run(moved)

    def answer(
        self, rows: Mapping[str, Tensor], number: int | None
    ) -> tuple[OutputMoments, Tensor]:
        """Moments of the declared outputs of some rows, and how many usual rows are as strange.

        Args:
            rows: on the device.
            number: of the fit.

        Raises:
            InputError: it is not here.
        """
        student = self.held.get(number)
        moments, p_value_B = student.run(*self.trunk.run(rows))
        return self.declared(moments), p_value_B

    def declared(self, moments: OutputMoments) -> OutputMoments:
        """Moments in the shape of the declared outputs, of those in one axis."""
        if self.manifest.output != "mean_and_log_variance":
            return moments
        pair = (len(moments.mean), 2, self.manifest.num_outputs)
        mean, variance = (part.reshape(pair) for part in (moments.mean, moments.variance))
        return OutputMoments(mean, variance, None, moments.factors)
