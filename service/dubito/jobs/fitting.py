"""A fit to a stored pool, or to rows that came with the order: sums over all rows, then the fit.

The sums are what a part holds, so that a job that was cut short goes on where it stood.

Dimensions: N rows, B of a block, F features, C outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from dubito.arrays import Arrays, write_npz
from dubito.engine import Engine, Inputs
from dubito.engine.laplace import (
    ClassFactor,
    FitResult,
    Labelled,
    RowsAtMap,
    fit_classes,
    fit_low_rank,
    fit_numbers,
)
from dubito.engine.laplace.class_factor import places_of_factor
from dubito.engine.laplace.fitting_low_rank import USUAL_RANK, most_rank
from dubito.engine.laplace.last_map import MAX_OUTPUTS
from dubito.errors import InputError
from dubito.jobs.lane import Lane
from dubito.registry.fits import NewFit
from dubito.serving.worker import Check


@dataclass(frozen=True)
class KeptRows:
    """Rows that came with an order, as a pool has them.

    Args:
        arrays: by input name.
    """

    arrays: Arrays

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(next(iter(self.arrays.values())))

    def rows(self, start: int, stop: int) -> Inputs:
        """Some of the rows."""
        return {name: torch.from_numpy(rows[start:stop]) for name, rows in self.arrays.items()}

    def take(self, indices: NDArray[np.int64]) -> Inputs:
        """Some of the rows, by their places."""
        return {name: torch.from_numpy(rows[indices]) for name, rows in self.arrays.items()}


@dataclass(frozen=True, eq=False)
class MadeFit:
    """What a job made.

    Args:
        arrays: that are stored of it, by name.
        report: figures, as plain values.
        warnings: what a reader should know.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    report: Mapping[str, object]
    warnings: tuple[str, ...] = ()

    def new(self, method: str, about: Mapping[str, object], job: str, actor: str) -> NewFit:
        """What is kept of it.

        Args:
            method: that it is for.
            about: how it was asked for.
            job: its id.
            actor: who asked.
        """
        content = write_npz(self.arrays)
        document = {**about, "report": dict(self.report), "warnings": list(self.warnings)}
        digest = hashlib.sha256(content).hexdigest()
        return NewFit(method, digest, content, document, job, actor)


class Fitting:
    """A fit as a kind of job: it keeps the sums so far, and what labelled rows are at the end.

    Args:
        engine: of the version.
        order: the job's, settled.
        truths: of all rows, as the network gives them, NaN where none is known; None: unlabelled.
        max_values: most numbers that labelled rows may be at the last map.
        num_rows: that will be read.
    """

    def __init__(
        self,
        engine: Engine,
        order: Mapping[str, object],
        truths: Tensor | None,
        max_values: int,
        num_rows: int,
    ) -> None:
        self._engine = engine
        self._order = order
        self._truths = truths
        self._max_values = max_values
        self._looked: RowsAtMap | None = None
        self._rank = _rank(engine, order["rank"])
        self._of_factor = places_of_factor(num_rows, engine.manifest.num_outputs)

    def restore(self, state: Arrays) -> None:
        """Go on from the last part."""
        self._looked = RowsAtMap.from_arrays(state)

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> RowsAtMap:
        """On the device's thread: what a block says."""
        engine = self._engine
        pieces = engine.pieces("shared", block).rows(block)
        return engine.fits.look(
            pieces,
            keeps_rows=self._truths is not None,
            check=check,
            keeps_pairs=self._rank is None,
        )

    def keep(self, start: int, stop: int, computed: RowsAtMap) -> None:
        """Take in what was computed of rows `start` to `stop`, of rows those with a truth."""
        if self._truths is not None:
            computed = computed.only(_is_known(self._truths[start:stop]).numpy())
        if self._rank is not None:
            computed = computed.with_factor_of(np.isin(np.arange(start, stop), self._of_factor))
        self._looked = computed if self._looked is None else self._looked.with_more(computed)
        values = self._looked.features.size + self._looked.scores.size
        if values > self._max_values:
            raise InputError(
                f"labelled rows of a fit expect at most {self._max_values} numbers at the last "
                f"linear map, got {values} after {stop} rows: give fewer, or leave the labels out"
            )

    def part(self) -> bytes:
        """The sums so far."""
        assert self._looked is not None
        return write_npz(self._looked.arrays())

    def finish(self, lane: Lane) -> MadeFit:
        """The fit of all rows.

        Raises:
            InputError: the rows are too few, or say nothing.
        """
        looked, fits = self._looked, self._engine.fits
        assert looked is not None
        given = self._order["num_training_rows"]
        count = int(looked.seen.count) if given is None else int(str(given))
        has_bias = fits.last_map.has_bias
        labelled = None
        if self._truths is not None:
            features, scores = map(torch.from_numpy, (looked.features, looked.scores))
            truths = self._truths[_is_known(self._truths)]
            labelled = Labelled(features, scores, truths)
        if not fits.last_map.is_of_classes:
            assert labelled is not None
            result = fit_numbers(looked.seen, labelled, num_training_rows=count, has_bias=has_bias)
        else:
            result = self._of_classes(looked, labelled, count, lane)
        if given is None:
            result = result.with_warning(
                f"`num_training_rows` was left out: the {count} rows given count as all that the "
                "network was trained on, and the spread is too wide where these were more"
            )
        return MadeFit(result.posterior.arrays(), result.report, result.warnings)

    def _of_classes(
        self, looked: RowsAtMap, labelled: Labelled | None, count: int, lane: Lane
    ) -> FitResult:
        """That of classes, of all eigenpairs or of a low rank."""
        last, prior = self._engine.fits.last_map, self._order["prior_precision"]
        rows = self._engine.made_up_rows()
        parameters = lane.run(lambda check: last.parameters(rows))
        options: Mapping[str, Any] = {
            "num_training_rows": count,
            "has_bias": last.has_bias,
            "squared_norm": float(sum(part.double().square().sum() for part in parameters)),
            "prior_precision": None if prior is None else float(str(prior)),
            "held_out": labelled,
        }
        if self._rank is None:
            return fit_classes(looked.seen, **options)
        weight, *bias = (part.cpu() for part in parameters)
        features = torch.from_numpy(looked.of_factor)
        factor = ClassFactor.of(
            features,
            lambda some: linear(some, weight, *bias),
            len(weight),
            lambda: lane.run(lambda check: check()),
        )
        return fit_low_rank(looked.seen, factor, rank=self._rank, **options)

    @property
    def warnings(self) -> tuple[str, ...]:
        """None before the end."""
        return ()


def _rank(engine: Engine, asked: object) -> int | None:
    """How many eigenpairs are kept; None: all."""
    num_classes = engine.manifest.num_outputs
    if asked is not None:
        return int(str(asked))
    if num_classes <= MAX_OUTPUTS:
        return None
    return min(USUAL_RANK, most_rank(num_classes))


def _is_known(truths: Tensor) -> Tensor:
    """Which rows have a truth, (B,)."""
    return truths.isfinite().reshape(len(truths), -1).all(1)


def in_network_units(truths: np.ndarray, engine: Engine) -> Tensor:
    """True values as the network gives them, before they are taken back to target units."""
    values = torch.from_numpy(truths)
    if engine.head.has_probabilities:
        return values
    values = values.double().reshape(len(values), -1)
    scale = engine.manifest.target_scale
    if scale is None:
        return values
    shift, factor = (torch.tensor(part, dtype=torch.float64) for part in scale)
    return (values - shift) / factor
