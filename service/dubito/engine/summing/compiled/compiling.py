"""How the loops are compiled, and where what was compiled is kept.

Its job: one decorator for what keeps its order, and one for sums over a row, which need not.
Compiling takes seconds, so the result is kept on disk, in a folder that is named by the sources of
this package: numba itself looks only at the file of the function that is called, not at those of
what it calls.

    folder     `NUMBA_CACHE_DIR`, else `__pycache__` beside this file, else the user's own
    no folder  where none of them can be written to, every process compiles anew
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.misc.appdirs

_Function = TypeVar("_Function", bound=Callable[..., Any])
_config: Any = numba.config
_appdirs: Any = numba.misc.appdirs


def in_order(function: _Function) -> _Function:
    """Compile what is computed in its order, however many numbers lie beside it.

    Products and sums are fused, and nothing else is changed.
    """
    return _compiled(function, {"contract"})


def loop(function: _Function) -> _Function:
    """Compile a loop over one row: its sums may be taken in another order; nan is a case.

    What order that is hangs on how many numbers there are, and not on other rows.
    """
    return _compiled(function, {"contract", "reassoc", "arcp", "nsz"})


def _compiled(function: _Function, flags: set[str]) -> _Function:
    options: dict[str, Any] = {"fastmath": flags, "nogil": True, "error_model": "numpy"}
    before = _config.CACHE_DIR
    for folder in _folders():
        _config.CACHE_DIR = str(folder)
        try:
            kept: Any = numba.njit(cache=True, **options)(function)
        except (RuntimeError, OSError):  # it cannot be written to
            continue
        finally:
            _config.CACHE_DIR = before
        return kept  # type: ignore[no-any-return]
    compiled: Any = numba.njit(**options)(function)
    return compiled  # type: ignore[no-any-return]


@cache
def _folders() -> tuple[Path, ...]:
    here = Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted(here.glob("*.py")))
    name = f"loops-{hashlib.sha256(sources).hexdigest()[:16]}"
    if _config.CACHE_DIR:
        return (Path(_config.CACHE_DIR) / name,)
    return here / "__pycache__" / name, Path(_appdirs.user_cache_dir("dubito")) / name
