"""The models that the server shall always have loaded, and a thread that sees to it.

Flow: an alias moves, here or on another server → the follower tells → the thread looks up what is
pinned now, pins it in the catalogue, and loads what is not loaded. What fails is tried again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import structlog

from dubito.answered import HealthLine
from dubito.errors import DubitoError
from dubito.models.library import Library
from dubito.names import DEFAULT_ALIAS
from dubito.registry import VersionFact

_TRY_AGAIN_AFTER_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Pin:
    model: str
    reference: str
    version: VersionFact | None
    reason: str | None


class Pins:
    """The models that the settings pin.

    Args:
        library: where they are looked up and loaded.
        names: `model` or `model@alias`.
    """

    def __init__(self, library: Library, names: tuple[str, ...]) -> None:
        self._library = library
        self._wanted = tuple(_split(name) for name in names)
        self._pins = tuple(_Pin(*pair, None, "not looked up yet") for pair in self._wanted)
        self._wake = threading.Event()
        self._ends = False
        self._were_tried = not names
        self._thread = threading.Thread(target=self._keep, name="dubito-pins", daemon=True)

    def start(self) -> None:
        """Load what is pinned, in a thread, and keep it loaded."""
        if self._wanted:
            self._library.facts.listen(self._wake.set)
            self._thread.start()

    def close(self) -> None:
        """End the thread, after the load that it is in."""
        self._ends = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def are_loaded(self) -> bool:
        """Whether all that is pinned is loaded and warm."""
        catalogue = self._library.catalogue
        return all(
            pin.version is not None and catalogue.is_loaded(pin.version.loaded_as)
            for pin in self._pins
        )

    @property
    def were_tried(self) -> bool:
        """Whether each was loaded, or it was seen once that it cannot be."""
        return self._were_tried

    def lines(self) -> tuple[HealthLine, ...]:
        """Return a line for all that is pinned, loaded or not, then for all else that is loaded."""
        catalogue = self._library.catalogue
        pins = self._pins
        shown = {(pin.version.model, pin.version.number) for pin in pins if pin.version}
        lines = [self._line(pin) for pin in pins]
        for version in catalogue.loaded():
            if (version.model, version.number) not in shown:
                varies = catalogue.varies(version.loaded_as)
                lines.append(
                    HealthLine(
                        *(version.model, version.number, "loaded", None, False, varies),
                        precision=version.precision,
                    )
                )
        return tuple(lines)

    def _line(self, pin: _Pin) -> HealthLine:
        if pin.version is None:
            return HealthLine(pin.model, None, "missing", pin.reason, True, None)
        state, reason = self._library.state(pin.version)
        varies = self._library.catalogue.varies(pin.version.loaded_as)
        precision = pin.version.precision
        return HealthLine(pin.model, pin.version.number, state, reason, True, varies, precision)

    def _keep(self) -> None:
        was_done = False
        while not self._ends:
            self._wake.clear()
            is_done = self._load_all()
            self._were_tried = True
            if is_done and not was_done:
                _log.info("ready", loaded=[f"{p.model}@{p.reference}" for p in self._pins])
            was_done = is_done
            self._wake.wait(None if is_done else _TRY_AGAIN_AFTER_S)

    def _load_all(self) -> bool:
        """Look up and load; whether all of it worked."""
        self._pins = tuple(self._look_up(*pair) for pair in self._wanted)
        self._library.catalogue.pin([pin.version.loaded_as for pin in self._pins if pin.version])
        is_done = all(pin.version is not None for pin in self._pins)
        for pin in self._pins:
            if pin.version is None or self._ends:
                continue
            try:
                self._library.engine(pin.version)
            except DubitoError as error:
                is_done = False
                _log.warning("a pinned model is not loaded", model=pin.model, reason=str(error))
        return is_done

    def _look_up(self, model: str, reference: str) -> _Pin:
        try:
            return _Pin(model, reference, self._library.version(model, reference), None)
        except DubitoError as error:
            return _Pin(model, reference, None, error.detail)


def _split(name: str) -> tuple[str, str]:
    model, _, reference = name.partition("@")
    return model, reference or DEFAULT_ALIAS
