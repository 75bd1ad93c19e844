"""One job from where it stands to its end.

Flow: networks and pool → plan, made or taken from the record → parts so far → scan → result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson
from torch import Tensor

from dubito import disk
from dubito.acquisition import Search
from dubito.acquisition.search import NUMBERS_AT_ONCE, numbers_read
from dubito.answered import SelectReply, sampling_fields
from dubito.arrays import Arrays
from dubito.calibration.promises.policy import DECISIONS
from dubito.calibration.record import Calibration
from dubito.engine import Engine
from dubito.engine.calling.sampling import FITTED
from dubito.engine.network import Network, num_values
from dubito.jobs.agreeing import MOST_COMPARED, MOST_TIMED, Agreeing, Ways
from dubito.jobs.desk import Desk
from dubito.jobs.distilling import Distilling, Picked
from dubito.jobs.fitting import Fitting, KeptRows, MadeFit, in_network_units
from dubito.jobs.lane import Lane, StoppedError
from dubito.jobs.needed import network_of, pool_of, read_part, search_of, targets_of
from dubito.jobs.orders import members_of, predict_order, sampling_of
from dubito.jobs.plan import MAX_BLOCK_ROWS, JobPlan, Predict, fixed, machine, make_plan
from dubito.jobs.predicting import Predicting
from dubito.jobs.results import MEDIA_TYPES, write_result
from dubito.jobs.scan import Kind, Pace, Scan, Searchers
from dubito.jobs.selecting import Selecting
from dubito.media import JSON
from dubito.models.library import Library
from dubito.pools import PoolData, Shelf
from dubito.registry import JobFact, PartFact
from dubito.serving.ways import AGREEMENT
from dubito.settings import Settings

T = TypeVar("T")
ReadRows = Callable[[int, int], Mapping[str, Tensor]]


class Task:
    """A job that this server has taken.

    Args:
        fact: the job, as it stood when it was taken.
        owner: who takes it.
        desk: where its parts and its result lie.
        library: the models.
        shelf: the pools.
        settings: times and bounds.
        lane: to the device.
    """

    def __init__(
        self,
        fact: JobFact,
        owner: str,
        desk: Desk,
        library: Library,
        shelf: Shelf,
        settings: Settings,
        lane: Lane,
    ) -> None:
        self._fact = fact
        self._done = fact.done
        self._owner = owner
        self._store = desk.store
        self._objects = desk.objects(fact.id)
        self._library = library
        self._shelf = shelf
        self._settings = settings
        self._lane = lane
        self._sampling = sampling_of(fact)
        self._data: PoolData | KeptRows

    def run(self) -> None:
        """Do what is left of the job, and write down its end.

        Raises:
            StoppedError: it was cancelled, or is not this server's any more.
            DubitoError: it failed, for the reason that the error names.
        """
        self._network = network_of(self._fact, self._library)
        if self._fact.kind == "fit":
            self._fit()
            return
        self._data = self._opened()
        if self._fact.kind == "predict":
            self._predict()
        else:
            self._select()

    @property
    def _pool(self) -> PoolData:
        assert isinstance(self._data, PoolData)
        return self._data

    def _opened(self) -> PoolData:
        in_parts = self._lane.searchers is not None
        return pool_of(self._fact, self._shelf, self._network, in_parts=in_parts)

    def _fit(self) -> None:
        fact, order = self._fact, self._fact.order
        (engine,) = self._network.members
        has_own = order["rows"] is True
        self._data = KeptRows(self._arrays(fact.pool_digest)) if has_own else self._opened()
        truths = None
        if order["truths"] is not None:
            truths = in_network_units(self._arrays(str(order["truths"]))["truths"], engine)
        most = MAX_BLOCK_ROWS if has_own else self._rows_at_once()
        method = str(order["method"])
        made = {"distilled": self._distilled, AGREEMENT: self._agreement}
        result = made.get(method, self._posterior)(engine, truths, most)
        about = {"num_rows": len(self._data), "num_training_rows": order["num_training_rows"]}
        version = self._library.version(fact.model, str(fact.version))
        kept = self._library.keep_fit(version, result.new(method, about, fact.id, fact.actor))
        reply = {"model": fact.model, "version": fact.version, "fit": kept.number, "method": method}
        with self._shelf.incoming() as path:
            path.write_bytes(orjson.dumps(reply | dict(kept.document)))
            self._succeed(path, JSON, result.warnings)

    def _posterior(self, engine: Engine, truths: Tensor | None, most: int) -> MadeFit:
        """A fit of `laplace`, which keeps sums."""
        limit = self._settings.max_calibration_values
        fitting = Fitting(engine, self._fact.order, truths, limit, len(self._data))
        plan = self._plan(
            lambda network, block, check: fitting.predict(block, 0, check),
            least_rows=1,
            most_rows=most,
        )
        if self._done:
            fitting.restore(self._arrays(self._store.parts(self._fact.id)[-1].digest))
        self._scan(fitting, plan, len(self._data), self._read, only_last=True)
        return fitting.finish(self._lane)

    def _distilled(self, engine: Engine, truths: Tensor | None, most: int) -> MadeFit:
        """A fit of `distilled`, which keeps what the passes said of some rows."""
        per_row = engine.students.widths.num_kept
        picked = Picked.of(len(self._data), per_row, self._settings.max_calibration_values)

        def read(start: int, stop: int) -> dict[str, Tensor]:
            return self._network.read_inputs(self._data.take(picked.places[start:stop]))

        bank = self._network.read_inputs(self._data.take(picked.bank))
        keeping = partial(Distilling, engine, self._sampling, picked, bank)
        plan = self._plan(
            lambda network, block, check: keeping(lambda *_: network).predict(block, 0, check),
            least_rows=picked.held_out_every,
            most_rows=min(most, len(picked)),
            read=read,
        )
        kind = keeping(
            lambda block, start: fixed(self._network, self._sampling, plan, block, start)
        )
        if self._done:
            parts = self._store.parts(self._fact.id)
            kind.restore([self._arrays(part.digest) for part in parts])
        self._scan(kind, plan, len(picked), read)
        return kind.finish(self._lane, truths)

    def _agreement(self, engine: Engine, truths: Tensor | None, most: int) -> MadeFit:
        """What the ways of method `auto` are worth, on some rows evenly among all."""
        fits = dict(self._fact.order["fits"])  # type: ignore[call-overload]  # as the desk wrote it
        version = self._library.version(self._fact.model, str(self._fact.version))
        for number in fits.values():
            self._library.bring_fit(version, number, engine)
        ways = self._lane.run(lambda check: Ways.of(engine, fits))
        picked = Picked.of(len(self._data), 1, MOST_COMPARED)

        def read(start: int, stop: int) -> dict[str, Tensor]:
            return self._network.read_inputs(self._data.take(picked.places[start:stop]))

        kind = Agreeing(engine, self._sampling, ways)
        plan = self._plan(
            lambda network, block, check: kind.predict(block, 0, check),
            least_rows=1,
            most_rows=min(most, len(picked)),
            read=read,
        )
        if self._done:
            parts = self._store.parts(self._fact.id)
            kind.restore([self._arrays(part.digest) for part in parts])
        self._scan(kind, plan, len(picked), read)
        return kind.finish(self._lane, read(0, min(len(picked), MOST_TIMED)))

    def _predict(self) -> None:
        limit = self._settings.max_sample_values
        per_row = num_values(self._network, self._sampling, 1)
        keeping = partial(
            Predicting,
            predict_order(self._fact),
            self._sampling,
            self._calibration(),
            may_keep_samples=per_row <= limit,
            width=max(map(len, (*(self._network.manifest.classes or ()), *DECISIONS, *FITTED))),
        )
        plan = self._plan(
            lambda network, block, check: keeping(lambda *_: network).predict(block, 0, check),
            least_rows=1,
            most_rows=max(1, min(limit // per_row, self._rows_at_once())),
        )
        kind = keeping(
            lambda block, start: fixed(self._network, self._sampling, plan, block, start),
            warnings=self._fact.warnings if self._done else (),
        )
        self._scan(kind, plan, len(self._data), self._read)
        with self._shelf.incoming() as path:
            format = str(self._fact.order["format"])
            classes = self._network.manifest.classes
            write_result(self._parts(), self._head(kind), format, self._fact.total, path, classes)
            self._succeed(path, MEDIA_TYPES[format], kind.warnings)

    def _rows_at_once(self) -> int:
        """Rows of a block, by what they become; of images alone, since arrays lie there already."""
        if not self._pool.has_files:
            return MAX_BLOCK_ROWS
        return max(1, NUMBERS_AT_ONCE // numbers_read(self._network.manifest))

    def _select(self) -> None:
        targets = targets_of(self._fact, self._objects)
        limit = self._settings.max_calibration_values
        total = len(self._data)

        def search(network: Network) -> Search:
            return search_of(self._fact, network, targets, total, limit)

        free = search(self._network)
        rows = min(free.chunk_rows, total)
        needs = free.strategy.keeps_samples
        plan = self._plan(
            lambda network, block, check: network.predict(
                dict(block), sampling=free.sampling, keep_samples=needs, check=check
            ),
            least_rows=rows,
            most_rows=rows,
        )
        pinned = fixed(self._network, free.sampling, plan, self._read(0, rows), 0)
        kind = Selecting(search(pinned), self._pool)
        parts = self._store.parts(self._fact.id) if self._done else ()
        if parts:
            kind.restore(self._arrays(parts[-1].digest))
        if self._lane.searchers is None:
            reads = self._pool.has_files  # decoding takes long
            read = self._read if reads else lambda start, stop: {}
            self._scan(kind, plan, kind.rows_to_scan, read, only_last=True)
        else:
            self._scan_elsewhere(kind, plan, self._lane.searchers)
        choice = kind.finish(self._lane)
        version, members = self._fact.version, members_of(self._fact)
        names = self._pool.names(np.asarray(choice.indices, np.int64))
        ids = None if names is None else names.tolist()
        reply = SelectReply(self._fact.model, version, members, free.sampling, choice, ids)
        with self._shelf.incoming() as path:
            path.write_bytes(orjson.dumps(reply.head(), option=orjson.OPT_SERIALIZE_NUMPY))
            self._succeed(path, JSON, ())

    def _calibration(self) -> Calibration | None:
        number = self._fact.order["active"]
        if number is None:
            return None
        assert isinstance(number, int)
        version = self._library.version(self._fact.model, str(self._fact.version))
        return Calibration.from_json(self._library.calibration(version, number).document)

    def _head(self, kind: Predicting) -> dict[str, object]:
        """All of the reply but its columns."""
        return {
            "model": self._fact.model,
            "version": self._fact.version,
            **sampling_fields(self._sampling, members_of(self._fact)),
            "calibration": self._fact.order["active"] if kind.is_covered else None,
            "warnings": kind.warnings,
        }

    def _plan(
        self, predict: Predict, *, least_rows: int, most_rows: int, read: ReadRows | None = None
    ) -> JobPlan:
        """The plan that the job began with; a new one where it has none, or not of this machine."""
        first = read or self._read
        this_machine = machine(self._network)
        if self._fact.plan is not None:
            plan = JobPlan.from_json(self._fact.plan)
            if plan.arithmetic == this_machine:
                return plan
        made = self._same_plan(this_machine) or make_plan(
            self._network,
            self._sampling,
            lambda count: first(0, count),
            predict,
            self._lane,
            least_rows=least_rows,
            most_rows=min(len(self._data), most_rows, MAX_BLOCK_ROWS),
            target_s=self._settings.job_chunk_ms / 1000,
        )
        if not self._store.restart(self._fact.id, self._owner, made.to_json()):
            raise StoppedError
        self._done = 0
        return made

    def _same_plan(self, this_machine: Mapping[str, object]) -> JobPlan | None:
        """The plan of an earlier job that asked the same: the same question, the same bits."""
        mine = self._fact
        for other in self._store.all():
            is_same = (other.kind, other.model, other.versions, other.pool_digest) == (
                *(mine.kind, mine.model, mine.versions, mine.pool_digest),
            )
            if is_same and other.plan is not None and other.order == mine.order:
                plan = JobPlan.from_json(other.plan)
                if plan.arithmetic == this_machine:
                    return plan
        return None

    def _scan(
        self, kind: Kind[T], plan: JobPlan, total: int, read: ReadRows, *, only_last: bool = False
    ) -> None:
        """Go through the rows; see `_checkpoints`."""
        scan = Scan(
            read=read,
            total=total,
            block_rows=plan.block_rows,
            lane=self._lane,
            checkpoint=self._checkpoints(kind, only_last=only_last),
            every_s=self._settings.job_checkpoint_ms / 1000,
        )
        scan.run(kind, self._done)

    def _scan_elsewhere(self, kind: Selecting, plan: JobPlan, searchers: Searchers) -> None:
        """Have others look at the rows; what they found of each block comes in their order."""
        checkpoint, pace = self._checkpoints(kind, only_last=True), Pace(self._done)
        every_s, total = self._settings.job_checkpoint_ms / 1000, kind.rows_to_scan
        for stop, found in searchers.search(self._fact, plan, self._done, total):
            self._lane.check()
            kind.absorb(found)
            if pace.since_s >= every_s or stop == total:
                checkpoint(stop, kind.part(), pace.reached(stop))

    def _checkpoints(
        self, kind: Kind[T], *, only_last: bool
    ) -> Callable[[int, bytes, float], None]:
        """What writes a part down; of parts that hold all so far only the last one is kept."""
        before: str | None = None

        def checkpoint(stop: int, content: bytes, rate: float) -> None:
            nonlocal before
            digest = hashlib.sha256(content).hexdigest()
            self._objects.put(digest, content)
            part = PartFact(self._done, stop, digest)
            if not self._store.add_part(
                self._fact.id, self._owner, part, rate=rate, warnings=kind.warnings
            ):
                raise StoppedError
            self._done = stop
            if only_last and before not in (None, digest):
                self._objects.delete(str(before))
            before = digest

        return checkpoint

    def _read(self, start: int, stop: int) -> dict[str, Tensor]:
        return self._network.read_inputs(self._data.rows(start, stop))

    def _parts(self) -> Iterator[Arrays]:
        for part in self._store.parts(self._fact.id):
            self._lane.check()
            names = self._pool.names(slice(part.start, part.stop))
            yield {**({} if names is None else {"ids": names}), **self._arrays(part.digest)}

    def _arrays(self, digest: str) -> Arrays:
        return read_part(self._objects, digest)

    def _succeed(self, path: Path, media_type: str, warnings: tuple[str, ...]) -> None:
        """Keep the result, write it down, then remove all else."""
        digest = disk.digest(path)
        self._objects.put(digest, path)
        size = path.stat().st_size
        result = {"digest": digest, "size_bytes": size, "media_type": media_type}
        if not self._store.succeed(self._fact.id, self._owner, result, warnings):
            raise StoppedError
        for stored in list(self._objects.stored()):
            if stored.digest != digest:
                self._objects.delete(stored.digest)
