"""Which forms pay, from how many rows on.

Its job: find the forms that a plan allows, estimate by a cost model whether each can pay, and check
at load, against a timing on made-up rows, from how many rows on it does. The timing overrules the
model. Calls then only look the answer up, so that equal requests get equal bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from torch import Tensor

from dubito.engine.calling.sampling import Key, Sampling
from dubito.engine.findings import Timings
from dubito.engine.forms import About, Linear, Skipped, Thinned, branches, chains, linear_maps
from dubito.engine.kernels.rates import Rates, seconds_of
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import Form, Packs, as_tensor
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
_DENSE = -1, True
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
    for find in (chains, linear_maps, partial(branches, sites=execution.sites)):
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


def timed_passes(
    passes: Passes,
    row: Mapping[str, Tensor],
    sampling: Sampling,
    known: Timings | None = None,
    limit_s: float | None = None,
) -> Timings:
    """Check the options and the size of chunks against the clock.

    Args:
        passes: on their device.
        row: one made-up row.
        sampling: to time with.
        known: what was timed before and is not timed again.
        limit_s: on the wall after which no further call is timed; None: no limit.
    """
    end_s = math.inf if limit_s is None else time.perf_counter() + limit_s

    def is_over() -> bool:
        return time.perf_counter() >= end_s

    def run(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        key, most = sampling.key if packed else None, sampling.num_samples
        if passes.execution.device.type == "cpu":  # where many rows tell as much with fewer
            most = min(most, max(_LEAST_TIMED, _TIMED_FOLDED // rows))
        some = replace(sampling, num_samples=most)
        return _seconds(replace(passes, forced=forms, key=key), row, rows, some)

    options = passes.options
    if known is not None:
        options = [replace(o, timings=t) for o, t in zip(options, known.forms, strict=True)]
    if any(map(_is_hopeful, (option.timings for option in options))) and not is_over():
        run((), ROWS[0], True)  # what torch makes ready at its first call is nobody's time
    checked, is_whole = timed(options, run, is_over)
    passes.packs.clear()
    share = None if known is None else known.chunk_share
    if share is None and not is_over():
        share = _best_share(replace(passes, options=checked), row, sampling, is_over)
    forms = tuple(option.timings for option in checked)
    return Timings(forms, share, is_whole and share is not None)


def timed(
    options: Sequence[Option],
    run: Callable[[tuple[Form, ...], int, bool], float],
    is_over: Callable[[], bool] = lambda: False,
) -> tuple[list[Option], bool]:
    """The options with what the clock says, where the model leaves hope, and whether that is all.

    Args:
        options: to check; what they were timed with is not timed again.
        run: seconds of some forms on some rows, with weights gathered beforehand or not.
        is_over: whether no further call may be timed.
    """
    made = [list(option.timings) for option in options]
    hopeful = [at for at, timings in enumerate(made) if _is_hopeful(timings)]
    is_whole = True
    for place, timing in enumerate(made[hopeful[0]] if hopeful else ()):
        missing = [at for at in hopeful if made[at][place].measured is None]
        if not missing:
            continue
        seconds = _least([(at, options[at]) for at in missing], timing.rows, run, is_over)
        for at in missing:
            if (at, True) in seconds:
                dense_s, with_form_s = seconds[_DENSE], seconds[at, True]
                made[at][place] = replace(
                    made[at][place],
                    measured=dense_s / with_form_s,
                    unpacked=dense_s / seconds.get((at, False), with_form_s),
                )
        if any((at, True) not in seconds for at in missing):
            is_whole = False
            break
        if seconds[_DENSE] > _SLOWEST_S:
            for at in hopeful:
                del made[at][place + 1 :]
            break
    pairs = zip(options, made, strict=True)
    return [replace(option, timings=tuple(timings)) for option, timings in pairs], is_whole


def _is_hopeful(timings: Sequence[FormTiming]) -> bool:
    return max(timing.estimated for timing in timings) >= _HOPE


def _least(
    options: Sequence[tuple[int, Option]],
    rows: int,
    run: Callable[[tuple[Form, ...], int, bool], float],
    is_over: Callable[[], bool],
) -> dict[tuple[int, bool], float]:
    """The least seconds of each way to run some rows, for as many options as there was time for.

    Where a call takes long, one turn after the first call tells enough, and where the time is over
    the first call itself.

    Args:
        options: with their places.
        rows: B.
        run: as for `timed`.
        is_over: as for `timed`.
    """
    ways: dict[tuple[int, bool], tuple[tuple[Form, ...], bool]] = {_DENSE: ((), True)}
    for at, option in options:
        if option.packed_bytes:
            ways[at, False] = ((option.form,), False)
        ways[at, True] = ((option.form,), True)
    first: dict[tuple[int, bool], float] = {}
    for way, (forms, packed) in ways.items():
        if is_over():
            break
        first[way] = run(forms, rows, packed)
    turns: list[dict[tuple[int, bool], float]] = []
    while len(turns) < (1 if first and first[_DENSE] > _SLOWEST_S else _TURNS) and not is_over():
        turns.append({way: run(ways[way][0], rows, ways[way][1]) for way in first})
    return {way: min(turn[way] for turn in turns or [first]) for way in first}


def _best_share(
    passes: Passes,
    row: Mapping[str, Tensor],
    sampling: Sampling,
    is_over: Callable[[], bool],
) -> float | None:
    """The size of chunks that is fastest; the usual one where nothing is clearly faster.

    None where the time was over before each was tried.
    """
    row_bytes = passes.execution.plan.suffix_row_bytes
    count = min(sampling.num_samples, max(2, _TRIED_BYTES // (_TRIED_ROWS * row_bytes)))
    is_near = count * _TRIED_ROWS * row_bytes < CPU_CHUNK_BYTES
    if passes.execution.device.type != "cpu" or is_near:
        return 1.0
    trials = {
        share: replace(passes, chunk_share=share, packs=Packs(is_kept=True))
        for share in (1.0, *_CHUNKS)
    }
    some = replace(sampling, num_samples=count)
    least: dict[float, float] = {}
    for turn in range(_TURNS):
        for share, trial in trials.items():
            if is_over():
                break
            seconds = _seconds(trial, row, _TRIED_ROWS, some)
            least[share] = min(seconds, least.get(share, math.inf))
        if turn == 0 and least.get(1.0, 0.0) > 2 * _SLOWEST_S:
            break
    if len(least) < len(trials):
        return None
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
