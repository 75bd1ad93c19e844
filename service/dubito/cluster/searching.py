"""A selection from a stored pool, searched by the workers of a cluster with Ray Data.

Flow: spans of blocks → workers, each with the networks and the pool → the best rows of each span →
in order to the server that has the job, which keeps the best of all and writes down how far it is.

A worker computes the blocks that one machine would, by the same plan, so a row gets the same score
on every machine of a kind; a worker that dies loses the span it had, which another computes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from dubito.application import Application
from dubito.arrays import Arrays, load, write_npz
from dubito.cluster.joining import Joined
from dubito.errors import UnavailableError
from dubito.jobs.needed import network_of, pool_of, search_of, targets_of
from dubito.jobs.plan import JobPlan, fixed
from dubito.registry import JobFact
from dubito.settings import Settings

_BLOCKS = 16  # of a span at most: what is lost where a worker dies
_SPANS_EACH = 4  # at least so many for a worker, where there are blocks enough


class ClusterSearch:
    """Searches by the workers of a cluster.

    Args:
        settings: of the server; its workers open the same database and object store.
        cluster: whose devices are used.
    """

    def __init__(self, settings: Settings, cluster: Joined) -> None:
        self._settings = settings
        self._on_gpu = settings.used_devices[0].startswith("cuda")
        self._threads = settings.threads or 1
        self._workers = max(1, cluster.gpus if self._on_gpu else cluster.cpus // self._threads)

    def check_room(self) -> None:
        """Refuse to wait for devices that others do not give back.

        Raises:
            UnavailableError: all are taken, as by replicas that serve.
        """
        name, wanted = ("GPU", 1) if self._on_gpu else ("CPU", self._threads)
        free = ray.available_resources().get(name, 0)
        if free < wanted:
            raise UnavailableError(
                f"--ray: expected a device for one worker ({wanted} {name}), got {free:g} free: "
                "add a node, or lower DUBITO_RAY_MAX_REPLICAS of what serves there"
            )

    def search(
        self, fact: JobFact, plan: JobPlan, start: int, total: int
    ) -> Iterator[tuple[int, Arrays]]:
        """See `dubito.jobs.scan.Searchers`."""
        spans = self._spans(plan.block_rows, start, total)
        if not spans:
            return
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        asked = {"settings": self._settings, "fact": fact, "plan": plan.to_json()}
        found = ray.data.from_items(spans, override_num_blocks=len(spans)).map_batches(
            SearchWorker,
            fn_constructor_kwargs=asked,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(self._workers, len(spans))),
            num_cpus=None if self._on_gpu else self._threads,
            num_gpus=1 if self._on_gpu else None,
        )
        for batch in found.iter_batches(batch_size=None, batch_format="pyarrow"):
            stops, contents = (batch[name].to_pylist() for name in ("stop", "found"))
            for stop, content in zip(stops, contents, strict=True):
                arrays = load(BytesIO(content))
                assert isinstance(arrays, dict)  # as a worker wrote it
                yield stop, arrays

    def _spans(self, block_rows: int, start: int, total: int) -> list[dict[str, int]]:
        blocks = -(-(total - start) // block_rows)
        each = max(1, min(_BLOCKS, blocks // (_SPANS_EACH * self._workers))) * block_rows
        return [
            {"start": first, "stop": min(first + each, total)}
            for first in range(start, total, each)
        ]


class SearchWorker:
    """One worker: the networks of a job and its pool, held between spans.

    Args:
        settings: of the server that has the job.
        fact: the job.
        plan: of the job.
    """

    def __init__(self, settings: Settings, fact: JobFact, plan: Mapping[str, object]) -> None:
        device = settings.used_devices[0].partition(":")[0]  # Ray shows a worker its own alone
        own = {"devices": (), "device": device, "pinned_models": (), "warm_up_rows": ()}
        settings = settings.model_copy(update={**own, "threads": settings.threads or 1})
        self._application = Application(settings)
        library, shelf = self._application.library, self._application.pools
        network = network_of(fact, library)
        self._pool = pool_of(fact, shelf, network, in_parts=True)
        self._rows = JobPlan.from_json(plan).block_rows
        targets = targets_of(fact, self._application.jobs.objects(fact.id))
        total, most = len(self._pool), settings.max_calibration_values
        free = search_of(fact, network, targets, total, most)
        block = network.read_inputs(self._pool.rows(0, min(self._rows, total)))
        pinned = fixed(network, free.sampling, JobPlan.from_json(plan), block, 0)
        self._search = search_of(fact, pinned, targets, total, most)

    def __call__(self, batch: Mapping[str, NDArray[np.int64]]) -> Iterator[dict[str, Any]]:
        """What is found in some spans, block by block as on one machine."""
        for start, stop in zip(batch["start"].tolist(), batch["stop"].tolist(), strict=True):
            self._search.restore({"done": np.array(start)})
            while self._search.done < stop:
                self._search.step(self._pool)
            found = write_npz(self._search.state())
            yield {"stop": np.array([stop]), "found": np.array([found], dtype=object)}
