"""A network by a factory in the user's own code, and its weights.

Its job: import what `module:factory` names, call it, and load a state dictionary into what it
returns. The factory's code runs; the weights' file cannot run any (`weights_only`).
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dubito.errors import InputError

_NESTED = ("state_dict", "model_state_dict", "model")


def build(reference: str, options: Mapping[str, object]) -> nn.Module:
    """The network that a factory returns.

    Args:
        reference: `package.module:name` or `path/to/file.py:name`; a function or a class.
        options: arguments of the factory, by name.

    Raises:
        InputError: there is no such factory, it fails, or what it returns is no network.
    """
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise InputError(f"{reference}: expected module:factory, such as networks:build")
    with _working_folder_first():
        try:
            module = _from_file(Path(source)) if source.endswith(".py") else _imported(source)
            factory = getattr(module, name, None)
            if factory is None or not (callable(factory) or isinstance(factory, nn.Module)):
                raise InputError(
                    f"{reference}: expected a function or a class `{name}` in {source}, got"
                    f" {type(factory).__name__}: name what returns the network"
                )
            network = factory if isinstance(factory, nn.Module) else factory(**options)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{reference}: its own code fails, {type(error).__name__}: {error}: mend it, or"
                " give its arguments in --options"
            ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{reference}: expected a torch.nn.Module, got {type(network).__name__}: name the"
            " function that returns the network"
        )
    return network


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dictionary from a `.safetensors` file, or one of `torch.save`; no code of it runs.

    Raises:
        InputError: it is damaged, or holds other objects than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights, got none: check the path")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(
                f"{path}: expected safetensors, got a damaged file: {error}"
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0][:200]
        raise InputError(
            f"{path}: expected a state dictionary of tensors, got something else ({reason}): write"
            " it with torch.save(network.state_dict(), path) or safetensors.torch.save_file"
        ) from error
    return _tensors(state, path)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put the weights into the network, in place; every name must fit.

    Raises:
        InputError: naming the first names that are missing, left over, or of another shape.
    """
    try:
        mismatch = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise InputError(
            f"{where}: weights of another shape than the network's: {' '.join(lines)[:300]}: give"
            " the factory the arguments that the network was trained with, in --options"
        ) from error
    for kind, names in (
        ("lacks", mismatch.missing_keys),
        ("holds, beyond the network's own,", mismatch.unexpected_keys),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"{where} {kind} {', '.join(f'`{name}`' for name in names[:3])}{more}: give the"
                " weights of this very network, as its state_dict() names them"
            )


def _tensors(state: object, path: Path) -> dict[str, Tensor]:
    if isinstance(state, Mapping):
        for key in _NESTED:
            inner = state.get(key)
            if isinstance(inner, Mapping):
                state = inner
                break
        named = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
        if named and len(named) == len(state):
            return named
    raise InputError(
        f"{path}: expected tensors by name, got {type(state).__name__}: save network.state_dict()"
    )


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: no such module ({error}): run the command where `import {name}` works, or"
            " name the file, such as path/to/networks.py:build"
        ) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: expected a Python file, got none: check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pickled and traced classes look for their module there
    spec.loader.exec_module(module)
    return module


@contextmanager
def _working_folder_first() -> Iterator[None]:
    """Imports look into the working folder first, as `python -m` does."""
    before = list(sys.path)
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path[:] = before
