"""Refuse a forward pass that seeds torch's random numbers, or makes generators of its own.

Its job: a network that seeds draws the same numbers again, in every pass or twice in one, where a
graph would draw anew; and what another generator draws a graph cannot hold. Seeds that are undone
before a module is left, as `torch.random.fork_rng` does it, are seen where they are called.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from dubito_nn.capturing.branching.python import held_as
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError

_SEEDING = [
    *((torch, name) for name in ("manual_seed", "seed", "set_rng_state")),
    *((torch.random, name) for name in ("manual_seed", "seed", "set_rng_state", "fork_rng")),
]
_MAKING = [(np.random, "default_rng"), (random.SystemRandom, "random")]
_LIBRARIES = frozenset({"torch", "numpy", "scipy", *sys.stdlib_module_names} - {"__main__"})
"""They may seed and make generators: what they change they put back."""


@contextmanager
def never_seeded(network: nn.Module, running: Sequence[str]) -> Iterator[None]:
    """While active, the network neither seeds torch nor makes a generator.

    Args:
        network: whose own files may hold such functions under other names.
        running: paths of the modules whose forward pass is under way, kept by the caller.

    Raises:
        ExportError: naming the module and the function.
    """
    refusals: dict[tuple[Any, str], Callable[[str, str], NoReturn]] = {
        **dict.fromkeys(_SEEDING, refuse_seeding),
        **dict.fromkeys(_MAKING, _refuse_making),
    }
    with ExitStack() as stack:
        for (space, name), refuse in refusals.items():
            original = getattr(space, name)
            refused = _refused(f"{space.__name__}.{name}()", original, running, refuse)
            for held, key in held_as(original, network):
                stack.callback(held.__setitem__, key, original)
                held[key] = refused
            stack.enter_context(patch.object(space, name, refused))
        yield


def refuse_seeding(where: str, function: str | None = None) -> NoReturn:
    """Refuse a network that seeds.

    Args:
        where: path of the module.
        function: that it calls, where that is known.

    Raises:
        ExportError: always.
    """
    how = f", with {function}" if function else ""
    raise ExportError(
        f"module `{where}` seeds torch's random numbers in the forward pass{how}, so that its draws"
        " repeat, but a graph cannot hold that: seed outside forward(), and keep what is to stay"
        " the same in a buffer that is made in __init__"
    )


def _refuse_making(where: str, function: str) -> NoReturn:
    raise ExportError(
        f"module `{where}` draws in the forward pass with {function}, whose numbers a graph cannot"
        " hold: draw with torch.rand"
    )


def _refused(
    function: str, original: Any, running: Sequence[str], refuse: Callable[[str, str], NoReturn]
) -> Callable[..., Any]:
    """What stands for a function meanwhile, in this thread."""
    own = threading.get_ident()

    def stand_in(*args: object, **kwargs: object) -> Any:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.partition(".")[0] in _LIBRARIES or threading.get_ident() != own:
            return original(*args, **kwargs)
        refuse(running[-1] if running else WHOLE, function)

    return stand_in
