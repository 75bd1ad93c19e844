"""Rows on their way through the passes, until T or until their standard error is small enough.

Its job: run chunks of passes, hand them to the sums, and with a `tolerance` look at every row now
and then: a row whose standard error is at most the tolerance, over all its outputs, is answered and
leaves the batch.

    looks at T = 32, 48, 64, 96, 128, 192, 256, ...      all multiples of 16

Not before 32, where a stratified draw has two blocks to compare, and not where the row's samples
are still all equal: a spread of 0 says nothing yet. A row's figures are made of its own samples, so
who else is in the batch does not decide when it stops.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from dubito.engine.heads import distributions, mean_and_variance
from dubito.engine.passes import Tile
from dubito.engine.positions import empty_sums
from dubito.engine.prediction import Column
from dubito.engine.scaling import Scaling
from dubito.engine.statistics import ClassificationSums, RegressionSums
from dubito_nn import Manifest

Columns = dict[str, Tensor]
SAMPLES = ("samples", "noise_samples")  # columns whose first axis is T
_FIRST_LOOK = 32
_EQUAL = 1e-14  # samples nearer to each other than this, relative to their mean, are equal


@dataclass
class Tally:
    """What the passes of some rows say.

    Args:
        manifest: what the outputs are.
        temperature: on each pass's logits; classification only.
        left: what a stratified draw leaves; None for `iid`.
        keeps_samples: keep every pass as well.
    """

    manifest: Manifest
    temperature: Scaling = 1.0
    left: float | None = None
    keeps_samples: bool = False
    sums: ClassificationSums | RegressionSums = field(init=False)
    _kept: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sums = empty_sums(self.manifest, self.left)

    def add(self, raw: Tensor) -> None:
        """Take in the next passes, in order of t."""
        if isinstance(self.sums, ClassificationSums):
            for probs, sizes in distributions(raw, self.manifest, self.temperature):
                self.sums.add(probs, sizes)
                self._keep(probs)
        else:
            mean, noise = mean_and_variance(raw, self.manifest)
            self.sums.add(mean, noise)
            self._keep(mean, noise)

    def _keep(self, *samples: Tensor) -> None:
        if self.keeps_samples:
            for name, chunk in zip(SAMPLES, samples, strict=False):
                self._kept.setdefault(name, []).append(chunk)

    def columns(self) -> Columns:
        """Every column, by its name in a prediction."""
        found = self.sums.measures() | {key: torch.cat(kept) for key, kept in self._kept.items()}
        rows, number = len(found["mean"]), self.sums.spread.moments.count
        return found | {"num_samples_used": torch.full((rows,), number)}

    def is_within(self, tolerance: float) -> Tensor:
        """Whether a row varies, and the standard error of none of its outputs is above; (B,)."""
        moments = self.sums.spread.moments
        least_BD = moments.count * (_EQUAL * moments.mean).square()
        varies_B = (moments.squares > least_BD).flatten(1).any(-1)
        return varies_B & (self.sums.spread.standard_error() <= tolerance).flatten(1).all(-1)

    def take(self, rows: Tensor) -> Tally:
        """The same of some rows; samples are not kept."""
        part = Tally(self.manifest, self.temperature, self.left)
        part.sums = self.sums.take(rows)
        return part


def joined(parts: Sequence[Columns]) -> dict[str, Column]:
    """The columns of all rows on the host."""
    if len(parts) == 1:
        return {key: column.cpu().numpy() for key, column in parts[0].items()}
    return {
        key: torch.cat([part[key] for part in parts], dim=1 if key in SAMPLES else 0).cpu().numpy()
        for key in parts[0]
    }


def looks(num_samples: int) -> Iterator[int]:
    """How many samples there are at every look, the last time all of them."""
    for doubling in count():
        for number in (_FIRST_LOOK << doubling, (_FIRST_LOOK << doubling) * 3 // 2):
            if number >= num_samples:
                yield num_samples
                return
            yield number


def until(tile: Tile, tally: Tally, num_samples: int, tolerance: float) -> Columns:
    """The columns of rows that each take as many samples as they need.

    Args:
        tile: the rows.
        tally: empty.
        num_samples: T, the most.
        tolerance: bounds the standard error of every output.
    """
    answered: list[tuple[Tensor, Columns]] = []
    going = [(tile, tally, torch.arange(len(tile.rows)))]
    start = 0
    for stop in looks(num_samples):
        still = []
        for part, sums, places in going:
            for raw in part.passes(range(start, stop)):
                sums.add(raw)
            done = sums.is_within(tolerance) | (stop == num_samples)
            if done.any():
                answered.append((places[done.cpu()], sums.take(done.nonzero()[:, 0]).columns()))
            for kept in _runs((~done).nonzero()[:, 0], tile.execution.masks):
                rest = part if len(kept) == len(done) else part.take(kept)
                still.append((rest, sums.take(kept), places[kept.cpu()]))
        going, start = still, stop
    order = torch.cat([places for places, _ in answered]).argsort()
    return {
        name: torch.cat([columns[name].cpu() for _, columns in answered])[order]
        for name in answered[0][1]
    }


def _runs(places: Tensor, masks: str) -> list[Tensor]:
    """All places, or where masks hang on the place in the request, each run of neighbours."""
    if masks == "shared" or not len(places):
        return [places] if len(places) else []
    cuts = (places.diff() > 1).nonzero()[:, 0] + 1
    return [run for run in torch.tensor_split(places, cuts.cpu()) if len(run)]
