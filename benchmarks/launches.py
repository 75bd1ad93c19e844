"""How many operators and kernels one answer takes on the path of a GPU, counted without one.

    TRITON_INTERPRET=1 python benchmarks/launches.py [--rows 1] [--classes 10]

On a GPU the time of a small call goes by how many kernels are launched. The passes of a perceptron
run here on a processor, and what they say is summed by the reference, and by the kernels for a GPU
in Triton's interpreter. Operators that launch a kernel are counted as torch dispatches them. It is
a count of operators, not a measurement: a library may launch two kernels for one of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubito.engine import Engine
from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.passing import passes
from dubito.engine.answering.tally import Tally
from dubito.engine.heads.logits import to_sum
from dubito.engine.kernels.precision import running
from dubito.engine.summing.cuda.classes import LaunchedClassSums
from dubito.engine.summing.cuda.launching import launch
from dubito.engine.summing.statistics import ClassificationSums, ReferenceSums, RunningSums
from dubito_nn import export

VIEWS = {
    *("view", "_unsafe_view", "as_strided", "unsqueeze", "squeeze", "expand", "t", "unbind"),
    *("transpose", "permute", "select", "slice", "split", "alias", "detach", "split_with_sizes"),
    *("empty", "new_empty", "empty_strided", "empty_like", "lift_fresh", "_reshape_alias"),
}
"""Operators that launch nothing."""


class Operators(TorchDispatchMode):
    """Counts those that launch a kernel, and Triton's kernels, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self._is_launching = False  # what the interpreter copies meanwhile is its own

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name not in VIEWS and not self._is_launching:
            self.counted[name] += 1
        return function(*args, **(kwargs or {}))

    def seen(self, frame: FrameType, event: str, _: object) -> None:
        """Notice calls and returns of `launch`."""
        if frame.f_code is launch.__code__ and event in ("call", "return"):
            self._is_launching = event == "call"
            if self._is_launching:
                self.counted[frame.f_locals["kernel"].fn.__name__] += 1


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count operators and launches by name."""
    with Operators() as operators:
        sys.setprofile(operators.seen)
        try:
            yield operators.counted
        finally:
            sys.setprofile(None)


def perceptron(classes: int, width: int = 1024) -> Engine:
    """The engine of a network of three layers and two dropouts."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(784, width), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, classes)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.dubito"
        example = torch.randn(4, 784)
        return Engine.load(export(network, example, path, task="classification", output="logits"))


def counts(engine: Engine, rows: Tensor) -> dict[str, Counter[str]]:
    """Operators of the passes, and of their sums up to the one transfer, in two forms."""
    head = engine.head
    call = EngineCall(engine.read_inputs(rows), engine.defaults)
    find = partial(to_sum, output=engine.manifest.output, scaling=1.0)
    forms: dict[str, RunningSums] = {
        "reference": ReferenceSums(partial(head.parts, scaling=1.0), ClassificationSums(0.2)),
        "kernels": LaunchedClassSums(find, 0.2),
    }
    found = {}
    with running(engine.device):
        list(next(passes(engine, call)))  # masks are drawn
        with counting() as of_passes:
            parts = list(next(passes(engine, call)))
        raw = torch.cat(parts)
        found["passes"] = of_passes
        for name, sums in forms.items():
            tally = Tally(head, left=0.2, _sums=sums)
            with counting() as of_sums:
                tally.add(raw)
                tally.sheet()
            found[name] = of_sums
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description="operators and kernels of one answer")
    parser.add_argument("--rows", type=int, default=1, help="B")
    parser.add_argument("--classes", type=int, default=10, help="C")
    asked = parser.parse_args(given)
    engine = perceptron(asked.classes)
    for name, counted in counts(engine, torch.randn(asked.rows, 784)).items():
        parts = ", ".join(f"{what} {count}" for what, count in counted.most_common())
        print(f"{name}: {counted.total()} ({parts})")


if __name__ == "__main__":
    main()
