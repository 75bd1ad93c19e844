"""Whether a bundle runs, before its file is there.

Its job: run it on made-up rows and on the example, each at two numbers of rows, and have whoever
serves bundles on this machine load it. Who serves says so by an entry point of the group `CHECKS`,
a function that takes the bundle and raises where it cannot be served: `dubito`, where it is
installed, and not where its source merely lies on the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points

import torch
from torch import Tensor

from dubito_nn.bundle import Bundle
from dubito_nn.errors import ExportError
from dubito_nn.lifting.draws import random_draws
from dubito_nn.manifest import InputSpec
from dubito_nn.program import DTYPES

CHECKS = "dubito_nn.checks"
FREE_SIZES = (8, 16, 32, 64, 128, 256)  # of a free dimension, until the graph runs
_ROWS = (3, 2)


def made_up_rows(specs: Sequence[InputSpec], free: int, count: int = 2) -> dict[str, Tensor]:
    """Rows of numbers that the network takes.

    Args:
        specs: the network's inputs.
        free: size of every free dimension.
        count: how many rows.
    """
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for spec in specs:
        size = (count, *row_sizes(spec, free))
        dtype = DTYPES[spec.dtype]
        if dtype.is_floating_point:
            drawn = torch.randn(size, generator=generator)
        else:
            high = 1 if spec.high is None else spec.high
            drawn = torch.randint(spec.low or 0, high + 1, size, generator=generator)
        rows[spec.name] = drawn.to(dtype)
    return rows


def row_sizes(spec: InputSpec, free: int) -> tuple[int, ...]:
    """The shape of one row of an input, with so many entries along every free dimension."""
    return tuple(part if isinstance(part, int) else free for part in spec.shape)


def refuse_unserved(bundle: Bundle, examples: Iterable[Mapping[str, Tensor]]) -> None:
    """See that a bundle runs, and that whoever serves bundles here can load it.

    Args:
        bundle: as read back.
        examples: rows that it must run on beside made-up ones.

    Raises:
        ExportError: it does not, with the reason.
    """
    with torch.no_grad():
        for rows in examples:
            _run(bundle, rows)
        _run_on_made_up_rows(bundle)
    for check in _checks():
        try:
            check(bundle)
        except Exception as error:
            raise ExportError(f"the network is recorded, but cannot be served: {error}") from error


def _run(bundle: Bundle, rows: Mapping[str, Tensor]) -> None:
    count = len(next(iter(rows.values())))
    for program in (bundle.sampling, bundle.point):
        output = program.run(rows, bundle.weights, random_draws(bundle.sites))["output"]
        if len(output) != count:
            raise RuntimeError(f"{len(output)} rows come out of {count}")


def _run_on_made_up_rows(bundle: Bundle) -> None:
    """At the first size of the free dimensions at which it runs."""
    specs = bundle.manifest.inputs
    is_free = any(isinstance(part, str) for spec in specs for part in spec.shape)
    first: Exception | None = None
    for free in FREE_SIZES if is_free else FREE_SIZES[:1]:
        try:
            for count in _ROWS:
                _run(bundle, made_up_rows(specs, free, count))
        except Exception as error:
            first = first or error
        else:
            return
    assert first is not None
    reason = (str(first).splitlines() or [type(first).__name__])[0][:200]
    raise ExportError(
        f"the network is recorded, but fails on rows that a server makes up to try it: {reason}:"
        " make forward() take any numbers between the least and the greatest of every integer input"
    ) from first


def _checks() -> Iterator[Callable[[Bundle], None]]:
    """What is registered, as far as it can be imported: half an installation serves nothing."""
    for entry in entry_points(group=CHECKS):
        try:
            yield entry.load()
        except (ImportError, AttributeError):
            continue
