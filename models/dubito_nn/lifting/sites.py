"""Describe a random node as a row of the site table.

Its job: tell, from the symbols in the shape of a draw, which axis holds the rows, and read the drop
probability from the node or its module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, fx

from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.example import BATCH
from dubito_nn.capturing.paths import module_path
from dubito_nn.errors import ExportError
from dubito_nn.manifest import Distribution, Site
from dubito_nn.operators import name_of

if TYPE_CHECKING:  # it takes a third of a second, and only an export needs it
    import sympy

Shape = tuple[int | str, ...]
_DRAWS_ALONE = ("aten.bernoulli.p", "aten.bernoulli.Tensor")  # others apply their mask too
_PROBABILITIES = ("drop_prob", "p")
_ROUNDING = 1e-9


class Symbols:
    """What the recorder's symbols stand for: the rows, or a free dimension."""

    def __init__(self) -> None:
        self._meanings: dict[sympy.Symbol, str] = {}

    def learn(self, name: str, axis: int, size: int | torch.SymInt, meaning: str) -> sympy.Expr:
        """Take note of the size of one axis of an input; the symbol that stands for it.

        Raises:
            ExportError: where the size turned out fixed, or two names mean the same.
        """
        expression = _expression(size)
        if not expression.is_Symbol:
            raise ExportError(
                f"the network works for one size of axis {axis} of input `{name}` only: take"
                " sizes from x.shape in forward(), or leave that axis out of free_dims"
            )
        first_meaning = self._meanings.setdefault(expression, meaning)
        if first_meaning != meaning:
            raise ExportError(
                f"the free dimensions `{first_meaning}` and `{meaning}` are always of the same"
                " size: give them one name in free_dims"
            )
        return expression

    def split(self, shape: Sequence[int | torch.SymInt], path: str) -> tuple[int | None, Shape]:
        """The axis that holds the rows, and the rest of the shape without them.

        Raises:
            ExportError: where rows are on several axes, or not a factor of one.
        """
        import sympy

        batch_dim, rest = None, list[int | str]()
        for axis, size in enumerate(shape):
            expression = _expression(size)
            rows = [s for s in expression.free_symbols if self._meanings.get(s) == BATCH]
            if rows:
                per_row = sympy.cancel(expression / rows[0])
                if batch_dim is not None or rows[0] in per_row.free_symbols:
                    raise ExportError(
                        f"module `{path}` draws numbers of shape {tuple(shape)}, which mixes rows:"
                        " draw one set of numbers per row"
                    )
                batch_dim, expression = axis, per_row
                if expression == 1:
                    continue
            rest.append(self._named(expression))
        return batch_dim, tuple(rest)

    def _named(self, expression: sympy.Expr) -> int | str:
        import sympy

        names = {s: sympy.Symbol(self._meanings.get(s, str(s))) for s in expression.free_symbols}
        renamed = expression.xreplace(names)
        return int(renamed) if renamed.is_Integer else str(renamed)


def describe(
    node: fx.Node,
    value: Tensor,
    distribution: Distribution,
    mean: float,
    symbols: Symbols,
    captured: Captured,
) -> Site:
    """The site of a random node that made `value`; its index is still to be given.

    Raises:
        ExportError: where the draw mixes rows.
    """
    path = module_path(node)
    batch_dim, shape = symbols.split(value.shape, path)
    drop_prob, learned = _drop_prob(captured, path, distribution, mean)
    stated = None
    if name_of(node.target) in _DRAWS_ALONE:
        stated = _of_the_layer(captured, path, round(1 - mean, 12))
    return Site(
        index=0,
        operator=name_of(node.target),
        distribution=distribution,
        drop_prob=drop_prob if stated is None else stated,
        learned=learned,
        shape=shape,
        granularity="element",  # until the whole graph is known
        module_path=path,
        batch_dim=batch_dim,
        keep_prob=None if stated is None else mean,
    )


def _drop_prob(
    captured: Captured, path: str, distribution: Distribution, mean: float
) -> tuple[float | None, bool]:
    """The probability of dropping, and whether it was learned; None where it is not known."""
    if distribution == "bernoulli":
        return round(1 - mean, 12), False
    modules = dict(captured.module.network.named_modules(remove_duplicate=False))
    held = getattr(modules.get(path, modules[""]), "drop_prob", None)
    if isinstance(held, Tensor):
        return held.detach().double().mean().item(), held.requires_grad
    other = getattr(modules.get(path, modules[""]), "p", held)
    return (held, False) if isinstance(held, float) and held == other else (None, False)


def _of_the_layer(captured: Captured, path: str, drawn: float) -> float | None:
    """The p of a layer that draws with another one; None where it draws with a p of its own.

    DropBlock draws the seeds of blocks: their rate follows from p and the size of the map.
    """
    module = dict(captured.module.network.named_modules(remove_duplicate=False)).get(path)
    held = [value for value in vars(module).values() if isinstance(value, float)] if module else []
    if any(abs(value - drawn) < _ROUNDING for value in held):
        return None
    for name in _PROBABILITIES:
        stated = getattr(module, name, None)
        if isinstance(stated, float) and 0 < stated < 1 and abs(stated - drawn) > _ROUNDING:
            return stated
    return None


def _expression(size: int | torch.SymInt) -> sympy.Expr:
    """A size as an expression in the recorder's symbols; nothing is parsed."""
    import sympy

    node = getattr(size, "node", None)
    return sympy.Integer(int(size)) if node is None else cast("sympy.Expr", node.expr)
