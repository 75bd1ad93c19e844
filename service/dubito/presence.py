"""Whether a server runs on a data folder, and where it answers.

A server holds a lock on a file of the folder for as long as it lives and writes its address there:
the system lets go of the lock with the process, however that ends. Where there are no such locks
(Windows, some network drives) no server is ever found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_NAME = "server.json"


@contextmanager
def announced(folder: Path, url: str) -> Iterator[None]:
    """Say for the time of the block that a server answers; the first one on a folder is told of.

    Args:
        folder: the data folder, which exists.
        url: where it answers on this machine.
    """
    file = None
    with suppress(OSError):
        file = (folder / _NAME).open("a+", encoding="utf-8")
        if _is_locked(file.fileno(), exclusively=True):
            file.truncate(0)
            file.write(json.dumps({"url": url}))
            file.flush()
    try:
        yield
    finally:
        if file is not None:
            file.close()


def server_of(folder: Path) -> str | None:
    """Where a server answers that runs on the folder; None where none does, or none is known."""
    with suppress(OSError, ValueError), (folder / _NAME).open(encoding="utf-8") as file:
        if not _is_locked(file.fileno(), exclusively=False):
            page = json.load(file)
            url = page.get("url") if isinstance(page, dict) else None
            return url if isinstance(url, str) else None
    return None


def _is_locked(descriptor: int, *, exclusively: bool) -> bool:
    """Whether the lock was taken; not where another process has it.

    Raises:
        OSError: there are no locks here.
    """
    if sys.platform == "win32":
        raise OSError("no locks of this kind")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
