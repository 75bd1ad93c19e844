"""Stand-ins for torchvision, of which networks of other packages need next to nothing.

Where it is not installed, a module in which every name is there; where it was built for another
torch, its two compiled operators without code behind them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import nn

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


@contextmanager
def torchvision() -> Iterator[None]:
    """While active, torchvision can be imported; what is not installed is gone again behind it."""
    if find_spec("torchvision") is not None:
        _define_missing()
        yield
        return
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget()


def _define_missing() -> None:
    try:
        import_module("torchvision")
    except RuntimeError:
        _forget()
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")


def _forget() -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]


class _Names(type):
    """Of a class of which every name is an attribute, and stands for itself."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _Empty(ModuleType):
    """A module in which every name is there, and nothing behind it."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (nn.Module,), {})


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        own = name.partition(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if own else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
