"""Copies of rows that are no usual rows, so that a head learns, and is judged, beyond these.

To learn from, one for each row, of one of two kinds:

    mixed      λ x + (1 - λ) x' with another row x', λ uniform in [.2, .8]
    noisy      x + σ s ε, ε standard normal, σ uniform in [0, .5]

To be judged on, of kinds that no head has learned from:

    noise      x + s ε
    shuffled   half of the numbers from another row each
    scaled     m + 3 (x - m)

with s the standard deviation and m the mean of each number over some rows. What is drawn hangs on
the seed and the row's place alone. Whole numbers (tokens, categories) are mixed and shuffled by
taking a share of them from another row, and have no noise and no scale.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Rows = Mapping[str, Tensor]
Kind = Callable[[str, Tensor, np.random.Generator], Tensor]

NOISE, SHUFFLED, SCALED = "noise", "shuffled", "scaled"
BANK_ROWS = 256
BANK_VALUES = 2**23
_SIGMA, _SCALE, _SHARE, _LEAST = 0.5, 3.0, 0.5, 0.2
_KINDS = 8


@dataclass(frozen=True, eq=False)
class Made:
    """What copies are made with.

    Args:
        bank: some usual rows, by input name.
        seed: of what is drawn.
    """

    bank: Rows
    seed: int

    def to_learn_from(self, rows: Rows, places: Sequence[int]) -> dict[str, Tensor]:
        """A copy of each row, mixed with another one or noisy.

        Args:
            rows: by input name.
            places: of the rows among all, by which they are drawn.
        """
        kinds = (self._mixed, self._noisy)
        return self._copies(rows, places, [kinds[place // 2 % 2] for place in places], 0)

    def to_be_judged_on(self, rows: Rows, places: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        """Copies of all rows, of every kind that there can be; arguments as above."""
        return {
            name: self._copies(rows, places, [kind] * len(places), 1 + number)
            for number, (name, kind) in enumerate(self._kinds.items())
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kinds to be judged on."""
        return tuple(self._kinds)

    @property
    def _kinds(self) -> dict[str, Kind]:
        if not any(tensor.is_floating_point() for tensor in self.bank.values()):
            return {SHUFFLED: self._shuffled}
        return {NOISE: self._noise, SHUFFLED: self._shuffled, SCALED: self._scaled}

    def _copies(
        self, rows: Rows, places: Sequence[int], kinds: Sequence[Kind], number: int
    ) -> dict[str, Tensor]:
        made: dict[str, list[Tensor]] = {name: [] for name in rows}
        for index, (place, kind) in enumerate(zip(places, kinds, strict=True)):
            words = np.random.Philox(key=[self.seed, _KINDS * place + number])
            draws = np.random.Generator(words)
            for name, tensor in rows.items():
                made[name].append(kind(name, tensor[index], draws))
        return {name: torch.stack(copies) for name, copies in made.items()}

    @cached_property
    def _moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of every number of a floating input."""
        floating = {k: rows.double() for k, rows in self.bank.items() if rows.is_floating_point()}
        return {name: (rows.mean(0), rows.std(0, correction=0)) for name, rows in floating.items()}

    def _mixed(self, name: str, row: Tensor, draws: np.random.Generator) -> Tensor:
        share = _LEAST + (1 - 2 * _LEAST) * float(draws.random())
        other = self._other(name, draws)
        if row.is_floating_point():
            return torch.lerp(row, other, share)
        return other.where(torch.from_numpy(np.asarray(draws.random(row.shape) < share)), row)

    def _noisy(self, name: str, row: Tensor, draws: np.random.Generator) -> Tensor:
        if not row.is_floating_point():
            return self._mixed(name, row, draws)
        sigma = _SIGMA * float(draws.random())
        return self._with_noise(name, row, sigma, draws)

    def _noise(self, name: str, row: Tensor, draws: np.random.Generator) -> Tensor:
        return self._with_noise(name, row, 1.0, draws) if row.is_floating_point() else row

    def _scaled(self, name: str, row: Tensor, draws: np.random.Generator) -> Tensor:
        if not row.is_floating_point():
            return row
        mean, _ = self._moments[name]
        return (mean + _SCALE * (row - mean)).to(row.dtype)

    def _shuffled(self, name: str, row: Tensor, draws: np.random.Generator) -> Tensor:
        bank = self.bank[name].flatten(1)
        source = torch.from_numpy(draws.integers(len(bank), size=bank.shape[1]))
        others = bank[source, torch.arange(bank.shape[1])].reshape(row.shape)
        return others.where(torch.from_numpy(np.asarray(draws.random(row.shape) < _SHARE)), row)

    def _other(self, name: str, draws: np.random.Generator) -> Tensor:
        bank = self.bank[name]
        return bank[int(draws.integers(len(bank)))]

    def _with_noise(
        self, name: str, row: Tensor, sigma: float, draws: np.random.Generator
    ) -> Tensor:
        _, deviation = self._moments[name]
        noise = torch.from_numpy(np.asarray(draws.standard_normal(row.shape)))
        return (row + sigma * deviation * noise).to(row.dtype)
