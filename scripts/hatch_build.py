"""Brings the library that draws into the page, when Dubito is built or installed from its source.

Flow: the files are there and are the pinned ones → nothing; else npm fetches the pinned archive →
its digest is compared → its files are put below `service/dubito/web/static/drawing`, from where
wheel, source distribution and editable installation have them. Without npm or a network the build
goes on and says so: the page then shows tables in place of pictures.

By hand: `python scripts/hatch_build.py`.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAME, VERSION = "uplot", "1.6.32"
INTEGRITY = (
    "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="
)
"""SHA-512 of the archive in base64, as npm writes it behind `sha512-`."""

FILES = {
    "uPlot.iife.min.js": (
        "dist/uPlot.iife.min.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    "uPlot.min.css": (
        "dist/uPlot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
    "LICENSE": ("LICENSE", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
}
"""Where each file lies in the archive, and its SHA-256."""

FOLDER = Path(__file__).parent.parent / "service" / "dubito" / "web" / "static" / "drawing"
_TIMEOUT_S = 120


class NotBroughtError(Exception):
    """Why the library could not be brought."""


def is_there(folder: Path = FOLDER) -> bool:
    """Whether all files are there, and are the pinned ones."""
    return all(
        (folder / name).is_file() and _sha256((folder / name).read_bytes()) == digest
        for name, (_, digest) in FILES.items()
    )


def bring(folder: Path = FOLDER) -> None:
    """Put the files into the folder, unless they are there.

    Raises:
        NotBroughtError: there is no npm, no network, or the archive is another than expected.
    """
    if is_there(folder):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NotBroughtError("npm is not installed")
    with TemporaryDirectory() as temporary:
        archive = _packed(npm, Path(temporary))
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            raise NotBroughtError(f"{archive.name}: expected sha512-{INTEGRITY}, got {found}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for name, (path, _) in FILES.items():
                member = packed.extractfile(f"package/{path}")
                assert member is not None
                (folder / name).write_bytes(member.read())


def _packed(npm: str, folder: Path) -> Path:
    command = [npm, "pack", "--silent", f"{NAME}@{VERSION}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise NotBroughtError(f"npm could not fetch {NAME}@{VERSION}: {''.join(last)}") from error
    except subprocess.TimeoutExpired as error:
        raise NotBroughtError(f"npm did not answer within {_TIMEOUT_S} s") from error
    (archive,) = folder.glob("*.tgz")
    return archive


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _told(error: NotBroughtError) -> str:
    return (
        f"the page will show tables in place of pictures: {error}. Install Node.js with npm and "
        "run `python scripts/hatch_build.py`, or install a built wheel"
    )


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand
    pass
else:

    class DrawingHook(BuildHookInterface[Any]):
        """What hatchling calls before each build."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Bring the library, or warn."""
            try:
                bring()
            except NotBroughtError as error:
                self.app.display_warning(_told(error))


if __name__ == "__main__":
    try:
        bring()
    except NotBroughtError as error:
        sys.exit(_told(error))
    print(f"{NAME} {VERSION} is in {FOLDER}")
