"""Images on the command line: files, folders and archives of them, as one archive."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dubito.errors import InputError
from dubito.media import TAR, ZIP

if TYPE_CHECKING:  # which imports torch
    from dubito.preprocess import TableFile

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_ARCHIVES = {".zip": ZIP, ".tar": TAR}
_METADATA = "metadata.csv"


def is_pictures(path: Path) -> bool:
    """Whether a path is an image, an archive or a folder."""
    return path.suffix.lower() in (*_IMAGES, *_ARCHIVES) or path.is_dir()


def read_pictures(paths: Sequence[Path]) -> TableFile:
    """The images at some paths as one archive, in which each has its name; a folder has its own.

    Raises:
        InputError: there is none, or something else among several.
    """
    from dubito.preprocess import TableFile

    if len(paths) == 1 and paths[0].suffix.lower() in _ARCHIVES:
        return TableFile(_ARCHIVES[paths[0].suffix.lower()], paths[0].read_bytes())
    found = dict(_below(paths[0])) if paths[0].is_dir() else dict(map(_named, paths))
    others = [one for one in paths[1:] if one.suffix.lower() not in _IMAGES]
    if others or (paths[0].is_dir() and len(paths) > 1):
        got = others[0] if others else paths[0]
        raise InputError(f"expected several images, or one other file or folder, got {got} as well")
    if len(found) < len(paths) or not found:
        what = "none" if not found else "two of one name"
        raise InputError(
            f"{paths[0]}: expected files that end in {', '.join(_IMAGES)}, got {what}: name others"
        )
    packed = io.BytesIO()
    with tarfile.TarFile(fileobj=packed, mode="w") as archive:
        for name, image in found.items():
            content = image.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return TableFile(TAR, packed.getvalue())


def _named(path: Path) -> tuple[str, Path]:
    """A file with a name that leads nowhere else."""
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return "/".join(parts), path


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (path.suffix.lower() in _IMAGES or name == _METADATA):
            yield name, path
