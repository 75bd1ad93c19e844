"""Dubito: serve PyTorch networks trained with dropout, with the uncertainty of every prediction.

`ARCHITECTURE.md` has the map of this package.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dubito_client import AsyncClient as AsyncClient
    from dubito_client import Client as Client

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`Client` and `AsyncClient` of the distribution `dubito-client`, once they are asked for."""
    if name not in ("Client", "AsyncClient"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import dubito_client
    except ModuleNotFoundError as error:
        raise ImportError(
            f"dubito.{name}: expected the package dubito-client, got no {error.name}: "
            "pip install dubito-client (in a clone of Dubito: pip install -e service/client)"
        ) from error
    return getattr(dubito_client, name)
