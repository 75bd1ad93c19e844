"""A fit that is asked for: checked, and written down as a job.

Rows and truths that come with the order are kept beside the job, and go when it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.asked_fits import FitOrder
from dubito.calibration.heads import head_of
from dubito.calibration.reading import Written, read_some_targets
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import FITTED, SEED_LIMIT
from dubito.engine.distilled.teaching import LEAST_ROWS as LEAST_TO_DISTIL
from dubito.engine.laplace.fitting import LEAST_ROWS, check_labelled
from dubito.engine.laplace.fitting_low_rank import most_rank
from dubito.errors import InputError
from dubito.jobs.orders import settled
from dubito.registry import PoolFact
from dubito.serving.rows import read_rows
from dubito.serving.ways import AGREEMENT

_LEAST = {
    "laplace": (LEAST_ROWS, "a thousand"),
    "distilled": (LEAST_TO_DISTIL, "five thousand"),
    AGREEMENT: (100, "a thousand"),
}
_FOREIGN = {
    "laplace": ("num_samples", "seed"),
    "distilled": ("num_training_rows", "prior", "prior_precision", "rank"),
    AGREEMENT: (
        *("num_samples", "num_training_rows", "prior", "prior_precision", "rank"),
        *("labels", "targets", "labels_are"),
    ),
}
_KEPT = ("method", "num_training_rows", "prior", "prior_precision", "rank")
_PASSES = 64
Put = Callable[[Mapping[str, NDArray[np.generic]]], str]


@dataclass(frozen=True)
class AskedFit:
    """A fit, checked.

    Args:
        order: what is asked.
        engine: of the version.
        rows: that came with it, checked; None: those of a pool.
        num_rows: how many rows there are.
        truths: class of each row, or target values; None: unlabelled.
    """

    order: FitOrder
    engine: Engine
    rows: Mapping[str, Tensor] | None
    num_rows: int
    truths: NDArray[np.generic] | None

    @classmethod
    def read(
        cls,
        order: FitOrder,
        engine: Engine,
        pool: PoolFact | None,
        most_rows: int,
        most_samples: int,
    ) -> AskedFit:
        """Check what an order says.

        Args:
            order: what is asked.
            engine: of the version.
            pool: that it names; None: it has rows of its own.
            most_rows: that may come with it.
            most_samples: passes of a row.

        Raises:
            InputError: naming the field.
        """
        _check_options(order, engine, most_samples)
        rows, num_rows = None, 0 if pool is None else pool.num_rows
        if pool is None:
            made = read_rows(engine, order.inputs, most_rows, preprocess=order.preprocess)
            rows, num_rows = made.inputs, made.num_rows
        least, usual = _LEAST[order.method]
        if num_rows < least:
            raise InputError(
                f"a fit of `{order.method}` expects at least {least} rows, got {num_rows}: "
                f"give more, {usual} or so"
            )
        return cls(order, engine, rows, num_rows, _truths(order, engine, num_rows))

    def pool(self, digest: str) -> PoolFact:
        """The rows that came with it, as those of a pool without a name."""
        return PoolFact("", digest, 0, "npz", self.num_rows, (), None, "", datetime.now(UTC))

    def settled(self, pool_format: str, put: Put, fits: Mapping[str, int]) -> dict[str, object]:
        """The order as the record of its job keeps it.

        Args:
            pool_format: of the pool's object.
            put: keeps arrays beside the job, and returns their digest.
            fits: the active ones of the version, by method.
        """
        order, truths = self.order, self.truths
        chosen = {name: getattr(order, name) for name in (*_KEPT, "actor")}
        sampling = Sampling.fewest("point", 0)
        if order.method == "distilled":
            sampling = sampling_of_passes(order)
        if order.method == AGREEMENT:
            seed = self.engine.defaults.seed + 1 if order.seed is None else order.seed
            sampling = Sampling(seed=seed % SEED_LIMIT)
            chosen["fits"] = {name: fit for name, fit in fits.items() if name in FITTED}
        said = {} if order.preprocess is None else {"preprocess": order.preprocess}
        return settled(
            sampling,
            None,
            pool_format,
            **chosen,
            **said,
            rows=self.rows is not None,
            truths=None if truths is None else put({"truths": truths}),
        )


def sampling_of_passes(order: FitOrder) -> Sampling:
    """How the passes are drawn that a head is distilled from.

    Each row has masks of its own: what T shared masks leave to chance all rows would have in
    common, and the head would learn it.

    Raises:
        InputError: a choice is out of its bounds.
    """
    num_samples = _PASSES if order.num_samples is None else order.num_samples
    return Sampling(num_samples, order.seed or 0, masks="independent")


def _check_options(order: FitOrder, engine: Engine, most_samples: int) -> None:
    """Refuse options of another method, or without a meaning; and a network that has no last map.

    Raises:
        InputError: naming the field, or the node.
    """
    foreign = _FOREIGN[order.method]
    for name in foreign:
        if getattr(order, name) is not None:
            raise InputError(f"`{name}` is no option of a fit of `{order.method}`: leave it out")
    if order.method == AGREEMENT:
        engine.head.check_method("mc")
        return
    if order.method == "distilled":
        engine.head.check_method("distilled")
        engine.students.trunk  # noqa: B018  refused now, with the node
        num_samples = sampling_of_passes(order).num_samples
        if num_samples > most_samples:
            raise InputError(
                f"`num_samples` expects at most {most_samples}, got {num_samples}: ask for fewer"
                " masked passes"
            )
        return
    _check_laplace(order, engine)


def _check_laplace(order: FitOrder, engine: Engine) -> None:
    """Refuse options of `laplace` that have no meaning, and a network without a last map.

    Raises:
        InputError: naming the field, or the node.
    """
    is_regression = not engine.fits.last_map.is_of_classes  # refused now, with the node
    most = 0 if is_regression else most_rank(engine.manifest.num_outputs)
    if order.rank is not None and not 2 <= order.rank <= most:
        raise InputError(
            f"`rank` expects a number from 2 to {most}, got {order.rank}: choose one in it"
            if most >= 2
            else f"`rank` belongs to several classes, got {order.rank}: leave it out"
        )
    for name, least in (("num_training_rows", 1), ("prior_precision", 1e-12)):
        value = getattr(order, name)
        if value is not None and not least <= value < 1e15:
            raise InputError(f"`{name}` expects a number of at least {least}, got {value}")
    if is_regression and (order.prior is not None or order.prior_precision is not None):
        raise InputError(
            "`prior` and `prior_precision` belong to a classification, got a regression, whose "
            "spread is fitted to `targets`: leave them out"
        )
    if order.prior is not None and order.prior_precision is not None:
        raise InputError("`prior` chooses a `prior_precision`, got both: leave one of them out")
    if is_regression and order.targets is None:
        raise InputError(
            "a fit of `laplace` to a regression expects the `targets` of its rows, got none: give "
            "rows that the network was not trained on, with their true values"
        )
    if order.prior == "held_out" and order.labels is None:
        raise InputError(
            "`prior` `held_out` expects the `labels` of the rows, got none: give them, or take "
            "`marginal_likelihood`, which needs none"
        )


def _truths(order: FitOrder, engine: Engine, num_rows: int) -> NDArray[np.generic] | None:
    if order.labels is None and order.targets is None:
        return None
    written = Written(
        engine.manifest,
        num_rows,
        engine.position_shape,
        order.labels,
        order.targets,
        order.labels_are,
    )
    if order.method == "laplace" and order.targets is not None:
        some_BD = read_some_targets(written)
        check_labelled(int(np.isfinite(some_BD).all(axis=1).sum()), num_rows)
        return some_BD
    truths = head_of(engine.manifest).read(written)
    if order.method == "laplace" and order.labels is not None and len(np.unique(truths)) < 2:
        raise InputError(
            f"`labels` expects rows of several classes, got {num_rows} of one: give rows of all "
            "classes"
        )
    return truths
