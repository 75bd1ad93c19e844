"""The application as a deployment of Ray Serve: one replica a device, as many as are needed."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, RequestRouterConfig
from ray.serve.context import _get_global_client

from dubito.cluster.autoscaling import policy
from dubito.cluster.doors import SETTINGS
from dubito.cluster.joining import Joined, check_storage, joined
from dubito.cluster.replica import Replica
from dubito.cluster.routing import ModelRouter
from dubito.errors import InputError, UnavailableError
from dubito.settings import Settings

NAME = "dubito"
_GUARD = "dubito.cluster.proxying.middlewares"
_MOST_REQUESTS = 10_000  # of a replica at once: the application itself refuses by time
_LOOK_BACK_S = 5.0
_UP_AFTER_S, _DOWN_AFTER_S = 3.0, 60.0
_HEALTH_EVERY_S = 2.0
_HEALTH_WITHIN_S = 10.0


@dataclass(frozen=True)
class Service:
    """What was deployed.

    Args:
        url: where it answers, on this machine.
        shown: the replicas, and where it runs.
        is_own: whether the cluster ends with the command.
    """

    url: str
    shown: str
    is_own: bool

    def wait(self) -> None:
        """Wait until this process is told to end."""
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        while not ended.wait(1.0):
            pass


@contextmanager
def deployed(
    settings: Settings,
    address: str | None,
    replica: type = Replica,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Service]:
    """Deploy, or change what is deployed, replica by replica; what was begun here ends here.

    Args:
        settings: of every replica.
        address: of the cluster; see `joined`.
        replica: its class, made of the settings; an ingress of Serve.
        tell: what is done, since it takes a while.

    Raises:
        InputError: settings that a cluster cannot serve with, or a service that would be replaced
            by a command that did not name its cluster.
    """
    _check(settings)
    with joined(address) as cluster:
        check_storage(settings, cluster)
        _check_alone(cluster)
        whose = "a Ray cluster made here" if cluster.is_own else f"Ray at {cluster.address}"
        tell(
            f"{whose}, {len(cluster.machines)} machines, {cluster.cpus} cores: replicas start, "
            "each with Python, torch and the networks; 10 s and more"
        )
        port = _port(settings)
        try:
            _start(settings, port)
            most = _deploy(settings, cluster, replica)
        except (RayError, RuntimeError) as error:
            raise UnavailableError(
                f"--ray: expected replicas that start, got {str(error).strip().splitlines()[0]}: "
                "look into Ray's logs, in the folder `serve` of its session",
            ) from error
        scheme = "http" if settings.tls_cert is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
        least = min(settings.ray_min_replicas, most)
        shown = f"by {least} to {most} replicas on Ray ({len(cluster.machines)} machines)"
        try:
            yield Service(f"{scheme}://{host}:{port}", shown, cluster.is_own)
        finally:
            if cluster.is_own:
                serve.shutdown()


def _check(settings: Settings) -> None:
    if settings.grpc_port is not None:
        raise InputError(
            "DUBITO_GRPC_PORT: expected none with --ray, whose replicas share no port, got "
            f"{settings.grpc_port}: unset it, or serve gRPC without --ray"
        )
    if len(settings.used_devices) > 1:
        raise InputError(
            "devices: expected one kind with --ray, which gives each replica a device of its own, "
            f"got {', '.join(settings.used_devices)}: set DUBITO_DEVICE to cpu or cuda"
        )


def _check_alone(cluster: Joined) -> None:
    """Refuse to replace what runs on a cluster that was found rather than named.

    Raises:
        InputError: Dubito runs there.
    """
    if cluster.is_own or cluster.is_named:
        return
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None and NAME in serve.status().applications:
        raise InputError(
            "--ray: expected an address, since the cluster that runs on this machine serves Dubito "
            f"already, got none: `dubito serve --ray {cluster.address}` changes that service; "
            "another one needs a head of its own (`ray start --head --port ...`, and its address)"
        )


def _start(settings: Settings, port: int) -> None:
    """Have proxies listen, with what Dubito has them do; where some listen already, they stay."""
    told = {f"DUBITO_{name.upper()}": str(getattr(settings, name)) for name in SETTINGS}
    told |= {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": _GUARD,
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1.0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60.0",
    }
    serve.start(
        proxy_location="EveryNode" if settings.ray_entrances == "every" else "HeadOnly",
        http_options=HTTPOptions(
            host=settings.host,
            port=port,
            keep_alive_timeout_s=max(1, settings.keep_alive_timeout_ms // 1000),
            ssl_certfile=None if settings.tls_cert is None else str(settings.tls_cert),
            ssl_keyfile=None if settings.tls_key is None else str(settings.tls_key),
        ),
        controller_options={"runtime_env": {"env_vars": told}},
    )


def _deploy(settings: Settings, cluster: Joined, replica: type) -> int:
    """Deploy, and return the most replicas."""
    on_gpu = settings.used_devices[0].startswith("cuda")
    threads = settings.threads or 1
    devices = cluster.gpus if on_gpu else cluster.cpus // threads
    most = settings.ray_max_replicas or max(1, devices)
    own = {"device": "cuda" if on_gpu else "cpu", "devices": (), "threads": threads}
    deployment = serve.deployment(
        replica,
        name=NAME,
        ray_actor_options={
            "num_cpus": threads,
            "num_gpus": 1 if on_gpu else 0,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        },
        max_ongoing_requests=_MOST_REQUESTS,
        graceful_shutdown_timeout_s=settings.drain_timeout_ms / 1000,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=_HEALTH_EVERY_S,
        health_check_timeout_s=_HEALTH_WITHIN_S,
        request_router_config=RequestRouterConfig(request_router_class=ModelRouter),
        autoscaling_config=AutoscalingConfig(
            min_replicas=min(settings.ray_min_replicas, most),
            max_replicas=most,
            look_back_period_s=_LOOK_BACK_S,
            metrics_interval_s=1.0,
            upscale_delay_s=_UP_AFTER_S,
            downscale_delay_s=_DOWN_AFTER_S,
            policy=AutoscalingPolicy(policy_function=policy),
        ),
    )
    serve.run(deployment.bind(settings.model_copy(update=own)), name=NAME, route_prefix="/")
    return most


def _port(settings: Settings) -> int:
    """Where Serve listens on the cluster already, else the port of the settings, else a free one.

    Raises:
        InputError: it listens somewhere else than the settings say.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return settings.port or _free_port(settings.host)
    host, port = client.http_config.host, int(client.http_config.port)
    if (settings.host, settings.port or port) != (host, port):
        raise InputError(
            f"port {settings.port} of {settings.host}: expected port {port} of {host}, where Ray "
            "Serve listens on this cluster already: ask for that one, or end Serve there first"
        )
    return port


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
