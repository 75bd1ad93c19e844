"""Show on the example that the lifted graph is the network, or refuse it.

Its job, in order: replay what the eager network drew and compare the outputs; see that no row
reads another; see that every site alone changes the output; compare the point graph with the
network in evaluation mode. Each at two numbers of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dubito_nn.errors import ExportError
from dubito_nn.lifting.capture import Captured
from dubito_nn.lifting.lift import Lifted
from dubito_nn.manifest import Site
from dubito_nn.operators import name_of
from dubito_nn.program import Node, Program, SiteSource, Value

Draws: TypeAlias = "list[Tensor]"
TOLERANCE = 1e-5
_COARSE = {torch.float16: 5e-3, torch.bfloat16: 5e-2}
_REDRAWS = 32
_RNNS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class DrawRecorder(TorchDispatchMode):
    """Notes down ω of every random operator that an eager network runs, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: Draws = []

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ):
        """Run the operator; where it rolls dice, keep the ω that explains its result."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        given = _with_defaults(func, args, kwargs)
        name, overload = name_of(func).split(".")[1:]
        base = name.rstrip("_")
        if base == "bernoulli" and overload in ("default", "Tensor"):
            return self._bernoulli(name, given)
        if base == "normal" and "Tensor" in overload:
            return self._normal(given)
        result = func(*args, **kwargs)
        if base == "native_dropout":
            self._keep(result[1].to(result[0].dtype))
        elif base == "bernoulli":
            if 0 < given[1] < 1:
                self._keep(result)
        elif base in _INVERSES:
            self._keep(_INVERSES[base](result, given))
        elif "scaled_dot_product" not in base and base not in _RNNS:
            raise ExportError(f"`{name_of(func)}` rolls dice in a way that cannot be replayed")
        return result

    def _keep(self, draw: Tensor) -> None:
        self.draws.append(draw.detach().clone())

    def _bernoulli(self, name, given):  # type: ignore[no-untyped-def]
        like, probability = given[0], given[1] if len(given) > 1 else given[0]
        uniform = torch.rand(like.shape, dtype=probability.dtype)
        self._keep(uniform)
        result = (uniform < probability).to(like.dtype)
        return like.copy_(result) if name.endswith("_") else result

    def _normal(self, given):  # type: ignore[no-untyped-def]
        parts = [part for part in given[:2] if isinstance(part, Tensor)]
        shape = torch.broadcast_shapes(*(part.shape for part in parts))
        draw = torch.randn(shape, dtype=parts[0].dtype)
        self._keep(draw)
        return given[0] + given[1] * draw


def _with_defaults(func, args, kwargs):  # type: ignore[no-untyped-def]
    """Positional arguments with the schema's defaults, which callers may leave out."""
    rest = [a for a in func._schema.arguments if not a.kwarg_only][len(args) :]
    return [*args, *(kwargs.get(argument.name, argument.default_value) for argument in rest)]


def _uniform_of(result: Tensor, args: Sequence[object]) -> Tensor:
    low, high = args[1:3]
    return (result - low) / (high - low)  # type: ignore[operator, no-any-return]


def _normal_of(result: Tensor, args: Sequence[object]) -> Tensor:
    mean, deviation = [part for part in args if isinstance(part, float)][:2]
    return (result - mean) / deviation  # type: ignore[operator, no-any-return]


def _integer_of(result: Tensor, args: Sequence[object]) -> Tensor:
    low, high = (0, *(part for part in args if isinstance(part, int)))[-2:]
    return (result.double() - low + 0.5) / (high - low)


def _exponential_of(result: Tensor, args: Sequence[object]) -> Tensor:
    return -torch.expm1(-result * args[1])  # type: ignore[operator]


_INVERSES: dict[str, Callable[[Tensor, Sequence[object]], Tensor]] = {
    "rand": lambda result, args: result,
    "rand_like": lambda result, args: result,
    "randn": lambda result, args: result,
    "randn_like": lambda result, args: result,
    "uniform": _uniform_of,
    "normal": _normal_of,
    "randint": _integer_of,
    "randint_like": _integer_of,
    "exponential": _exponential_of,
}


