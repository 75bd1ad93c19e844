"""Jobs asked for, looked at and cancelled, and their results.

All that a job needs is settled when it is accepted: the version that the alias named then, the
calibration that was active, every choice of the sampling. What moves later does not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dubito.arrays import write_npz
from dubito.asked import PredictOrder, SelectOrder
from dubito.asked_fits import FitOrder
from dubito.engine.calling.inputs import read_inputs
from dubito.engine.heads import head_of
from dubito.errors import ConflictError, DubitoError, InputError
from dubito.jobs.fit_orders import AskedFit
from dubito.jobs.orders import predict_fields, settled
from dubito.jobs.results import check_format
from dubito.keys import NOBODY, Caller
from dubito.models.library import Library
from dubito.models.members import predictor
from dubito.pools import Shelf
from dubito.pools.data import by_input
from dubito.pools.images import FORMATS as IMAGE_FORMATS
from dubito.preprocess import check_columns, image_input, prepare
from dubito.preprocess.wanted import check_names
from dubito.registry import JobFact, PoolFact
from dubito.registry.jobs import JobStore, NewJob, new_id, unknown_job
from dubito.registry.objects import Objects
from dubito.serving.outputs import check_outputs
from dubito.serving.resolve import Named, Resolver
from dubito.serving.rows import read_rows
from dubito.serving.selecting import begin
from dubito.settings import Settings
from dubito_nn import Manifest
from dubito_nn.manifest import named_modules
from dubito_nn.manifest_reader import manifest_from_json


class Desk:
    """Where jobs are asked for.

    Args:
        store: their records.
        objects: those of the bundles; parts and results lie beside them.
        library: the models.
        shelf: the pools.
        settings: the bounds.
    """

    def __init__(
        self, store: JobStore, objects: Objects, library: Library, shelf: Shelf, settings: Settings
    ) -> None:
        self._store = store
        self._objects = objects
        self._library = library
        self._shelf = shelf
        self._settings = settings
        self._resolver = Resolver(library, settings.max_num_samples)
        self._listeners: list[Callable[[str], None]] = []

    @property
    def store(self) -> JobStore:
        """The records of the jobs."""
        return self._store

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have a function called with the id of a job that is accepted or cancelled here."""
        self._listeners.append(listener)

    def objects(self, job: str) -> Objects:
        """Parts, result and other bytes of one job."""
        return self._objects.beside(f"jobs/{job}")

    def predict(self, order: PredictOrder, caller: Caller = NOBODY) -> JobFact:
        """Accept a prediction of a stored pool.

        Args:
            order: what is asked, with the name of a pool; its inputs are not looked at.
            caller: who asks.

        Raises:
            DubitoError: of the class that names the reason.
        """
        if order.method == "auto":
            raise InputError(
                "method `auto` expects rows in the request, got a pool: name the method, as"
                " `dubito fit --method agreement` shows them"
            )
        fields = predict_fields(order)
        check_format(str(fields["format"]))
        named, manifest = self._named(order)
        check_outputs(order.outputs, manifest, named.sampling)
        if "samples" in (order.outputs or ()):
            raise InputError(
                "`samples` expects rows in the request, got a pool: leave it out of `outputs`"
            )
        pool = self._pool_of(order, manifest, caller)
        settled_order = settled(
            named.sampling, named.numbers, pool.format, active=named.active, **fields
        )
        return self._accept(_new(new_id(), "predict", named, pool, settled_order, caller.name))

    def select(
        self, order: SelectOrder, caller: Caller = NOBODY, *, goes_on: bool = False
    ) -> JobFact:
        """Accept a selection from a stored pool.

        Args:
            order: what is asked, with the name of a pool; its inputs are not looked at.
            caller: who asks.
            goes_on: whether a job of the caller that asks the same and is not finished is returned
                instead of a new one.

        Raises:
            DubitoError: of the class that names the reason.
        """
        named, manifest = self._named(order)
        pool = self._pool_of(order, manifest, caller)
        network = predictor(self._library, named.version, named.members)
        limit = self._settings.max_calibration_values
        if order.targets is not None and manifest.preprocess is not None:
            most = self._settings.max_rows
            made = read_rows(network, order.targets, most, preprocess=order.preprocess)
            order = replace(order, targets=made.inputs)
        search = begin(order, network, named.sampling, pool.num_rows, limit)
        job, targets = new_id(), None
        if search.targets is not None:
            targets = self._put(job, {k: rows.numpy() for k, rows in search.targets.items()})
        acquisition = asdict(search.acquisition)
        said = {
            name: value
            for name, value in (("preprocess", order.preprocess), ("id_column", order.id_column))
            if value is not None
        }
        chosen = {"acquisition": acquisition, "targets": targets, **said}
        settled_order = settled(search.sampling, named.numbers, pool.format, **chosen)
        asked = _new(job, "select", named, pool, settled_order, caller.name)
        begun = self._store.same_as(asked) if goes_on else None
        if begun is not None:
            self.clear(job)
            return begun
        return self._accept(asked)

    def fit(self, order: FitOrder, caller: Caller = NOBODY) -> JobFact:
        """Accept a fit to a stored pool, or to rows of the order.

        Args:
            order: what is asked.
            caller: who asks.

        Raises:
            DubitoError: of the class that names the reason.
        """
        version = self._library.version(order.model, order.version)
        engine = self._library.engine(version)
        pool = None
        if order.pool is not None:
            pool = self._fitting_pool(order.pool, order.preprocess, engine.manifest, caller)
        settings = self._settings
        asked = AskedFit.read(order, engine, pool, settings.max_rows, settings.max_num_samples)
        job = new_id()
        try:
            if asked.rows is not None:
                rows = {name: tensor.numpy() for name, tensor in asked.rows.items()}
                pool = asked.pool(self._put(job, rows))
            assert pool is not None
            settled_order = asked.settled(pool.format, partial(self._put, job), version.active_fits)
            named = Named(version, engine.defaults, (), None)
            return self._accept(_new(job, "fit", named, pool, settled_order, caller.name))
        except DubitoError:
            self.clear(job)
            raise

    def get(self, job: str, caller: Caller = NOBODY) -> JobFact:
        """Return one job.

        Raises:
            NotFoundError: no job of that id that the caller sees.
        """
        fact = self._store.get(job)
        if not caller.sees_job(fact.actor, fact.model):
            raise unknown_job(job)
        return fact

    def all(self, caller: Caller = NOBODY) -> tuple[JobFact, ...]:
        """The last 1000 jobs that a caller sees, the newest first."""
        actor = None if caller.sees_all else caller.name
        return self._store.all(actor=actor, models=caller.models)

    def cancel(self, job: str, caller: Caller = NOBODY) -> JobFact:
        """End a job that is not finished.

        Raises:
            NotFoundError: no job of that id that the caller sees.
            ConflictError: it is finished.
        """
        self.get(job, caller)
        cancelled = self._store.cancel(job, actor=caller.name)
        self._tell(job)
        self.clear(job)
        return cancelled

    def result(self, job: str, caller: Caller = NOBODY) -> tuple[JobFact, Iterator[bytes]]:
        """A finished job, and the bytes of its result.

        Raises:
            NotFoundError: no job of that id that the caller sees.
            ConflictError: it has no result, or none yet.
        """
        fact = self.get(job, caller)
        if fact.result is None:
            why = f": {fact.reason}" if fact.reason else ""
            remedy = "ask again later" if not fact.is_finished else "ask for the work anew"
            raise ConflictError(
                f"job {job}: expected one that succeeded, got one that is {fact.state}{why}: "
                f"{remedy}"
            )
        return fact, self.objects(job).pieces(str(fact.result["digest"]))

    def clear(self, job: str) -> None:
        """Remove the bytes of a job."""
        objects = self.objects(job)
        for stored in list(objects.stored()):
            objects.delete(stored.digest)

    def _put(self, job: str, rows: Mapping[str, NDArray[np.generic]]) -> str:
        """Keep further rows of a job; the digest by which they are found."""
        content = write_npz(rows)
        digest = hashlib.sha256(content).hexdigest()
        self.objects(job).put(digest, content)
        return digest

    def _named(self, order: PredictOrder | SelectOrder) -> tuple[Named, Manifest]:
        """Return what an order names now, if it can be run, and the manifest of its version."""
        named = self._resolver.name(order)
        for version in (named.version, *named.members):
            self._library.check_answers(version)
        manifest = manifest_from_json(named.version.manifest)
        head_of(manifest).check_method(named.sampling.method)
        return named, manifest

    def _pool_of(
        self, order: PredictOrder | SelectOrder, manifest: Manifest, caller: Caller
    ) -> PoolFact:
        assert order.pool is not None  # else it is no job
        return self._fitting_pool(
            order.pool, order.preprocess, manifest, caller, id_column=order.id_column
        )

    def _fitting_pool(
        self,
        name: str,
        preprocess: bool | None,
        manifest: Manifest,
        caller: Caller,
        *,
        id_column: str | None = None,
    ) -> PoolFact:
        """A pool whose rows the network takes.

        Raises:
            NotFoundError: no pool of that name.
            InputError: its arrays are of other names, shapes or types.
        """
        pool = self._shelf.get(name, caller)
        if pool.format in IMAGE_FORMATS:
            if preprocess is False or image_input(manifest) is None:
                raise InputError(
                    f"pool `{name}` is of images, got a version that does not make its rows of one "
                    "image each, or `preprocess` false: store what the network reads"
                )
            return pool
        rows = {column.name: np.zeros((1, *column.shape), column.dtype) for column in pool.columns}
        features = pool.columns[0].features
        is_prepared = manifest.preprocess is not None and preprocess is not False
        try:
            is_table = is_prepared and check_columns(features or list(rows), manifest)
            if id_column is not None:
                _check_ids(id_column, features or list(rows), is_table=is_table)
            if is_table:
                return pool
            one = by_input(rows, features, manifest.inputs)
            if is_prepared:
                one = prepare(one, manifest).arrays
            read_inputs(one, manifest.inputs, manifest.free_sizes)
        except InputError as error:
            columns = f"; its columns, pandas' index left out, are {named_modules(features, 12)}"
            raise InputError(
                f"pool `{name}`: {error.detail}{columns if features else ''}"
            ) from error
        return pool

    def _accept(self, new: NewJob) -> JobFact:
        try:
            fact = self._store.add(new, most=self._settings.max_jobs)
        except DubitoError:
            self.clear(new.id)
            raise
        self._tell(fact.id)
        return fact

    def _tell(self, job: str) -> None:
        for listener in self._listeners:
            listener(job)


def _new(
    job: str,
    kind: str,
    named: Named,
    pool: PoolFact,
    order: Mapping[str, object],
    actor: str,
) -> NewJob:
    version = named.version
    numbers = sorted({version.number, *(named.numbers or ())})
    return NewJob(job, kind, version.model, version.number, numbers, pool, order, actor)


def _check_ids(id_column: str, columns: Sequence[str], *, is_table: bool) -> None:
    """Refuse a column of ids that a pool does not have.

    Raises:
        InputError: there is none, or the pool is no table.
    """
    if not is_table:
        raise InputError("`id_column` expects a pool that is a table, got arrays: leave it out")
    check_names(columns, [id_column])
