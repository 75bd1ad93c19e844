"""A cluster: that of an address, one that runs here, or one made for the time being."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from dubito.errors import InputError
from dubito.settings import Settings

NAMESPACE = "dubito"
_LOCAL = "local"  # as Ray names a cluster that is to be made
_STORE_BYTES = 500 * 2**20  # of a cluster of our own: what is sent is small
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Joined:
    """A cluster that this process belongs to.

    Args:
        is_own: whether it was made here, and ends here.
        machines: addresses of its nodes, each machine once.
        cpus: cores that it has.
        gpus: devices that it has.
    """

    is_own: bool
    machines: tuple[str, ...]
    cpus: int
    gpus: int


@contextmanager
def joined(address: str | None) -> Iterator[Joined]:
    """Belong to a cluster for the time of the block.

    Args:
        address: HOST:PORT of its head; None: what `RAY_ADDRESS` says, else one that runs here, else
            a new one; `local`: a new one.

    Raises:
        InputError: nothing answers there.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    is_own = False
    if not ray.is_initialized():
        is_own = _connect(address)
    try:
        yield _described(is_own)
    finally:
        if is_own:
            ray.shutdown()


def _connect(address: str | None) -> bool:
    """Whether the cluster was made here."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address != _LOCAL:
        try:
            ray.init(address=address or "auto", namespace=NAMESPACE, log_to_driver=False)
            return False
        except ConnectionError as error:
            if address is not None:
                raise InputError(
                    f"--ray: expected a Ray cluster at {address[:80]}, got none that answers: "
                    "start one with `ray start --head`, set RAY_AUTH_MODE=token where it wants "
                    "a token, or leave the address out"
                ) from error
    ray.init(
        address=_LOCAL,
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
    )
    return True


def _described(is_own: bool) -> Joined:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    machines = tuple(sorted({node["NodeManagerAddress"] for node in nodes}))
    total = ray.cluster_resources()
    return Joined(is_own, machines, int(total.get("CPU", 0)), int(total.get("GPU", 0)))


def check_storage(settings: Settings, cluster: Joined) -> None:
    """Refuse storage that only one machine sees, where there are several.

    Raises:
        InputError: the database, or the object store, lies in the data folder.
    """
    if len(cluster.machines) == 1:
        return
    lacking = [
        name
        for name, value in (
            ("DUBITO_DATABASE_URL", settings.database_url),
            ("DUBITO_OBJECT_STORE_URL", settings.object_store_url),
        )
        if value is None
    ]
    if lacking:
        raise InputError(
            f"--ray: expected a database and an object store that all {len(cluster.machines)} "
            f"machines reach, got no {' and no '.join(lacking)}: set both, or use one machine"
        )