def prove(captured: Captured, lifted: Lifted, point: Program) -> Lifted:
    """Show that the lifted graph is the network; the result knows how its sites hold their rows.

    Raises:
        ExportError: with the module and the remedy, where one of the proofs fails.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for rows in (captured.example, _fewer(captured.example)):
            replay(captured, lifted, rows)
            _compare_point(captured, lifted, point, rows)
        lifted = replace(lifted, sites=_with_row_order(captured, lifted))
        _refuse_mixed_rows(captured, lifted)
        for site in lifted.sites:
            _refuse_dead(captured, lifted, site)
    return lifted


def replay(captured: Captured, lifted: Lifted, inputs: Mapping[str, Tensor]) -> float:
    """Feed eager draws to the lifted graph; return the largest difference of the outputs.

    Raises:
        ExportError: where it is beyond the tolerance, or the draws do not match the sites.
    """
    with DrawRecorder() as recorder:
        eager = captured.run(inputs, "sampling")["output"]
    if len(recorder.draws) != len(lifted.sites):
        raise ExportError(
            f"the network drew {len(recorder.draws)} times, its graph has {len(lifted.sites)} sites:"
            " make the draws in forward() independent of anything but the input's shape"
        )

    def recorded(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return recorder.draws[index].to(dtype).reshape(size)

    graph = lifted.program.run(inputs, lifted.weights, recorded)["output"]
    return _agree(eager, graph, "with the draws of the network itself, its graph", "sampling")


def _compare_point(
    captured: Captured, lifted: Lifted, point: Program, inputs: Mapping[str, Tensor]
) -> None:
    with DrawRecorder() as recorder:
        eager = captured.run(inputs, "evaluation")["output"]
    graph = point.run(inputs, lifted.weights)["output"]
    if not recorder.draws:
        _agree(eager, graph, "the point graph", "evaluation")


def _agree(eager: Tensor, graph: Tensor, what: str, mode: str) -> float:
    scale = max(1.0, float(eager.abs().max()))
    difference = float((eager.double() - graph.double()).abs().max())
    if not difference <= _COARSE.get(eager.dtype, TOLERANCE) * scale:
        raise ExportError(
            f"{what} differs from the network in {mode} mode by {difference:.2g}, expected at most"
            f" {TOLERANCE:g}: look for state that forward() keeps or changes between calls"
        )
    return difference


def random_draws(sites: list[Site]) -> SiteSource:
    """Fresh draws for every site, by the global generator, each row its own."""
    kept: dict[int, Tensor] = {}

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if index not in kept or tuple(kept[index].shape) != size:
            kept[index] = _draw(sites[index], size)
        return kept[index].to(dtype)

    return draw


def _draw(site: Site, size: tuple[int, ...]) -> Tensor:
    if site.distribution == "normal":
        return torch.randn(size, dtype=torch.float64)
    uniform = torch.rand(size, dtype=torch.float64)
    return uniform if site.distribution == "uniform" else (uniform >= site.drop_prob).double()


def _with_row_order(captured: Captured, lifted: Lifted) -> list[Site]:
    """Find, for draws whose axis holds k numbers per row, whether rows vary slowest or fastest."""
    base = random_draws(lifted.sites)
    before = lifted.program.run(captured.example, lifted.weights, base)["output"]
    found = []
    for site in lifted.sites:
        if site.batch_dim is None or _unit_rows(captured, lifted, site):
            found.append(site)
            continue
        for rows_outer in (True, False):
            guess = replace(site, rows_outer=rows_outer)
            after = lifted.program.run(
                captured.example, lifted.weights, _row_redrawn(base, guess, before.shape[0])
            )["output"]
            if torch.equal(after[1:], before[1:]):
                found.append(guess)
                break
        else:
            raise ExportError(
                f"module `{site.module_path}` draws numbers that several rows share: draw one set"
                " of numbers per row, or one for the whole batch"
            )
    return found


def _unit_rows(captured: Captured, lifted: Lifted, site: Site) -> bool:
    sizes: list[int] = []

    def note(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if index == site.index and site.batch_dim is not None:
            sizes.append(size[site.batch_dim])
        return torch.zeros(size, dtype=dtype)

    lifted.program.run(captured.example, lifted.weights, note)
    return sizes == [len(next(iter(captured.example.values())))]


def _row_redrawn(base: SiteSource, site: Site, rows: int) -> SiteSource:
    """`base`, but with row 0's part of one site turned around."""

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        value = base(index, size, dtype)
        if index != site.index or site.batch_dim is None:
            return value
        shape = (rows, -1) if site.rows_outer else (-1, rows)
        value = value.movedim(site.batch_dim, 0).clone()
        split = value.reshape(*shape, *value.shape[1:])
        own = split[0] if site.rows_outer else split[:, 0]
        own.copy_(1 - own)
        return split.reshape(value.shape).movedim(0, site.batch_dim)

    return draw


