"""What the ways of method `auto` are worth: each against many masked passes, on rows of a pool.

Flow: some rows evenly among all → blocks: the passes, T = 256, and each way → what they say of each
row, which is what a part holds → agreement and time of each way, as the report of a fit.

A way that the network does not take is left out, and the report says why.

Dimensions: N rows of the pool, B of a block.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dubito.arrays import Arrays, write_npz
from dubito.engine import Engine, Sampling
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import shown_sites
from dubito.errors import DubitoError
from dubito.jobs.fitting import MadeFit
from dubito.jobs.lane import Lane
from dubito.ranks import Floats, rank_correlation
from dubito.serving.ways import SHARE, TIMED_ROWS
from dubito.serving.worker import Check

NUM_SAMPLES = 256
MOST_COMPARED = 2000  # halved by `Picked`
MOST_TIMED = max(TIMED_ROWS)
_FEWER = 16
_TIMES = 5
_PASSES = "passes"


@dataclass(frozen=True, eq=False)
class Ways:
    """The ways that a network takes, by a name that tells them apart.

    Args:
        samplings: of those that it takes.
        refused: why it does not take the others.
    """

    samplings: Mapping[str, Sampling]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, engine: Engine, fits: Mapping[str, int]) -> Ways:
        """Try them.

        Args:
            engine: of the version.
            fits: the active ones by method, whose numbers are on the device.
        """
        own = replace(engine.defaults, method="mc", tolerance=None, sites="all", fit=None)
        few = {"num_samples": min(_FEWER, own.num_samples)}
        asked: list[dict[str, Any]] = [{}, few, {"sites": "last"}, {"sites": "last", **few}]
        asked.append({"method": "moments", "num_samples": 1})
        for method, one_pass in (("distilled", {"num_samples": 1}), ("laplace", {})):
            if method in fits:
                chosen = {"method": method, "fit": fits[method], "masks": "shared"}
                asked.append({**chosen, **one_pass})
        samplings, refused = {}, {}
        rows = engine.made_up_rows()
        for changes in asked:
            sampling = replace(own, **changes)
            name = _name(sampling)
            try:
                engine.predict(rows, sampling=sampling)
            except DubitoError as error:
                refused[name] = str(error)[:300]
            else:
                samplings[name] = sampling
        return cls(samplings, refused)


class Agreeing:
    """An agreement as a kind of job: it keeps what each way says of each row.

    Args:
        engine: of the version.
        sampling: of the passes that all is held against.
        ways: that are tried.
    """

    def __init__(self, engine: Engine, sampling: Sampling, ways: Ways) -> None:
        self._engine = engine
        self._sampling = replace(sampling, num_samples=NUM_SAMPLES)
        self._ways = ways
        self._before: list[Arrays] = []
        self._parts: list[Arrays] = []

    def restore(self, states: Sequence[Arrays]) -> None:
        """Go on from all parts so far."""
        self._before = list(states)

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> Arrays:
        """On the device's thread: what the passes and each way say of a block."""
        rows = dict(block)
        known = self._engine.predict(rows, sampling=self._sampling, check=check)
        found: Arrays = {f"{_PASSES}.epistemic": _epistemic(known)}
        for name, sampling in self._ways.samplings.items():
            said = self._engine.predict(rows, sampling=sampling, check=check)
            found[f"{name}.error"] = _error(said, known)
            found[f"{name}.epistemic"] = _epistemic(said)
        return found

    def keep(self, start: int, stop: int, computed: Arrays) -> None:
        """Take in what was computed of rows `start` to `stop`."""
        self._parts.append(computed)

    def part(self) -> bytes:
        """What was said since the last part."""
        joined = _joined(self._parts)
        self._before, self._parts = [*self._before, joined], []
        return write_npz(joined)

    def finish(self, lane: Lane, rows: Mapping[str, Tensor]) -> MadeFit:
        """Agreement and time of each way.

        Args:
            lane: to the device.
            rows: some, which the ways are timed with.
        """
        joined = _joined(self._before)
        known = {name: np.asarray(column, np.float64) for name, column in joined.items()}
        of_passes = known[f"{_PASSES}.epistemic"]
        milliseconds = lane.run(lambda check: self._timed(rows, check))
        ways = [
            {
                "method": sampling.method,
                "num_samples": sampling.num_samples,
                "sites": shown_sites(sampling.sites),
                "fit": sampling.fit,
                "error_of_mean": float(np.quantile(known[f"{name}.error"], SHARE, method="higher")),
                "spearman": rank_correlation(
                    known[f"{name}.epistemic"], known[f"{_PASSES}.epistemic"]
                )
                or 0.0,
                "milliseconds": milliseconds[name],
            }
            for name, sampling in self._ways.samplings.items()
        ]
        count = len(of_passes)
        report = {
            "num_compared": count,
            "num_samples": NUM_SAMPLES,
            "seed": self._sampling.seed,
            "ways": ways,
            "refused": dict(self._ways.refused),
        }
        return MadeFit({"num_rows": np.array(count)}, report)

    @property
    def warnings(self) -> tuple[str, ...]:
        """None before the end."""
        return ()

    def _timed(self, rows: Mapping[str, Tensor], check: Check) -> dict[str, dict[str, float]]:
        """Least time of each way at each number of rows, taken in turn."""
        found: dict[str, dict[str, float]] = {name: {} for name in self._ways.samplings}
        for count in TIMED_ROWS:
            some = {name: _repeated(tensor, count) for name, tensor in rows.items()}
            for _ in range(_TIMES):
                for name, sampling in self._ways.samplings.items():
                    check()
                    began_s = time.perf_counter()
                    self._engine.predict(some, sampling=sampling, check=check)
                    took_ms = 1000 * (time.perf_counter() - began_s)
                    before = found[name].get(str(count), float("inf"))
                    found[name][str(count)] = min(before, took_ms)
        return found


def _name(sampling: Sampling) -> str:
    return f"{sampling.method} {sampling.num_samples} {shown_sites(sampling.sites)}"


def _error(said: Prediction, known: Prediction) -> Floats:
    """Largest difference of the means of each row, (B,)."""
    apart = np.abs(np.asarray(said.mean, np.float64) - np.asarray(known.mean, np.float64))
    largest: Floats = apart.reshape(len(apart), -1).max(1)
    return largest


def _epistemic(said: Prediction) -> Floats:
    """What is epistemic of each row, (B,): mutual information, or the sum of the variances."""
    columns = vars(said)
    if "mutual_information" in columns:
        return np.asarray(columns["mutual_information"], np.float64)
    variance = np.asarray(columns.get("epistemic_variance", columns["variance"]), np.float64)
    total: Floats = variance.reshape(len(variance), -1).sum(1)
    return total


def _repeated(tensor: Tensor, count: int) -> Tensor:
    return tensor[torch.arange(count) % len(tensor)]


def _joined(parts: Sequence[Arrays]) -> Arrays:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
