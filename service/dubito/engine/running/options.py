"""Forms with what was measured of them: from how many rows on each is used.

Its job: a call looks up here which forms pay for its rows, so that equal requests get equal bytes.
What is known of a form is found at load (`dubito.engine.choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

from dubito.engine.running.fold import Form

_MARGIN = 1.1  # by which a form must be faster: less may be noise


@dataclass(frozen=True)
class FormTiming:
    """A form against dense execution.

    Args:
        rows: B.
        estimated: seconds, dense over form, by the model: above 1 the form pays.
        measured: the same by the clock; None where it was not timed.
        unpacked: the same for a seed whose weights have yet to be gathered.
    """

    rows: int
    estimated: float
    measured: float | None = None
    unpacked: float | None = None

    def gain(self, *, packed: bool) -> float:
        """Time of dense execution over that of the form; 0 where nothing speaks for it."""
        if self.measured is None or self.unpacked is None:
            return self.estimated if packed else 0.0
        return self.measured if packed else self.unpacked


@dataclass(frozen=True)
class Option:
    """A form and when it is used.

    Args:
        form: what takes the place of nodes.
        timings: by growing number of rows.
        packed_bytes: what it keeps of every sample.
    """

    form: Form
    timings: tuple[FormTiming, ...]
    packed_bytes: float

    def least_rows(self, *, packed: bool = True) -> int | None:
        """The number of rows from which it pays; None where it never does.

        Between two timings the logarithm of the gain is taken for a straight line in that of the
        rows.

        Args:
            packed: for the seed whose weights are gathered already.
        """
        above: FormTiming | None = None
        for timing in reversed(self.timings):
            gain = timing.gain(packed=packed)
            if gain > _MARGIN:
                above = timing
                continue
            if above is None or gain <= 0:
                break
            part = log(_MARGIN / gain) / log(above.gain(packed=packed) / gain)
            crossing: float = timing.rows * (above.rows / timing.rows) ** part
            return ceil(crossing)
        return None if above is None else above.rows


def in_use(
    options: Sequence[Option], rows: int, num_samples: int, packed_limit: float, *, packed: bool
) -> tuple[Form, ...]:
    """The forms that pay for that many rows, and that keep to their memory.

    Args:
        options: to choose from.
        rows: B of a call.
        num_samples: T.
        packed_limit: bytes that may be kept for one seed.
        packed: for the seed whose weights are gathered already.
    """
    return tuple(
        option.form
        for option in options
        if (least := option.least_rows(packed=packed)) is not None
        and rows >= least
        and num_samples * option.packed_bytes <= packed_limit
    )
