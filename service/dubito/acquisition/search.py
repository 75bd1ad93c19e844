"""One search through a pool, from its first row to the chosen batch.

Flow:  chunk of rows → prediction → scores → keepers of the best      pointwise, and the ranking
       candidates → samples, features or inputs → the joint strategy  joint only

The pool may have any length: beside its keepers a search holds one chunk, or the candidates.
`state` and `restore` carry a search that was interrupted between two chunks.

Dimensions: T samples, B rows of a chunk, N candidates, C classes, D outputs, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.acquisition.batches.candidates import Reader, gather
from dubito.acquisition.batches.picks import Picks, too_few
from dubito.acquisition.draws import Indices, words
from dubito.acquisition.fitting import check_sampling, most_candidates, read_targets
from dubito.acquisition.order import Acquisition
from dubito.acquisition.pool import Choice, Pool
from dubito.acquisition.strategies import find
from dubito.acquisition.strategy import Context, JointStrategy, PointwiseStrategy, Strategy
from dubito.acquisition.top import TopK
from dubito.engine import Inputs, Prediction, Sampling
from dubito.engine.calling.arguments import Check
from dubito.engine.network import Network
from dubito_nn import Manifest

MAX_VALUES = 64_000_000
_CHUNK_VALUES = 2_000_000  # numbers of kept passes in a chunk of rows
_CHUNK_ROWS = 4096
NUMBERS_AT_ONCE = 2**24
"""Most numbers of the rows that are read at once, such as the pixels of images."""


@dataclass(eq=False)
class Search:
    """A search; make one with `Search.begin`.

    Args:
        network: an engine or an ensemble.
        acquisition: what is asked.
        sampling: of all predictions.
        strategy: found by the name.
        context: what strategies know beside the rows.
        num_rows: of the pool.
        excluded: rows that are never chosen, ascending.
        limit: most candidates of a joint strategy.
        targets: rows that `epig` cares about, checked.
        done: rows looked at so far.
    """

    network: Network
    acquisition: Acquisition
    sampling: Sampling
    strategy: Strategy
    context: Context
    num_rows: int
    excluded: Indices
    limit: int
    targets: dict[str, Tensor] | None = None
    done: int = 0
    _keepers: list[TopK] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        network: Network,
        acquisition: Acquisition,
        num_rows: int,
        *,
        sampling: Sampling,
        targets: Inputs | None = None,
        max_values: int = MAX_VALUES,
    ) -> Search:
        """Check what is asked; nothing is predicted yet.

        Args:
            network: an engine or an ensemble.
            acquisition: what is asked.
            num_rows: of the pool.
            sampling: of all predictions.
            targets: rows that `epig` cares about.
            max_values: most numbers (passes x rows x outputs) that candidates, or targets, may
                take; it bounds the candidates beside `acquisition.candidates`.

        Raises:
            InputError: the strategy, an option or the sampling does not fit.
        """
        manifest = network.manifest
        strategy = find(acquisition, manifest.head)
        check_sampling(strategy, sampling)
        scale = manifest.target_scale
        context = Context(
            acquisition,
            np.ones(1) if scale is None else np.asarray(scale[1], np.float64),
            sampling.num_samples * len(network.members),
            device=network.device,
        )
        per_row = context.num_samples * network.numbers_per_row()
        return cls(
            network,
            acquisition,
            sampling,
            strategy,
            context,
            num_rows,
            acquisition.excluded(num_rows),
            most_candidates(strategy, acquisition, max_values // per_row),
            read_targets(network, strategy, targets, max_values // per_row),
        )

    @property
    def is_scanned(self) -> bool:
        """Whether every row that has to be looked at was."""
        return self.done >= self.num_rows or self._takes_all

    @property
    def work(self) -> int:
        """Rows that go through the network in all, those that do so twice counted twice."""
        scanned = 0 if self._takes_all or not self._predicts else self.num_rows
        if self.targets is not None:
            scanned += len(next(iter(self.targets.values())))
        if not isinstance(self.strategy, JointStrategy):
            return scanned
        centres = len(self.excluded) if "centres" in self.strategy.holds else 0
        return scanned + min(self._open_rows, self.limit) + centres

    def step(self, pool: Pool, check: Check | None = None) -> None:
        """Look at the next chunk of rows."""
        stop = min(self.done + self.chunk_rows, self.num_rows)
        indices_B = np.arange(self.done, stop)
        prediction = None
        if self._predicts:
            self._predict_targets(check)
            prediction = self.network.predict(
                pool.take(indices_B),
                sampling=self.sampling,
                keep_samples=self.strategy.ranking.needs_samples,
                check=check,
            )
        self.look(indices_B, prediction)

    def look(self, indices_B: Indices, prediction: Prediction | None) -> None:
        """Score the next rows.

        Args:
            indices_B: neighbours, beginning with row `done`.
            prediction: of these rows, with its samples where the strategy needs them; None where
                it needs nothing of the network.
        """
        words_B = words(self.acquisition.seed, indices_B)
        scores_JB = self.strategy.ranking.scores(prediction, words_B, self.context).copy()
        scores_JB[:, np.isin(indices_B, self.excluded)] = -np.inf
        if not self._keepers:
            self._keepers = [self._keeper() for _ in scores_JB]
        has_class = prediction is not None and prediction.mean.ndim == 2
        labels_B = prediction.mean.argmax(axis=1) if prediction is not None and has_class else None
        for keeper, scores_B in zip(self._keepers, scores_JB, strict=True):
            keeper.add(scores_B, words_B, indices_B, labels_B)
        self.done = int(indices_B[-1]) + 1

    def run(self, pool: Pool, check: Check | None = None) -> Choice:
        """Look at all rows that are left, and choose."""
        while not self.is_scanned:
            self.step(pool, check)
        return self.finish(pool, check)

    def finish(self, pool: Pool, check: Check | None = None) -> Choice:
        """Choose the batch, once all rows were looked at."""
        k = self.acquisition.k
        if isinstance(self.strategy, PointwiseStrategy):
            indices, scores = self._in_turn()
            if self.strategy.scores_are_values and not self.acquisition.maximize:
                scores = -scores
            return Choice(indices, scores, self.acquisition.strategy, self._open_rows)
        assert isinstance(self.strategy, JointStrategy)
        indices_N = self._candidates()
        self._predict_targets(check)
        words_N = words(self.acquisition.seed, indices_N)
        reader = Reader(self.network, pool, self.sampling, self.chunk_rows, check)
        candidates = gather(reader, self.strategy, self.context, indices_N, self.excluded)
        mean, per_class = candidates.prediction.mean, self.acquisition.per_class
        labels_N = None if per_class is None else mean.argmax(axis=1)
        picks = Picks(k, words_N, labels_N, per_class)
        picks.is_open &= np.isfinite(mean.reshape(len(mean), -1)).all(axis=1)
        self.strategy.choose(candidates, picks, self.context, check)
        return Choice(
            indices_N[picks.rows],
            np.array(picks.scores),
            self.acquisition.strategy,
            len(indices_N),
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """What `restore` takes, as arrays that a file can keep."""
        state: dict[str, NDArray[np.generic]] = {"done": np.array(self.done)}
        for index, keeper in enumerate(self._keepers):
            state |= {f"{index}.{name}": array for name, array in keeper.state().items()}
        return state

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where another search with the same arguments was."""
        self.done = int(np.asarray(state["done"]))
        self._keepers = self._kept(state)

    def absorb(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Take in what another search with the same arguments found in rows of its own.

        The best of all rows are among the best of each part, and rows have an order of their own,
        so it makes no difference how a pool is cut.

        Args:
            state: of that search, which saw none of the rows that this one saw.
        """
        found = self._kept(state)
        if not self._keepers:
            self._keepers = [self._keeper() for _ in found]
        for keeper, other in zip(self._keepers, found, strict=True):
            keeper.add(other.scores, other.words, other.indices, other.labels)
        self.done = max(self.done, int(np.asarray(state["done"])))

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk that is looked at."""
        per_row = self.context.num_samples * self.network.numbers_per_row()
        at_once = NUMBERS_AT_ONCE // numbers_read(self.network.manifest)
        return max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // per_row, at_once))

    def _predict_targets(self, check: Check | None) -> None:
        if self.targets is not None and self.context.targets is None:
            prediction = self.network.predict(
                self.targets, sampling=self.sampling, keep_samples=True, check=check
            )
            self.context = replace(self.context, targets=prediction)

    @property
    def _predicts(self) -> bool:
        """Whether a score asks anything of the network."""
        return self.strategy.ranking.needs_prediction or self.acquisition.per_class is not None

    @property
    def _open_rows(self) -> int:
        return self.num_rows - len(self.excluded)

    @property
    def _takes_all(self) -> bool:
        """Whether a joint strategy compares the whole pool, so that no ranking is needed."""
        return isinstance(self.strategy, JointStrategy) and self._open_rows <= self.limit

    def _kept(self, state: Mapping[str, NDArray[np.generic]]) -> list[TopK]:
        """The keepers that `state` wrote down."""
        keepers: list[TopK] = []
        while f"{len(keepers)}.scores" in state:
            prefix = f"{len(keepers)}."
            keeper = self._keeper()
            keeper.restore(
                {
                    name.removeprefix(prefix): array
                    for name, array in state.items()
                    if name.startswith(prefix)
                }
            )
            keepers.append(keeper)
        return keepers

    def _keeper(self) -> TopK:
        per_class = self.acquisition.per_class
        if isinstance(self.strategy, PointwiseStrategy):
            return TopK(self.acquisition.k, per_class)
        if per_class is not None:
            classes = self.network.manifest.num_outputs
            return TopK(self.limit, max(per_class, -(-self.limit // classes)))
        return TopK(self.limit)

    def _candidates(self) -> Indices:
        if self._takes_all:
            return np.setdiff1d(np.arange(self.num_rows), self.excluded, assume_unique=True)
        indices_N = np.sort(self._keepers[0].indices[: self.limit])
        if len(indices_N) < self.acquisition.k:
            raise too_few(len(indices_N), self.acquisition.k, self.acquisition.per_class)
        return indices_N

    def _in_turn(self) -> tuple[Indices, NDArray[np.float64]]:
        """The best row of each keeper in turn that is not there yet."""
        k = self.acquisition.k
        rows = [
            list(zip(keeper.indices.tolist(), keeper.scores.tolist(), strict=True))[::-1]
            for keeper in self._keepers
        ]
        chosen: dict[int, float] = {}
        for turn in range(k):
            ranked = rows[turn % len(rows)]
            while ranked and ranked[-1][0] in chosen:
                ranked.pop()
            if not ranked:
                raise too_few(len(chosen), k, self.acquisition.per_class)
            index, score = ranked.pop()
            chosen[index] = score
        return np.array(list(chosen), np.int64), np.array(list(chosen.values()))


def select(
    network: Network,
    pool: Pool,
    acquisition: Acquisition,
    *,
    sampling: Sampling,
    targets: Inputs | None = None,
    max_values: int = MAX_VALUES,
    check: Check | None = None,
) -> Choice:
    """Choose the rows of a pool to label next.

    Args:
        network: an engine or an ensemble.
        pool: the rows.
        acquisition: the strategy, k, and options.
        sampling: of all predictions.
        targets: rows that `epig` cares about.
        max_values: most numbers that the passes over candidates, or targets, may take.
        check: called between chunks; whatever it raises ends the search.

    Raises:
        InputError: what is asked does not fit the pool, the network or the sampling.
    """
    search = Search.begin(
        network,
        acquisition,
        len(pool),
        sampling=sampling,
        targets=targets,
        max_values=max_values,
    )
    return search.run(pool, check)


def numbers_read(manifest: Manifest) -> int:
    """Numbers that a network reads of one row; an axis without a size counts once."""
    shapes = [[size for size in spec.shape if isinstance(size, int)] for spec in manifest.inputs]
    return max(1, sum(prod(shape) for shape in shapes))
