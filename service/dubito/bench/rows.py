"""Rows to measure with: a person's own, or made-up ones.

Its job: hand out batches that differ from call to call. Figures of error are about the rows they
were taken on; made-up rows tell the latency as well as any, the error hardly.

Dimensions: N rows at hand, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine import Engine, Inputs

_MADE_UP = 256


@dataclass(frozen=True)
class StudyRows:
    """N rows of every input.

    Args:
        inputs: by name, rows first, on the CPU.
        is_made_up: whether they are noise and not a person's rows.
    """

    inputs: Mapping[str, Tensor]
    is_made_up: bool

    @classmethod
    def of(cls, engine: Engine, inputs: Inputs | None = None) -> StudyRows:
        """The rows given, checked; made-up ones where none are.

        Args:
            engine: whose network takes them.
            inputs: rows first.

        Raises:
            InputError: for rows that the network does not take.
        """
        if inputs is None:
            return cls(engine.made_up_rows(_MADE_UP), is_made_up=True)
        return cls(engine.read_inputs(inputs), is_made_up=False)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> dict[str, Tensor]:
        """The first rows, at most as many as there are."""
        return {name: rows[:count] for name, rows in self.inputs.items()}

    def batches(self, size: int, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Batches without end, each drawn anew from the rows, with replacement.

        Args:
            size: B.
            seed: of the choice.
        """
        generator = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(len(self), (size,), generator=generator)
            yield {name: rows[chosen] for name, rows in self.inputs.items()}
