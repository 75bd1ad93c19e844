"""A cluster: that of an address, one that runs here, or one made for the time being."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private.services import find_bootstrap_address

from dubito.errors import InputError
from dubito.settings import Settings

NAMESPACE = "dubito"
_LOCAL = "local"  # as Ray names a cluster that is to be made
_STORE_BYTES = 500 * 2**20  # of a cluster of our own: what is sent is small
_ANSWERS_WITHIN_S = 5.0  # a head: it is asked whether it is there before Ray tries for minutes
_TRIES = "RAY_gcs_server_port_wait_time_s"  # how often a head is tried, half a minute each
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Joined:
    """A cluster that this process belongs to.

    Args:
        is_own: whether it was made here, and ends here.
        is_named: whether an address was given, rather than found on this machine.
        address: of its head, HOST:PORT.
        machines: addresses of its nodes, each machine once.
        cpus: cores that it has.
        gpus: devices that it has.
    """

    is_own: bool
    is_named: bool
    address: str
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
    address = address or os.environ.get("RAY_ADDRESS")
    is_own = False
    if not ray.is_initialized():
        is_own = _connect(address)
    try:
        yield _described(is_own, is_named=address not in (None, "auto"))
    finally:
        if is_own:
            ray.shutdown()


def _connect(address: str | None) -> bool:
    """Whether the cluster was made here."""
    if address != _LOCAL:
        try:
            _check_answers(address)
            ray.init(address=address or "auto", namespace=NAMESPACE, log_to_driver=False)
            return False
        except (OSError, RuntimeError, ValueError) as error:
            if address is not None:
                raise InputError(
                    f"--ray: expected a Ray cluster at {address[:80]}, HOST:PORT of its head, got "
                    "none that answers: start one with `ray start --head`, set RAY_AUTH_MODE=token "
                    "where it wants a token, or leave the address out"
                ) from error
    ray.init(
        address=_LOCAL,
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
    )
    return True


def _check_answers(address: str | None) -> None:
    """Raise unless something listens there; Ray itself would try for one to two minutes.

    Raises:
        OSError: nothing does.
        ValueError: the address is not HOST:PORT.
    """
    if address in (None, "auto"):  # the last one that was started here, also where it is gone
        address = find_bootstrap_address(None)
    if address is None:
        return
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    os.environ.setdefault(_TRIES, "1")


def _described(is_own: bool, is_named: bool) -> Joined:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    machines = tuple(sorted({node["NodeManagerAddress"] for node in nodes}))
    total = ray.cluster_resources()
    cpus, gpus = (int(total.get(kind, 0)) for kind in ("CPU", "GPU"))
    address = ray.get_runtime_context().gcs_address
    return Joined(is_own, is_named, address, machines, cpus, gpus)


def check_storage(settings: Settings, cluster: Joined) -> None:
    """Refuse storage that only one machine sees, where there are several.

    Raises:
        InputError: the database, or the object store, lies in the data folder.
    """
    if len(cluster.machines) == 1:
        return
    lacking = [
        name
        for name, is_shared in (
            ("DUBITO_DATABASE_URL", not str(settings.registry_url).startswith("sqlite")),
            ("DUBITO_OBJECT_STORE_URL", settings.object_store_url is not None),
        )
        if not is_shared
    ]
    if lacking:
        raise InputError(
            f"--ray: expected a database and an object store that all {len(cluster.machines)} "
            f"machines reach, got no {' and no '.join(lacking)}: set both, or use one machine"
        )
