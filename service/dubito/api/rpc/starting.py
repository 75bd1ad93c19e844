"""The gRPC server where a port is set for it; grpcio is looked for, and imported, only then."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from dubito.api.border.access import Access
from dubito.errors import InputError
from dubito.settings import Settings


class Serving(Protocol):
    """A server that was started."""

    @property
    def port(self) -> int:
        """That it listens on."""

    def close(self, grace_s: float) -> None:
        """Take no more calls, and let those that run finish within the time."""


def check_rpc(settings: Settings) -> None:
    """Refuse a port without what it needs.

    Raises:
        InputError: grpcio or protobuf is not installed.
    """
    if settings.grpc_port is None:
        return
    try:
        import_module("grpc")
        import_module("google.protobuf")
    except ImportError as error:
        raise InputError(
            "DUBITO_GRPC_PORT: expected grpcio and protobuf to be installed, found one missing: "
            "pip install 'dubito[grpc]', or unset the port"
        ) from error


def start_rpc(held: Access) -> Serving | None:
    """Serve gRPC where a port is set.

    Raises:
        InputError: the port is taken, or not allowed.
    """
    if held.settings.grpc_port is None:
        return None
    from dubito.api.rpc.server import RpcServer

    server = RpcServer(held)
    server.start()
    return server
