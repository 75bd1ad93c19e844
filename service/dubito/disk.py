"""Files and folders, and what a disk refuses in our words: it is full, or may not be written.

Callers learn the name of a folder and its free bytes; its path, and the setting that names it, are
for whoever runs the server.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dubito.errors import DubitoError, StorageFullError, UnavailableError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_RETRY_AFTER_S = 30.0


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in our words why what is written inside cannot be.

    Args:
        folder: where it is written; what concerns another place is let through.

    Raises:
        StorageFullError: no room is left.
        UnavailableError: the folder may not be written.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        refused = refusal(folder, error.errno) if path is None or _is_of(path, folder) else None
        if refused is None:
            raise
        raise refused from error


def make_private(path: Path) -> None:
    """Make an empty file that its owner alone may read; one that is there is not even opened.

    (To close a file of SQLite that is open elsewhere in the process would end all locks on it.)
    Where it cannot be made nothing happens: whoever opens it next is told why.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def make(folder: Path) -> None:
    """Make a folder where it is missing.

    Raises:
        DubitoError: as `writing`.
    """
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # a place that holds no folders, such as /proc
            raise closed(folder, error.strerror or "no such folder") from error


@contextmanager
def incoming(folder: Path, suffix: str = ".dubito") -> Iterator[Path]:
    """A private file in a folder for what is on its way in; gone afterwards.

    Args:
        folder: made where it is missing.
        suffix: of the file's name.

    Raises:
        DubitoError: as `writing`.
    """
    make(folder)
    with writing(folder):
        handle, name = tempfile.mkstemp(dir=folder, suffix=suffix)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


def refusal(folder: Path, code: int | None) -> DubitoError | None:
    """The error for a number of `errno`; None where it says something else."""
    if code in _FULL:
        return full(folder)
    return closed(folder, os.strerror(code)) if code in _CLOSED else None


def full(folder: Path, settings: str = "DUBITO_DATA_DIR") -> StorageFullError:
    """The error for a folder without room; `settings` name it."""
    num_bytes = free_bytes(folder)
    return StorageFullError(
        f"disk full: expected room in the server's folder `{folder.name}`, got {num_bytes} free "
        "bytes: delete versions or pools (a finished job goes after DUBITO_JOB_RETENTION_MS), "
        "or ask whoever runs the server to make room",
        operator=f"{folder.absolute()}: expected room, got {num_bytes} free bytes on its disk: "
        f"make some, or name a folder on a larger disk by {settings}",
    )


def closed(folder: Path, reason: str, settings: str = "DUBITO_DATA_DIR") -> UnavailableError:
    """The error for a folder that may not be written; `settings` name it."""
    return UnavailableError(
        f"the server may not write to its folder `{folder.name}`: tell whoever runs it; its log "
        "names the folder",
        retry_after_s=_RETRY_AFTER_S,
        operator=f"{folder.absolute()}: expected a folder that may be written, got: {reason}: let "
        f"the user of this process write there, or name another folder by {settings}",
    )


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, for one who is not root."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    return shutil.disk_usage(nearest).free


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_open(folder: Path) -> bool:
    """Whether this process may write to a folder."""
    has_effective_ids = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=has_effective_ids)


def _is_of(file: object, folder: Path) -> bool:
    """Whether a file lies in a folder, or is one of those around it."""
    if not isinstance(file, str | bytes):
        return True
    path, root = Path(os.path.abspath(os.fsdecode(file))), Path(os.path.abspath(folder))
    return path.is_relative_to(root) or root.is_relative_to(path)
