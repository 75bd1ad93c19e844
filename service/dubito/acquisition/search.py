"""One search through a pool, from its first row to the chosen batch.

Flow:  chunk of rows → prediction → scores → keepers of the best      pointwise, and the ranking
       candidates → samples, features or inputs → the joint strategy  joint only

The pool may have any length: beside its keepers a search holds one chunk, or the candidates.
`state` and `restore` carry a search that was interrupted between two chunks.

Dimensions: T samples, B rows of a chunk, N candidates, C classes, D outputs, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.candidates import Network, gather
from dubito.acquisition.draws import Indices, words
from dubito.acquisition.order import Acquisition
from dubito.acquisition.picks import Picks, too_few
from dubito.acquisition.pool import Choice, Pool
from dubito.acquisition.strategies import Context, JointStrategy, PointwiseStrategy, Strategy, find
from dubito.acquisition.top import TopK
from dubito.engine import Ensemble, Inputs, Prediction, Sampling
from dubito.errors import InputError

Check = Callable[[], None]

MAX_VALUES = 64_000_000
_CHUNK_VALUES = 2_000_000  # numbers of kept passes in a chunk of rows
_CHUNK_ROWS = 4096


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
        check: Check | None = None,
    ) -> Search:
        """Check what is asked, and predict the targets.

        Args:
            network: an engine or an ensemble.
            acquisition: what is asked.
            num_rows: of the pool.
            sampling: of all predictions.
            targets: rows that `epig` cares about.
            max_values: most numbers (passes x rows x outputs) that candidates, or targets, may
                take; it bounds the candidates beside `acquisition.candidates`.
            check: called between chunks; whatever it raises ends the search.

        Raises:
            InputError: the strategy, an option or the sampling does not fit.
        """
        manifest = network.manifest
        strategy = find(acquisition, manifest.task)
        excluded = acquisition.excluded(num_rows)
        check_sampling(strategy, sampling)
        members = len(network.members) if isinstance(network, Ensemble) else 1
        num_samples = sampling.num_samples * members
        limit = acquisition.candidates
        if isinstance(strategy, JointStrategy):
            if strategy.name == acquisition.strategy and acquisition.diversity is not None:
                limit = min(limit, acquisition.diversity * acquisition.k)
            if "samples" in strategy.needs:
                limit = min(limit, max_values // (num_samples * manifest.num_outputs))
            if limit < acquisition.k:
                raise InputError(
                    f"`{strategy.name}` compares at most {limit} candidates with each other, got"
                    f" k = {acquisition.k}: raise `candidates`, or lower `k` or `num_samples`"
                )
        scale = manifest.target_scale
        context = Context(
            acquisition,
            np.ones(1) if scale is None else np.asarray(scale[1], np.float64),
            num_samples,
            _targets(network, strategy, sampling, targets, num_samples, max_values, check),
        )
        return cls(network, acquisition, sampling, strategy, context, num_rows, excluded, limit)

    @property
    def is_scanned(self) -> bool:
        """Whether every row that has to be looked at was."""
        return self.done >= self.num_rows or self._takes_all

    @property
    def work(self) -> int:
        """Rows that go through the network in all, those that do so twice counted twice."""
        joint = self._open_rows if self._takes_all else self.limit
        if isinstance(self.strategy, PointwiseStrategy):
            return self.num_rows
        centres = len(self.excluded) if "features" in self.strategy.needs else 0
        return joint + centres + (0 if self._takes_all else self.num_rows)

    def step(self, pool: Pool, check: Check | None = None) -> None:
        """Look at the next chunk of rows."""
        stop = min(self.done + self._chunk_rows, self.num_rows)
        indices_B = np.arange(self.done, stop)
        prediction = self.network.predict(
            pool.take(indices_B),
            sampling=self.sampling,
            keep_samples=self._ranking.needs_samples,
            check=check,
        )
        self.look(indices_B, prediction)

    def look(self, indices_B: Indices, prediction: Prediction) -> None:
        """Score the next rows.

        Args:
            indices_B: neighbours, beginning with row `done`.
            prediction: of these rows, with its samples where the strategy needs them.
        """
        words_B = words(self.acquisition.seed, indices_B)
        scores_JB = self._ranking.scores(prediction, words_B, self.context).copy()
        scores_JB[:, np.isin(indices_B, self.excluded)] = -np.inf
        if not self._keepers:
            self._keepers = [self._keeper() for _ in scores_JB]
        for keeper, scores_B in zip(self._keepers, scores_JB, strict=True):
            keeper.add(scores_B, words_B, indices_B, prediction.mean.argmax(axis=1))
        self.done = int(indices_B[-1]) + 1

    def finish(self, pool: Pool, check: Check | None = None) -> Choice:
        """Choose the batch, once all rows were looked at."""
        k = self.acquisition.k
        if isinstance(self.strategy, PointwiseStrategy):
            indices, scores = self._in_turn()
            if self.acquisition.strategy == "thompson" and not self.acquisition.maximize:
                scores = -scores
            return Choice(indices, scores, self.acquisition.strategy, self._open_rows)
        indices_N = self._candidates()
        words_N = words(self.acquisition.seed, indices_N)
        found = gather(self.network, pool, indices_N, self.excluded, self, check)
        labels_N = None if self.acquisition.per_class is None else found.prediction.mean.argmax(1)
        picks = Picks(k, words_N, labels_N, self.acquisition.per_class)
        picks.is_open &= np.isfinite(found.prediction.mean).all(axis=1)
        self.strategy.choose(found, picks, self.context, check)
        return Choice(
            indices_N[picks.places],
            np.array(picks.scores),
            self.acquisition.strategy,
            len(indices_N),
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """What `restore` takes, as arrays that a file can keep."""
        kept: dict[str, NDArray[np.generic]] = {"done": np.array(self.done)}
        for place, keeper in enumerate(self._keepers):
            kept |= {f"{place}.{name}": array for name, array in keeper.state().items()}
        return kept

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where another search with the same arguments was."""
        self.done = int(np.asarray(state["done"]))
        self._keepers = []
        while f"{len(self._keepers)}.scores" in state:
            prefix = f"{len(self._keepers)}."
            keeper = self._keeper()
            keeper.restore(
                {
                    name.removeprefix(prefix): array
                    for name, array in state.items()
                    if name.startswith(prefix)
                }
            )
            self._keepers.append(keeper)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk that is looked at."""
        return self._chunk_rows

    @property
    def _ranking(self) -> PointwiseStrategy:
        strategy = self.strategy
        return strategy.ranked_by if isinstance(strategy, JointStrategy) else strategy

    @property
    def _open_rows(self) -> int:
        return self.num_rows - len(self.excluded)

    @property
    def _takes_all(self) -> bool:
        """Whether a joint strategy compares the whole pool, so that no ranking is needed."""
        return isinstance(self.strategy, JointStrategy) and self._open_rows <= self.limit

    @property
    def _chunk_rows(self) -> int:
        per_row = self.context.num_samples * self.network.manifest.num_outputs
        return max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // per_row))

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
        kept = np.sort(self._keepers[0].indices[: self.limit])
        if len(kept) < self.acquisition.k:
            raise too_few(len(kept), self.acquisition.k, self.acquisition.per_class)
        return kept

    def _in_turn(self) -> tuple[Indices, NDArray[np.float64]]:
        """The best row of each keeper in turn that is not there yet."""
        k = self.acquisition.k
        rows = [
            list(zip(keeper.indices.tolist(), keeper.scores.tolist(), strict=True))
            for keeper in self._keepers
        ]
        chosen: dict[int, float] = {}
        places = [0] * len(rows)
        for turn in range(k):
            mine, own = rows[turn % len(rows)], turn % len(rows)
            while places[own] < len(mine) and mine[places[own]][0] in chosen:
                places[own] += 1
            if places[own] == len(mine):
                raise too_few(len(chosen), k, self.acquisition.per_class)
            index, score = mine[places[own]]
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
        check=check,
    )
    while not search.is_scanned:
        search.step(pool, check)
    return search.finish(pool, check)


def check_sampling(strategy: Strategy, sampling: Sampling) -> None:
    """Refuse a sampling that says nothing to a strategy.

    Raises:
        InputError: naming what is wrong.
    """
    name, method = strategy.name, sampling.method
    if isinstance(strategy, JointStrategy):
        needs_samples = "samples" in strategy.needs
    else:
        needs_samples = strategy.needs_samples
    if strategy.needs_spread and method == "point":
        raise InputError(f"`{name}` expects passes that differ, got method `point`: use `mc`")
    if not needs_samples:
        return
    if method == "moments":
        raise InputError(
            f"`{name}` expects the same thinned networks for all rows, got method `moments`, which"
            " has none: use `mc`"
        )
    if sampling.masks == "independent":
        raise InputError(
            f"`{name}` expects masks `shared`, got `independent`: what rows have in common is lost"
            " where each row has thinned networks of its own"
        )
    if sampling.tolerance is not None:
        raise InputError(
            f"`{name}` expects the same passes for all rows, got a `tolerance`, where rows stop"
            " early: leave it out"
        )


def _targets(
    network: Network,
    strategy: Strategy,
    sampling: Sampling,
    targets: Inputs | None,
    num_samples: int,
    max_values: int,
    check: Check | None,
) -> Prediction | None:
    """The prediction of the rows that the strategy cares about, with its samples."""
    wants = isinstance(strategy, PointwiseStrategy) and strategy.needs_targets
    if wants != (targets is not None):
        raise InputError(
            f"`{strategy.name}` expects `targets`, rows like those to be predicted later, got none:"
            " send some"
            if wants
            else f"`targets` expects strategy `epig`, got `{strategy.name}`: leave them out"
        )
    if targets is None:
        return None
    read = network.read_inputs(targets)
    values = len(next(iter(read.values()))) * num_samples * network.manifest.num_outputs
    if values > max_values:
        raise InputError(
            f"passes x targets x outputs: expected at most {max_values} numbers, got {values}:"
            " send fewer targets or ask for fewer samples"
        )
    return network.predict(read, sampling=sampling, keep_samples=True, check=check)
