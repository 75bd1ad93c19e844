"""Export as if alone: what is the process's own stays as it is.

Its job: keep generators, gradient mode, warnings and log lines of the caller apart from a
recording, and tell whether a network has drawn from generators that a graph cannot hold.
"""

from __future__ import annotations

import gc
import logging
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest.mock import patch

import numpy as np
import torch
import torch.fx.config
from torch import fx, nn
from torch.distributions import Distribution

_SEED = 6_180_339_887  # one that no forward pass is likely to set itself
_COLLECTED_AFTER = 50_000  # new objects
_Own: TypeAlias = random.Random | np.random.Generator | np.random.RandomState
_OWN = (random.Random, np.random.Generator, np.random.RandomState)
_NOTES_LEFT_OUT = "do_not_emit_stack_traces"


@contextmanager
def isolated() -> Iterator[None]:
    """Export as if alone: generators, gradient mode and warnings of the caller stay as they are.

    The recorder's warnings and log lines speak of its inner life; what matters is raised. The fused
    evaluation path of `nn.TransformerEncoder` is off, since no graph can hold it, and so are the
    checks of `torch.distributions`, which decide by values.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    validate = Distribution._validate_args
    python_state = random.getstate()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        warnings.simplefilter("ignore")
        for handler in _torch_handlers():
            handler.addFilter(_drop)
            stack.callback(handler.removeFilter, _drop)
        torch.manual_seed(_SEED)
        torch.backends.mha.set_fastpath_enabled(False)
        Distribution.set_default_validate_args(False)
        stack.enter_context(_unhindered())
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
            Distribution.set_default_validate_args(validate)
            random.setstate(python_state)


@contextmanager
def _unhindered() -> Iterator[None]:
    """Record without what takes torch long and changes no graph.

    So the place in the code of every node, and a collector of garbage that looks again and again at
    the objects of a graph, nearly all of which stay.
    """
    thresholds = gc.get_threshold()
    noted = getattr(fx.config, _NOTES_LEFT_OUT, None)  # not there: no faster, and works
    if thresholds[0]:
        gc.set_threshold(max(thresholds[0], _COLLECTED_AFTER), *thresholds[1:])
    if noted is not None:
        setattr(fx.config, _NOTES_LEFT_OUT, True)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if noted is not None:
            setattr(fx.config, _NOTES_LEFT_OUT, noted)


def own_generators(network: nn.Module) -> list[_Own]:
    """Generators of Python and NumPy that modules hold, or the files that define them."""
    kinds = {kind.__module__ for part in network.modules() for kind in type(part).__mro__}
    files = [vars(sys.modules[name]) for name in sorted(kinds) if name in sys.modules]
    held = [value for space in (*map(vars, network.modules()), *files) for value in space.values()]
    found = [v for v in held if isinstance(v, _OWN)]
    return list({id(value): value for value in found}.values())


def python_randomness(
    generators: Sequence[_Own] = (),
) -> tuple[object, ...]:
    """The state of the generators that a graph cannot hold."""
    held = [
        g.getstate() if isinstance(g, random.Random) else _state_of(g)
        for g in generators
        if not isinstance(g, random.SystemRandom)  # which has no state to look at
    ]
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - it is read, not drawn from
    assert isinstance(state, dict)
    return random.getstate(), state["state"]["key"].tobytes(), state["state"]["pos"], *held


@contextmanager
def never_inferring() -> Iterator[None]:
    """While active, `torch.inference_mode` changes nothing: its tensors cannot be recorded."""
    mode: Any = torch.inference_mode
    with (
        patch.object(mode, "__enter__", lambda self: None),
        patch.object(mode, "__exit__", lambda self, *raised: None),
    ):
        yield


def _state_of(generator: np.random.Generator | np.random.RandomState) -> object:
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    state = generator.get_state(legacy=False)
    return str(state), state["state"]["key"].tobytes()


def _torch_handlers() -> list[logging.Handler]:
    """What writes the log lines of torch itself, not those of whoever calls us."""
    names = [name for name in logging.root.manager.loggerDict if f"{name}.".startswith("torch.")]
    return [handler for name in names for handler in logging.getLogger(name).handlers]


def _drop(record: logging.LogRecord) -> bool:
    """No line of a log passes this filter."""
    return False
