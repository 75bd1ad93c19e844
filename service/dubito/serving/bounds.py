"""Rows of an order, checked against the network and the bounds of the settings.

Flow: inputs of an order → counted → the engine's own checks → rows as tensors, and how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dubito.asked import CalibrateOrder, EvaluateOrder, RowsOptions
from dubito.engine import Inputs
from dubito.engine.network import Network, num_values
from dubito.errors import InputError
from dubito.preprocess import ImageBounds, TableFile
from dubito.serving.labelled import LabelledRows
from dubito.serving.resolve import Resolved
from dubito.serving.rows import ReadRows, read_rows
from dubito.serving.worker import Reservation
from dubito.settings import Settings
from dubito_nn.preprocess.parts import Seen


@dataclass(frozen=True)
class Bounds:
    """The largest order that is taken.

    Args:
        settings: where the bounds stand.
    """

    settings: Settings

    def read(
        self,
        engine: Network,
        inputs: Inputs | TableFile,
        order: RowsOptions,
        beside: Sequence[str] = (),
        seen: Mapping[str, Seen] | None = None,
    ) -> ReadRows:
        """Checked rows.

        Args:
            engine: that reads them.
            inputs: as they were sent.
            order: says whether they are what the network reads.
            beside: columns of a table that are wanted as well.
            seen: ranges of arrays that a calibration saw, by input.

        Raises:
            InputError: too many, or none that the network takes.
        """
        for rows in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
            if isinstance(rows, Sequence) and not isinstance(rows, str):
                self._check_rows(len(rows))  # before millions of lists become an array
        limit, images = self.settings.max_rows, None
        if engine.manifest.preprocess is not None:
            images = ImageBounds.of(self.settings.max_image_pixels, self.settings.max_body_bytes)
        read = read_rows(
            *(engine, inputs, limit),
            preprocess=order.preprocess,
            beside=beside,
            bounds=images,
            seen=seen,
        )
        self._check_rows(read.num_rows)
        return read

    def read_labelled(
        self,
        order: CalibrateOrder | EvaluateOrder,
        asked: Resolved,
        reservation: Reservation,
    ) -> LabelledRows:
        """The rows of an order, and a place that is large enough for all their passes.

        Raises:
            InputError: rows or truths that cannot be used, or too many of them.
        """

        def read(inputs: Inputs | TableFile, beside: Sequence[str]) -> ReadRows:
            return self.read(asked.network, inputs, order, beside)

        rows = LabelledRows.read(order, asked.network, read)
        values = num_values(asked.network, asked.sampling, rows.num_rows, rows.inputs)
        check_values(values, self.settings.max_calibration_values)
        reservation.resize(rows.num_rows * asked.passes)
        return rows

    def _check_rows(self, rows: int) -> None:
        limit = self.settings.max_rows
        if rows > limit:
            raise InputError(
                f"`inputs` expects at most {limit} rows, got {rows}: send them in several requests"
            )


def check_values(values: int, limit: int) -> None:
    """Refuse passes that are too many to keep.

    Raises:
        InputError: more numbers than the limit.
    """
    if values > limit:
        raise InputError(
            f"passes x rows x outputs: expected at most {limit} numbers, got {values}: "
            "send fewer rows or ask for fewer samples"
        )
