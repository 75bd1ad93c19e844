"""Trying a bundle out on made-up rows before it is taken.

Its job: refuse a graph that does not run on them or returns something other than the manifest
states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads import OutputHead, head_of
from dubito.engine.kernels.precision import running
from dubito.engine.planning.layout import Layout, RowAxis
from dubito.engine.proving.clock import Clock
from dubito.engine.proving.sizes import GraphLimits, NotRunningError, check_sizes, warm_up
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, Manifest
from dubito_nn.program import SiteSource, Value, doubled
from dubito_nn.trial import FREE_SIZES, made_up_rows, row_sizes

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

_UNBOUNDED = 2**62
_APART = 1e-3  # of the largest number, between a row alone and beside others
_FAILURES = (
    *(ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError, TypeError),
    ValueError,
)


def fitting_size(bundle: Bundle, limits: GraphLimits) -> int:
    """The first size of all free dimensions at which both graphs run.

    Raises:
        BundleRefusedError: the graphs do not run, or not within their bounds.
    """
    specs = bundle.manifest.inputs
    is_free = any(isinstance(part, str) for spec in specs for part in spec.shape)
    first: BundleRefusedError | None = None
    for free in FREE_SIZES if is_free else FREE_SIZES[:1]:
        _check_bytes(bundle.manifest, free, limits.alive_bytes)
        try:
            check_sound(bundle, made_up_rows(bundle.manifest, free), limits)
        except NotRunningError as error:
            first = first or error
        else:
            return free
    assert first is not None
    raise first


def about(bundle: Bundle, device: torch.device, budget_bytes: int) -> dict[str, object]:
    """What the proof of a bundle holds for; what it finds is the size of all free dimensions."""
    return {
        "found": "proof",
        "bundle": bundle.digest,
        "budget": budget_bytes,
        "torch": torch.__version__,
        "device": str(device),
    }


def known_size(found: object, limit_s: float | None) -> int | None:
    """That size where the bundle was proved before; None where it is to be proved now.

    Args:
        found: of an earlier load.
        limit_s: of a bundle that is loaded to be proved; None: it is loaded to answer.
    """
    if limit_s is None and type(found) is int and found in FREE_SIZES:
        return found
    warm_up()
    return None


def check_sound(bundle: Bundle, rows: Mapping[str, Tensor], limits: GraphLimits) -> None:
    """Run both graphs without numbers and hold what they return against the manifest.

    Args:
        bundle: of a stranger.
        rows: of every input; the first counts, twice.
        limits: what the graphs may take.

    Raises:
        BundleRefusedError: naming the node or the output.
    """
    two = {name: tensor[:1].repeat_interleave(2, 0) for name, tensor in rows.items()}
    for program in (bundle.sampling, bundle.point):
        output = check_sizes(program, two, bundle.weights, bundle.sites, limits)
        check_output(output, head_of(bundle.manifest), rows=2)


def output_shape(bundle: Bundle, rows: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape of the declared output of two such rows; it costs no arithmetic.

    Args:
        bundle: shown to be sound.
        rows: of every input; the first counts.
    """
    two = {name: tensor[:1].repeat_interleave(2, 0) for name, tensor in rows.items()}
    limits = GraphLimits(_UNBOUNDED, Clock(None))
    output = check_sizes(bundle.sampling, two, bundle.weights, bundle.sites, limits)
    assert isinstance(output, Tensor)
    return tuple(output.shape)


def try_out(engine: Engine, rows: Mapping[str, Tensor]) -> None:
    """Plan, and run made-up rows, so that a bundle that does not run is refused now.

    Args:
        engine: that is being loaded.
        rows: two.

    Raises:
        BundleRefusedError: naming what is wrong.
    """
    engine.pieces(engine.defaults.masks, rows)
    three = {name: tensor[[0, 1, 0]].to(engine.device) for name, tensor in rows.items()}
    point, weights = engine.placed.point, engine.placed.weights
    with running(engine.device):
        made = point.run(three, weights, device=engine.device, watch=engine.plans.watch)
    check_output(made["output"], engine.head, rows=3)
    check_features(made.get("features"), rows=3)
    two = Sampling.fewest(engine.manifest.default_method, engine.defaults.seed)
    raw = engine.sample(rows, sampling=two)
    check_output(raw[0], engine.head, rows=2)
    each = ({name: tensor[at : at + 1] for name, tensor in rows.items()} for at in (0, 1))
    alone = torch.cat([engine.sample(row, sampling=two) for row in each], dim=1)
    execution = engine.pieces("shared", engine.made_up_rows()).execution

    def draws(count: int) -> SiteSource:
        source = execution.draws(range(1), range(count), two.key, per_row=True)
        return lambda index, size, dtype: source(index, size, dtype).cpu()

    check_apart(raw, alone, partial(passes_in_double, engine.bundle, rows, draws))