def _refuse_mixed_rows(captured: Captured, lifted: Lifted) -> None:
    """Change row 0 and its draws: no other row may notice, and order must not matter."""
    inputs = captured.example
    rows = len(next(iter(inputs.values())))
    draws = random_draws(lifted.sites)
    other = {name: torch.cat([tensor[-1:], tensor[1:]]) for name, tensor in inputs.items()}
    changed = draws
    for site in lifted.sites:
        changed = _row_redrawn(changed, site, rows)
    before, after = dict[str, Value](), dict[str, Value]()
    first = lifted.program.run(inputs, lifted.weights, draws, watch=_keep_in(before))["output"]
    second = lifted.program.run(other, lifted.weights, changed, watch=_keep_in(after))["output"]
    single = {name: tensor[1:2] for name, tensor in inputs.items()}
    alone = lifted.program.run(single, lifted.weights, _row_of(draws, lifted.sites, 1, rows))
    tolerance = _COARSE.get(first.dtype, TOLERANCE) * max(1.0, float(first.abs().max()))
    apart = (first[1:] - second[1:]).abs().max() <= tolerance
    same = (alone["output"][0] - first[1]).abs().max() <= tolerance
    if apart and same:
        return
    culprit = _first_mixing(lifted, before, after, rows)
    raise ExportError(
        f"rows interact: the answer for one row depends on its batch-mates, from module"
        f" `{culprit}` on. Take statistics, sorting and masks per row (x.mean(0), a batch-wide"
        " count or index mix rows)"
    )


def _row_of(draws: SiteSource, sites: list[Site], row: int, rows: int) -> SiteSource:
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
        own = split[row] if site.rows_outer else split[:, row]
        return own.movedim(0, site.batch_dim)

    return draw


def _first_mixing(
    lifted: Lifted, before: Mapping[str, Value], after: Mapping[str, Value], rows: int
) -> str:
    for node in lifted.program.nodes:
        one, two = before[node.name], after[node.name]
        if node.op == "site" or not isinstance(one, Tensor) or not isinstance(two, Tensor):
            continue
        if one.shape == two.shape and _mixes(one, two, rows):
            return lifted.paths.get(node.name, "(the network itself)")
    return "(the network itself)"


def _mixes(one: Tensor, two: Tensor, rows: int) -> bool:
    """Whether values differ elsewhere than in row 0, on the first axis as long as the rows."""
    if torch.equal(one, two):
        return False
    for axis, size in enumerate(one.shape):
        if size == rows:
            others = (value.narrow(axis, 1, rows - 1) for value in (one, two))
            return not torch.equal(*others)
    return all(size % rows for size in one.shape)


def _keep_in(values: dict[str, Value]) -> Callable[[Node, Value], None]:
    def keep(node: Node, value: Value) -> None:
        values[node.name] = value

    return keep


def _refuse_dead(captured: Captured, lifted: Lifted, site: Site) -> None:
    """Hold every other site where it lets most through, and see this one change the output."""
    neutral = {"bernoulli": 1.0, "uniform": 0.5, "normal": 0.0}
    seen: list[Tensor] = []
    for attempt in range(_REDRAWS):
        fresh = random_draws(lifted.sites)
        if attempt < 2:  # all kept, then all dropped: certain even where p is tiny
            fresh = _constant(float(1 - attempt))

        def draw(
            index: int, size: tuple[int, ...], dtype: torch.dtype, fresh: SiteSource = fresh
        ) -> Tensor:
            if index == site.index:
                return fresh(index, size, dtype)
            return torch.full(size, neutral[lifted.sites[index].distribution], dtype=dtype)

        seen.append(lifted.program.run(captured.example, lifted.weights, draw)["output"])
        if not torch.equal(seen[0], seen[-1]):
            return
    raise ExportError(
        f"module `{site.module_path}`: the draws of `{site.operator}` do not change the output"
        f" ({_REDRAWS} tried), so they tell nothing: take the layer out, or serve the output that"
        " it feeds"
    )


def _constant(value: float) -> SiteSource:
    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(size, value, dtype=dtype)

    return draw


def _fewer(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[: len(tensor) - 1] for name, tensor in inputs.items()}
