"""What a drawn number decides while a network is recorded.

Its job: answer `bool(c)` where `c` is one truth value made of draws and numbers alone, such as
`torch.rand([]) < p`, which a recorder refuses since it would depend on a value. Each such question
is a decision; the answers are chosen by the caller, and the conditions are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubito_nn.errors import ExportError

MOST = 128  # a loop that goes on until a draw ends it would have no end
_DRAWING = frozenset(
    ["rand", "rand_like", "uniform_", "bernoulli", "bernoulli_", "randn", "randn_like", "normal_"]
)
_COMPARING = {"lt": -1, "le": -1, "less": -1, "gt": 1, "ge": 1, "greater": 1}
_SIDES = {f"__{name}__": side for name, side in _COMPARING.items()} | _COMPARING
_IN_UNIT = frozenset(("rand", "rand_like"))


class Deciding(TorchFunctionMode):
    """While active, single drawn numbers may decide which way the network goes.

    Args:
        turned: numbers of the decisions that fall the other way than their comparison suggests:
            `u < p` suggests no, and `u > p` yes, as where u is below a small p a layer is skipped.
        running: paths of the modules whose forward pass is under way, kept by the caller.
    """

    def __init__(self, turned: Sequence[int] = (), running: Sequence[str] = ()) -> None:
        super().__init__()
        self.conditions: list[Tensor] = []
        self.answers: list[bool] = []
        self._turned, self._running = frozenset(turned), running
        self._drawn: dict[int, Tensor] = {}  # held, since numbers of objects are used again
        self._units: set[int] = set()
        self._suggested: dict[int, bool] = {}
        self._certain: dict[int, bool] = {}
        self._given: dict[int, bool] = {}

    def __torch_function__(
        self,
        func: object,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Answer what a drawn number is asked for; call everything else and see what it makes."""
        name = getattr(func, "__name__", "")
        if len(args) == 1 and id(args[0]) in self._drawn:
            if name == "__bool__":
                return self._answer(args[0])  # type: ignore[arg-type]
            if name == "item":
                return args[0]
        assert callable(func)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and _is_one(result):
            self._learn(name, args, kwargs or {}, result)
        return result

    def _learn(
        self, name: str, args: Sequence[object], kwargs: Mapping[str, object], result: Tensor
    ) -> None:
        """Take note of a number that is drawn, or made of drawn ones alone."""
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        is_made = bool(tensors) and all(id(tensor) in self._drawn for tensor in tensors)
        if name not in _DRAWING and not is_made:
            return
        self._drawn[id(result)] = result
        if name in _IN_UNIT:
            self._units.add(id(result))
        side = _SIDES.get(name)
        if side is None or len(args) < 2 or not isinstance(args[1], (int, float)):
            return
        self._suggested[id(result)] = side > 0
        if id(args[0]) in self._units and not 0 < args[1] < 1:
            self._certain[id(result)] = (args[1] <= 0) == (side > 0)

    def _answer(self, condition: Tensor) -> bool:
        """Which way a condition falls; the same whenever it is asked.

        Raises:
            ExportError: where there is no end to the decisions.
        """
        key = id(condition)
        if key in self._certain:
            return self._certain[key]
        if key not in self._given:
            if len(self.conditions) == MOST:
                raise ExportError(
                    f"{_where(self._running)} decides by drawn numbers more than {MOST} times, such"
                    " as in a loop that a draw ends: draw all of them at once, and use torch.where"
                )
            number = len(self.conditions)
            suggested = self._suggested.get(key, False)
            self._given[key] = suggested != (number in self._turned)
            is_truth = condition.dtype == torch.bool  # a copy marks where the ways part
            self.conditions.append(condition.clone() if is_truth else condition != 0)
            self.answers.append(self._given[key])
        return self._given[key]


def _where(running: Sequence[str]) -> str:
    return f"module `{running[-1]}`" if running else "the network"


def _is_one(result: Tensor) -> bool:
    return all(isinstance(size, int) and size == 1 for size in result.shape)