@contextmanager
def refusing() -> Iterator[None]:
    """What goes wrong in here is a reason to refuse the bundle.

    Raises:
        BundleRefusedError: with that reason.
    """
    try:
        yield
    except BundleRefusedError:
        raise
    except InputError as error:  # it says its remedy
        raise BundleRefusedError(f"the graph does not run on made-up rows: {error}") from error
    except _FAILURES as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleRefusedError(
            f"the graph does not run on made-up rows: {reason}: export the network again"
        ) from error


def check_output(value: Value, head: OutputHead, rows: int) -> None:
    """Refuse an output of another shape or type than the manifest states.

    Raises:
        BundleRefusedError: naming both.
    """
    shape = value.shape if isinstance(value, Tensor) else torch.Size()
    expected = head.expected_output(rows, tuple(shape))
    if not isinstance(value, Tensor):
        got = type(value).__name__
    elif tuple(value.shape) != expected or not value.is_floating_point():
        got = f"{tuple(value.shape)} of {value.dtype}"
    else:
        return
    raise BundleRefusedError(
        f"the graph returns {got} for {rows} rows, the manifest states"
        f" {expected or 'rows, classes and positions of'} floating-point numbers: export the"
        " network again"
    )


def check_apart(
    together_TBD: Tensor, alone_TBD: Tensor, in_double: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    """Refuse a graph that answers a row otherwise when other rows, or samples, run beside it.

    The engine folds samples and rows into one axis, which is right only where rows do not interact.

    Args:
        together_TBD: passes of some rows run as one batch.
        alone_TBD: the same passes of the same rows, each run alone.
        in_double: makes both in float64, which decides where they differ: large terms that cancel
            leave float32's rounding of them.

    Raises:
        BundleRefusedError: they differ by more than rounding.
    """
    if not is_same(together_TBD, alone_TBD) and not _is_rounding(in_double):
        raise BundleRefusedError(
            "the graph answers a row otherwise when other rows run beside it (rows interact, or the"
            " number of rows enters the result): export the network again"
        )


def passes_in_double(
    bundle: Bundle, rows: Mapping[str, Tensor], draws: Callable[[int], SiteSource]
) -> tuple[Tensor, Tensor]:
    """One pass over two rows as a batch, and over each alone, in float64 and on the CPU.

    Args:
        bundle: whose graph is run as it is written.
        rows: two of them.
        draws: of the pass over so many rows.
    """
    weights, wide = doubled(bundle.weights), doubled(rows)

    def output(part: Mapping[str, Tensor], count: int) -> Tensor:
        return bundle.sampling.run(part, weights, draws(count))["output"]

    alone = [output({k: x[at : at + 1] for k, x in wide.items()}, 1) for at in (0, 1)]
    return output(wide, 2), torch.cat(alone)


def _is_rounding(in_double: Callable[[], tuple[Tensor, Tensor]]) -> bool:
    try:
        return is_same(*in_double())
    except RuntimeError:  # a graph that insists on another type
        return False


def is_same(first: Tensor, second: Tensor) -> bool:
    """Whether finite numbers differ by rounding alone."""
    known = first.isfinite() & second.isfinite()
    first, second = first[known].double(), second[known].double()
    bound = _APART * (1 + float(second.abs().max())) if first.numel() else 0.0
    return not first.numel() or float((first - second).abs().max()) <= bound


def check_features(value: Value, rows: int) -> None:
    """Refuse features that are no numbers, one vector per row; None is no features.

    Raises:
        BundleRefusedError: naming what was returned.
    """
    if value is None:
        return
    if isinstance(value, Tensor) and value.ndim >= 2 and value.is_floating_point():
        if value.shape[0] == rows and value.numel():
            return
        got = f"shape {tuple(value.shape)}"
    else:
        got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
    raise BundleRefusedError(
        f"the graph returns features of {got} for {rows} rows, expected floating-point numbers, the"
        " rows first: export the network again"
    )


def check_rows(output: Layout) -> None:
    """Refuse an output whose rows do not follow those of the input.

    Raises:
        BundleRefusedError: it has as many rows whatever is asked.
    """
    if not isinstance(output, RowAxis) or output.axis != 0 or output.per_row != 1:
        raise BundleRefusedError(
            "the graph returns as many rows whatever it is given: export the network again"
        )


def _check_bytes(manifest: Manifest, free: int, limit_bytes: int) -> None:
    specs = manifest.inputs
    size = sum(2 * 8 * math.prod(row_sizes(manifest, spec, free)) for spec in specs)
    if size > limit_bytes:
        raise BundleRefusedError(
            f"two rows of the inputs take {size} bytes, more than the budget of {limit_bytes}:"
            " raise DUBITO_MEMORY_BUDGET_BYTES if that is meant"
        )
