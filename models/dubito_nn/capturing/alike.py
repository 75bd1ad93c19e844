"""Whether a network computes the same in both modes, dropout aside.

Its job: run it eagerly in each and compare what it calls, in order: functions, numbers, weights,
and which earlier results they are given. What an example's numbers do not show, such as a bound
that evaluation mode alone sets and that none of them reaches, is seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dubito_nn.capturing.capture import Captured, Mode

_VF = torch._VF
_DROPPING = frozenset(
    {
        *(functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d),
        *(functional.alpha_dropout, functional.feature_alpha_dropout),
        *(torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout),
        *(functional.scaled_dot_product_attention, functional.multi_head_attention_forward),
        *(_VF.lstm, _VF.gru, _VF.rnn_tanh, _VF.rnn_relu),
    }
)
"""Functions that are told whether dropout drops, and how much."""


@dataclass(frozen=True)
class Copies:
    """Which calls of `contiguous` copy, in their order: kernels lay out their results as they like.

    Args:
        sampling: whether each does in sampling mode.
        evaluation: whether each does in evaluation mode.
    """

    sampling: tuple[bool, ...]
    evaluation: tuple[bool, ...]


def compared(captured: Captured) -> Copies | None:
    """What copies in each mode; None where they differ in more than what dropout is told."""
    with _no_fast_path():
        sampling, evaluation = _called(captured, "sampling"), _called(captured, "evaluation")
    if sampling.calls != evaluation.calls:
        return None
    return Copies(tuple(sampling.copies), tuple(evaluation.copies))


class _Calls(TorchFunctionMode):
    """Notes down every call, tensors by the number of the call that made them or as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[object] = []
        self.copies: list[bool] = []
        self._made: dict[int, tuple[int, int]] = {}
        self._kept: list[Tensor] = []  # so that no other object takes the place of one

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        is_dropping = func in _DROPPING
        self.calls.append((func, self._told((args, kwargs), is_dropping)))
        result = func(*args, **kwargs)
        is_same = any(result is one for one in args)
        is_copy = func is Tensor.contiguous
        if is_copy:
            self.copies.append(not is_same)
        if is_same and (is_dropping or is_copy) and isinstance(result, Tensor):
            result = result.detach()  # what has nothing to do returns what it was given
        for place, tensor in enumerate(tree_leaves(result)):
            if isinstance(tensor, Tensor) and id(tensor) not in self._made:
                self._made[id(tensor)] = len(self.calls), place
                self._kept.append(tensor)
        return result

    def _told(self, value: object, is_dropping: bool) -> object:
        """An argument as it compares: tensors by where they come from."""
        if isinstance(value, Tensor):
            return self._made.get(id(value), id(value))
        if isinstance(value, Mapping):
            return [(key, self._told(one, is_dropping)) for key, one in value.items()]
        if isinstance(value, (tuple, list)):
            return [self._told(one, is_dropping) for one in value]
        return None if is_dropping and isinstance(value, (bool, float)) else repr(value)


def _called(captured: Captured, mode: Mode) -> _Calls:
    seen = _Calls()
    with seen:
        captured.run(captured.example, mode)
    return seen


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Without the kernels that torch takes in evaluation mode alone for the same numbers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
