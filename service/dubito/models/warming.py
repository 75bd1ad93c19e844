"""Loading an engine so that its first request is not the slow one."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from dubito.engine import Engine, Sampling
from dubito.errors import DubitoError, UnavailableError
from dubito.registry import VersionFact

_log = structlog.get_logger(__name__)


def warm_up(
    engine: Engine,
    version: VersionFact,
    sampling: Sampling,
    sizes: Sequence[int],
) -> None:
    """Predict made-up rows at a few batch sizes.

    Where the network has dimensions of free size the made-up ones may not suit it: then it is only
    not warm.

    Args:
        engine: loaded.
        version: whose bundle it is.
        sampling: the version's default.
        sizes: numbers of rows.

    Raises:
        DubitoError: a network without free dimensions does not run.
    """
    is_fixed = all(isinstance(size, int) for spec in engine.manifest.inputs for size in spec.shape)
    made_up = engine.made_up_rows()
    for size in sizes:
        rows = {name: tensor[:1].repeat_interleave(size, 0) for name, tensor in made_up.items()}
        try:
            engine.predict(rows, sampling=sampling, outputs=engine.fitting_outputs(rows))
        except (DubitoError, RuntimeError) as error:
            if not is_fixed:
                _log.warning(
                    "not warm", model=version.model, version=version.number, reason=str(error)
                )
                return
            if isinstance(error, DubitoError):
                raise
            raise UnavailableError(
                f"version {version.number} of `{version.model}` expects room to run {size} rows "
                f"on the device, got an error ({_first_line(error)}): free memory, or load fewer "
                "versions"
            ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
