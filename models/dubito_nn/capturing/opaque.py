"""Keep recurrent layers and products of groups of rows whole while a network is recorded.

Its job: let the recorder see one call of `lstm`, `gru`, `rnn_tanh` or `rnn_relu` as one step whose
shapes follow from a formula. Left alone it runs torch's decomposition to find those shapes, which
unrolls time and so fixes the number of steps that the example happens to have.

    calls of torch's recurrent functions  →  `dubito_nn.*` in the recording  →  `aten.*.input`
    calls of grouped_mm                   →  `dubito_nn.grouped_mm`          →  see `routed`

Dimensions: B rows, L steps, H numbers of the state (or of its projection), D directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dubito_nn.errors import ExportError

_NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_NUM_ARGUMENTS = 9  # those of the overload `input`; packed sequences have another second one
_REST = (
    "Tensor[] weights, bool has_biases, int num_layers, float dropout, bool train,"
    " bool bidirectional, bool batch_first"
)
_library: list[torch.library.Library] = []  # held, since operators end with their library


@cache
def recurrent_operators() -> dict[object, str]:
    """The stand-ins, by operator: the name of the function that each stands for.

    They are known to torch from the first call on, and have shapes only: nothing runs them.
    """
    library = torch.library.Library("dubito_nn", "FRAGMENT")  # type: ignore[no-untyped-call]
    _library.append(library)
    stand_ins: dict[object, str] = {}
    for name in _NAMES:
        state, results = ("Tensor[]", "(Tensor, Tensor, Tensor)"), "(Tensor, Tensor)"
        hidden, returned = state if name == "lstm" else ("Tensor", results)
        library.define(f"{name}(Tensor input, {hidden} hx, {_REST}) -> {returned}")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"dubito_nn::{name}", _shapes, lib=library)
        stand_ins[getattr(torch.ops.dubito_nn, name).default] = name
    return stand_ins


_REFUSED: dict[object, str] = {
    "_pack_padded_sequence": (
        "packs sequences (pack_padded_sequence), which sorts and mixes rows by their lengths: run"
        " the layer on the padded steps and take each row's last one, such as"
        " out[torch.arange(len(out)), lengths - 1]"
    ),
    torch.autograd.grad: (
        "takes a derivative in forward() (torch.autograd.grad), which a graph cannot hold: write"
        " the derivative out with torch operators"
    ),
    "backward": (
        "takes a derivative in forward() (backward), which a graph cannot hold: write the"
        " derivative out with torch operators"
    ),
}
_INTEGERS = (
    "draws integers in place (random_), which a graph cannot hold: draw with torch.rand, such as"
    " torch.rand_like(x) < 0.5"
)
_OWN_GENERATOR = (
    "draws with a torch.Generator of its own, whose numbers a graph cannot hold: leave out"
    " `generator` in forward()"
)
_FREE_PERMUTATION = (
    "draws a permutation (torch.randperm) of as many places as an axis has whose size is free. Of"
    " rows it mixes them, so that an answer depends on batch-mates: shuffle and mix in the training"
    " loop. Of another axis: leave that axis out of free_dims"
)


class WholeRecurrence(TorchFunctionMode):
    """While active, torch's recurrent functions record their stand-ins.

    Args:
        running: paths of the modules whose forward pass is under way, kept by the caller.
    """

    def __init__(self, running: Sequence[str] = ()) -> None:
        super().__init__()
        self._running = running

    def __torch_function__(
        self,
        func: object,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call the stand-in for a recurrent function, and everything else as it is.

        Raises:
            ExportError: for a function that no graph can hold, naming the module.
        """
        name = getattr(func, "__name__", "")
        why = _REFUSED.get(func, _REFUSED.get(name))
        if why is None and name == "random_":
            why = _INTEGERS
        if why is None and (kwargs or {}).get("generator") is not None:
            why = _OWN_GENERATOR
        if why is None and name == "randperm" and args and isinstance(args[0], torch.SymInt):
            why = _FREE_PERMUTATION
        if why is not None:
            where = f"module `{self._running[-1]}`" if self._running else "the network"
            raise ExportError(f"{where} {why}")
        is_whole = name in _NAMES and len(args) == _NUM_ARGUMENTS and not kwargs
        if is_whole and isinstance(args[3], bool):
            recurrent_operators()
            return getattr(torch.ops.dubito_nn, name).default(*args)
        assert callable(func)
        return func(*args, **(kwargs or {}))


def _shapes(x: Tensor, hidden: Tensor | Sequence[Tensor], *settings: object) -> tuple[Tensor, ...]:
    """Output (B, L, D H) or (L, B, D H), then states shaped as the initial ones.

    Args:
        x: the inputs of all steps.
        hidden: the initial states.
        settings: the arguments of `_REST`, of which the last but one counts the directions.
    """
    *_, is_bidirectional, _ = settings
    states = [hidden] if isinstance(hidden, Tensor) else list(hidden)
    width = states[0].shape[-1] * (2 if is_bidirectional else 1)
    output = x.new_empty((*x.shape[:-1], width))
    return (output, *(torch.empty_like(state) for state in states))


@cache
def _stand_in() -> Any:
    """An operator with the shapes of torch's, whose own insist on a type while recording."""
    library = torch.library.Library("dubito_nn", "FRAGMENT")  # type: ignore[no-untyped-call]
    _library.append(library)
    library.define("grouped_mm(Tensor input, Tensor weight, Tensor ends) -> Tensor")  # type: ignore[no-untyped-call]
    torch.library.register_fake("dubito_nn::grouped_mm", _grouped_shape, lib=library)
    return torch.ops.dubito_nn.grouped_mm.default


def _grouped_shape(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[-1]))


def grouped_mm(x: Tensor, weight: Tensor, **given: Any) -> Tensor | None:
    """The stand-in for products of groups of rows, recorded in the place of torch's.

    Args:
        x: (S, inputs), groups one behind the other.
        weight: (E, inputs, D).
        given: `offs`, where each group ends, (E,), and what is left out here.
    """
    ends = given.pop("offs", None)
    is_plain = x.dim() == 2 and weight.dim() == 3 and ends is not None
    if not is_plain or any(value is not None for value in given.values()):
        return None
    result: Tensor = _stand_in()(x, weight, ends)
    return result
