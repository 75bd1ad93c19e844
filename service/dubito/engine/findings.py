"""What loading a bundle found out, kept in a folder for the next process that loads it.

Its job: a bundle is proved, and its forms are timed, once on a machine and not at every start. A
finding is a small page of JSON under the digest of what it is about: bundle, versions, processor,
and whatever else it hangs on. It is a convenience: what is damaged or cannot be written is as if
it were not there, and is found again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from dubito import __version__
from dubito.engine.running.options import FormTiming
from dubito.errors import DubitoError
from dubito.folder_cache import FolderCache

_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Findings:
    """Pages of JSON in a folder.

    Args:
        folder: made at the first page; None: nothing is kept.
    """

    folder: Path | None = None

    def get(self, about: Mapping[str, object]) -> object:
        """What was found about something; None where nothing is known."""
        if self.folder is None:
            return None
        whole = _whole(about)
        path = self.folder / _name(whole)
        with suppress(OSError, ValueError):
            page = orjson.loads(path.read_bytes())
            if isinstance(page, dict) and orjson.dumps(page.get("about"), option=_SORTED) == whole:
                os.utime(path)
                return page.get("found")
        return None

    def put(self, about: Mapping[str, object], found: object) -> None:
        """Keep what was found about something."""
        if self.folder is None:
            return
        whole = _whole(about)
        with suppress(DubitoError, OSError):
            cache = FolderCache(self.folder, _MAX_BYTES)
            with cache.room() as room:
                page = room / "page"
                page.write_bytes(orjson.dumps({"about": orjson.loads(whole), "found": found}))
                cache.put(_name(whole), page)


NOTHING_KEPT = Findings()


@dataclass(frozen=True)
class Timings:
    """What the clock said of the forms of a network.

    Args:
        forms: of each form that the plan allows, in its order.
        chunk_share: of the usual chunk; None where it was not tried yet.
        is_whole: whether all that is worth it was timed.
    """

    forms: tuple[tuple[FormTiming, ...], ...]
    chunk_share: float | None
    is_whole: bool

    def to_json(self) -> dict[str, object]:
        """Return the timings as plain JSON values."""
        forms = [
            [[t.rows, t.estimated, t.measured, t.unpacked] for t in timings]
            for timings in self.forms
        ]
        return {"forms": forms, "chunk_share": self.chunk_share, "is_whole": self.is_whole}

    @classmethod
    def from_json(cls, found: object, num_forms: int) -> Timings | None:
        """The timings that `to_json` wrote; None where they are not those of so many forms."""
        try:
            assert isinstance(found, dict)
            forms = tuple(tuple(_timing(*line) for line in lines) for lines in found["forms"])
            share, is_whole = found["chunk_share"], bool(found["is_whole"])
            share = None if share is None else float(share)
        except (AssertionError, KeyError, TypeError, ValueError):
            return None
        return cls(forms, share, is_whole) if len(forms) == num_forms and all(forms) else None


def _timing(
    rows: int, estimated: float, measured: float | None, unpacked: float | None
) -> FormTiming:
    return FormTiming(
        int(rows),
        float(estimated),
        None if measured is None else float(measured),
        None if unpacked is None else float(unpacked),
    )


_SORTED = orjson.OPT_SORT_KEYS


def _whole(about: Mapping[str, object]) -> bytes:
    return orjson.dumps({**about, "dubito": __version__}, option=_SORTED)


def _name(whole: bytes) -> str:
    return f"{hashlib.sha256(whole).hexdigest()}.json"
