"""`dubito serve`: one process, one worker per device, one address."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Timer
from typing import Annotated

import structlog
import torch
import typer
import uvicorn

from dubito.api import Server, check_bind, check_tls, create_app
from dubito.cli.commands.database import prepare_database
from dubito.cli.console import messages, warn_of_unknown
from dubito.cli.options import Chosen, declared_options
from dubito.cluster.installed import check_installed
from dubito.engine.calling.arguments import as_device
from dubito.engine.summing.compiled import is_compiled, warm_up
from dubito.errors import InputError
from dubito.presence import announced
from dubito.settings import Settings

_COMPILING_IS_TOLD_AFTER_S = 3.0
_OTHER_FILES = 512  # beside connections: the database, bundles, pools
_SWITCH_S = 1e-4  # after which a thread that has Python gives it to one that waits
_COLLECTED_AFTER = (5_000, 10, 10)  # objects, and collections of the generation before
IMPORTED_LATE = (
    *("scipy.optimize", "scipy.stats", "sklearn.cluster", "sklearn.covariance"),
    *("sklearn.isotonic", "sklearn.metrics"),
)


@dataclass(frozen=True)
class OnRay:
    """Whether a cluster serves, and which."""

    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Serve by replicas on a Ray cluster, each with a device of its own: on ADDRESS, "
            "else on one that runs here, else on one that ends with the command.",
        ),
    ] = False
    address: Annotated[
        str | None, typer.Argument(help="With --ray: address of the cluster, HOST:PORT.")
    ] = None


@dataclass(frozen=True)
class Computing:
    """Where networks run, and how."""

    devices: Annotated[
        str | None,
        typer.Option(
            help="Devices that the networks run on, separated by commas, such as cuda:0,cuda:1. "
            "Default: DUBITO_DEVICES, else DUBITO_DEVICE."
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            help="Precision of the passes of new versions: float32, bfloat16, or on a GPU tf32. "
            "Default: DUBITO_PRECISION, else float32."
        ),
    ] = None


@declared_options(Computing, into="computing")
@declared_options(OnRay)
def serve(
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to bind to. Default: DUBITO_HOST, else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on. 0 takes a free one. Default: DUBITO_PORT, else 8000.",
            max=65535,
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow an address other than loopback without a key.")
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="Certificate in PEM: speak HTTPS. Default: DUBITO_TLS_CERT."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its private key in PEM. Default: DUBITO_TLS_KEY.")
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Make the demonstration models that do not exist yet, and keep them loaded.",
        ),
    ] = False,
    chosen: Chosen,
    computing: Chosen,
) -> None:
    """Serve the models of the data directory over HTTP."""
    on_ray = _checked(OnRay(**chosen))
    asked: dict[str, object] = {"host": host, "port": port, "insecure": insecure or None}
    asked |= {"tls_cert": tls_cert, "tls_key": tls_key, **computing}
    settings = Settings.model_validate(
        Settings().model_dump()
        | {name: value for name, value in asked.items() if value is not None}
    )
    if not demo:  # making the models tells it too
        warn_of_unknown(settings)
    check_bind(settings)
    check_tls(settings)
    if on_ray.ray:
        prepare_database(settings)
        _serve_on_ray(_with_demonstration(settings) if demo else settings, on_ray.address)
        return
    _check_devices(settings)
    with bind(settings.host, settings.port) as listening:  # before anything is loaded
        if settings.grpc_port:
            bind(settings.host, settings.grpc_port, "DUBITO_GRPC_PORT").close()
        prepare_database(settings)  # said here in one line, rather than by a server that fails
        _serve(_with_demonstration(settings) if demo else settings, listening)


def _checked(on_ray: OnRay) -> OnRay:
    """Refuse an address without --ray, and --ray without Ray.

    Raises:
        InputError: one of both.
    """
    if on_ray.ray:
        check_installed()
    elif on_ray.address is not None:
        raise InputError(
            f"expected an address with --ray alone, got {on_ray.address[:80]!r}: write "
            "--ray ADDRESS, or leave it out"
        )
    return on_ray


def _check_devices(settings: Settings) -> None:
    """Refuse a device that is not there: nothing could be loaded onto it.

    Raises:
        InputError: torch has none of that name.
    """
    setting = "DUBITO_DEVICES or --devices" if settings.devices else "DUBITO_DEVICE"
    for name in settings.used_devices:
        try:
            as_device(name)
        except InputError as error:
            build = f"torch {torch.__version__}, {torch.cuda.device_count()} GPUs that it can use"
            raise InputError(
                f"setting {setting}: expected a device that torch has here, got {name[:80]!r} "
                f"({build}): install a build of torch for CUDA and its driver, or choose another "
                "device, such as cpu"
            ) from error


def _serve_on_ray(settings: Settings, address: str | None) -> None:
    from dubito.cluster.deploying import deployed

    with deployed(settings, address, tell=messages().print) as service:
        messages().print(f"Dubito serves on {service.url}, {service.shown}")
        if service.is_own:
            with announced(settings.data_dir, service.url):
                service.wait()


def _serve(settings: Settings, listening: socket.socket) -> None:
    _log_to_stderr()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout_ms / 1000,  # type: ignore[arg-type]
    )
    raise_file_limit(settings.max_connections)
    address, bound_port = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    scheme = "http" if settings.tls_cert is None else "https"
    listens = f"{scheme}://{shown}:{bound_port}"
    _compile_loops()
    messages().print(f"Dubito serves on {listens} (page: /, docs: /docs); Ctrl-C ends it")
    _set_modules_aside()
    _favour_the_device()
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    url = f"{scheme}://{everywhere.get(address, shown)}:{bound_port}"
    with announced(settings.data_dir, url):
        Server(config, app).run(sockets=[listening])


def _compile_loops() -> None:
    """Compile what sums up the passes, once for an installation: no request shall wait for it."""
    if not is_compiled(torch.device("cpu")):
        return
    note = "compiling the loops that sum up passes, once for this installation: up to a minute"
    told = Timer(_COMPILING_IS_TOLD_AFTER_S, lambda: messages().print(note))
    told.start()
    try:
        warm_up()
    finally:
        told.cancel()


def raise_file_limit(max_connections: int) -> None:
    """Let the process open a file for every connection, as far as the system allows.

    Args:
        max_connections: that the server may have at once.
    """
    if sys.platform == "win32":
        return
    import resource

    wanted = max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        most = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _with_demonstration(settings: Settings) -> Settings:
    """The settings with the demonstration models pinned, once they are there."""
    from dubito.cli.commands.demo import make
    from dubito.recipes.demo import RECIPES

    make(if_missing=True)
    pinned = (*settings.pinned_models, *(recipe.name for recipe in RECIPES))
    return settings.model_copy(update={"pinned_models": tuple(dict.fromkeys(pinned))})


def _set_modules_aside() -> None:
    """Leave what was imported out of later garbage collections: all requests wait for each.

    What a command imports only when it uses it is imported before, for the same reason.

    Several hundred thousand objects of libraries stay for good; a full look through them takes a
    third of a second.
    """
    for module in IMPORTED_LATE:
        import_module(module)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)


def _favour_the_device() -> None:
    """Let a thread that waits for Python have it soon: of all it is the device's that counts most.

    Requests are read and written by one thread, predictions computed by another. What computes
    asks for Python again after each call of torch, and by Python's own setting may wait for 5 ms.
    """
    sys.setswitchinterval(_SWITCH_S)


def bind(host: str, port: int, chosen_by: str = "--port") -> socket.socket:
    """A socket that listens on the address.

    Args:
        host: a name or number.
        port: 0 takes a free one.
        chosen_by: what chooses the port, for the message.

    Raises:
        InputError: the address is taken, not allowed, or not of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # who comes while the server starts waits instead of being refused
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} of {host}: expected a free one, but another program listens there: "
                f"end it, or choose another with {chosen_by} (0 takes any that is free)"
            ) from error
        raise InputError(
            f"address {host}, port {port}: expected one that this program may listen on, got: "
            f"{error.strerror or error}: choose another with --host or {chosen_by}"
        ) from error
    listening.set_inheritable(True)
    return listening


def _log_to_stderr() -> None:
    is_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_terminal else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if is_terminal
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
