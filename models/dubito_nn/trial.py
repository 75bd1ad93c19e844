"""Whether a bundle runs, before its file is there.

Its job: run it on made-up rows and on the example, each at two numbers of rows, and have whoever
serves bundles on this machine load it. Who serves says so by an entry point of the group `CHECKS`,
a function that takes the bundle and raises where it cannot be served: `dubito`, where it is
installed, and not where its source merely lies on the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points

import torch
from torch import Tensor

from dubito_nn.bundle import Bundle
from dubito_nn.errors import ExportError
from dubito_nn.lifting.draws import random_draws
from dubito_nn.manifest import InputSpec, Manifest, Nested
from dubito_nn.program import DTYPES

CHECKS = "dubito_nn.checks"
FREE_SIZES = (8, 16, 32, 64, 128, 256)  # of a free dimension, until the graph runs
_ROWS = (3, 2)
_MOST_NUMBERS = 200_000  # of trial rows, in a manifest


def made_up_rows(manifest: Manifest, free: int, count: int = 2) -> dict[str, Tensor]:
    """Rows of numbers that the network takes.

    Args:
        manifest: with rows of its own, where the network takes no invented integers.
        free: size of every free dimension that those do not fix.
        count: how many rows.
    """
    generator = torch.Generator().manual_seed(0)
    kept, rows = manifest.trial_rows or {}, {}
    for spec in manifest.inputs:
        size = (count, *row_sizes(manifest, spec, free))
        dtype = DTYPES[spec.dtype]
        if spec.name in kept:
            whole = torch.tensor(kept[spec.name])
            drawn = whole[torch.arange(count) % len(whole)]
        elif dtype.is_floating_point:
            drawn = torch.randn(size, generator=generator)
        else:
            high = 1 if spec.high is None else spec.high
            drawn = torch.randint(spec.low or 0, high + 1, size, generator=generator)
        rows[spec.name] = drawn.to(dtype)
    return rows


def row_sizes(manifest: Manifest, spec: InputSpec, free: int) -> tuple[int, ...]:
    """The shape of one made-up row of an input; arguments as for `made_up_rows`."""
    fixed: dict[int | str, int] = {}
    for other in manifest.inputs:
        part: Nested = (manifest.trial_rows or {}).get(other.name, 0)
        for name in ("rows", *other.shape):
            if isinstance(part, tuple):
                fixed[name], part = len(part), part[0]
    limits = manifest.free_sizes or {}
    for name, (least, most) in limits.items():
        fixed.setdefault(name, min(max(free, least), most))
    return tuple(part if isinstance(part, int) else fixed.get(part, free) for part in spec.shape)


def takes_made_up_rows(bundle: Bundle) -> bool:
    """Whether it runs on rows that are all invented."""
    try:
        _run_on_made_up_rows(bundle)
    except ExportError:
        return False
    return True


def trial_rows(
    manifest: Manifest, example: Mapping[str, Tensor], count: int
) -> dict[str, Nested] | None:
    """The first rows of the example's inputs of integers and truth values, for the manifest."""
    whole = {
        spec.name: example[spec.name][:count]
        for spec in manifest.inputs
        if not DTYPES[spec.dtype].is_floating_point
    }
    if not whole or count < 1 or sum(x.numel() for x in whole.values()) > _MOST_NUMBERS:
        return None
    return {name: _as_tuples(tensor.long().tolist()) for name, tensor in whole.items()}


def _as_tuples(numbers: object) -> Nested:
    if isinstance(numbers, list):
        return tuple(_as_tuples(part) for part in numbers)
    assert isinstance(numbers, int)
    return numbers


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
    manifest = bundle.manifest
    is_free = any(isinstance(part, str) for spec in manifest.inputs for part in spec.shape)
    first: Exception | None = None
    for free in FREE_SIZES if is_free else FREE_SIZES[:1]:
        try:
            with torch.no_grad():
                for count in _ROWS:
                    _run(bundle, made_up_rows(manifest, free, count))
        except Exception as error:
            first = first or error
        else:
            return
    assert first is not None
    reason = (str(first).splitlines() or [type(first).__name__])[0][:200]
    raise ExportError(
        f"the network is recorded, but fails on rows that a server makes up to try it: {reason}:"
        " make forward() take any floating-point numbers, and leave trial_rows above 0 where not"
        " all integers go together"
    ) from first


def _checks() -> Iterator[Callable[[Bundle], None]]:
    """What is registered, as far as it can be imported: half an installation serves nothing."""
    for entry in entry_points(group=CHECKS):
        try:
            yield entry.load()
        except (ImportError, AttributeError):
            continue
