"""What a job needs, by its record: its networks, its pool, the search that it asks for.

A worker of a cluster makes them as the server does that has the job.
"""

from __future__ import annotations

import io

import torch

from dubito.acquisition import Search
from dubito.arrays import Arrays, load
from dubito.engine import Inputs
from dubito.engine.network import Network
from dubito.jobs.orders import sampling_of, select_order
from dubito.models.library import Library
from dubito.models.members import predictor
from dubito.pools import PoolData, Shelf
from dubito.preprocess import image_input
from dubito.registry import JobFact
from dubito.registry.objects import Objects
from dubito.serving.selecting import begin


def network_of(fact: JobFact, library: Library) -> Network:
    """The network of a job, with its fit where the sampling names one."""
    members = fact.order["members"]
    assert members is None or isinstance(members, list)
    version = library.version(fact.model, str(fact.version))
    versions = [library.version(fact.model, str(number)) for number in members or ()]
    network = predictor(library, version, versions)
    library.bring_fit(version, sampling_of(fact).fit, network)
    return network


def pool_of(fact: JobFact, shelf: Shelf, network: Network, *, in_parts: bool = False) -> PoolData:
    """The pool of a job, as its network reads it.

    Args:
        fact: the job.
        shelf: the pools.
        network: of the job.
        in_parts: whether a part of its rows will be read here, so that all need not be brought.
    """
    stored = fact.pool_digest, str(fact.order["pool_format"])
    data = shelf.open_parts(*stored, fact.pool) if in_parts else shelf.open(*stored)
    manifest, preprocess = network.manifest, None
    if manifest.preprocess is not None:
        preprocess = fact.order.get("preprocess") is not False
    data.read_for(manifest.inputs, preprocess=preprocess, image=image_input(manifest))
    id_column = fact.order.get("id_column")
    if id_column is not None:
        data.name_by(str(id_column))
    return data


def search_of(
    fact: JobFact, network: Network, targets: Inputs | None, total: int, max_values: int
) -> Search:
    """The search of a selection, at its beginning.

    Args:
        fact: the job.
        network: that predicts, pinned or not.
        targets: rows that `epig` cares about.
        total: rows of the pool.
        max_values: most numbers that kept passes may take.
    """
    return begin(select_order(fact, targets), network, sampling_of(fact), total, max_values)


def targets_of(fact: JobFact, objects: Objects) -> Inputs | None:
    """The rows that `epig` cares about; None where the job has none."""
    digest = fact.order["targets"]
    if digest is None:
        return None
    return {name: torch.from_numpy(rows) for name, rows in read_part(objects, str(digest)).items()}


def read_part(objects: Objects, digest: str) -> Arrays:
    """Arrays that a job keeps."""
    arrays = load(io.BytesIO(b"".join(objects.pieces(digest))))
    assert isinstance(arrays, dict)  # as `write_npz` wrote it
    return arrays
