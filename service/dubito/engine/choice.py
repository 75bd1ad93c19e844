"""Which forms pay, from how many rows on.

Its job: find the forms that a plan allows, estimate by a cost model whether each can pay, and check
at load, against a timing on made-up rows, from how many rows on it does. The timing overrules the
model. Calls then only look the answer up, so that equal requests get equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, log
from typing import TypeAlias

from dubito.engine.calling.sampling import Key
from dubito.engine.forms import About, Linear, Skipped, Thinned, branches, chains, linear_maps
from dubito.engine.kernels.rates import Rates
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import as_tensor

AnyForm: TypeAlias = "Thinned | Linear | Skipped"
ROWS = (1, 4, 16, 64, 256, 1024)
_ROWS_ELSEWHERE = (1, 16, 64, 256, 1024)  # where calls cost more than small products
_SLOWEST_S = 0.05  # of one timed call: then fewer rows must do
_MARGIN = 1.1  # by which a form must be faster: less may be noise
_SEEN_SAMPLES = 8  # whose masks tell how much of them is 0
_TURNS = 3  # of which the least counts
_HOPE = 0.8  # the estimated gain from which a timing is worth its time


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

    form: AnyForm
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


def options(execution: Execution, rates: Rates, num_samples: int) -> list[Option]:
    """Every form that the plan allows, with the model's estimate.

    Args:
        execution: a planned graph.
        rates: of its device.
        num_samples: T to estimate for.
    """
    plan, layouts = execution.plan, execution.layouts
    if execution.masks != "shared" or plan.one_at_a_time:
        return []
    output = execution.program.outputs["output"]
    found: list[AnyForm] = []
    for find in (chains, linear_maps, branches):
        taken = {name for form in found for name in form.nodes}
        more: Sequence[AnyForm] = find(plan.suffix, plan, layouts, output)
        found += [form for form in more if not taken & set(form.nodes)]
    if execution.device.type != "cpu":
        found = [
            replace(form, is_stacked=True) if isinstance(form, Thinned) else form for form in found
        ]
    about = _about(execution) if found else None
    made = []
    for form in found:
        assert about is not None
        timings = []
        for rows in ROWS if execution.device.type == "cpu" else _ROWS_ELSEWHERE:
            dense, own = form.work(about, rows, num_samples)
            timings.append(FormTiming(rows, rates.seconds(dense) / rates.seconds(own)))
        packed = form.packed_bytes(about) if isinstance(form, Thinned) else 0
        made.append(Option(form, tuple(timings), packed))
    return made


def timed(option: Option, run: Callable[[tuple[AnyForm, ...], int, bool], float]) -> Option:
    """The option with what the clock says, where the model leaves hope.

    Args:
        option: to check.
        run: seconds of some forms on some rows, with weights gathered beforehand or not.
    """
    if max(timing.estimated for timing in option.timings) < _HOPE:
        return option
    checked: list[FormTiming] = []
    for timing in option.timings:
        ways: list[tuple[tuple[AnyForm, ...], bool]] = [((), True), ((option.form,), True)]
        if option.packed_bytes:
            ways.append(((option.form,), False))
        for forms, packed in ways:
            run(forms, timing.rows, packed)
        turns = [[run(forms, timing.rows, packed) for forms, packed in ways] for _ in range(_TURNS)]
        dense, own, *rest = (min(seconds) for seconds in zip(*turns, strict=True))
        unpacked = dense / rest[0] if rest else dense / own
        checked.append(replace(timing, measured=dense / own, unpacked=unpacked))
        if dense > _SLOWEST_S:
            break
    return replace(option, timings=tuple(checked))


def in_use(
    found: Sequence[Option], rows: int, num_samples: int, packed_limit: float, *, packed: bool
) -> tuple[AnyForm, ...]:
    """The forms that pay for that many rows, and that keep to their memory.

    Args:
        found: to choose from.
        rows: B of a call.
        num_samples: T.
        packed_limit: bytes that may be kept for one seed.
        packed: for the seed whose weights are gathered already.
    """
    return tuple(
        option.form
        for option in found
        if (least := option.least_rows(packed=packed)) is not None
        and rows >= least
        and num_samples * option.packed_bytes <= packed_limit
    )


def wants_all_samples(forms: Sequence[AnyForm]) -> bool:
    """Whether a form does work per row that all its samples should share."""
    return any(isinstance(form, Linear) for form in forms)


def _about(execution: Execution) -> About:
    some = execution.of_samples(range(_SEEN_SAMPLES), Key(0))

    def density(mask: str) -> float:
        value = as_tensor(some[mask])
        return int(value.count_nonzero()) / value.numel()

    return About(execution.static, execution.layouts, density)
