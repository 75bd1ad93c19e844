"""Show that no row of a lifted graph reads another, or refuse it.

Its job, in order: see that every value made of the rows grows with their number, since one that
does not is made of all of them; change the input of one row and see the others unmoved; find how
each site's draw holds the rows; change one row's draws and see the others unmoved; run every row
alone with its own draws and get its part of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError
from dubito_nn.flow import SHAPE_ONLY, base, names
from dubito_nn.lifting.draws import random_draws, tolerance
from dubito_nn.lifting.lift import Lifted
from dubito_nn.manifest import Site
from dubito_nn.program import Node, Program, SiteSource, Value, doubled, pruned, references

_LIKE_SECOND = names("type_as expand_as view_as reshape_as")
Inputs = Mapping[str, Tensor]


def prove_rows(lifted: Lifted, inputs: Inputs) -> Lifted:
    """Show that rows do not interact; the result knows how its sites hold their rows.

    Raises:
        ExportError: naming the module from which rows mix.
    """
    lifted = replace(lifted, program=pruned(lifted.program))
    rows, draws = _count(inputs), random_draws(lifted.sites)
    seen = _Seen(draws)
    before = seen.output(lifted, inputs)
    _refuse_reduced(lifted, inputs, seen)
    other = _other_first_row(inputs)
    if not _same(before[1:], _output(lifted, other, draws)[1:]):
        raise ExportError(_mixed(_first_mixing(lifted, (inputs, draws), (other, draws))))
    lifted = replace(lifted, sites=_with_row_order(lifted, inputs, seen, before))
    changed = _row_redrawn(draws, lifted.sites, rows)
    if not _same(before[1:], _output(lifted, inputs, changed)[1:]):
        raise ExportError(_mixed(_first_mixing(lifted, (inputs, draws), (inputs, changed))))
    if not _is_apart(lifted, inputs, draws, before) and not _is_apart_in_double(
        lifted, inputs, draws
    ):
        raise ExportError(_mixed(WHOLE))
    return lifted


class _Seen:
    """What sizes the values and draws of a pass have.

    Args:
        draws: of the pass.
    """

    def __init__(self, draws: SiteSource) -> None:
        self.draws = draws
        self.shapes: dict[str, torch.Size] = {}
        self.drawn: dict[int, tuple[int, ...]] = {}

    def output(self, lifted: Lifted, inputs: Inputs) -> Tensor:
        """Run the graph, and look."""

        def note(node: Node, value: Value) -> None:
            if isinstance(value, Tensor):
                self.shapes[node.name] = value.shape

        def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            self.drawn[index] = size
            return self.draws(index, size, dtype)

        return lifted.program.run(inputs, lifted.weights, draw, watch=note)["output"]


def _refuse_reduced(lifted: Lifted, inputs: Inputs, seen: _Seen) -> None:
    """Refuse a value that is made of the rows and has no place for them, whatever its numbers."""
    fewer = _Seen(random_draws(lifted.sites))
    fewer.output(lifted, {name: tensor[:-1] for name, tensor in inputs.items()})
    for name in _made_of_rows(lifted.program):
        if name in seen.shapes and seen.shapes[name] == fewer.shapes.get(name):
            raise ExportError(_mixed(lifted.paths.get(name, WHOLE)))


def _made_of_rows(program: Program) -> list[str]:
    """Values made of numbers of the inputs, of which an output reads numbers; in order."""
    made, read = set[str](), set(program.outputs.values())
    for node in program.nodes:
        if node.op == "input" or not made.isdisjoint(_numbers_of(node)):
            made.add(node.name)
    for node in reversed(program.nodes):
        if node.name in read:
            read.update(_numbers_of(node))
    return [node.name for node in program.nodes if node.name in made & read]


def _numbers_of(node: Node) -> set[str]:
    """The values whose numbers a node reads, and not their size or type alone."""
    if base(node) in SHAPE_ONLY:
        return set()
    return set(references(node.args[:1] if base(node) in _LIKE_SECOND else node.args)) | set(
        references(tuple(node.kwargs.values()))
    )


def _is_apart(lifted: Lifted, inputs: Inputs, draws: SiteSource, together: Tensor) -> bool:
    """Whether every row alone, with its own draws, gets its part of the batch."""
    rows = _count(inputs)
    for row in range(rows):
        single = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        alone = _output(lifted, single, _row_of(draws, lifted.sites, row, rows))
        if not _same(together[row : row + 1], alone):
            return False
    return True


def _is_apart_in_double(lifted: Lifted, inputs: Inputs, draws: SiteSource) -> bool:
    """The same in float64, where large terms that cancel leave no rounding to speak of."""
    wide = replace(lifted, weights=doubled(lifted.weights))
    try:
        wide_inputs = doubled(inputs)
        return _is_apart(wide, wide_inputs, draws, _output(wide, wide_inputs, draws))
    except RuntimeError:  # a graph that insists on another type
        return False


def _mixed(path: str) -> str:
    return (
        f"rows interact: the answer for one row depends on its batch-mates, from module `{path}`"
        " on. Take statistics, sorting and masks per row (x.mean(0), a batch-wide count or index"
        " mix rows)"
    )


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _output(lifted: Lifted, inputs: Inputs, draws: SiteSource) -> Tensor:
    return lifted.program.run(inputs, lifted.weights, draws)["output"]


def _same(first: Tensor, second: Tensor) -> bool:
    bound = tolerance(first)
    return first.shape == second.shape and torch.allclose(
        first, second, bound, bound, equal_nan=True
    )


def _other_first_row(inputs: Inputs) -> dict[str, Tensor]:
    """The inputs with row 0 replaced by the last row that differs from it."""
    for row in reversed(range(_count(inputs))):
        if any(not torch.equal(tensor[0], tensor[row]) for tensor in inputs.values()):
            break
    return {name: torch.cat([tensor[row : row + 1], tensor[1:]]) for name, tensor in inputs.items()}


def _with_row_order(lifted: Lifted, inputs: Inputs, seen: _Seen, before: Tensor) -> list[Site]:
    """Find, for draws whose axis holds k numbers per row, whether rows vary slowest or fastest."""
    rows, sites = _count(inputs), []
    for site in lifted.sites:
        if site.batch_dim is None or seen.drawn[site.index][site.batch_dim] == rows:
            sites.append(site)
            continue
        for rows_outer in (True, False):
            guess = replace(site, rows_outer=rows_outer)
            after = _output(lifted, inputs, _row_redrawn(seen.draws, [guess], rows))
            if _same(after[1:], before[1:]):
                sites.append(guess)
                break
        else:
            raise ExportError(
                f"module `{site.module_path}` draws numbers that several rows share: draw one set"
                " of numbers per row, or one for the whole batch; where a library does so, switch"
                " that module off (p = 0)"
            )
    return sites


def _row_redrawn(base: SiteSource, sites: Sequence[Site], rows: int) -> SiteSource:
    """`base`, but with row 0's part of some sites turned around."""
    chosen = {site.index: site for site in sites}

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        value, site = base(index, size, dtype), chosen.get(index)
        if site is None or site.batch_dim is None:
            return value
        shape = (rows, -1) if site.rows_outer else (-1, rows)
        value = value.movedim(site.batch_dim, 0).clone(memory_format=torch.contiguous_format)
        split = value.view(*shape, *value.shape[1:])
        part = split[0] if site.rows_outer else split[:, 0]
        part.copy_(1 - part)
        return value.movedim(0, site.batch_dim)

    return draw


