"""Which forms pay, from how many rows on.

Its job: find the forms that a plan allows, estimate by a cost model whether each can pay, and check
at load, against a timing on made-up rows, from how many rows on it does. The timing overrules the
model. Calls then only look the answer up, so that equal requests get equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from dubito.engine.calling.sampling import Key, Sampling
from dubito.engine.forms import About, Linear, Skipped, Thinned, branches, chains, linear_maps
from dubito.engine.kernels.rates import Rates, seconds_of
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import Form, as_tensor
from dubito.engine.running.options import FormTiming, Option
from dubito.engine.running.passes import CPU_CHUNK_BYTES, Passes

AnyForm: TypeAlias = "Thinned | Linear | Skipped"
ROWS = (1, 4, 16, 64, 256, 1024)
_ROWS_ELSEWHERE = (1, 16, 64, 256, 1024)  # where calls cost more than small products
_SLOWEST_S = 0.05  # of one timed call: then fewer rows must do
_SEEN_SAMPLES = 8  # whose masks tell how much of them is 0
_HOPE = 0.8  # the estimated gain from which a timing is worth its time
_TURNS = 3  # of which the least counts
_CHUNKS = (0.5, 3.0)  # times the usual size of a chunk: others that are tried at load
_TRIED_ROWS, _TRIED_BYTES, _CHUNK_MARGIN = 16, 96 * 2**20, 1.05
_LEAST_TIMED, _TIMED_FOLDED = 8, 4096  # samples, and samples x rows, that a form is timed with


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
    forms: list[AnyForm] = []
    for find in (chains, linear_maps, branches):
        taken = {name for form in forms for name in form.nodes}
        more: Sequence[AnyForm] = find(plan.suffix, plan, layouts, output)
        forms += [form for form in more if not taken & set(form.nodes)]
    if execution.device.type != "cpu":
        forms = [
            replace(form, is_stacked=True) if isinstance(form, Thinned) else form for form in forms
        ]
    about = _about(execution) if forms else None
    made = []
    for form in forms:
        assert about is not None
        timings = []
        for rows in ROWS if execution.device.type == "cpu" else _ROWS_ELSEWHERE:
            dense, of_form = form.work(about, rows, num_samples)
            timings.append(FormTiming(rows, rates.seconds(dense) / rates.seconds(of_form)))
        packed = form.packed_bytes(about) if isinstance(form, Thinned) else 0
        made.append(Option(form, tuple(timings), packed))
    return made


def timed_passes(passes: Passes, row: Mapping[str, Tensor], sampling: Sampling) -> Passes:
    """Return the passes with options and size of chunks checked against the clock.

    Args:
        passes: on their device.
        row: one made-up row.
        sampling: to time with.
    """

    def run(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        key, most = sampling.key if packed else None, sampling.num_samples
        if passes.execution.device.type == "cpu":  # where many rows tell as much with fewer
            most = min(most, max(_LEAST_TIMED, _TIMED_FOLDED // rows))
        some = replace(sampling, num_samples=most)
        return _seconds(replace(passes, forced=forms, key=key), row, rows, some)

    checked = replace(passes, options=[timed(option, run) for option in passes.options])
    passes.packs.clear()
    return replace(checked, chunk_share=_best_share(checked, row, sampling))


def timed(option: Option, run: Callable[[tuple[Form, ...], int, bool], float]) -> Option:
    """The option with what the clock says, where the model leaves hope.

    Args:
        option: to check.
        run: seconds of some forms on some rows, with weights gathered beforehand or not.
    """
    if max(timing.estimated for timing in option.timings) < _HOPE:
        return option
    checked: list[FormTiming] = []
    for timing in option.timings:
        ways: list[tuple[tuple[Form, ...], bool]] = [((), True), ((option.form,), True)]
        if option.packed_bytes:
            ways.append(((option.form,), False))
        for forms, packed in ways:
            run(forms, timing.rows, packed)
        turns = [[run(forms, timing.rows, packed) for forms, packed in ways] for _ in range(_TURNS)]
        dense, with_form, *rest = (min(seconds) for seconds in zip(*turns, strict=True))
        unpacked = dense / rest[0] if rest else dense / with_form
        checked.append(replace(timing, measured=dense / with_form, unpacked=unpacked))
        if dense > _SLOWEST_S:
            break
    return replace(option, timings=tuple(checked))


def _best_share(passes: Passes, row: Mapping[str, Tensor], sampling: Sampling) -> float:
    """The size of chunks that is fastest; the usual one where nothing is clearly faster."""
    row_bytes = passes.execution.plan.suffix_row_bytes
    count = min(sampling.num_samples, max(2, _TRIED_BYTES // (_TRIED_ROWS * row_bytes)))
    is_near = count * _TRIED_ROWS * row_bytes < CPU_CHUNK_BYTES
    if passes.execution.device.type != "cpu" or is_near:
        return 1.0
    trials = {share: replace(passes, chunk_share=share, packs={}) for share in (1.0, *_CHUNKS)}
    some = replace(sampling, num_samples=count)
    turns = [
        {share: _seconds(trial, row, _TRIED_ROWS, some) for share, trial in trials.items()}
        for _ in range(_TURNS)
    ]
    least = {share: min(turn[share] for turn in turns) for share in trials}
    best = min(least, key=lambda share: least[share])
    return best if least[1.0] > _CHUNK_MARGIN * least[best] else 1.0


def _seconds(passes: Passes, row: Mapping[str, Tensor], rows: int, sampling: Sampling) -> float:
    """Time of all passes of copies of a row."""
    made = {name: tensor[:1].repeat_interleave(rows, 0) for name, tensor in row.items()}

    def consume() -> None:
        for tile in passes.tiles(made, sampling, None):
            for _ in tile.passes(range(sampling.num_samples)):
                pass

    return seconds_of(consume, passes.execution.device)


def _about(execution: Execution) -> About:
    some = execution.of_samples(range(_SEEN_SAMPLES), Key(0))

    def density(mask: str) -> float:
        value = as_tensor(some[mask])
        return int(value.count_nonzero()) / value.numel()

    return About(execution.static, execution.layouts, density)