def _row_of(draws: SiteSource, sites: Sequence[Site], row: int, rows: int) -> SiteSource:
    """The draws of one row of a larger batch."""

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        site = sites[index]
        if site.batch_dim is None:
            return draws(index, size, dtype)
        full = list(size)
        per_row = full[site.batch_dim]
        full[site.batch_dim] = per_row * rows
        value = draws(index, tuple(full), dtype).movedim(site.batch_dim, 0)
        shape = (rows, per_row) if site.rows_outer else (per_row, rows)
        split = value.reshape(*shape, *value.shape[1:])
        part = split[row] if site.rows_outer else split[:, row]
        return part.movedim(0, site.batch_dim)

    return draw


def _first_mixing(
    lifted: Lifted, first_run: tuple[Inputs, SiteSource], second_run: tuple[Inputs, SiteSource]
) -> str:
    """Path of the module in which other rows than row 0 first differ between two runs."""
    before, after = dict[str, Value](), dict[str, Value]()
    for (inputs, draws), values in ((first_run, before), (second_run, after)):
        lifted.program.run(inputs, lifted.weights, draws, watch=_keep_in(values))
    for node in lifted.program.nodes:
        first, second = before[node.name], after[node.name]
        if node.op == "site" or not isinstance(first, Tensor) or not isinstance(second, Tensor):
            continue
        if first.shape == second.shape and _mixes(first, second, _count(first_run[0])):
            return lifted.paths.get(node.name, WHOLE)
    return WHOLE


def _mixes(first: Tensor, second: Tensor, rows: int) -> bool:
    """Whether values differ elsewhere than in row 0, on the first axis as long as the rows."""
    if torch.equal(first, second):
        return False
    for axis, size in enumerate(first.shape):
        if size == rows:
            others = (value.narrow(axis, 1, rows - 1) for value in (first, second))
            return not torch.equal(*others)
    return all(size % rows for size in first.shape)


def _keep_in(values: dict[str, Value]) -> Callable[[Node, Value], None]:
    def keep(node: Node, value: Value) -> None:
        values[node.name] = value

    return keep
